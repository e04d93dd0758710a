"""Agreement of two segmentations of one image: iMAS's hardness and ST++'s stability.

All values are computed from one joint histogram per image in int64: float16 counts overflow at 65504 pixels,
and float32 sums lose units above 2^24.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._common import VOID, check_map, check_same_shape, check_tau, exact_float
from .pseudo_label import confident_ratio

_DEVICE_LANES = 32
_HOST_LANES = 4
_HOST_PIXELS = 1 << 17


def weighted_iou(
    first: Tensor, second: Tensor, num_classes: int, *, ignore_background: bool = False
) -> Tensor:
    """IoU of two label maps, each class weighted by its share of the first (iMAS, Eq. 6).

    wIoU = Σ_c n_1(c) / (H W) · IoU_c, where n_1(c) is the number of pixels of class c in `first`. It is not
    symmetric. A pixel that is 255 in either map is ignored in both, and the weights are divided by the number
    of remaining pixels. The paper sums over all classes. iMAS's code excludes class 0 and normalizes the
    weights over the other classes, which is `ignore_background=True` (the agreement is then 0 if the first map
    has only class 0).

    Args:
        first: (N, H, W) integer classes below `num_classes`, or 255; other values count as 255.
        second: Same as `first`.
        num_classes: C, at most 255.
        ignore_background: Whether to exclude class 0.

    Returns:
        (N,) float32 in [0, 1]; 0 if no pixel remains.

    Raises:
        ValueError: if the shapes differ or `num_classes` is out of range.
    """
    counts = _joint_counts(first, second, num_classes)
    return _weighted_iou(counts, ignore_background).float()


def hardness(
    label_s: Tensor,
    confidence_s: Tensor,
    label_t: Tensor,
    confidence_t: Tensor,
    *,
    tau: float,
    num_classes: int,
    ignore_background: bool = False,
    valid_mask: Tensor | None = None,
) -> Tensor:
    """Hardness of each image for the current model, 1 = hard (iMAS, Sec. 3.2).

    γ = 1 - [ρ_s/2 · wIoU(z_s, z_t) + ρ_t/2 · wIoU(z_t, z_s)], with the confident ratios ρ (Eq. 4, 5) and wIoU
    of Eq. 6. It is symmetric in student and teacher; for equal predictions γ = 1 - ρ. In iMAS's code, variables
    named hardness contain 1 - γ.

    Padding (`valid_mask` False) is ignored, and an image without valid pixels has γ = 1. A valid pixel with a
    void label (255) is ignored only in the IoU; its confidence counts in ρ.

    Args:
        label_s: (N, H, W), the student's classes.
        confidence_s: (N, H, W), the student's confidence in [0, 1].
        label_t: (N, H, W), the teacher's classes.
        confidence_t: (N, H, W), the teacher's confidence.
        tau: Confidence threshold in [0, 1].
        num_classes: C, at most 255.
        ignore_background: Whether to exclude class 0 from the IoU, as in iMAS's released configs.
        valid_mask: (N, H, W) bool, True = real pixel. Default: all pixels.

    Returns:
        (N,) in [0, 1], float32 (float64 for float64 confidences), without a gradient. Computed
        without waiting for the device.

    Raises:
        ValueError: if the shapes differ, or `tau` or `num_classes` is out of range.
    """
    check_tau(tau)
    check_same_shape(confidence_s, label_s, 'confidence_s', 'label_s')
    check_same_shape(confidence_t, label_t, 'confidence_t', 'label_t')
    counts = _joint_counts(label_s, label_t, num_classes, valid_mask)
    ratio_s = confident_ratio(confidence_s, tau, valid_mask)
    ratio_t = confident_ratio(confidence_t, tau, valid_mask)
    agreement = (
        ratio_s * _weighted_iou(counts, ignore_background)
        + ratio_t * _weighted_iou(counts.transpose(1, 2), ignore_background)
    ) / 2
    dtype = torch.promote_types(exact_float(confidence_s).dtype, exact_float(confidence_t).dtype)
    return (1 - agreement).clamp(0, 1).to(dtype)


def pairwise_mean_iou(first: Tensor, second: Tensor, num_classes: int) -> Tensor:
    """Mean IoU of two label maps per image (ST++, meanIOU in Eq. 4).

    The mean is over the classes present in either map, including the background. A class present in only one
    map has IoU 0. A pixel that is 255 in either map is ignored in both.

    Args:
        first: (N, H, W) integer classes below `num_classes`, or 255; other values count as 255.
        second: Same as `first`.
        num_classes: C, at most 255.

    Returns:
        (N,) float32 in [0, 1]; 0 if no pixel remains.

    Raises:
        ValueError: if the shapes differ or `num_classes` is out of range.
    """
    return _mean_iou(_joint_counts(first, second, num_classes)).float()


@torch.no_grad()
def pixel_agreement(first: Tensor, second: Tensor, valid_mask: Tensor | None = None) -> Tensor:
    """Fraction of pixels of a batch with equal labels in two maps; a diagnostic that no paper defines.

    Args:
        first: (N, H, W) integer labels.
        second: Same as `first`.
        valid_mask: (N, H, W) bool, True = real pixel; other pixels are not counted.

    Returns:
        A float32 scalar in [0, 1]; 0 without any pixel. Nothing waits for the device.

    Raises:
        ValueError: if the shapes differ.
    """
    check_same_shape(second, first, 'second', 'first')
    same = first == second
    if valid_mask is None:
        return same.float().mean()
    check_same_shape(valid_mask, first, 'valid_mask', 'first')
    return (same & valid_mask).sum() / valid_mask.sum().clamp(min=1)


def stability(masks: Tensor, num_classes: int) -> float:
    """Stability of an image's segmentation over K checkpoints of one training (ST++, Eq. 4).

    s = Σ_{k<K} meanIOU(M_k, M_K). ST++'s code divides by K - 1, which gives the same ranking.

    Args:
        masks: (K, H, W) integer classes or 255 from K checkpoints, in order.
        num_classes: C, at most 255.

    Returns:
        A float in [0, K - 1]; 0 for K = 1. This waits for the device, so do not call it in a training step.

    Raises:
        ValueError: if there is no mask or `num_classes` is out of range.
    """
    check_map(masks, 'masks')
    return float(stabilities(masks[:, None], num_classes)[0])


def stabilities(masks: Tensor, num_classes: int) -> Tensor:
    """`stability` of several images of one size, without waiting for the device (ST++, Eq. 4).

    Args:
        masks: (K, N, H, W) integer classes or 255 of N images from K checkpoints, in order.
        num_classes: C, at most 255.

    Returns:
        (N,) float64 in [0, K - 1]; 0 for K = 1.

    Raises:
        ValueError: if there is no mask or `num_classes` is out of range.
    """
    if masks.dim() != 4:
        raise ValueError(f'masks has shape {tuple(masks.shape)}, but must be (K, N, H, W).')
    if len(masks) == 0:
        raise ValueError('masks holds no mask, but stability needs at least one checkpoint.')
    last = masks[-1:].expand_as(masks[:-1])
    counts = _joint_counts(masks[:-1].flatten(0, 1), last.flatten(0, 1), num_classes)
    return _mean_iou(counts).view(len(masks) - 1, masks.shape[1]).sum(dim=0)


def _weighted_iou(counts: Tensor, ignore_background: bool) -> Tensor:
    """Eq. 6 of iMAS from (N, C, C) joint counts, in float64."""
    iou, size, _ = _class_iou(counts)
    if ignore_background:
        iou, size = iou[:, 1:], size[:, 1:]
    return (iou * size).sum(dim=1) / size.sum(dim=1).clamp(min=1)


def _mean_iou(counts: Tensor) -> Tensor:
    """Mean IoU over the classes present, from (N, C, C) joint counts, in float64."""
    iou, _, union = _class_iou(counts)
    return iou.sum(dim=1) / (union > 0).sum(dim=1).clamp(min=1)


def _class_iou(counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """IoU, pixels in the first map and union per class, each (N, C); an absent class has IoU 0."""
    intersection = counts.diagonal(dim1=1, dim2=2)
    size = counts.sum(dim=2)
    union = size + counts.sum(dim=1) - intersection
    return intersection.double() / union.clamp(min=1), size, union


@torch.no_grad()
def _joint_counts(
    first: Tensor, second: Tensor, num_classes: int, valid_mask: Tensor | None = None
) -> Tensor:
    """Count the pixels of each image with class i in `first` and j in `second`: (N, C, C) int64.

    Void and padding share one extra class, which is removed at the end.
    """
    check_map(first, 'first label map')
    check_same_shape(second, first, 'second label map', 'the first')
    if not 1 <= num_classes <= VOID:
        raise ValueError(f'num_classes is {num_classes}, but must be between 1 and {VOID}.')
    side = num_classes + 1
    if valid_mask is not None:
        check_same_shape(valid_mask, first, 'valid_mask', 'the labels')
        first = first.masked_fill(~valid_mask.bool(), VOID)
    count = _count_on_host if first.device.type == 'cpu' else _count_on_device
    counts = count(first.flatten(1), second.flatten(1), side)
    return counts.view(len(first), side, side)[:, :num_classes, :num_classes]


def _count_on_host(first: Tensor, second: Tensor, side: int) -> Tensor:
    """Compute a joint histogram by `bincount` with the smallest key type, for as many images as fit the cache.

    Most pixels of an image have the same key, and an addition waits for the previous one at the same address.
    So neighboring pixels are counted in different lanes.
    """
    (num_images, num_pixels), num_keys = first.shape, side * side
    largest = torch.iinfo(torch.int16).max
    lanes = max(1, min(_HOST_LANES, largest // num_keys))
    dtype = torch.int16 if num_keys * lanes <= largest else torch.int32
    lane = (torch.arange(1024) % lanes * num_keys).to(dtype)
    lane = lane.repeat(-(-num_pixels // len(lane)))[:num_pixels]
    counts = torch.zeros((num_images, lanes * num_keys), dtype=torch.int64)
    step = max(1, _HOST_PIXELS // max(1, num_pixels))
    for start in range(0, num_images, step):
        part = slice(start, start + step)
        key = _narrow(first[part], dtype, side).mul_(side)
        key.add_(_narrow(second[part], dtype, side)).add_(lane)
        for image, of_image in zip(key, counts[part], strict=True):
            of_image.copy_(torch.bincount(image, minlength=lanes * num_keys))
    return counts.view(num_images, lanes, num_keys).sum(dim=1)


def _narrow(label: Tensor, dtype: torch.dtype, side: int) -> Tensor:
    """Copy a map to another dtype, with all values that are not classes in one extra class."""
    if label.dtype == torch.uint8:
        return label.clamp(max=side - 1).to(dtype)
    return label.to(dtype, copy=True).clamp_(max=side - 1)


def _count_on_device(first: Tensor, second: Tensor, side: int) -> Tensor:
    """Compute a joint histogram by integer atomics, since `bincount` waits for the device on CUDA.

    Most pixels of an image have the same key, and additions to one address are serialized. So neighboring
    pixels are counted in different lanes.
    """
    num_images, num_pixels = first.shape
    lane = torch.arange(num_pixels, device=first.device) % _DEVICE_LANES
    first, second = (x.long().clamp(max=side - 1) for x in (first, second))
    key = first * side + second + lane * (side * side)
    counts = torch.zeros(
        (num_images, _DEVICE_LANES * side * side), dtype=torch.int32, device=first.device
    )
    one = torch.ones((), dtype=torch.int32, device=first.device)
    counts.scatter_add_(1, key, one.expand_as(key))
    return counts.view(num_images, _DEVICE_LANES, side * side).sum(dim=1)
