"""Match a checkpoint to the model that will load it."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmseg.registry import HOOKS

from ..startup.checkpoints import match_checkpoint


@HOOKS.register_module()
class MatchCheckpointHook(Hook):
    """Match a checkpoint to the model, see :func:`~mmseg_semi.engine.startup.checkpoints.match_checkpoint`.

    :class:`StartupCheckHook` does the same. The tools add this hook to configs without it.

    Raises:
        ValueError: A checkpoint does not match the model.
    """

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        match_checkpoint(runner, checkpoint)
