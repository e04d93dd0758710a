"""Tells a method without a teacher what time it is."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmseg.registry import HOOKS

from ._common import unwrap


@HOOKS.register_module()
class SetIterationHook(Hook):
    """Call the method's ``set_iteration`` before each iteration, e.g. for its ``unlabeled_start``.

    Methods with an EMA teacher need none: MeanTeacherHook does it as well.
    """

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        unwrap(runner.model).set_iteration(runner.iter)
