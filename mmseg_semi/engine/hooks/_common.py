"""What several hooks ask of a runner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.hooks import CheckpointHook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import BaseLoop
from torch import nn


def unwrap(model: nn.Module) -> nn.Module:
    """The model itself, without DistributedDataParallel or test-time augmentation around it."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


@contextmanager
def saving(path: str) -> Iterator[None]:
    """Turn the errors of a disk that takes no checkpoint into one sentence.

    Raises:
        OSError: naming the path, the reason and the remedy.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if not isinstance(error, OSError) and 'PytorchStreamWriter' not in str(error):
            raise
        reason = getattr(error, 'strerror', None) or str(error).splitlines()[0]
        raise OSError(
            f'The checkpoint {path} cannot be written ({reason}). Free space there and resume the run '
            '(--resume; a run of several stages continues by itself).'
        ) from error


def save_due(runner) -> bool:
    """Whether a CheckpointHook will save at the end of the running iteration."""
    return any(
        not hook.by_epoch
        and (
            hook.every_n_train_iters(runner, hook.interval, hook.save_begin)
            or (hook.save_last and hook.is_last_train_iter(runner))
        )
        for hook in runner.hooks
        if isinstance(hook, CheckpointHook)
    )


@contextmanager
def rewrapped(runner) -> Iterator[nn.Module]:
    """Hand out the model itself to be changed, and build its DistributedDataParallel again afterwards.

    DistributedDataParallel notes down when it is built which parameters have gradients, and how they lie in
    memory. With ``sync_bn`` the new one has other BN modules of the same weights. A compiled step is compiled
    again.
    """
    model, wrapped = unwrap(runner.model), is_model_wrapper(runner.model)
    compiled = 'train_step' in vars(runner.model)
    runner.model = model
    yield model
    if wrapped:
        runner.model = runner.wrap_model(runner.cfg.get('model_wrapper_cfg'), model)
        if compiled:
            runner._maybe_compile('train_step')


def is_training(runner) -> bool:
    """Whether the run trains: of a test, MMEngine leaves the training loop a config, if there is one."""
    return isinstance(runner._train_loop, BaseLoop)
