"""Samplers whose order depends only on the seed and the position in the sample stream."""

import itertools
from collections.abc import Iterator

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from mmseg.registry import DATA_SAMPLERS
from torch.utils.data import Sampler

_STREAM = 0  # separates these random draws from the samples' own, which use the same seed
_LABELED, _UNLABELED, _ALL, _UNLABELED_AGAIN = 0, 1, 2, 3


class PositionSampler(Sampler):
    """Base of the samplers whose order depends only on the seed and the position.

    They yield ``(index, position)``: the index into the dataset and the sample's number in its stream, from
    which the dataset seeds the sample's transforms. So the samples do not depend on the number of ranks or
    workers, or on where a run was resumed.

    Args:
        seed: Seed, at least 0; None takes one from mmengine, the same on all ranks. A runner passes the
            experiment's seed.
        endless: True for mmengine's ``IterBasedTrainLoop``: iteration never ends and ``set_epoch`` is ignored.
            False for ``EpochBasedTrainLoop``: epoch e continues where epoch e-1 ended.
    """

    def __init__(self, seed: int | None, endless: bool) -> None:
        if seed is None:
            seed = sync_random_seed()
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(
                f'{type(self).__name__} seed={seed!r} must be an integer of at least 0.'
            )
        self.rank, self.world_size = get_dist_info()
        self.seed = seed
        self.endless = endless
        self._epoch = 0
        self._skipped = 0

    def _steps(self, per_epoch: int) -> Iterator[int]:
        """Yield the step numbers from the start that ``skip`` or ``set_epoch`` set."""
        if self.endless:
            return itertools.count(self._skipped)
        first = self._epoch * per_epoch
        return iter(range(first, first + per_epoch))

    def skip(self, num_samples: int) -> None:
        """Start iterating after this rank's first ``num_samples`` samples, without loading them.

        mmengine's training loop calls it once when a run is resumed. The count starts at the beginning of the
        stream.

        Raises:
            ValueError: ``num_samples`` is not a whole number of steps, or the sampler is finite.
        """
        if num_samples < 0:
            raise ValueError(f'{type(self).__name__} cannot skip {num_samples} samples.')
        if not self.endless:
            raise ValueError(
                f'{type(self).__name__} with endless=False cannot resume under iteration-based '
                'training. Set train_dataloader.sampler.endless=True.'
            )
        self._skipped = num_samples

    def set_epoch(self, epoch: int) -> None:
        """Start the next iteration at this epoch; an endless sampler has none and ignores it."""
        self._epoch = epoch


