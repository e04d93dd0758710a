"""Tells a method the time."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmseg.registry import HOOKS

from ...models.segmentors.base import SemiSegmentor
from ._common import unwrap


@HOOKS.register_module()
class IterationHook(Hook):
    """Call the method's ``set_iteration`` before each iteration.

    For methods that have no other hook which does it, as :class:`MeanTeacherHook` and
    :class:`AdaptiveRampUpHook` do. A resumed run goes on counting where it stopped.

    Raises:
        ValueError: The model is no method.
    """

    # Before the hooks that save and log, which run at lower priorities.
    priority = 'NORMAL'

    def before_train(self, runner) -> None:
        model = unwrap(runner.model)
        if not isinstance(model, SemiSegmentor):
            raise ValueError(
                f'{type(self).__name__} found a {type(model).__name__}, which is no semi-supervised method: '
                'remove the hook from custom_hooks.'
            )

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        unwrap(runner.model).set_iteration(runner.iter)
