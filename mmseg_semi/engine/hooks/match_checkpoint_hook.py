"""A checkpoint is matched to the model that is about to load it."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmseg.registry import HOOKS

from ..startup.checkpoints import match_checkpoint


@HOOKS.register_module()
class MatchCheckpointHook(Hook):
    """Match what a run loads to its model, see :func:`~mmseg_semi.engine.startup.checkpoints.match_checkpoint`.

    :class:`StartupCheckHook` does so too; the tools add this hook to configs without that one.

    Raises:
        ValueError: A checkpoint does not fit.
    """

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        match_checkpoint(runner, checkpoint)