@DATA_SAMPLERS.register_module()
class LabeledUnlabeledSampler(PositionSampler):
    """Batches of ``labeled`` + ``unlabeled`` samples per rank, the labeled samples first.

    The sampler passes through each of the two lists repeatedly, each pass in a new order. For a list of N
    labeled samples, the k-th labeled sample over all ranks is ``order(seed, 'labeled', k // N)[k % N]``. In
    iteration t, slot s of rank r draws number ``k = t·world·L + r·L + s``; the same holds for the unlabeled
    list. So 2 ranks with half the batch size draw the same samples in each iteration as 1 rank. A labeled list
    shorter than ``labeled`` repeats within the batch. The yielded position is the sample's number k in its
    stream.

    With ``unlabeled_streams=2``, two streams pass through the unlabeled list, each in its own order, like CPS's
    two loaders. The first half of a batch's unlabeled samples comes from the first stream, the second half from
    the second. A pass then has each image once in either half. Number k of stream i has the position 2k + i, so
    paired images have different augmentations.

    Use it as a flat ``sampler`` with ``batch_size = labeled + unlabeled``.

    Args:
        dataset: Dataset with ``num_labeled`` and ``num_unlabeled``, such as ``LabeledUnlabeledDataset``.
        labeled: Labeled samples per batch and rank, at least 1.
        unlabeled: Unlabeled samples of all streams per batch and rank, at least 1.
        unlabeled_streams: 1, or 2 for methods that mix pairs of unlabeled images (``cutmix='pair'``).
        seed: See :class:`PositionSampler`.
        endless: See :class:`PositionSampler`; a finite sampler ends after ``iters_per_epoch`` batches.

    Raises:
        ValueError: The dataset has no labeled and unlabeled part, or ``labeled``, ``unlabeled``,
            ``unlabeled_streams`` or ``seed`` is out of range.
    """

    def __init__(
        self,
        dataset,
        labeled: int,
        unlabeled: int,
        seed: int | None = None,
        endless: bool = True,
        unlabeled_streams: int = 1,
    ) -> None:
        if not hasattr(dataset, 'num_labeled') or not hasattr(dataset, 'num_unlabeled'):
            raise ValueError(
                f'LabeledUnlabeledSampler needs a LabeledUnlabeledDataset, not {type(dataset).__name__}. '
                "Set train_dataloader.dataset.type='LabeledUnlabeledDataset'."
            )
        for name, value in dict(labeled=labeled, unlabeled=unlabeled).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f'LabeledUnlabeledSampler {name}={value!r} makes batches without {name} samples. '
                    f'Set {name} to at least 1.'
                )
        if unlabeled_streams not in (1, 2):
            raise ValueError(
                f'LabeledUnlabeledSampler unlabeled_streams={unlabeled_streams!r} is unknown. Choose 1, or 2 '
                'for pairs of unlabeled images.'
            )
        if unlabeled % unlabeled_streams:
            raise ValueError(
                f'LabeledUnlabeledSampler unlabeled={unlabeled} cannot be shared by unlabeled_streams='
                f'{unlabeled_streams}. Make unlabeled even.'
            )
        super().__init__(seed, endless)
        self.dataset = dataset
        self.labeled, self.unlabeled = labeled, unlabeled
        self.unlabeled_streams = unlabeled_streams

    @property
    def iters_per_epoch(self) -> int:
        """Iterations of one pass over the unlabeled list; an incomplete last batch is not counted."""
        share = self.unlabeled // self.unlabeled_streams
        return max(1, self.dataset.num_unlabeled // (self.world_size * share))

    def __len__(self) -> int:
        """Return the samples of one epoch on this rank; an endless sampler continues after them."""
        return self.iters_per_epoch * (self.labeled + self.unlabeled)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield ``(index, position)``."""
        num_labeled = self.dataset.num_labeled
        labeled = _Order(self.seed, _LABELED, num_labeled)
        kinds = (_UNLABELED, _UNLABELED_AGAIN)[: self.unlabeled_streams]
        streams = [_Order(self.seed, kind, self.dataset.num_unlabeled) for kind in kinds]
        for iteration in self._steps(self.iters_per_epoch):
            for position in self._positions(iteration, self.labeled):
                yield labeled[position], position
            for number, stream in enumerate(streams):
                for position in self._positions(iteration, self.unlabeled // len(streams)):
                    yield num_labeled + stream[position], position * len(streams) + number

    def _positions(self, iteration: int, share: int) -> range:
        first = (iteration * self.world_size + self.rank) * share
        return range(first, first + share)

    def skip(self, num_samples: int) -> None:
        batch_size = self.labeled + self.unlabeled
        if num_samples % batch_size:
            raise ValueError(
                f'LabeledUnlabeledSampler cannot skip {num_samples} samples, since a batch has '
                f'{self.labeled} labeled and {self.unlabeled} unlabeled ones. Set '
                f'train_dataloader.batch_size={batch_size}.'
            )
        super().skip(num_samples)
        self._skipped = num_samples // batch_size


@DATA_SAMPLERS.register_module()
class ShuffledSampler(PositionSampler):
    """All samples of one list in repeated passes, each pass in a new order.

    The k-th sample over all ranks is ``order(seed, k // N)[k % N]``; draw t of rank r is number ``k = t·world +
    r``. A finite sampler gives each rank ``N // world`` samples per epoch. A loader with ``drop_last=True``
    makes full batches of them.

    Args:
        dataset: Dataset that takes ``(index, position)``, such as ``SelfTrainingDataset``.
        seed: See :class:`PositionSampler`.
        endless: See :class:`PositionSampler`.

    Raises:
        ValueError: The dataset does not seed its samples by position, or ``seed`` is out of range.
    """

    def __init__(self, dataset, seed: int | None = None, endless: bool = False) -> None:
        if not hasattr(dataset, 'num_pseudo_labeled'):
            raise ValueError(
                f'ShuffledSampler needs a SelfTrainingDataset, not {type(dataset).__name__}. Set '
                "train_dataloader.dataset.type='SelfTrainingDataset'."
            )
        super().__init__(seed, endless)
        self.dataset = dataset

    def __len__(self) -> int:
        """Return the samples of one epoch on this rank; an endless sampler continues after them."""
        return len(self.dataset) // self.world_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield ``(index, position)``."""
        order = _Order(self.seed, _ALL, len(self.dataset))
        for step in self._steps(len(self)):
            position = step * self.world_size + self.rank
            yield order[position], position


class _Order:
    """Entry k of an endless sequence of passes over ``range(length)``, each pass in a new order."""

    def __init__(self, seed: int, kind: int, length: int) -> None:
        self._seed, self._kind, self._length = seed, kind, length
        self._pass: int | None = None
        self._permutation: np.ndarray = np.empty(0, dtype=np.int64)

    def __getitem__(self, position: int) -> int:
        number, place = divmod(position, self._length)
        if number != self._pass:
            # numpy guarantees the output of its bit generators across versions, but not that of `permutation`.
            # A stable sort of raw draws is stable across versions too.
            bits = np.random.PCG64(
                np.random.SeedSequence((self._seed, _STREAM, self._kind, number))
            )
            self._permutation = np.argsort(bits.random_raw(self._length), kind='stable')
            self._pass = number
        return int(self._permutation[place])
