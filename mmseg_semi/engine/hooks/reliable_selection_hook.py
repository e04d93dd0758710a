"""What ST++ needs of the teacher's training: evenly spaced checkpoints, and the ranking that they give."""

from __future__ import annotations

import os
import os.path as osp
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop
from mmseg.registry import HOOKS

from ...models.clock import count_steps
from ...self_training import select_reliable
from ...self_training.images import ImagePool
from ...self_training.output import on_first_rank, write_lines
from ..accumulation import accumulation
from ._common import saving

#: Folder of the checkpoints inside the work folder, and the list of their names, which is written last.
CHECKPOINTS = 'stability'
CHECKPOINT_LIST = 'checkpoints.txt'


@HOOKS.register_module()
class ReliableSelectionHook(Hook):
    """Keep K evenly spaced checkpoints of a training, and rank images by their stability over them.

    The checkpoints are those after k·E // K epochs, k = 1 .. K, so 26, 53 and 80 of 80 (ST++, Sec. 3.3 and its
    code), or as many optimizer steps under ``IterBasedTrainLoop``. They are plain MMSegmentation checkpoints
    without optimizer state, in ``WORK_DIR/stability/``; whatever CheckpointHook removes, they stay.

    In a staged config the stage after the training ranks the images. In any other training,
    ``images`` makes this hook do it when the training ends (see
    :func:`mmseg_semi.self_training.select_reliable`), with the result in ``WORK_DIR/selection/``.

    Args:
        num_checkpoints (int): K, at least 2; ST++ has 3.
        images (dict, optional): Config of the unlabeled images to rank, without a pipeline.
        ratio (float): Share of the images that is called reliable, in (0, 1).

    Raises:
        ValueError: ``num_checkpoints`` is below 2, or the training is shorter than that.
    """

    # After the hooks that update weights, before CheckpointHook: a run that resumes from its checkpoint of an
    # epoch must find that the one of this hook has been written.
    priority = 'LOW'

    def __init__(
        self, num_checkpoints: int = 3, images: dict | None = None, ratio: float = 0.5
    ) -> None:
        if not isinstance(num_checkpoints, int) or num_checkpoints < 2:
            raise ValueError(
                f'ReliableSelectionHook num_checkpoints={num_checkpoints!r}: stability compares at least 2 '
                'checkpoints of a training (ST++ has 3).'
            )
        if not 0 < ratio < 1:
            raise ValueError(
                f'ReliableSelectionHook ratio={ratio} must be the share of reliable images, between 0 and 1.'
            )
        self.num_checkpoints, self.images, self.ratio = num_checkpoints, images, ratio

    @property
    def reading(self) -> str:
        """When checkpoints are taken and how they are compared, for the first lines of the log."""
        return (
            'stability of pseudo-masks: the sum of Eq. 4 over the checkpoints after k·E // '
            f'{self.num_checkpoints} of E epochs or iterations; reliable: {self.ratio:g} of the images'
        )

    def _moments(self, runner) -> tuple[str, list[int]]:
        """The unit of time, and when to save."""
        loop = runner.train_loop
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        unit, length = ('epoch', loop.max_epochs) if by_epoch else ('iter', loop.max_iters)
        count = self.num_checkpoints
        # Iterations of an optimizer step, inside which nothing is saved.
        step = 1 if by_epoch else accumulation(runner)
        num_steps = count_steps(length, step)
        if num_steps < count:
            raise ValueError(
                f'A training of {length} {unit}(s) has no {count} different checkpoints. Set train_cfg.max_'
                f'{unit}s to at least {count * step}, or num_checkpoints of ReliableSelectionHook to at most '
                f'{num_steps}.'
            )
        return unit, [min(length, k * num_steps // count * step) for k in range(1, count + 1)]

    def before_train(self, runner) -> None:
        self._moments(runner)
        if self.images is not None:  # not after the training
            on_first_rank(ImagePool(runner.cfg, self.images).check_files)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        self._save(runner, 'iter', runner.iter + 1)

    def after_train_epoch(self, runner, metrics=None) -> None:
        self._save(runner, 'epoch', runner.epoch + 1)

    def _save(self, runner, unit: str, now: int) -> None:
        own_unit, moments = self._moments(runner)
        if unit != own_unit or now not in moments:
            return
        folder = osp.join(runner.work_dir, CHECKPOINTS)
        name = _name(unit, now)
        with saving(osp.join(folder, name)):
            runner.save_checkpoint(
                folder,
                f'{name}.partial',
                save_optimizer=False,
                save_param_scheduler=False,
                by_epoch=unit == 'epoch',
            )
        if is_main_process():
            os.replace(osp.join(folder, f'{name}.partial'), osp.join(folder, name))

    def after_train(self, runner) -> None:
        unit, moments = self._moments(runner)
        names = [_name(unit, moment) for moment in moments]
        folder = Path(runner.work_dir, CHECKPOINTS)
        on_first_rank(write_lines, str(folder / CHECKPOINT_LIST), names)
        if self.images is not None:
            select_reliable(
                runner.cfg,
                kept_checkpoints(runner.work_dir),
                self.images,
                osp.join(runner.work_dir, 'selection'),
                ratio=self.ratio,
                logger=runner.logger,
            )


def _name(unit: str, moment: int) -> str:
    return f'{unit}_{moment}.pth'


def kept_checkpoints(work_dir: str) -> list[str]:
    """Paths of the checkpoints that ReliableSelectionHook kept of the training in ``work_dir``, in order.

    Raises:
        FileNotFoundError: the training did not have the hook, or has not ended.
    """
    folder = Path(work_dir, CHECKPOINTS)
    try:
        names = (folder / CHECKPOINT_LIST).read_text().split()
    except FileNotFoundError:
        raise FileNotFoundError(
            f'{folder / CHECKPOINT_LIST} does not exist, so the training in {work_dir} has not ended or kept '
            "no checkpoints for scoring. Add dict(type='ReliableSelectionHook') to its custom_hooks."
        ) from None
    return [str(folder / name) for name in names]
