"""A hook without effect, for old configs."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmseg.registry import HOOKS


@HOOKS.register_module()
class IterationHook(Hook):
    """Hook without effect, since methods read the time from the optimizer wrapper.

    It stays registered for one release, so that old configs still work.
    """

    def before_train(self, runner) -> None:
        runner.logger.warning(
            'IterationHook has no effect and will be removed in the next release. Remove it from '
            'custom_hooks.',
        )
