"""Set the memory format of feature maps."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmseg.registry import HOOKS

from ...models.speed import use_channels_last
from ._common import rewrapped


@HOOKS.register_module()
class MemoryFormatHook(Hook):
    """Same as the setting ``semi_train_cfg.channels_last`` of a method, for any model.

    It also applies to validation and test. Checkpoints have the same values and can be loaded with or without
    this hook.
    """

    # Random initialization fills weights in memory order. They are therefore converted after they have been
    # initialized or loaded, and not in before_run.
    def before_train(self, runner) -> None:
        self._convert(runner)

    def before_test(self, runner) -> None:
        self._convert(runner)

    @staticmethod
    def _convert(runner) -> None:
        with rewrapped(runner) as model:
            use_channels_last(model)
