"""Check schedulers and optimizer wrappers, before MMEngine builds them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.device import get_device

from ...models.clock import count_steps

#: Constructors of MMSegmentation that read ``model.backbone``.
_LAYER_DECAY = ('LearningRateDecayOptimizerConstructor', 'LayerDecayOptimizerConstructor')


def check_lengths(
    param_scheduler, num_epochs: int, num_steps: int | None = None, accumulated: int = 1
) -> None:
    """Reject schedulers that begin after the end of the training, with a clearer message than theirs.

    Args:
        param_scheduler: Config of schedulers: a dict, a list of dicts, or one of these for each optimizer
            wrapper. Built schedulers are not checked.
        num_epochs (int): Epochs of the training. Iteration-based trainings have 1 in MMEngine.
        num_steps (int, optional): Optimizer steps of the training, if known.
        accumulated (int): Iterations per optimizer step.

    Raises:
        ValueError: A scheduler begins after the end of the training.
    """
    for key, part in parts_of(param_scheduler):
        if not isinstance(part, dict):
            continue
        by_epoch, begin, end = part.get('by_epoch', True), part.get('begin', 0), part.get('end')
        length, unit = (num_epochs, 'epoch') if by_epoch else (num_steps, 'optimizer step')
        kind = part['type'] if isinstance(part['type'], str) else part['type'].__name__
        if end is not None and end <= begin:
            raise ValueError(
                f'{key} ({kind}) has begin={begin} and end={end}. Set {key}.end above {key}.begin.'
            )
        if length is None or begin < length:
            continue
        if by_epoch and num_epochs == 1 and num_steps is not None:
            raise ValueError(
                f'{key} ({kind}) begins at epoch {begin}, but a training with max_iters has a single epoch. '
                f'Set {key}.by_epoch=False, with begin and end in optimizer steps.'
            )
        setting = 'max_epochs' if by_epoch else 'max_iters'
        raise ValueError(
            f'The training has {length} {unit}(s), but {key} ({kind}) begins at {unit} {begin}. '
            f'Set train_cfg.{setting} above {begin * (1 if by_epoch else accumulated)}, or lower {key}.begin '
            'and the end of the scheduler before it.'
        )


def check_config(cfg) -> None:
    """Check schedulers as :func:`check_lengths` and the optimizer wrapper, before the data is loaded.

    Args:
        cfg (Config): Config of one training.

    Raises:
        ValueError: See :func:`check_lengths`. Or the optimizer wrapper needs a GPU and there is none, or its
            constructor cannot read a method.
    """
    wrapper = cfg.get('optim_wrapper') or {}
    wrapper = wrapper if isinstance(wrapper, dict) else {}
    if wrapper.get('type') == 'AmpOptimWrapper' and get_device() == 'cpu':
        raise ValueError(
            "optim_wrapper.type='AmpOptimWrapper', but mixed precision needs a GPU and there is none. Set "
            "'OptimWrapper'."
        )
    constructor = wrapper.get('constructor')
    if constructor in _LAYER_DECAY and 'segmentor' in (cfg.get('model') or {}):
        raise ValueError(
            f'optim_wrapper.constructor={constructor!r} reads model.backbone, but the network of '
            f'{cfg.model.get("type")} is model.segmentor. Set '
            f"constructor='NetworkOptimWrapperConstructor', network_constructor={constructor!r}."
        )
    check_schedulers(cfg)


def check_schedulers(cfg) -> None:
    """Check the schedulers in the config of one training as :func:`check_lengths`."""
    train_cfg, wrapper = cfg.get('train_cfg') or {}, cfg.get('optim_wrapper') or {}
    accumulated = wrapper.get('accumulative_counts', 1) if isinstance(wrapper, dict) else 1
    iters, epochs = train_cfg.get('max_iters'), train_cfg.get('max_epochs')
    if iters is not None:
        check_lengths(cfg.get('param_scheduler'), 1, count_steps(iters, accumulated), accumulated)
    elif epochs is not None:
        check_lengths(cfg.get('param_scheduler'), epochs)


def parts_of(schedulers) -> Iterator[tuple[str, Any]]:
    """Yield the schedulers of a config or a Runner with their dotted keys."""
    if schedulers is None:
        return
    several = isinstance(schedulers, dict) and 'type' not in schedulers
    for name, group in schedulers.items() if several else [('', schedulers)]:
        key = f'param_scheduler.{name}' if name else 'param_scheduler'
        if not isinstance(group, (list, tuple)):
            yield key, group
            continue
        for index, part in enumerate(group):
            yield f'{key}.{index}', part
