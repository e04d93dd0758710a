"""Training loops with whole optimizer steps, and with epochs over the unlabeled images."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import NamedTuple

from mmengine.dist import get_world_size
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmseg.registry import LOOPS

from ..datasets.children import num_counted
from ..models.clock import Clock, count_steps
from ..models.segmentors import SemiSegmentor
from .accumulation import accumulation, due_at
from .hooks._common import unwrap
from .startup.lengths import check_lengths, parts_of


def _tell_lengths(runner, sampler) -> None:
    """Set the number of steps of the training and of an epoch in a method, before hooks use them."""
    model = unwrap(runner.model)
    if not isinstance(model, SemiSegmentor):
        return
    model.clock = Clock.of(runner.optim_wrapper)
    if hasattr(sampler, 'iters_per_epoch'):
        model.epoch_steps = max(1, sampler.iters_per_epoch // accumulation(runner))


#: Scalars of MMEngine's IterTimerHook.
TIMES = ('train/time', 'train/data_time')


class _FreshLog:
    """Remove all scalars of the training from the log once, when the unlabeled loss has ended.

    MMEngine would repeat the last values of those that are no longer computed. The others return in the same
    iteration. The times stay, because CostHook reads those of the whole training.
    """

    _is_fresh = False

    def run_iter(self, *batch) -> None:
        if not self._is_fresh:
            model = unwrap(self.runner.model)
            end = model.unlabeled_end if isinstance(model, SemiSegmentor) else None
            self._is_fresh = end is None
            if end is not None and Clock.of(self.runner.optim_wrapper).step >= end:
                self._is_fresh = True
                scalars = self.runner.message_hub.log_scalars
                for key in [
                    key for key in scalars if key.startswith('train/') and key not in TIMES
                ]:
                    del scalars[key]
        super().run_iter(*batch)


@LOOPS.register_module()
class WholeStepIterTrainLoop(_FreshLog, IterBasedTrainLoop):
    """``IterBasedTrainLoop`` that delays a validation inside an accumulation to the end of its step.

    With ``accumulative_counts=k`` an optimizer step has k iterations. ``max_iters``, ``val_begin`` and
    ``val_interval`` are iterations, as in MMEngine.

    Args: see :class:`mmengine.runner.IterBasedTrainLoop`.

    Raises:
        ValueError: A scheduler begins after the end of the training.
    """

    def __init__(self, runner, dataloader, max_iters: int, **kwargs) -> None:
        super().__init__(runner, dataloader, max_iters, **kwargs)
        accumulated = accumulation(runner)
        # Checked here, because the Runner builds the schedulers right after this loop and before calling hooks.
        check_lengths(runner.param_schedulers, 1, count_steps(max_iters, accumulated), accumulated)

    def run(self) -> None:
        accumulated = accumulation(self.runner)
        _tell_lengths(self.runner, self.dataloader.sampler)
        if self.runner.val_loop is not None and self.val_interval % accumulated:
            self.runner.logger.info(
                f'val_interval={self.val_interval} falls inside optimizer steps of accumulative_counts='
                f'{accumulated} iterations: each validation runs at the end of its step.'
            )
        return super().run()

    def _decide_current_val_interval(self) -> None:
        super()._decide_current_val_interval()
        accumulated = accumulation(self.runner)
        if accumulated > 1:
            # The base class validates if the interval divides the current iteration.
            due = due_at(self._iter, self.val_interval, accumulated, self._max_iters)
            self.val_interval = self._iter if due else self._iter + 1


class EpochLengths(NamedTuple):
    """Length of a training with several epochs, in iterations.

    Attributes:
        steps (int): Optimizer steps per epoch.
        max_iters (int): Iterations of the training.
        val_interval (int): Iterations between validations.
    """

    steps: int
    max_iters: int
    val_interval: int


def epoch_lengths(
    images: int, per_step: int, accumulated: int, epochs: int, every: int
) -> EpochLengths:
    """Return steps and iterations of epochs that drop the last incomplete step.

    Args:
        images (int): Images per epoch.
        per_step (int): Images per optimizer step, over all processes and micro-batches.
        accumulated (int): Micro-batches per step.
        epochs (int): Epochs of the training.
        every (int): Epochs between validations.
    """
    steps = max(1, images // per_step)
    return EpochLengths(steps, epochs * steps * accumulated, every * steps * accumulated)


def epochs_of(epochs: int | Mapping[str, int], partition: str | None) -> int:
    """Return the number of epochs, which may depend on the partition.

    Raises:
        ValueError: The partition has no number of epochs, or it is not a positive integer.
    """
    found = epochs
    if isinstance(epochs, Mapping):
        found = epochs.get(partition)
        if found is None:
            raise ValueError(
                f'train_cfg.epochs has no value for partition={partition}, only for {", ".join(epochs)}. Set '
                'train_cfg.epochs to a number.'
            )
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise ValueError(f'train_cfg.epochs must be an integer of at least 1, got {found!r}.')
    return found


@LOOPS.register_module()
class UnlabeledEpochTrainLoop(WholeStepIterTrainLoop):
    """Iteration-based training whose length is a number of epochs over the unlabeled images.

    An epoch of the papers has floor(unlabeled images / unlabeled images per optimizer step) steps, with the
    images of all processes and micro-batches. ``max_iters``, ``val_interval``, the ends of schedulers and the
    checkpoints of an ``AtomicCheckpointHook(interval='val')`` are computed from it. A supervised training
    counts the images of its dataset's ``counted`` instead, ``counted_batch`` of them per batch (default: the
    number of labeled images). It is therefore as long as the training of the method that it is compared with.

    Args:
        runner (Runner): Same as in MMEngine.
        dataloader (DataLoader | dict): Same as in MMEngine.
        epochs (int | dict[str, int], optional): Epochs over the unlabeled images. A dict has the number for
            each partition, for papers in which it differs.
        val_every (int): Epochs between validations.
        max_iters (int, optional): Iterations, instead of ``epochs``.
        val_interval (int, optional): Iterations, instead of ``val_every``.
        **kwargs: Arguments of :class:`mmengine.runner.IterBasedTrainLoop`.

    Raises:
        ValueError: The length is missing, the dataset has no unlabeled images to count, or a scheduler counts
            MMEngine's epochs.
    """

    def __init__(
        self,
        runner,
        dataloader,
        epochs: int | Mapping[str, int] | None = None,
        val_every: int = 1,
        max_iters: int | None = None,
        val_interval: int | None = None,
        **kwargs,
    ) -> None:
        if epochs is None and max_iters is None:
            raise ValueError('train_cfg has neither epochs nor max_iters. Set one of them.')
        if not isinstance(val_every, int) or isinstance(val_every, bool) or val_every < 1:
            raise ValueError(
                f'train_cfg.val_every must be an integer of at least 1, got {val_every!r}.'
            )
        _refuse_epoch_schedulers(runner.param_schedulers)
        if isinstance(dataloader, Mapping):  # built as in MMEngine, to count its images
            diff_rank_seed = runner._randomness_cfg.get('diff_rank_seed', False)
            dataloader = runner.build_dataloader(
                dataloader, seed=runner.seed, diff_rank_seed=diff_rank_seed
            )
        self._said = 'train_cfg.max_iters'
        if max_iters is None or val_interval is None:
            partition = getattr(dataloader.dataset, 'partition', None)
            number = 1 if max_iters is not None else epochs_of(epochs, partition)
            accumulated = accumulation(runner)
            images, per_step = _epoch(dataloader, accumulated)
            lengths = epoch_lengths(images, per_step, accumulated, number, val_every)
            if max_iters is None:
                max_iters = lengths.max_iters
                self._said = (
                    f'{number} epochs of {images} unlabeled images, {per_step} of them per step: '
                    f'{lengths.steps} optimizer steps each'
                )
            val_interval = val_interval or lengths.val_interval
        super().__init__(
            runner, dataloader, max_iters=max_iters, val_interval=val_interval, **kwargs
        )

    def run(self) -> None:
        self.runner.logger.info(
            f'{self._said}, {self._max_iters} iterations in all; validation every '
            f'{self.val_interval} iterations.'
        )
        return super().run()


def _epoch(loader, accumulated: int) -> tuple[int, int]:
    """Return the images per epoch, and per optimizer step over all processes."""
    sampler, times = loader.sampler, get_world_size() * accumulated
    if hasattr(sampler, 'unlabeled'):
        share = sampler.unlabeled // getattr(sampler, 'unlabeled_streams', 1)
        return loader.dataset.num_unlabeled, share * times
    counted = num_counted(loader.dataset)
    if counted is None:
        raise ValueError(
            f'train_cfg.epochs counts epochs over unlabeled images, but {type(loader.dataset).__name__} has '
            'none. Set train_dataloader.dataset.counted to their dataset, or set train_cfg.max_iters.'
        )
    share = getattr(loader.dataset, 'counted_batch', None) or loader.batch_size or 1
    return counted, share * times


def _refuse_epoch_schedulers(schedulers) -> None:
    """Raise ValueError if a scheduler config counts MMEngine's epochs, since there is only one of these."""
    for key, part in parts_of(schedulers):
        if isinstance(part, dict) and part.get('by_epoch', True):
            raise ValueError(
                f'{key} ({part["type"]}) has by_epoch=True, but UnlabeledEpochTrainLoop counts iterations. Set '
                'by_epoch=False, and remove its end to end it with the training.'
            )


