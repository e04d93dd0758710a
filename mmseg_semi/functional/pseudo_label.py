"""Pseudo-labels from the output of a network: class, confidence, and statistics."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._common import (
    check_logits,
    check_map,
    check_same_shape,
    check_tau,
    exact_float,
    image_chunks,
    no_autocast,
    row_strips,
    to_size,
    upsample,
)


@torch.no_grad()
def confidence_and_label(
    logits: Tensor, size: int | tuple[int, int] | None = None, align_corners: bool = False
) -> tuple[Tensor, Tensor]:
    """Most probable class of each pixel and its probability (iMAS, Sec. 3.2, and all methods here).

    The logits are upsampled before the softmax, as in every paper's code. The probability of the largest logit
    is 1 / Σ_c exp(x_c - max x), so one maximum gives both results without a map of all probabilities. Images
    are processed one by one to limit the peak memory.

    Args:
        logits: (N, C, h, w), any floating dtype.
        size: (H, W) of the result, an int for a square. Default: that of the logits.
        align_corners: `align_corners` of the upsampling; mmseg's default is False.

    Returns:
        confidence (N, H, W) in [1/C, 1], float32 (float64 for float64 logits), and label (N, H, W),
        int64; the lower class wins a tie. Neither carries a gradient.

    Raises:
        ValueError: if `logits` is not a floating (N, C, h, w) tensor or `size` is not positive.
    """
    check_logits(logits)
    height, width = logits.shape[-2:] if size is None else to_size(size)
    num_images, num_classes = logits.shape[:2]
    with no_autocast(logits.device):
        logits = exact_float(logits).contiguous()
        confidence = logits.new_empty((num_images, height, width))
        label = confidence.new_empty(confidence.shape, dtype=torch.int64)
        for part in image_chunks(num_images, num_classes * height * width):
            full = upsample(logits[part], (height, width), align_corners)
            for rows in row_strips(full):
                strip = full[:, :, rows]
                top, label[part, rows] = strip.max(dim=1)
                confidence[part, rows] = (strip - top[:, None]).exp_().sum(dim=1).reciprocal_()
            del full  # frees its memory before the next one is computed
    return confidence, label


@torch.no_grad()
def confident_ratio(confidence: Tensor, tau: float, valid_mask: Tensor | None = None) -> Tensor:
    """Fraction of pixels whose confidence is at least `tau` (iMAS, Eq. 4 and 5).

    The paper divides by all pixels of the image. `valid_mask` excludes padding from both counts; an image
    without valid pixels has ratio 0.

    Args:
        confidence: (N, H, W) in [0, 1].
        tau: Threshold in [0, 1], inclusive.
        valid_mask: (N, H, W) bool, True = real pixel.

    Returns:
        (N,) in [0, 1], float32 (float64 for float64 confidence), without a gradient.

    Raises:
        ValueError: if a shape is wrong or `tau` lies outside [0, 1].
    """
    check_map(confidence, 'confidence')
    check_tau(tau)
    confidence = exact_float(confidence)
    confident = confidence >= tau
    if valid_mask is None:
        count = confident.flatten(1).sum(dim=1)
        area = confidence.shape[1] * confidence.shape[2]
        return (count.double() / max(1, area)).to(confidence.dtype)
    check_same_shape(valid_mask, confidence, 'valid_mask', 'confidence')
    valid = valid_mask.bool()
    count = (confident & valid).flatten(1).sum(dim=1)
    total = valid.flatten(1).sum(dim=1)
    return (count.double() / total.clamp(min=1)).to(confidence.dtype)


@torch.no_grad()
def class_counts(label: Tensor, num_classes: int, valid_mask: Tensor | None = None) -> Tensor:
    """Count the pixels of each class.

    Args:
        label: int64 of any shape, in [0, C), or 255, which is not counted.
        num_classes: C.
        valid_mask: bool of the same shape, True = real pixel; other pixels are not counted.

    Returns:
        (C,) int64. Nothing waits for the device.
    """
    ones = torch.ones_like(label) if valid_mask is None else valid_mask.to(label.dtype)
    # Void has its own bin.
    bins = label.clamp(max=num_classes).flatten()
    return label.new_zeros(num_classes + 1).scatter_add_(0, bins, ones.flatten())[:-1]


@torch.no_grad()
def label_entropy(label: Tensor, num_classes: int, valid_mask: Tensor | None = None) -> Tensor:
    """Entropy in nats of the class histogram of label maps: 0 if there is only one class.

    Args:
        label: (N, H, W) int64 in [0, C), or 255, which is not counted.
        num_classes: C.
        valid_mask: (N, H, W) bool, True = real pixel; other pixels are not counted.

    Returns:
        A float32 scalar in [0, ln C]; 0 without any pixel. Nothing waits for the device.
    """
    counts = class_counts(label, num_classes, valid_mask)
    share = counts / counts.sum().clamp(min=1)
    return torch.special.entr(share).sum()


@torch.no_grad()
def average_label(
    logits_list: Sequence[Tensor],
    size: int | tuple[int, int] | None = None,
    align_corners: bool = False,
) -> Tensor:
    """Most probable class in the average of several networks (GPS, Eq. 8).

    It averages probabilities instead of logits, so that one network's large logits do not dominate.

    Args:
        logits_list: One (N, C, h, w) tensor per network; (h, w) may differ.
        size: (H, W) of the result, an int for a square. Default: that of the first logits.
        align_corners: `align_corners` of the upsampling.

    Returns:
        (N, H, W) int64, without a gradient; the lower class wins a tie.

    Raises:
        ValueError: if the list is empty or its tensors differ in N or C.
    """
    logits_list = list(logits_list)
    if not logits_list:
        raise ValueError('logits_list is empty, but needs the logits of at least one network.')
    for logits in logits_list:
        check_logits(logits)
        if logits.shape[:2] != logits_list[0].shape[:2]:
            raise ValueError(
                f'logits_list holds shapes {[tuple(x.shape) for x in logits_list]}, but all '
                'networks must predict the same images and classes.'
            )
    size = to_size(logits_list[0].shape[-2:] if size is None else size)
    num_images, num_classes = logits_list[0].shape[:2]
    label = logits_list[0].new_empty((num_images, *size), dtype=torch.int64)
    with no_autocast(label.device):
        exact = [exact_float(logits).contiguous() for logits in logits_list]
        for part in image_chunks(num_images, num_classes * size[0] * size[1]):
            total = upsample(exact[0][part], size, align_corners).softmax(dim=1)
            for logits in exact[1:]:
                total = total + upsample(logits[part], size, align_corners).softmax(dim=1)
            label[part] = total.max(dim=1).indices
    return label
