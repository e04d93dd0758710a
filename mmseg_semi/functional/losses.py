"""Losses of segmentation logits, computed image by image at full resolution.

Losses of this package are means of -log p over the pixels of the full image, while a network predicts at a
quarter or an eighth of this resolution. Upsampling a batch and computing its log-softmax needs several (N, C,
H, W) float tensors, half a gigabyte for eight VOC crops, which is usually the memory peak of a training step.
Here each image is upsampled, scored and differentiated separately, and only the gradient at the network's
resolution is stored. The results are those of the plain computation.

Nothing in this file waits for the device: there is no `.item()`, no boolean indexing and no data-dependent
shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ._common import (
    VOID,
    check_logits,
    check_map,
    check_same_shape,
    check_tau,
    check_teacher_logits,
    exact_float,
    image_chunks,
    no_autocast,
    row_strips,
    to_size,
    upsample,
)
from .contrast import info_nce
from .mixing import upsample_and_paste

_REDUCTIONS = ('valid_mean', 'pixel_mean', 'image_sum', 'none')
_DIVISORS = ('area', 'valid', 'confident')


def cross_entropy(
    logits: Tensor,
    label: Tensor,
    *,
    pixel_weight: Tensor | None = None,
    class_weight: Tensor | Sequence[float] | None = None,
    ignore_index: int = VOID,
    align_corners: bool = False,
    reduction: str = 'valid_mean',
) -> Tensor:
    """Cross-entropy of hard labels at the labels' resolution (iMAS L_x, ST++ Eq. 2).

    The divisors printed in the papers differ, but their codes all divide by the number of non-void pixels of
    the batch ('valid_mean'). Unlike `torch.nn.functional.cross_entropy`, the loss is 0 with a graph instead of
    NaN if every pixel is void, and weights do not change the divisor.

    Args:
        logits: (N, C, h, w), any floating dtype; upsampled per image if (h, w) is not (H, W).
        label: (N, H, W) integer classes below C, or `ignore_index`.
        pixel_weight: (N, H, W), weight of each pixel's loss.
        class_weight: (C,), weight of each class. In a training step, pass a tensor on the logits' device, since
            a list must be copied there.
        ignore_index: Label of void pixels.
        align_corners: `align_corners` of the upsampling.
        reduction: 'valid_mean': the sum divided by the number of non-void pixels of the batch, a scalar.
            'pixel_mean': (N,), each image's sum / (H W). 'image_sum': (N,). 'none': (N, H, W), 0 for void
            pixels.

    Returns:
        float32 (float64 for float64 logits), of the reduction's shape.

    Raises:
        ValueError: if a shape is wrong or `reduction` is unknown.
    """
    _check_pair(logits, label)
    if reduction not in _REDUCTIONS:
        raise ValueError(
            f'reduction is {reduction!r}, but must be one of {", ".join(_REDUCTIONS)}.'
        )
    with no_autocast(logits.device):
        logits = exact_float(logits)
        keep = label != ignore_index
        label = label.masked_fill(~keep, 0)
        weight = _pixel_weights(logits, label, pixel_weight, class_weight)
        if reduction == 'none' or (weight is not None and weight.requires_grad):
            pixels = _pixel_losses(logits, label, align_corners)
            pixels = pixels if weight is None else pixels * weight
            pixels = pixels.masked_fill(~keep, 0)
            if reduction == 'none':
                return pixels
            sums = pixels.sum(dim=(1, 2))
        else:
            weight = keep if weight is None else weight.masked_fill(~keep, 0)
            sums = _image_sums(logits, label, weight, align_corners)
        if reduction == 'image_sum':
            return sums
        if reduction == 'pixel_mean':
            return sums / _pixels_per_image(label)
        return sums.sum() / keep.sum().clamp(min=1)


def confident_cross_entropy(
    logits: Tensor,
    label: Tensor,
    confidence: Tensor,
    tau: float,
    *,
    valid_mask: Tensor | None = None,
    divisor: str = 'area',
    align_corners: bool = False,
) -> Tensor:
    """Cross-entropy of the confident pseudo-labels (iMAS, the terms of Eq. 10; FixMatch, Eq. 4).

    Σ_j 1(confidence_j ≥ tau) · CE_j over a divisor that differs between papers:

    - 'area' (iMAS): H W of each image, independent of confidence and padding.
    - 'valid' (FixMatch, as re-implemented in UniMatch's code): the valid pixels of the batch.
    - 'confident': the confident valid pixels of the batch, so that few confident pixels do not lower the
      weight.

    Args:
        logits: (N, C, h, w), any floating dtype; upsampled per image if (h, w) is not (H, W).
        label: (N, H, W) pseudo-labels, 255 = void.
        confidence: (N, H, W) in [0, 1].
        tau: Threshold in [0, 1], inclusive.
        valid_mask: (N, H, W) bool, True = real pixel.
        divisor: 'area', 'valid' or 'confident'.
        align_corners: `align_corners` of the upsampling.

    Returns:
        float32 (float64 for float64 logits): (N,) for 'area', else a scalar; 0 with a graph if no pixel is
        confident or valid.

    Raises:
        ValueError: if a shape is wrong, `tau` lies outside [0, 1] or `divisor` is unknown.
    """
    _check_pair(logits, label)
    check_same_shape(confidence, label, 'confidence', 'label')
    check_tau(tau)
    if divisor not in _DIVISORS:
        raise ValueError(f'divisor is {divisor!r}, but must be one of {", ".join(_DIVISORS)}.')
    valid = label != VOID
    if valid_mask is not None:
        check_same_shape(valid_mask, label, 'valid_mask', 'label')
        valid = valid & valid_mask.bool()
    keep = valid & (exact_float(confidence) >= tau)
    sums = cross_entropy(
        logits,
        label.masked_fill(~keep, VOID),
        align_corners=align_corners,
        reduction='image_sum',
    )
    if divisor == 'area':
        return sums / _pixels_per_image(label)
    return sums.sum() / (valid if divisor == 'valid' else keep).sum().clamp(min=1)


def ohem_cross_entropy(
    logits: Tensor,
    label: Tensor,
    *,
    threshold: float = 0.7,
    min_kept: int = 100000,
    ignore_index: int = VOID,
    align_corners: bool = False,
) -> Tensor:
    """Cross-entropy over the hard pixels of the batch: online hard example mining (OHEM).

    With q the probability of the target class, a pixel is kept if q ≤ t, where t is the larger of `threshold`
    and the `min_kept`-th smallest q of the batch; void pixels have q = 1. The result is the mean over the kept
    pixels. If `min_kept` ≤ 0 or above the number of non-void pixels, all are kept. As in the papers' code, and
    unlike in mmseg's sampler, `min_kept` counts pixels of the batch, not of an image.

    Args:
        logits: (N, C, h, w), any floating dtype; upsampled per image if (h, w) is not (H, W).
        label: (N, H, W) integer classes below C, or `ignore_index`.
        threshold: Probability in [0, 1].
        min_kept: Minimum number of kept pixels per batch.
        ignore_index: Label of void pixels.
        align_corners: `align_corners` of the upsampling.

    Returns:
        A scalar, float32 (float64 for float64 logits); 0 with a graph if every pixel is void.

    Raises:
        ValueError: if a shape is wrong or `threshold` lies outside [0, 1].
    """
    _check_pair(logits, label)
    if not 0 <= threshold <= 1:
        raise ValueError(f'threshold is {threshold}, but a probability lies in [0, 1].')
    if 0 < min_kept <= label.numel():
        with torch.no_grad(), no_autocast(logits.device):
            valid = label != ignore_index
            pixels = _pixel_losses(exact_float(logits), label.masked_fill(~valid, 0), align_corners)
            prob = pixels.neg_().exp_().clamp_(max=1).masked_fill_(~valid, 1)
            # With fewer non-void pixels than min_kept, the k-th pixel is void with q = 1, so all pixels are
            # kept. topk and max instead of `kthvalue`, which does not support deterministic algorithms on CUDA.
            smallest = prob.flatten().topk(min_kept, largest=False, sorted=False).values
            easy = prob > smallest.max().clamp(min=threshold)
            label = label.masked_fill(easy, ignore_index)
    return cross_entropy(logits, label, ignore_index=ignore_index, align_corners=align_corners)


def soft_cross_entropy(
    logits: Tensor,
    target_probs: Tensor,
    *,
    valid_mask: Tensor | None = None,
    align_corners: bool = False,
) -> Tensor:
    """Cross-entropy against class distributions: 1/(H W) Σ_j Σ_c -y_jc log p_jc (ESL, Eq. 6).

    The targets are constants, without gradients. Call it image by image to avoid full-resolution targets of the
    whole batch.

    Args:
        logits: (N, C, h, w), any floating dtype; upsampled per image if (h, w) is not (H, W).
        target_probs: (N, C, H, W), class distribution y of each pixel.
        valid_mask: (N, H, W) bool, True = real pixel; other pixels add nothing, but the divisor remains H W.
        align_corners: `align_corners` of the upsampling.

    Returns:
        (N,) float32 (float64 for float64 logits).

    Raises:
        ValueError: if a shape is wrong.
    """
    check_logits(logits)
    if target_probs.dim() != 4 or target_probs.shape[:2] != logits.shape[:2]:
        raise ValueError(
            f'target_probs has shape {tuple(target_probs.shape)}, but logits of shape '
            f'{tuple(logits.shape)} need (N, C, H, W) with the same N and C.'
        )
    if valid_mask is not None:
        check_same_shape(valid_mask, target_probs[:, 0], 'valid_mask', 'one class of target_probs')
        valid_mask = valid_mask.bool()
    with no_autocast(logits.device):
        sums = _image_sums(exact_float(logits), target_probs.detach(), valid_mask, align_corners)
        return sums / _pixels_per_image(target_probs)


def squared_error(
    logits: Tensor,
    teacher_logits: Tensor,
    size: int | tuple[int, int],
    *,
    partner: Tensor | None = None,
    boxes: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    class_mean: bool = False,
    align_corners: bool = False,
) -> Tensor:
    """Squared distance of two networks' probabilities: 1/(H W) Σ_j w_j ||p_j - q_j||² (Mean Teacher, Sec. 2).

    p are the probabilities of `logits`, q those of the teacher, which are constants. With boxes, q is mixed
    like the student's images (CutMix-Seg): mixing probabilities by a binary mask equals mixing logits. A few
    images at a time are upsampled and compared, and once more in the backward pass, so that no full-resolution
    tensor of the batch exists.

    Args:
        logits: (N, C, h, w) of the trained network, any floating dtype.
        teacher_logits: (N, C, h', w') of the unmixed images.
        size: (H, W) of the images, an int for a square.
        partner: (N,) int64, the image pasted into each image; requires `boxes`.
        boxes: (N, 4) int64, see `mixing.paste`.
        pixel_weight: (N, H, W), bool or number, weight of each pixel; the divisor remains H W.
        class_mean: Whether to also divide by C, as in Mean Teacher's code. The paper's equation and CutMix-Seg
            sum over the classes.
        align_corners: `align_corners` of the upsampling.

    Returns:
        (N,) float32 (float64 for float64 logits).

    Raises:
        ValueError: if the shapes do not fit.
    """
    check_teacher_logits(teacher_logits, logits)
    num_images, num_classes = logits.shape[:2]
    height, width = to_size(size)
    if pixel_weight is not None and pixel_weight.shape != (num_images, height, width):
        raise ValueError(
            f'pixel_weight has shape {tuple(pixel_weight.shape)}, but must be '
            f'{(num_images, height, width)}.'
        )
    teacher_logits = teacher_logits.detach()

    def chunk(logits: Tensor, images: slice) -> Tensor:
        with no_autocast(logits.device):
            target = upsample_and_paste(
                teacher_logits,
                (height, width),
                images=images,
                partner=partner,
                boxes=boxes,
                align_corners=align_corners,
            ).softmax(dim=1)
            probs = upsample(exact_float(logits), (height, width), align_corners).softmax(dim=1)
            distance = (probs - target).square().sum(dim=1)
            if pixel_weight is not None:
                distance = distance * pixel_weight[images]
            return distance.sum(dim=(1, 2)) / (height * width)

    parts = image_chunks(num_images, num_classes * height * width)
    options: dict[str, Any] = dict(use_reentrant=False, preserve_rng_state=False)
    values = [checkpoint(chunk, logits[part], part, **options) for part in parts]
    value = torch.cat(values) if values else exact_float(logits).flatten(1).sum(dim=1)
    return value / num_classes if class_mean else value


def _check_pair(logits: Tensor, label: Tensor) -> None:
    check_logits(logits)
    check_map(label, 'label')
    if label.is_floating_point() or label.dtype == torch.bool:
        raise ValueError(f'label is {label.dtype}, but must hold integer classes.')
    if len(label) != len(logits):
        raise ValueError(
            f'label holds {len(label)} images and logits {len(logits)}, but they must be the same.'
        )


def _pixels_per_image(target: Tensor) -> int:
    return max(1, target.shape[-2] * target.shape[-1])


def _pixel_weights(
    logits: Tensor,
    label: Tensor,
    pixel_weight: Tensor | None,
    class_weight: Tensor | Sequence[float] | None,
) -> Tensor | None:
    """Return the product of both kinds of weights per pixel: (N, H, W), or None without weights."""
    weight = None
    if class_weight is not None:
        class_weight = torch.as_tensor(class_weight, dtype=logits.dtype, device=logits.device)
        if class_weight.shape != logits.shape[1:2]:
            raise ValueError(
                f'class_weight has shape {tuple(class_weight.shape)}, but {logits.shape[1]} '
                f'classes need ({logits.shape[1]},).'
            )
        weight = class_weight[label.long()]
    if pixel_weight is not None:
        check_same_shape(pixel_weight, label, 'pixel_weight', 'label')
        pixel_weight = pixel_weight.to(logits.dtype)
        weight = pixel_weight if weight is None else weight * pixel_weight
    return weight


def _pixel_losses(logits: Tensor, label: Tensor, align_corners: bool) -> Tensor:
    """-log p of each pixel's label, (N, H, W); the backward pass recomputes each image."""

    logits = logits.contiguous()
    parts = image_chunks(len(label), logits.shape[1] * label[:1].numel())
    if torch.is_grad_enabled() and logits.requires_grad:

        def chunk(logits: Tensor, label: Tensor) -> Tensor:
            logp = upsample(logits, label.shape[-2:], align_corners).log_softmax(dim=1)
            return -logp.gather(1, label.long()[:, None])[:, 0]

        options: dict[str, Any] = dict(use_reentrant=False, preserve_rng_state=False)
        losses = [checkpoint(chunk, logits[part], label[part], **options) for part in parts]
        return torch.cat(losses) if losses else logits.sum() * 0 + logits.new_zeros(label.shape)
    pixels = logits.new_empty(label.shape)
    for part in parts:
        full = upsample(logits[part], label.shape[-2:], align_corners)
        for rows in row_strips(full):
            strip, _ = _pixels_and_slope(
                full[:, :, rows], label[part, rows], None, want_slope=False
            )
            pixels[part, rows] = strip
        del full  # frees its memory before the next one is computed
    return pixels


def _image_sums(
    logits: Tensor, target: Tensor, weight: Tensor | None, align_corners: bool
) -> Tensor:
    """Σ of weight · cross-entropy over each image: (N,)."""
    differentiate = torch.is_grad_enabled() and logits.requires_grad
    return _ImageSums.apply(logits, target, weight, align_corners, differentiate)


class _ImageSums(torch.autograd.Function):
    """Weighted cross-entropy sums per image, with the gradient computed in the forward pass.

    The gradient of an image's sum is a constant times the incoming scalar, so it can be computed while the
    image's probabilities are in memory. Only its adjoint upsampling, at the resolution of the network's logits,
    is stored. For full-resolution logits this gradient would be as large as the tensors that this class avoids,
    so the backward pass recomputes it image by image.
    """

    @staticmethod
    def forward(ctx, logits, target, weight, align_corners, differentiate):
        logits = logits.contiguous()
        num_images, num_classes = logits.shape[:2]
        size = target.shape[-2:]
        keep_gradient = differentiate and logits.shape[-2:] != size
        ctx.chunks = image_chunks(num_images, num_classes * size[0] * size[1])
        sums = logits.new_empty(num_images)
        gradient = torch.empty_like(logits) if keep_gradient else None
        for part in ctx.chunks:
            part_weight = None if weight is None else weight[part]
            with torch.set_grad_enabled(keep_gradient):
                small = logits[part].detach().requires_grad_(keep_gradient)
                full = upsample(small, size, align_corners)
            slope = _empty_slope(full) if keep_gradient else None
            sums[part] = _sums_into(slope, full.detach(), target[part], part_weight)
            if keep_gradient:
                gradient[part] = torch.autograd.grad(full, small, slope)[0]
            del full, slope  # frees their memory before the next ones are computed
        if keep_gradient:
            ctx.save_for_backward(gradient)
        elif differentiate:
            ctx.save_for_backward(logits, target, weight)
        ctx.keep_gradient = keep_gradient
        return sums

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_sums):
        scale = grad_sums.view(-1, 1, 1, 1)
        if ctx.keep_gradient:
            (gradient,) = ctx.saved_tensors
            return gradient * scale, None, None, None, None
        logits, target, weight = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        with no_autocast(logits.device):
            for part in ctx.chunks:
                part_weight = None if weight is None else weight[part]
                _sums_into(gradient[part], logits[part], target[part], part_weight)
            gradient.mul_(scale)
        return gradient, None, None, None, None