@LOOPS.register_module()
class WholeStepEpochTrainLoop(_FreshLog, EpochBasedTrainLoop):
    """``EpochBasedTrainLoop`` whose epochs have whole optimizer steps.

    With ``accumulative_counts=k`` an epoch has ``batches // k`` steps. The remaining batches are not used, as
    with ``drop_last``. Checkpoints and validations after an epoch are therefore between two steps.

    Args: see :class:`mmengine.runner.EpochBasedTrainLoop`.

    Raises:
        ValueError: An epoch has fewer batches than a step, or a scheduler begins after the end of the training.
    """

    def __init__(self, runner, dataloader, max_epochs: int, **kwargs) -> None:
        super().__init__(runner, dataloader, max_epochs, **kwargs)
        accumulated = accumulation(runner)
        self._batches = len(self.dataloader) // accumulated * accumulated
        if not self._batches:
            raise ValueError(
                f'An epoch has {len(self.dataloader)} batches, but a step with accumulative_counts='
                f'{accumulated} needs more. Lower optim_wrapper.accumulative_counts or '
                'train_dataloader.batch_size.'
            )
        self._max_iters = self._max_epochs * self._batches
        num_steps = self._max_iters // accumulated
        check_lengths(runner.param_schedulers, max_epochs, num_steps, accumulated)

    def run(self) -> None:
        _tell_lengths(self.runner, self.dataloader.sampler)
        return super().run()

    def run_epoch(self) -> None:
        """Iterate one epoch."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for index, data_batch in enumerate(islice(self.dataloader, self._batches)):
            self.run_iter(index, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1
