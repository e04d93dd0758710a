"""Images, labels and valid masks of one iteration, by branch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

VOID = 255
"""Label of void pixels in the methods and in :mod:`mmseg_semi.functional`."""


def with_void(label: Tensor, ignore_index: int) -> Tensor:
    """Replace ``ignore_index`` in labels by 255."""
    return label if ignore_index == VOID else label.masked_fill(label == ignore_index, VOID)


@dataclass(frozen=True)
class LabeledImages:
    """Labeled images.

    Attributes:
        images (Tensor): (B, 3, H, W), normalized.
        samples (Sequence[SegDataSample]): Their labels, in the format of MMSegmentation's heads.
        ignore_index (int): The label of void pixels in ``samples``.
    """

    images: Tensor
    samples: Sequence
    ignore_index: int = VOID

    @cached_property
    def label(self) -> Tensor:
        """int64 (B, H, W). Void pixels are 255 for any ``ignore_index``."""
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
        ignore_padding (bool): False treats padding as a part of the image.
    """

    images: Tensor
    samples: Sequence
    ignore_padding: bool = True

    @cached_property
    def real(self) -> Tensor:
        """bool (N, H, W), False for padding. Use it for statistics of the images."""
        return torch.cat([sample.valid_mask.data for sample in self.samples]).bool()

    @cached_property
    def valid(self) -> Tensor:
        """bool (N, H, W), True for pixels in the loss: all, or all but padding with ``ignore_padding``."""
        return self.real if self.ignore_padding else torch.ones_like(self.real)

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Batch:
    """Preprocessed batch of one iteration. A missing branch is None.

    Attributes:
        labeled (LabeledImages): The labeled images.
        weak (UnlabeledImages, optional): The weak views of the unlabeled images.
        strong (UnlabeledImages, optional): Strong views of the same images.
        strong2 (UnlabeledImages, optional): Second strong views of the same images.
        left (dict): Values that one update of a method keeps for the next one on the same batch (GPS).
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
        """Group the output of the data preprocessor into branches.

        Args:
            inputs (dict[str, Tensor]): Images (n, 3, H, W) by branch.
            data_samples (dict[str, list[SegDataSample]]): Labels or valid masks by branch.
            unlabeled (Sequence[str]): Unlabeled branches that the method needs; others are ignored.
            ignore_padding (bool): False treats padding as a part of the image.
            ignore_index (int): The label of void pixels in the samples.
            method (str): Name of the method in errors.

        Raises:
            ValueError: The batch has no branches, a required branch is missing, or the views of an unlabeled
                image have different sizes or flips.
        """
        if not isinstance(inputs, dict):
            raise ValueError(
                f'{method} needs a batch with named branches, got a {type(inputs).__name__}. Use '
                'LabeledUnlabeledDataset and collate_branches in train_dataloader.'
            )
        for branch in ('labeled', *unlabeled):
            if branch not in inputs:
                raise ValueError(
                    f'{method} needs the branch {branch!r}, but the batch has {", ".join(sorted(inputs))}. '
                    'Check the sampler (labeled, unlabeled) and MultiBranch in train_dataloader.'
                )
        _check_geometry({branch: data_samples[branch] for branch in unlabeled})
        return cls(
            LabeledImages(inputs['labeled'], data_samples['labeled'], ignore_index),
            **{
                branch: UnlabeledImages(inputs[branch], data_samples[branch], ignore_padding)
                for branch in unlabeled
            },
        )


#: Meta information in which all views of an unlabeled image agree. ``MultiBranch`` sets the last one.
GEOMETRY = ('img_shape', 'scale_factor', 'flip', 'flip_direction', 'lies_on')


def _check_geometry(samples: dict[str, Sequence]) -> None:
    """Reject views of an image that do not lie on each other, as pseudo-labels need."""
    for views in zip(*samples.values(), strict=True):
        metas = dict(zip(samples, (getattr(view, 'metainfo', {}) for view in views), strict=True))
        first = next(iter(metas.values()), {})
        for key in GEOMETRY:
            if any(meta.get(key) != first.get(key) for meta in metas.values()):
                said = 'moved_by' if key == 'lies_on' else key
                given = ', '.join(f'{name}: {meta.get(said)}' for name, meta in metas.items())
                raise ValueError(
                    f'The views of {first.get("img_path")} differ in {said} ({given}), but the pseudo-labels '
                    'of one view are the targets of the others. Move the transforms that resize, crop, rotate '
                    'or flip before MultiBranch.'
                )
