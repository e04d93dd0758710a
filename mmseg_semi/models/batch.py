"""The images, labels and valid masks of one iteration, by branch, as methods read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

VOID = 255
"""What the methods and :mod:`mmseg_semi.functional` have for a pixel without a label."""


def with_void(label: Tensor, ignore_index: int) -> Tensor:
    """Labels in which the pixels of ``ignore_index`` are 255."""
    return label if ignore_index == VOID else label.masked_fill(label == ignore_index, VOID)


@dataclass(frozen=True)
class LabeledImages:
    """Labeled images.

    Attributes:
        images (Tensor): (B, 3, H, W), normalized.
        samples (Sequence[SegDataSample]): Their labels, as the heads of MMSegmentation take them.
        ignore_index (int): The label of void pixels in them.
    """

    images: Tensor
    samples: Sequence
    ignore_index: int = VOID

    @cached_property
    def label(self) -> Tensor:
        """int64 (B, H, W), 255 where there is none, whatever the ignore index is."""
        label = torch.cat([sample.gt_sem_seg.data for sample in self.samples]).long()
        return with_void(label, self.ignore_index)

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class UnlabeledImages:
    """One view of the unlabeled images.

    Attributes:
        images (Tensor): (N, 3, H, W), normalized.
        samples (Sequence[SegDataSample]): Their valid masks.
        ignore_padding (bool): False counts padding as image.
    """

    images: Tensor
    samples: Sequence
    ignore_padding: bool = True

    @cached_property
    def real(self) -> Tensor:
        """bool (N, H, W), False where a pixel is padding, for the statistics of what images show."""
        return torch.cat([sample.valid_mask.data for sample in self.samples]).bool()

    @cached_property
    def valid(self) -> Tensor:
        """bool (N, H, W), True where a pixel is learned from: not on padding, or everywhere."""
        return self.real if self.ignore_padding else torch.ones_like(self.real)

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Batch:
    """One iteration's preprocessed batch; a branch that it lacks is None.

    Attributes:
        labeled (LabeledImages): The labeled images.
        weak (UnlabeledImages, optional): The weak views of the unlabeled images.
        strong (UnlabeledImages, optional): Strong views of the same images.
        strong2 (UnlabeledImages, optional): Further strong views of them.
        left (dict): What one update of a method leaves for the next one on the same batch (GPS).
    """

    labeled: LabeledImages
    weak: UnlabeledImages | None = None
    strong: UnlabeledImages | None = None
    strong2: UnlabeledImages | None = None
    left: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of all images."""
        return tuple(self.labeled.images.shape[-2:])

    @classmethod
    def of(
        cls,
        inputs: dict[str, Tensor],
        data_samples: dict[str, list],
        unlabeled: Sequence[str],
        *,
        ignore_padding: bool = True,
        ignore_index: int = VOID,
        method: str = 'the method',
    ) -> Batch:
        """Sort what the data preprocessor returns into branches.

        Args:
            inputs (dict[str, Tensor]): Images (n, 3, H, W) by branch.
            data_samples (dict[str, list[SegDataSample]]): Labels or valid masks by branch.
            unlabeled (Sequence[str]): Unlabeled branches that the method needs; others are left out.
            ignore_padding (bool): False counts padding as image.
            ignore_index (int): The label of void pixels in the samples.
            method (str): Its name, for errors.

        Raises:
            ValueError: The batch has no branches, or lacks one that is needed.
        """
        if not isinstance(inputs, dict):
            raise ValueError(
                f'{method} needs a batch of named branches, got a {type(inputs).__name__}. Use '
                'LabeledUnlabeledDataset and collate_branches in train_dataloader.'
            )
        for branch in ('labeled', *unlabeled):
            if branch not in inputs:
                raise ValueError(
                    f'{method} needs the branch {branch!r}, and the batch has {", ".join(sorted(inputs))}. '
                    'Check the sampler (labeled, unlabeled) and MultiBranch in train_dataloader.'
                )
        return cls(
            LabeledImages(inputs['labeled'], data_samples['labeled'], ignore_index),
            **{
                branch: UnlabeledImages(inputs[branch], data_samples[branch], ignore_padding)
                for branch in unlabeled
            },
        )
