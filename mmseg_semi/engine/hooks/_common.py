"""What several hooks ask of a runner."""

from __future__ import annotations

from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from torch import nn


def unwrap(model: nn.Module) -> nn.Module:
    """The model itself, without the DistributedDataParallel around it."""
    return model.module if is_model_wrapper(model) else model


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
