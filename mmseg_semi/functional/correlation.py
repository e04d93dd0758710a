"""Correlation of all pairs of pixels of an image, and propagation of logits and labels by it (CorrMatch)."""

from __future__ import annotations

import torch
from torch import Tensor

from ._common import (
    VOID,
    check_logits,
    check_map,
    check_same_shape,
    exact_float,
    no_autocast,
    upsample,
)


def correlation_map(query: Tensor, key: Tensor) -> Tensor:
    """Softmax over j of the scaled products q_i · k_j / sqrt(K) (CorrMatch, its code's `Corr`).

    Args:
        query: (N, K, h, w), any floating dtype; its pixels are the rows.
        key: (N, K, h, w), its pixels are the columns.

    Returns:
        (N, hw, hw) float32 (float64 for float64 features); each row sums to 1.

    Raises:
        ValueError: if the shapes differ.
    """
    check_logits(query)
    check_same_shape(key, query, 'key', 'query')
    with no_autocast(query.device):
        query, key = (exact_float(x).flatten(2) for x in (query, key))
        return (query.mT @ key / query.shape[1] ** 0.5).softmax(dim=-1)


def propagate_logits(logits: Tensor, correlation: Tensor) -> Tensor:
    """Propagate logits: pixel j gets Σ_i A_ij times the logits of pixel i (CorrMatch code, `Corr`).

    The rows of A sum to 1, but not the columns, so a pixel with a large column sum gets larger logits. The
    input logits are constants: gradients flow only into A.

    Args:
        logits: (N, C, h', w'), any floating dtype, at the resolution of the correlation map.
        correlation: (N, h'w', h'w'), result of :func:`correlation_map`.

    Returns:
        (N, C, h', w'), in the dtype of `correlation`.

    Raises:
        ValueError: if the shapes do not fit.
    """
    check_logits(logits)
    pixels = logits.shape[2] * logits.shape[3]
    if correlation.shape != (len(logits), pixels, pixels):
        raise ValueError(
            f'correlation has shape {tuple(correlation.shape)}, but logits of shape '
            f'{tuple(logits.shape)} need {(len(logits), pixels, pixels)}.'
        )
    with no_autocast(logits.device):
        flat = logits.detach().to(correlation.dtype).flatten(2)
        return (flat @ correlation).unflatten(2, logits.shape[2:])


@torch.no_grad()
def correlation_region(
    row: Tensor, size: tuple[int, int], threshold: float = 0.5, align_corners: bool = False
) -> Tensor:
    """Pixels that correlate with one pixel: the map, scaled to [0, 1], exceeds a threshold.

    Args:
        row: (N, h, w), one row of each image's correlation map.
        size: (H, W) of the result.
        threshold: Threshold of the upsampled and scaled map, in [0, 1), exclusive.
        align_corners: `align_corners` of the upsampling.

    Returns:
        (N, H, W) bool; all False if a map is constant.
    """
    check_map(row, 'row')
    full = upsample(exact_float(row)[:, None], size, align_corners)[:, 0]
    low, high = full.amin(dim=(1, 2), keepdim=True), full.amax(dim=(1, 2), keepdim=True)
    return full - low > threshold * (high - low)


@torch.no_grad()
def propagate_labels(
    label: Tensor,
    confident: Tensor,
    rows: Tensor,
    allowed: Tensor,
    tau: float | Tensor,
    num_classes: int,
    threshold: float = 0.5,
    align_corners: bool = False,
) -> tuple[Tensor, Tensor]:
    """Assign a whole region the class of nearly all of its confident pixels (CorrMatch code).

    Each row of the correlation map defines a region, restricted to `allowed`, one after the other. If at least
    the fraction `tau` of its pixels is confident, and more than `tau` of these have the same class, all pixels
    of the region get this class and count. A later region uses the labels changed by earlier ones, but the
    initial confident pixels.

    Args:
        label: (N, H, W) int64 classes, 255 = void.
        confident: (N, H, W) bool.
        rows: (N, M, h, w), rows of the correlation maps.
        allowed: (N, H, W) bool, pixels that may belong to a region.
        tau: Threshold in [0, 1], a number or a scalar tensor.
        num_classes: C.
        threshold: See :func:`correlation_region`.
        align_corners: `align_corners` of the upsampling.

    Returns:
        The labels (N, H, W), and the counted pixels, bool (N, H, W). Nothing waits for the device.

    Raises:
        ValueError: if a shape is wrong.
    """
    check_map(label, 'label')
    check_same_shape(confident, label, 'confident', 'label')
    check_same_shape(allowed, label, 'allowed', 'label')
    sure = confident & (label != VOID)
    counted = confident
    height, width = label.shape[1:]
    for row in rows.unbind(dim=1):
        region = correlation_region(row, (height, width), threshold, align_corners) & allowed
        core = region & sure
        counts = label.new_zeros(len(label), num_classes + 1)
        bins = label.clamp(max=num_classes).flatten(1)
        counts.scatter_add_(1, bins, core.flatten(1).to(counts.dtype))
        most, top = counts[:, :num_classes].max(dim=1)
        inside, number = region.sum(dim=(1, 2)), core.sum(dim=(1, 2))
        agreed = (number > 0) & (number >= tau * inside) & (most > tau * number)
        changed = region & agreed[:, None, None]
        label = torch.where(changed, top[:, None, None], label)
        counted = counted | changed
    return label, counted


@torch.no_grad()
def class_maxima(label: Tensor, confidence: Tensor, num_classes: int, valid_mask: Tensor) -> Tensor:
    """Largest confidence of the valid pixels of each class (CorrMatch code, `ThreshController`).

    Args:
        label: (N, H, W) int64 classes, 255 = void.
        confidence: (N, H, W) in [0, 1].
        num_classes: C.
        valid_mask: (N, H, W) bool, True = real pixel.

    Returns:
        (C,) in [0, 1], 0 for a class that no pixel has.
    """
    bins = label.clamp(max=num_classes).flatten()
    values = confidence.masked_fill(~valid_mask, 0).flatten()
    return values.new_zeros(num_classes + 1).scatter_reduce_(0, bins, values, 'amax')[:-1]


__all__ = [
    'class_maxima',
    'correlation_map',
    'correlation_region',
    'propagate_labels',
    'propagate_logits',
]
