"""Hooks, transforms and losses that break a training, for the tests of what survives."""

from __future__ import annotations

import os
import signal

import torch
from mmcv.transforms import BaseTransform
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmseg.registry import HOOKS, TRANSFORMS


@HOOKS.register_module()
class KillHook(Hook):
    """Kill the process without notice, as a power cut does, at one moment of one iteration.

    Args:
        iteration (int): 1-based.
        stage (str): Name of the hook point, e.g. ``after_train_iter``.
        rank (int): The process that dies.
    """

    priority = 'LOWEST'

    def __init__(self, iteration: int, stage: str = 'after_train_iter', rank: int = 0) -> None:
        self.iteration, self.rank = iteration, rank
        setattr(self, stage, self._kill)

    def _kill(self, runner, *args, **kwargs) -> None:
        if runner.iter + 1 == self.iteration and get_rank() == self.rank:
            os.kill(os.getpid(), signal.SIGKILL)


@HOOKS.register_module()
class PoisonWeightsHook(Hook):
    """Make a weight of the student NaN before one (1-based) iteration, as a diverged step would."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    @torch.no_grad()
    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter + 1 == self.iteration:
            next(runner.model.parameters()).fill_(float('nan'))


@TRANSFORMS.register_module()
class RecordPath(BaseTransform):
    """Append the path of each image that passes to a file, from whatever worker it passes in."""

    def __init__(self, file: str) -> None:
        self.file = file

    def transform(self, results: dict) -> dict:
        with open(self.file, 'a') as file:
            file.write(results['img_path'] + '\n')
        return results