def _empty_slope(full: Tensor) -> Tensor:
    """Allocate the gradient at `full`, in the memory layout with the fastest adjoint upsampling.

    On the CPU, channels-last takes a quarter of the time, since the upsampling is vectorized over channels.
    """
    on_cpu = full.device.type == 'cpu'
    layout = torch.channels_last if on_cpu else torch.contiguous_format
    return torch.empty_like(full, memory_format=layout)


def _sums_into(
    slope: Tensor | None, logits: Tensor, target: Tensor, weight: Tensor | None
) -> Tensor:
    """Return weighted cross-entropy sums (n,) of full-resolution logits; write their gradient to `slope`."""
    sums = logits.new_zeros(len(logits))
    for rows in row_strips(logits):
        pixels, strip_slope = _pixels_and_slope(
            logits[:, :, rows],
            target[..., rows, :],
            None if weight is None else weight[:, rows],
            want_slope=slope is not None,
        )
        sums += pixels.sum(dim=(1, 2))
        if slope is not None and strip_slope is not None:
            slope[:, :, rows] = strip_slope
    return sums


def _pixels_and_slope(
    logits: Tensor, target: Tensor, weight: Tensor | None, *, want_slope: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the weighted cross-entropy (n, h, w) of each pixel and the gradient (n, C, h, w) of their sum.

    A pixel of weight 0 adds nothing even if its loss is infinite: a masked class has logit -inf.
    """
    logp = logits.log_softmax(dim=1)
    hard = target.dim() == 3
    if hard:
        target = target.long()[:, None]
        pixels = logp.gather(1, target)[:, 0].neg_()
    else:
        target = target.to(logp.dtype)
        # A class with target probability 0 adds nothing, even if it is masked with a logit of -inf.
        pixels = (target * logp).masked_fill_(target == 0, 0).sum(dim=1).neg_()
    if weight is not None:
        if weight.dtype != torch.bool:
            pixels *= weight
        pixels.masked_fill_(weight == 0, 0)
    if not want_slope:
        return pixels, None
    slope = logp.exp_()
    if hard:
        slope.scatter_(1, target, slope.gather(1, target) - 1)
    else:
        slope.mul_(target.sum(dim=1, keepdim=True)).sub_(target)
    if weight is not None:
        slope.mul_(weight[:, None])
    return pixels, slope


__all__ = [
    'confident_cross_entropy',
    'cross_entropy',
    'info_nce',
    'ohem_cross_entropy',
    'soft_cross_entropy',
    'squared_error',
]
