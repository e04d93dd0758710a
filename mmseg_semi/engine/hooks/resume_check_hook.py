"""Check that a resumed run has the same images and the same number of images per step as before."""

from __future__ import annotations

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmseg.registry import HOOKS

from ..accumulation import accumulation
from ._common import is_training

#: Properties of a training that checkpoints store: key = words in messages.
_TOLD = {
    'partition': 'partition',
    'labeled': 'labeled images',
    'unlabeled': 'unlabeled images',
    'labeled_per_step': 'labeled images per step',
    'unlabeled_per_step': 'unlabeled images per step',
    'accumulation': 'micro-batches per step (accumulative_counts)',
}
#: Settings of a torch optimizer that select its kernels but do not change its result.
_KERNELS = ('fused', 'foreach', 'capturable', 'differentiable')


@HOOKS.register_module()
class ResumeCheckHook(Hook):
    """Stop a run that resumes from a checkpoint with other images or another number of images per step.

    Otherwise, a run in the folder of another partition would continue with its weights, and would be trained on
    the labels of both. Another number of images per step would change the remaining schedule. The number of
    processes may change if the number of images per step stays the same. The number of micro-batches per step
    must not change, since iterations count them. Tests, and checkpoints without this information, are not
    checked. Changed settings of the method (``semi_train_cfg``) are logged as a warning.

    The kernels of the optimizer and the text of the config stay those of this run, since a checkpoint may be
    unsafe.

    Raises:
        ValueError: The checkpoint and the run differ. The message shows the difference.
    """

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint['trained_on'] = trained_on(runner)
        checkpoint['semi_train_cfg'] = _method_settings(runner)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        if not is_training(runner) or not runner._resume:
            return
        _keep_kernels(runner, checkpoint)
        told = (checkpoint.get('message_hub') or {}).get('runtime_info') or {}
        if 'cfg' in told:
            told['cfg'] = runner.message_hub.get_info('cfg')
        known = checkpoint.get('trained_on') or {}
        for key, now in trained_on(runner).items():
            before = known.get(key, now)
            if before != now:
                raise ValueError(
                    f'{runner._load_from or "The checkpoint"} was trained with {before} as its {_TOLD[key]}, '
                    f'but this run has {now}. Restore the old value, or use another --work-dir. To start from '
                    'its weights, set load_from and remove --resume.'
                )
        _warn_of_changes(runner, checkpoint.get('semi_train_cfg'))


def _method_settings(runner) -> dict[str, str]:
    """Return the settings of the method as text; empty for supervised training."""
    model = runner.cfg.get('model')
    settings = model.get('semi_train_cfg') if isinstance(model, dict) else None
    return {key: repr(value) for key, value in (settings or {}).items()}


def _warn_of_changes(runner, before: dict[str, str] | None) -> None:
    now = _method_settings(runner)
    if before is None:  # saved by an older version
        return
    changed = [
        f'{key} {before.get(key, "(not set)")} is {now.get(key, "(not set)")} now'
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if changed:
        runner.logger.warning(
            f'The training resumes with other settings of semi_train_cfg: {", ".join(changed)}. Restore '
            'them if that is not intended.'
        )


def _keep_kernels(runner, checkpoint: dict) -> None:
    """Select the kernels of the optimizer by the config, and check the shapes of its state.

    Fused kernels read the state with the shape of the parameter and would read outside a smaller one.

    Raises:
        ValueError: The state of a parameter has another shape and the config has ``fused=True``.
    """
    saved, wrapper = checkpoint.get('optimizer'), runner.optim_wrapper
    if not isinstance(saved, dict) or not isinstance(wrapper, (OptimWrapper, OptimWrapperDict)):
        return
    several = isinstance(wrapper, OptimWrapperDict)
    for state, one in (
        [(saved.get(name, {}), one) for name, one in wrapper.items()]
        if several
        else [(saved, wrapper)]
    ):
        for given, own in zip(
            state.get('param_groups', ()), one.optimizer.param_groups, strict=False
        ):
            given.update({key: own[key] for key in _KERNELS if key in own})
            if not own.get('fused'):
                continue
            for index, parameter in zip(given['params'], own['params'], strict=False):
                for name, value in state['state'].get(index, {}).items():
                    shape = getattr(value, 'shape', None)
                    if shape != (() if name == 'step' else parameter.shape):
                        raise ValueError(
                            f'{runner._load_from or "The checkpoint"} has {name} of shape {shape} in its '
                            f'optimizer for a parameter of shape {tuple(parameter.shape)}. Resume from a '
                            'checkpoint of this training, or set load_from and remove --resume.'
                        )


def trained_on(runner) -> dict[str, str | int | None]:
    """Return the images of a training and per optimizer step over all processes; None if there are none."""
    loader = runner.train_dataloader
    dataset, sampler = loader.dataset, loader.sampler
    times = get_world_size() * accumulation(runner)
    mixed = getattr(dataset, 'num_pseudo_labeled', None)
    halves = hasattr(sampler, 'unlabeled')
    return {
        'partition': getattr(dataset, 'partition', None),
        'labeled': getattr(dataset, 'num_labeled', len(dataset)),
        'unlabeled': getattr(dataset, 'num_unlabeled', mixed),
        'labeled_per_step': (sampler.labeled if halves else loader.batch_size or 1) * times,
        'unlabeled_per_step': sampler.unlabeled * times if halves else None,
        'accumulation': accumulation(runner),
    }
