"""How feature maps lie in memory."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmseg.registry import HOOKS

from ._common import rewrapped


@HOOKS.register_module()
class MemoryFormatHook(Hook):
    """Let convolutions compute with channels last (NHWC), in training, validation and test, for any model.

    The weights alone are converted: a convolution whose weights have this format returns maps that have it. The
    results are the same to rounding. Checkpoints hold the same values and load with or without this hook.
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
            model.to(memory_format=torch.channels_last)
