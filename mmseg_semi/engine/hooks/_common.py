"""Functions that several hooks share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.hooks import CheckpointHook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import BaseLoop
from torch import nn


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model without a wrapper for DistributedDataParallel or test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


@contextmanager
def saving(path: str) -> Iterator[None]:
    """Turn errors of writing a checkpoint into one sentence.

    Raises:
        OSError: The checkpoint cannot be written. The message has the path, the reason and the remedy.
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
    """Whether a CheckpointHook saves at the end of the current iteration."""
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
    """Return the unwrapped model for changes, and rebuild its DistributedDataParallel afterwards.

    DistributedDataParallel stores at construction which parameters have gradients, and their memory format.
    With ``sync_bn`` the new wrapper has new BN modules with the same weights. A compiled step is compiled
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
    """Whether the run is a training. In a test, MMEngine does not build the training loop from its config."""
    return isinstance(runner._train_loop, BaseLoop)
