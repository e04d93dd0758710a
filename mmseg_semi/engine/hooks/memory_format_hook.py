"""How feature maps lie in memory."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmseg.registry import HOOKS

from ...models.speed import use_channels_last
from ._common import rewrapped


@HOOKS.register_module()
class MemoryFormatHook(Hook):
    """As the setting ``semi_train_cfg.channels_last`` of a method, for any model, such as a plain segmentor.

    It also converts for validation and test, where no weights are drawn. Checkpoints hold the same values and
    load with or without this hook.
    """

    # Weights are drawn in the order in which they lie in memory, so they are converted when they are drawn or
    # loaded, and not in before_run.
    def before_train(self, runner) -> None:
        self._convert(runner)

    def before_test(self, runner) -> None:
        self._convert(runner)

    @staticmethod
    def _convert(runner) -> None:
        with rewrapped(runner) as model:
            use_channels_last(model)
