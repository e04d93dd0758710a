"""Parts of classes: the part of each pixel, and the mean feature of each part (ESL)."""

from __future__ import annotations

import torch
from torch import Tensor

from ._common import (
    CHUNK_ELEMENTS,
    VOID,
    check_map,
    check_same_shape,
    exact_float,
    no_autocast,
    upsample,
)
from .prototypes import cosine_logits


@torch.no_grad()
def assign_parts(
    features: Tensor,
    label: Tensor,
    prototypes: Tensor,
    *,
    valid: Tensor | None = None,
    align_corners: bool = False,
) -> Tensor:
    """Part of the pixel's class whose prototype is most similar to its feature (ESL, Eq. 7).

    The paper resizes the encoder's features to the label's size before the cosine. Here the C·K cosines are
    computed at the features' size and then resized, which takes a twentieth of the time for 2048 channels.
    Images are processed one by one, with as many classes at a time as `CHUNK_ELEMENTS` allows.

    Args:
        features: (N, D, h, w), any floating dtype, of any length.
        label: (N, H, W) class of each pixel, 255 = void.
        prototypes: (C, K, D).
        valid: (C, K) bool, False if a prototype has no value yet. Default: all have one.
        align_corners: `align_corners` of the upsampling of the cosines.

    Returns:
        (N, H, W) int64 in [0, K), -1 for void pixels; the lower part wins a tie (cosines equal up to 16 units
        in the last place of 1). Invalid prototypes are never chosen; a class without valid prototypes gets part
        0. Nothing waits for the device.

    Raises:
        ValueError: if the shapes do not fit.
    """
    check_map(label, 'label')
    if prototypes.dim() != 3:
        raise ValueError(f'prototypes has shape {tuple(prototypes.shape)}, but must be (C, K, D).')
    num_classes, num_parts = prototypes.shape[:2]
    if features.dim() != 4 or features.shape[:2] != (len(label), prototypes.shape[2]):
        raise ValueError(
            f'features has shape {tuple(features.shape)}, but {len(label)} labels and prototypes '
            f'of {prototypes.shape[2]} channels need ({len(label)}, {prototypes.shape[2]}, h, w).'
        )
    if valid is not None and valid.shape != prototypes.shape[:2]:
        raise ValueError(
            f'valid has shape {tuple(valid.shape)}, but must be {(num_classes, num_parts)}.'
        )
    label, size = label.long(), tuple(label.shape[1:])
    step = max(1, CHUNK_ELEMENTS // max(1, num_parts * size[0] * size[1]))
    part = torch.full_like(label, -1)
    for image in range(len(label)):
        cosines = cosine_logits(features[image : image + 1], prototypes.flatten(0, 1))
        # Equal prototypes may have cosines that differ in the last digits, depending on their rows in the
        # matrix product.
        tie = 16 * torch.finfo(cosines.dtype).eps
        for first in range(0, num_classes, step):
            classes = slice(first, min(first + step, num_classes))
            chunk = cosines[:, classes.start * num_parts : classes.stop * num_parts]
            full = upsample(chunk, size, align_corners)[0].unflatten(0, (-1, num_parts))
            if valid is not None:
                full = full.masked_fill(~valid.bool()[classes, :, None, None], -torch.inf)
            row = label[image] - first
            own = full.gather(0, row.clamp(0, len(full) - 1).expand(1, num_parts, -1, -1))[0]
            here = (row >= 0) & (row < len(full)) & (label[image] != VOID)
            nearest = (own >= own.amax(dim=0) - tie).byte().max(dim=0).indices
            part[image] = torch.where(here, nearest, part[image])
    return part


def masked_average_pool(
    features: Tensor, label: Tensor, part: Tensor, num_classes: int, num_parts: int
) -> tuple[Tensor, Tensor]:
    """Mean feature of every part of every class in each image (ESL, Eq. 8).

    One pass adds each pixel's feature to the sum of its part. The paper's masks, one per part, would read all
    features C·K times. On a CUDA device the order of additions varies.

    Args:
        features: (N, D, h, w), any floating dtype.
        label: (N, h, w) class of each pixel at the features' size, 255 = void.
        part: (N, h, w) in [0, K) from `assign_parts`, -1 = none.
        num_classes: C, larger than every class in `label`.
        num_parts: K.

    Returns:
        means (N, C, K, D), float32 (float64 for float64 features), with gradients to the features, and counts
        (N, C, K) int64, the pixels of each part. A part that the image does not show has mean 0 and count 0.
        Pixels that are void or without a part are not counted. Nothing waits for the device.

    Raises:
        ValueError: if the shapes do not fit or a number is below 1.
    """
    check_map(label, 'label')
    check_same_shape(part, label, 'part', 'label')
    if features.dim() != 4 or features.shape[:1] + features.shape[2:] != label.shape:
        raise ValueError(
            f'features has shape {tuple(features.shape)} and label {tuple(label.shape)}, but they '
            'must be (N, D, h, w) and (N, h, w); resize the label (nearest) to the features.'
        )
    if num_classes < 1 or num_parts < 1:
        raise ValueError(
            f'num_classes is {num_classes} and num_parts {num_parts}, but both must be at least 1.'
        )
    with no_autocast(features.device):
        features = exact_float(features)
        # Row 0 collects uncounted pixels, so that a class >= C raises an error. A part >= K would belong to the
        # next class, so it also gets a row that does not exist.
        row = 1 + label.long().flatten(1) * num_parts + part.long().flatten(1)
        num_rows = 1 + num_classes * num_parts
        row = row.masked_fill((part >= num_parts).flatten(1), num_rows)
        row = row.masked_fill(((label == VOID) | (part < 0)).flatten(1), 0)
        # Add along the pixels in memory order, since converting to channels-last first takes three times
        # longer. index_add, unlike scatter_add, has a deterministic implementation on CUDA.
        sums = features.new_zeros((*features.shape[:2], num_rows))
        counts = row.new_zeros((len(row), num_rows))
        for image in range(len(row)):
            sums[image].index_add_(1, row[image], features[image].flatten(1))
            counts[image].index_add_(0, row[image], torch.ones_like(row[image]))
        shape = (num_classes, num_parts)
        counts = counts[:, 1:].unflatten(1, shape)
        sums = sums[..., 1:].transpose(1, 2).unflatten(1, shape)
        return sums / counts.clamp(min=1)[..., None], counts
