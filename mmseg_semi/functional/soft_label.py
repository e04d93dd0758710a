"""Dynamic soft labels of ESL, which keep the dominant classes of a pixel."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ._common import check_teacher_logits, exact_float, image_chunks, no_autocast
from .losses import soft_cross_entropy
from .mixing import upsample_and_paste

_CACHED_PIXELS = 1 << 13
"""Pixels that the CPU processes at once, to fit its cache."""


@torch.no_grad()
def dominant_soft_label(probs: Tensor, eta: float) -> Tensor:
    """Soft label over the dominant classes of each pixel (ESL, Eq. 3-5).

    Sort a pixel's probabilities in decreasing order. C* is the smallest number of classes whose sum reaches
    `eta`, and δ is the C*-th probability. Every class with p ≥ δ is dominant, including all ties at δ. p_{C*,j}
    in Eq. 4 means the C*-th of the sorted vector. If the sum of all classes is below `eta` by rounding, all are
    dominant.

    Images are independent, so the function may be called image by image to save memory. Nothing waits for the
    device. On the CPU, only pixels whose largest probability is below `eta` are sorted, with the same result.

    Args:
        probs: (N, C, H, W) probabilities, any floating dtype.
        eta: Total probability that the dominant classes must reach, in (0, 1].

    Returns:
        (N, C, H, W), float32 (float64 for float64 probabilities), without a gradient. Each pixel sums to 1 and
        is 0 outside its dominant classes.

    Raises:
        ValueError: if `probs` is not a floating (N, C, H, W) tensor or `eta` lies outside (0, 1].
    """
    _check_probs(probs)
    if not 0 < eta <= 1:
        raise ValueError(f'eta is {eta}, but a share of probability to reach lies in (0, 1].')
    on_cpu = probs.device.type == 'cpu'
    with no_autocast(probs.device):
        probs = exact_float(probs)
        soft = torch.empty_like(probs, memory_format=torch.contiguous_format)
        for image, target in zip(probs.flatten(2), soft.flatten(2), strict=True):
            pixels = _CACHED_PIXELS if on_cpu else max(1, image.shape[1])
            for p, y in zip(image.split(pixels, 1), target.split(pixels, 1), strict=True):
                delta = _delta_on_cpu(p, eta) if on_cpu else _delta(p.neg().sort(dim=0).values, eta)
                # Writing a comparison into floats is several times faster than into booleans.
                torch.ge(p, delta, out=y)
                y.mul_(p).div_(y.sum(dim=0))
    return soft


@torch.no_grad()
def top_soft_label(probs: Tensor, num: int) -> Tensor:
    """Soft label over the `num` most probable classes of each pixel (ESL, ablation).

    With `num=1` it is the one-hot hard label.

    Args:
        probs: (N, C, H, W) probabilities, any floating dtype.
        num: Number of classes to keep, at least 1; C or more keeps all.

    Returns:
        (N, C, H, W), see `dominant_soft_label`. Of tied classes one is kept, always the same on one device.

    Raises:
        ValueError: if `probs` is not a floating (N, C, H, W) tensor or `num` is below 1.
    """
    _check_probs(probs)
    if num < 1:
        raise ValueError(f'num is {num}, but at least 1 class must be kept.')
    with no_autocast(probs.device):
        probs = exact_float(probs)
        if num == 1:
            top, kept = probs.max(dim=1, keepdim=True)
        else:
            top, kept = probs.topk(min(num, probs.shape[1]), dim=1)
        return torch.zeros_like(probs).scatter_(1, kept, top / top.sum(dim=1, keepdim=True))


def soft_label_cross_entropy(
    logits: Tensor,
    teacher_logits: Tensor,
    size: tuple[int, int],
    soft_label: Callable[[Tensor], Tensor],
    *,
    partner: Tensor | None = None,
    boxes: Tensor | None = None,
    valid_mask: Tensor | None = None,
    align_corners: bool = False,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of student logits against soft labels of teacher logits, image by image (ESL, Eq. 3-6).

    The teacher's logits are upsampled, mixed, converted to probabilities and soft labels, and compared, for as
    many images at a time as `CHUNK_ELEMENTS` allows. So no full-resolution (N, C, H, W) tensor of the batch
    exists. A soft label depends only on its own pixel, so mixing the logits equals mixing the soft labels.

    Args:
        logits: (N, C, h, w) of the student, any floating dtype.
        teacher_logits: (N, C, h', w') of the teacher for the unmixed images; no gradient flows into them.
        size: (H, W) of the images.
        soft_label: Function from probabilities (n, C, H, W) to targets of the same shape.
        partner: (N,) int64, the image pasted into each image; requires `boxes`.
        boxes: (N, 4) int64, see `mixing.paste`.
        valid_mask: (N, H, W) bool of the mixed images, True = real pixel; other pixels add nothing, but the
            divisor remains H W.
        align_corners: `align_corners` of the upsampling.

    Returns:
        The loss of each image (N,), float32 (float64 for float64 logits), and the numbers of (valid)
        pixels with one, two and more classes in their target, (3,) int64.

    Raises:
        ValueError: if the shapes do not fit.
    """
    check_teacher_logits(teacher_logits, logits)
    teacher_logits = teacher_logits.detach()
    classes_at = torch.zeros(3, dtype=torch.int64, device=logits.device)
    values = []
    for part in image_chunks(len(logits), logits.shape[1] * size[0] * size[1]):
        valid = None if valid_mask is None else valid_mask[part]
        with torch.no_grad(), no_autocast(logits.device):
            full = upsample_and_paste(
                teacher_logits,
                size,
                images=part,
                partner=partner,
                boxes=boxes,
                align_corners=align_corners,
            )
            target = soft_label(full.softmax(dim=1))
            del full  # frees its memory before the loss is computed
            number = target.count_nonzero(dim=1)
            if valid is not None:
                number = number.masked_fill(~valid, 0)
            classes_at += torch.stack(
                [(number == 1).sum(), (number == 2).sum(), (number > 2).sum()]
            )
        values.append(
            soft_cross_entropy(logits[part], target, valid_mask=valid, align_corners=align_corners)
        )
        del target
    return torch.cat(values), classes_at


def _check_probs(probs: Tensor) -> None:
    if probs.dim() != 4 or not probs.is_floating_point():
        raise ValueError(
            f'probs is a {probs.dtype} tensor of shape {tuple(probs.shape)}, but must be floating '
            'point and (N, C, H, W).'
        )


def _delta_on_cpu(probs: Tensor, eta: float) -> Tensor:
    """Return δ of (C, M) probabilities, sorting only the pixels that need more than one class."""
    delta = probs.amax(dim=0)
    undecided = (delta < eta).nonzero().squeeze(1)
    if len(undecided):
        # numpy sorts short vectors five times faster than torch does on the CPU.
        falling = probs.index_select(1, undecided).neg_().numpy()
        falling.sort(axis=0)
        delta[undecided] = _delta(torch.from_numpy(falling), eta)
    return delta


def _delta(negated: Tensor, eta: float) -> Tensor:
    """Return δ (M,) from negated (C, M) probabilities, in increasing order."""
    # Number of classes before the C*-th: those whose sum is still below eta.
    before = negated.T.cumsum(dim=1).gt_(-eta).sum(dim=1)
    last = before.long().clamp_(max=len(negated) - 1)
    return negated.gather(0, last[None]).squeeze(0).neg_()
