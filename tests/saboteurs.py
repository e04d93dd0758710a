"""Hooks and loops that break a training, or watch it, for the tests of what survives."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import torch
from mmcv.transforms import BaseTransform
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop
from mmengine.runner.loops import _InfiniteDataloaderIterator
from mmseg.registry import HOOKS, LOOPS, TRANSFORMS


@HOOKS.register_module()
class KillHook(Hook):
    """Kill the process without notice, as a power cut does, at one moment of one iteration.

    Args:
        iteration (int): 1-based.
        stage (str): Name of the hook point, e.g. ``after_train_iter``.
        rank (int): The process that dies.
        flag (str, optional): File in the working folder without which nothing happens, so that the config
            is the same before and after.
    """

    priority = 'LOWEST'

    def __init__(
        self,
        iteration: int,
        stage: str = 'after_train_iter',
        rank: int = 0,
        flag: str | None = None,
    ) -> None:
        self.iteration, self.rank, self.flag = iteration, rank, flag
        setattr(self, stage, self._kill)

    def _kill(self, runner, *args, **kwargs) -> None:
        if self.flag is not None and not Path(self.flag).is_file():
            return
        if runner.iter + 1 == self.iteration and get_rank() == self.rank:
            os.kill(os.getpid(), signal.SIGKILL)


@TRANSFORMS.register_module()
class KillAtImage(BaseTransform):
    """Kill the process that loads one image for one stage of a staged run, while a file says so.

    Args:
        flag (str): File in the working folder with the names of the stage and the image; without it
            nothing happens, so that the config is the same before and after.
    """

    def __init__(self, flag: str) -> None:
        self.flag = Path(flag)

    def transform(self, results: dict) -> dict:
        if self.flag.is_file():
            stage, image = self.flag.read_text().split()
            mark = Path('work', 'stages', f'{stage}.json')
            running = mark.is_file() and json.loads(mark.read_text())['finished'] is None
            if running and image in results['img_path']:
                os.kill(os.getpid(), signal.SIGKILL)
        return results


@HOOKS.register_module()
class PoisonWeightsHook(Hook):
    """Make a weight of the student NaN before one (1-based) iteration, on one rank."""

    def __init__(self, iteration: int, rank: int = 0) -> None:
        self.iteration, self.rank = iteration, rank

    @torch.no_grad()
    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter + 1 == self.iteration and get_rank() == self.rank:
            next(runner.model.parameters()).fill_(float('nan'))


@HOOKS.register_module()
class WatchHook(Hook):
    """Write down what each rank sees and ends with: ``rank0.json`` and ``rank0.pth`` in the work folder.

    The JSON has, for each iteration, branch, path and sum of the uint8 values of every image.
    """

    def __init__(self) -> None:
        self.batches = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.batches.append(
            [
                (branch, sample.img_path, int(image.sum()))
                for branch, images in data_batch['inputs'].items()
                for image, sample in zip(images, data_batch['data_samples'][branch], strict=True)
            ]
        )

    def after_train(self, runner) -> None:
        path = Path(runner.work_dir) / f'rank{get_rank()}'
        path.with_suffix('.json').write_text(json.dumps(self.batches))
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        torch.save(model.state_dict(), path.with_suffix('.pth'))


class EagerIterator(_InfiniteDataloaderIterator):
    """As in MMEngine 0.10.7: made at once, and resumed by loading all batches again."""

    def __init__(self, dataloader) -> None:
        super().__init__(dataloader)
        self._iterator = iter(dataloader)

    def skip_iter(self, num_iters: int) -> None:
        for _ in range(num_iters):
            next(self)


@LOOPS.register_module()
class EagerTrainLoop(IterBasedTrainLoop):
    """The upstream loop, whichever distribution is installed."""

    def __init__(self, runner, dataloader, **kwargs) -> None:
        super().__init__(runner, dataloader, **kwargs)
        self.dataloader_iterator = EagerIterator(self.dataloader)
