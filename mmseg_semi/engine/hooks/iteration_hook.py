"""A hook of earlier configs that has nothing left to do."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmseg.registry import HOOKS


@HOOKS.register_module()
class IterationHook(Hook):
    """Does nothing: methods read the time from the optimizer wrapper.

    The name stays registered for one release, so that configs with this hook still train.
    """

    def before_train(self, runner) -> None:
        runner.logger.warning(
            'IterationHook does nothing any more and will be removed in the next release. Take it out of '
            'custom_hooks.',
        )
