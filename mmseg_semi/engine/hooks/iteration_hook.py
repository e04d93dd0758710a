"""Tells a method the time."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmseg.registry import HOOKS

from ._common import unwrap


@HOOKS.register_module()
class IterationHook(Hook):
    """Tell the model which iteration is about to start, for settings such as ``unlabeled_start``.

    Of methods that have no other hook which does it (CPS).
    """

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        unwrap(runner.model).set_iteration(runner.iter)
