"""Count optimizer steps in schedulers."""

from __future__ import annotations

import copy

import torch
from mmengine.hooks import ParamSchedulerHook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import PARAM_SCHEDULERS
from mmseg.registry import HOOKS

from ...models.clock import count_steps
from ..accumulation import accumulation


@HOOKS.register_module()
class StepSchedulerHook(ParamSchedulerHook):
    """MMEngine's ParamSchedulerHook in optimizer steps: all micro-batches of a step have one learning rate.

    MMEngine counts iterations. With gradient accumulation, a step has several of them. Here ``begin``,
    ``end``, ``T_max``, ``total_steps``, ``milestones``, ``step_size`` and ``periods`` of schedulers with
    ``by_epoch=False`` are optimizer steps. If ``end`` is missing, or if ``end``, ``T_max`` or ``total_steps``
    is ``max_iters``, it is the end of the training. Other values after the end are logged. Schedulers with
    ``convert_to_iter_based=True`` convert epochs into steps. Schedulers that count epochs do not change.
    Without accumulation this is the same as in MMEngine.

    Raises:
        ValueError: The Runner got schedulers instead of configs. Their ends cannot be converted.
    """

    def before_run(self, runner) -> None:
        # A validation or a test has no schedulers.
        training = isinstance(runner.optim_wrapper, (OptimWrapper, OptimWrapperDict))
        accumulated = accumulation(runner)
        if not training or accumulated == 1 or not runner.param_schedulers:
            return
        cfg = runner.cfg.get('param_scheduler')
        if cfg is None:
            raise ValueError(
                f'accumulative_counts={accumulated} does not work with schedulers that are already built, '
                'since they count iterations and not optimizer steps. Give param_scheduler as a config.'
            )
        wrapper = runner.optim_wrapper
        if not isinstance(wrapper, OptimWrapperDict):
            runner.param_schedulers = _built_in_steps(runner, cfg, wrapper, accumulated)
            return
        several = isinstance(cfg, dict) and 'type' not in cfg
        runner.param_schedulers = {
            name: _built_in_steps(runner, cfg[name] if several else cfg, one, accumulated)
            for name, one in wrapper.items()
        }

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if runner.optim_wrapper.should_update():
            super().after_train_iter(runner, batch_idx, data_batch, outputs)


def _built_in_steps(runner, cfg, wrapper, accumulated: int) -> list:
    """Rebuild the schedulers of one optimizer wrapper with ends in steps."""
    num_steps = count_steps(runner.max_iters, accumulated)
    # Not only those of the optimizer: MMEngine logs the rate of an additional group as base_lr.
    for group in wrapper.param_groups:
        # Reset the learning rates that the schedulers in iterations have set.
        for key in [key for key in group if key.startswith('initial_')]:
            group[key.removeprefix('initial_')] = group.pop(key)
    schedulers = []
    for one in [cfg] if isinstance(cfg, dict) else cfg:
        one = copy.deepcopy(dict(one))
        if one.get('by_epoch', True):
            one.setdefault('end', runner.max_epochs)
        else:
            _convert_ends(one, runner, num_steps, accumulated)
        defaults = {
            'optimizer': wrapper,
            'epoch_length': max(1, len(runner.train_dataloader) // accumulated),
        }
        schedulers.append(PARAM_SCHEDULERS.build(one, default_args=defaults))
    return schedulers


def _convert_ends(one: dict, runner, num_steps: int, accumulated: int) -> None:
    """Set lengths of the whole training to its steps, in place. Log values that no step reaches."""
    if one.get('end') is None:
        one['end'] = runner.max_iters
    lengths = [key for key in ('end', 'T_max', 'total_steps') if one.get(key)]
    for key in lengths:
        if one[key] == runner.max_iters:
            one[key] = num_steps
    late = [f'{key}={one[key]}' for key in lengths if one[key] > num_steps]
    for key in ('step_size', 'milestones'):
        if key in one and torch.as_tensor(one[key]).max() >= num_steps:
            late.append(f'{key}={one[key]}')
    if late:
        runner.logger.warning(
            f'{one["type"]} has {" and ".join(late)}, but max_iters={runner.max_iters} in accumulations of '
            f'{accumulated} are {num_steps} optimizer steps. Divide its values by {accumulated}, or raise '
            'train_cfg.max_iters.'
        )
