"""Prototypes and memory banks of features of classes or of their parts.

They are buffers, so that checkpoints contain them. Values of all ranks are gathered in the order of the ranks,
so that the buffers are equal on every rank. Nothing here waits for the device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from mmengine.dist import all_gather
from torch import Tensor, nn

from ..functional.parts import assign_parts
from ..functional.prototypes import update_prototypes


def mean_over_ranks(means: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return means (..., D) and counts (...) over the images of all ranks.

    Args:
        means (Tensor): (N, ..., D), mean of each image of this rank.
        counts (Tensor): int64 (N, ...), number of pixels of each mean.
    """
    return _divided_over_ranks((means * counts[..., None]).sum(dim=0), counts.sum(dim=0))


def _divided_over_ranks(sums: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return means (..., D) and counts (...) of all ranks from the sums and counts of this rank."""
    # Summed in the order of the ranks, so that all ranks get bitwise the same result.
    sums = torch.stack(all_gather(sums)).sum(dim=0)
    counts = torch.stack(all_gather(counts)).sum(dim=0)
    return sums / counts.clamp(min=1)[..., None], counts


class OncePerStep(nn.Module, ABC):
    """Base class of modules that are updated once per optimizer step, by means over all its micro-batches.

    A method calls :meth:`collect` in each micro-batch. The base class of the methods calls :meth:`commit` after
    the optimizer step, and :meth:`discard` at the start of a step, to remove values of a skipped step.
    Checkpoints do not contain the sums, because they are saved between two steps.

    Args:
        *shape (int): Shape (..., D) of the means.
    """

    def __init__(self, *shape: int) -> None:
        super().__init__()
        counts = torch.zeros(shape[:-1], dtype=torch.int64)
        self.register_buffer('pending_sums', torch.zeros(shape), persistent=False)
        self.register_buffer('pending_counts', counts, persistent=False)

    @torch.no_grad()
    def collect(self, means: Tensor, counts: Tensor) -> None:
        """Add the images of a micro-batch.

        Args:
            means (Tensor): (N, ..., D), mean of each image of this rank.
            counts (Tensor): int64 (N, ...), number of pixels of each mean.
        """
        self.pending_sums += (means * counts[..., None]).sum(dim=0)
        self.pending_counts += counts.sum(dim=0)

    @torch.no_grad()
    def commit(self) -> dict[str, Tensor]:
        """Update by the mean over the step's images of all ranks. Returns scalars for the log."""
        means, counts = _divided_over_ranks(self.pending_sums, self.pending_counts)
        self.discard()
        return self.follow(means, counts)

    def discard(self) -> None:
        """Discard the collected values."""
        self.pending_sums.zero_()
        self.pending_counts.zero_()

    @abstractmethod
    def follow(self, means: Tensor, counts: Tensor) -> dict[str, Tensor]:
        """Update by the means (..., D) and counts (...) of a step, which are equal on all ranks.

        Returns:
            dict[str, Tensor]: Scalars for the log.
        """


class _Memory(nn.Module):
    """Buffers that must have the same shape in a checkpoint. MMEngine would only log a difference."""

    #: Settings that define the shapes, for errors.
    settings = 'num_parts, queue_size and projector'

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        for name, buffer in self.named_buffers(recurse=False):
            saved = state_dict.get(prefix + name)
            if saved is not None and saved.shape != buffer.shape:
                raise ValueError(
                    f"the checkpoint's '{prefix}{name}' has shape {tuple(saved.shape)} but this config needs "
                    f'{tuple(buffer.shape)}. Set {self.settings} as in the training that saved it, or load '
                    'a plain checkpoint of the network.'
                )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class PartPrototypes(OncePerStep, _Memory):
    """A unit vector in the encoder's feature space for each part of each class (ESL, Eq. 7 and 12).

    Args:
        num_classes (int): C.
        num_parts (int): K.
        channels (int): D of the encoder's features.
        decay (float): theta of Eq. 12, the weight of the old prototype.
    """

    def __init__(
        self, num_classes: int, num_parts: int, channels: int, decay: float = 0.99
    ) -> None:
        super().__init__(num_classes, num_parts, channels)
        self.decay = decay
        self.register_buffer('vectors', torch.zeros(num_classes, num_parts, channels))
        self.register_buffer('valid', torch.zeros(num_classes, num_parts, dtype=torch.bool))
        # Whether the prototypes are initialized from the labeled images. Classes without pixels stay invalid.
        self.register_buffer('ready', torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def start(self, label: int, centers: Tensor) -> None:
        """Set the first K' <= K parts of one class, (K', D)."""
        self.vectors[label, : len(centers)] = centers.to(self.vectors)
        self.valid[label, : len(centers)] = True

    def assign(self, features: Tensor, label: Tensor, align_corners: bool = False) -> Tensor:
        """Return the part (N, H, W) of each pixel of a label map, see :func:`assign_parts`."""
        return assign_parts(
            features, label, self.vectors, valid=self.valid, align_corners=align_corners
        )

    @torch.no_grad()
    def follow(self, means: Tensor, counts: Tensor) -> dict[str, Tensor]:
        """Move towards the mean of each part (Eq. 12).

        Parts without pixels do not change. Parts without a value are set to the mean. Means that are not finite
        are ignored.

        Args:
            means (Tensor): (C, K, D) of the step.
            counts (Tensor): int64 (C, K), number of pixels of each mean.
        """
        present = (counts > 0) & means.isfinite().all(dim=-1)
        moved = update_prototypes(self.vectors, means, present, self.decay, initialised=self.valid)
        self.vectors.copy_(moved)
        self.valid.logical_or_(present)
        return {}


class FeatureQueues(_Memory):
    """First-in-first-out queues of features, stored in one buffer.

    Args:
        capacities (Sequence[int]): Maximum entries of each of the Q queues.
        channels (int): D of the features.
    """

    def __init__(self, capacities: Sequence[int], channels: int) -> None:
        super().__init__()
        limits = torch.tensor(capacities, dtype=torch.int64)
        # Capacity and first row of each queue.
        self.register_buffer('limits', limits, persistent=False)
        self.register_buffer('starts', limits.cumsum(0) - limits, persistent=False)
        # Values that are not stored go to the last row. Boolean indexing would wait for the device.
        self.register_buffer('rows', torch.zeros(sum(capacities) + 1, channels))
        # Position of the next entry and number of entries of each queue.
        self.register_buffer('cursor', torch.zeros(len(limits), dtype=torch.int64))
        self.register_buffer('fill', torch.zeros(len(limits), dtype=torch.int64))

    @property
    def entries(self) -> Tensor:
        """The stored features, one per row. The first ``fill`` rows of a queue are in use."""
        return self.rows[:-1]

    @torch.no_grad()
    def append(self, features: Tensor, present: Tensor) -> None:
        """Append the features of all ranks, rank by rank and row by row.

        Args:
            features (Tensor): (N, Q, D), with the same N on all ranks.
            present (Tensor): bool (N, Q), False for features to skip. Non-finite features are also skipped.
        """
        # NCCL refuses tensors that are not contiguous.
        features = torch.cat(all_gather(features.to(self.rows).contiguous()))
        present = torch.cat(all_gather(present.contiguous())) & features.isfinite().all(dim=-1)
        place = present.cumsum(dim=0) - 1
        number = present.sum(dim=0)
        # If there are more features than the queue can hold, keep the last ones.
        stored = present & (place >= number - self.limits)
        row = self.starts + (self.cursor + place) % self.limits
        row = row.masked_fill(~stored, len(self.rows) - 1)
        self.rows.index_copy_(0, row.flatten(), features.flatten(0, 1))
        self.rows[-1].zero_()
        self.cursor.add_(number).remainder_(self.limits)
        self.fill.copy_(torch.minimum(self.fill + number, self.limits))


class PartMemoryBank(FeatureQueues):
    """A first-in-first-out queue of features for each part of each class (ESL, Sec. 3.3).

    The rows of queue ``class * K + part`` start at this number times the capacity.

    Args:
        num_classes (int): C.
        num_parts (int): K.
        capacity (int): q, maximum entries of a queue.
        channels (int): D of the features.
    """

    def __init__(self, num_classes: int, num_parts: int, capacity: int, channels: int) -> None:
        super().__init__([capacity] * (num_classes * num_parts), channels)
        self.capacity = capacity

    def push(self, means: Tensor, present: Tensor) -> None:
        """Append the means of parts in the images of all ranks, rank by rank and image by image (Eq. 8).

        Args:
            means (Tensor): (N, C, K, D), with the same N on all ranks.
            present (Tensor): bool (N, C, K), False for means to skip. Non-finite means are also skipped.
        """
        self.append(means.flatten(1, 2), present.flatten(1))


class NegativeMemoryBank(FeatureQueues):
    """A first-in-first-out queue of negatives for each class (U2PL, Sec. 3.3).

    Args:
        num_classes (int): C.
        capacity (int): Maximum entries of a queue.
        background_capacity (int): Maximum entries of the queue of class 0.
        channels (int): D of the features.
    """

    settings = 'queue_size, background_queue_size and representation'

    def __init__(
        self, num_classes: int, capacity: int, background_capacity: int, channels: int
    ) -> None:
        super().__init__([background_capacity] + [capacity] * (num_classes - 1), channels)
