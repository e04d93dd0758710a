"""Save evenly spaced checkpoints of the teacher for the ranking of images in ST++."""

from __future__ import annotations

import os
import os.path as osp
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.runner import EpochBasedTrainLoop
from mmseg.registry import HOOKS

from ...models.clock import count_steps
from ...self_training import select_reliable
from ...self_training.images import ImagePool
from ...self_training.output import on_first_rank, write_lines
from ..accumulation import accumulation
from ._common import saving

#: Folder of the checkpoints in the work folder, and the list of their names, which is written last.
CHECKPOINTS = 'stability'
CHECKPOINT_LIST = 'checkpoints.txt'


@HOOKS.register_module()
class ReliableSelectionHook(Hook):
    """Save K evenly spaced checkpoints of a training, and rank images by the stability of their predictions.

    The checkpoints are those after k·E // K epochs, k = 1 .. K: 26, 53 and 80 of 80 epochs (ST++, Sec. 3.3 and
    its code), or the same numbers of iterations under ``IterBasedTrainLoop``. They are plain MMSegmentation
    checkpoints without optimizer state in ``WORK_DIR/stability/``. CheckpointHook does not remove them.

    In a staged config, the stage after the training ranks the images. In any other training, set ``images``,
    and this hook ranks them after the training (see :func:`mmseg_semi.self_training.select_reliable`) and
    writes the result to ``WORK_DIR/selection/``.

    Args:
        num_checkpoints (int): K, at least 2. ST++ uses 3.
        images (dict, optional): Config of the unlabeled images to rank, without a pipeline.
        ratio (float): Fraction of reliable images, in (0, 1).

    Raises:
        ValueError: ``num_checkpoints`` is below 2, the training is shorter than that, or it may stop early.
        FileNotFoundError: A resumed training does not have the checkpoints that it should have by then, because
            it was started with another length.
    """

    # After the hooks that update weights and before CheckpointHook: a run that resumes after an epoch needs the
    # checkpoint of this hook for this epoch.
    priority = 'LOW'

    def __init__(
        self, num_checkpoints: int = 3, images: dict | None = None, ratio: float = 0.5
    ) -> None:
        if not isinstance(num_checkpoints, int) or num_checkpoints < 2:
            raise ValueError(
                f'ReliableSelectionHook.num_checkpoints must be at least 2, got {num_checkpoints!r}. ST++ uses '
                '3.'
            )
        if not 0 < ratio < 1:
            raise ValueError(
                f'ReliableSelectionHook.ratio, the fraction of reliable images, must be in (0, 1), got {ratio}.'
            )
        self.num_checkpoints, self.images, self.ratio = num_checkpoints, images, ratio

    @property
    def reading(self) -> str:
        """Checkpoints and their comparison, for the first lines of the log."""
        return (
            'stability of pseudo-masks: the sum of Eq. 4 over the checkpoints after k·E // '
            f'{self.num_checkpoints} of E epochs or iterations; reliable: {self.ratio:g} of the images'
        )

    def _moments(self, runner) -> tuple[str, list[int]]:
        """Return the unit of time, and the times to save at."""
        loop = runner.train_loop
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        unit, length = ('epoch', loop.max_epochs) if by_epoch else ('iter', loop.max_iters)
        count = self.num_checkpoints
        # Iterations per optimizer step. Checkpoints are only saved at its end.
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
        unit, moments = self._moments(runner)
        if any(isinstance(hook, EarlyStoppingHook) for hook in runner.hooks):
            raise ValueError(
                f'ReliableSelectionHook compares checkpoints at {unit} {", ".join(map(str, moments))}, but '
                'EarlyStoppingHook may stop the training before. Remove one of them from custom_hooks.'
            )
        done = runner.epoch if unit == 'epoch' else runner.iter
        on_first_rank(_check_kept, runner.work_dir, unit, [m for m in moments if m <= done])
        if self.images is not None:  # fail before the training, not after it
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


def _check_kept(work_dir: str, unit: str, moments: list[int]) -> None:
    for moment in moments:
        path = Path(work_dir, CHECKPOINTS, _name(unit, moment))
        if not path.is_file():
            raise FileNotFoundError(
                f'{path} does not exist, although the resumed training is at a later {unit}. If it was started '
                'with another length, use that length, or remove ReliableSelectionHook from custom_hooks.'
            )


def _name(unit: str, moment: int) -> str:
    return f'{unit}_{moment}.pth'


def kept_checkpoints(work_dir: str) -> list[str]:
    """Return the paths of the checkpoints of ReliableSelectionHook in ``work_dir``, in order.

    Raises:
        FileNotFoundError: The training did not have the hook, or is not finished.
    """
    folder = Path(work_dir, CHECKPOINTS)
    try:
        names = (folder / CHECKPOINT_LIST).read_text().split()
    except FileNotFoundError:
        raise FileNotFoundError(
            f'{folder / CHECKPOINT_LIST} does not exist. The training in {work_dir} is not finished, or did '
            "not save checkpoints for scoring. Add dict(type='ReliableSelectionHook') to its custom_hooks."
        ) from None
    return [str(folder / name) for name in names]
