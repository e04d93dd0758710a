"""Reliable pseudo-labels and negative classes of U2PL.

The functions compute the entropy of each pixel from the teacher's logits (`pixel_entropy`), the fraction of
unreliable pixels (`unreliable_share`), their mask (`unreliable_mask`), the rank of each class at a pixel
(`class_rank`), and the classes for which a pixel is a negative (`labeled_negatives`, `unlabeled_negatives`).
Nothing here waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._common import (
    VOID,
    check_logits,
    check_map,
    check_same_shape,
    exact_float,
    image_chunks,
    no_autocast,
    to_size,
    upsample,
)
from .sampling import entropy as entropy_of


@torch.no_grad()
def pixel_entropy(
    logits: Tensor, size: int | tuple[int, int] | None = None, align_corners: bool = False
) -> Tensor:
    """Entropy -Σ_c p_c ln p_c of each pixel's class probabilities, in nats (U2PL, Eq. 5).

    The logits are upsampled before the softmax. Images are processed one by one, so that full-resolution
    probabilities of the whole batch never exist.

    Args:
        logits: (N, C, h, w), any floating dtype.
        size: (H, W) of the result, an int for a square. Default: that of the logits.
        align_corners: `align_corners` of the upsampling.

    Returns:
        (N, H, W) in [0, ln C], float32 (float64 for float64 logits), without a gradient.

    Raises:
        ValueError: if `logits` is not a floating (N, C, h, w) tensor or `size` is not positive.
    """
    check_logits(logits)
    size = to_size(logits.shape[-2:] if size is None else size)
    with no_autocast(logits.device):
        logits = exact_float(logits)
        result = logits.new_empty((len(logits), *size))
        for part in image_chunks(len(logits), logits.shape[1] * size[0] * size[1]):
            full = upsample(logits[part], size, align_corners)
            result[part] = entropy_of(full.softmax(dim=1))
            del full  # frees its memory before the next one is computed
    return result


def unreliable_share(step: float, length: float, start: float) -> float:
    """Fraction of unreliable pixels: start · (1 - step / length) (U2PL, Sec. 3.2).

    The paper calls it alpha_t, in percent. It falls to 0 as the teacher improves.

    Args:
        step: Current step, in any unit.
        length: Length of the training, in the same unit.
        start: Fraction at step 0, in [0, 1]; the paper uses 0.2.

    Returns:
        The fraction in [0, start]; 0 from `length` on.

    Raises:
        ValueError: if an argument is out of range.
    """
    if not step >= 0:
        raise ValueError(f'step is {step}, but cannot be negative.')
    if not length > 0:
        raise ValueError(f'length is {length}, but must be above 0.')
    if not 0 <= start <= 1:
        raise ValueError(f'start is {start}, but a share lies in [0, 1].')
    return start * max(0.0, 1 - step / length)


@torch.no_grad()
def masked_quantile(values: Tensor, share: float, mask: Tensor) -> Tensor:
    """Quantile of the masked values, with linear interpolation.

    `torch.quantile` does not support masks or more than 16 million values, and selecting values by a mask would
    wait for the device.

    Args:
        values: Any shape, floating.
        share: Quantile in [0, 1]; 0.5 is the median.
        mask: bool of the same shape, True = counts.

    Returns:
        A scalar of the values' dtype (float32 for half precision), equal to `numpy.percentile` of the masked
        values; infinity if the mask is empty.

    Raises:
        ValueError: if the shapes do not fit or `share` lies outside [0, 1].
    """
    check_same_shape(mask, values, 'mask', 'values')
    if not 0 <= share <= 1:
        raise ValueError(f'share is {share}, but must lie in [0, 1].')
    ordered = exact_float(values).masked_fill(~mask, torch.inf).flatten().sort().values
    count = mask.sum()
    place = share * (count.double() - 1).clamp(min=0)
    below = place.floor()
    # The next index is valid: where it would not be, `place` is an integer.
    ends = torch.stack([below, torch.minimum(below + 1, (count - 1).clamp(min=0).double())]).long()
    low, high = ordered.take(ends).unbind()
    value = low + (high - low) * (place - below).to(ordered.dtype)
    return torch.where(count > 0, value, torch.inf)


def unreliable_mask(entropy: Tensor, share: float, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Split the pixels of a batch: the fraction `share` with the highest entropy is unreliable (U2PL, Eq. 6).

    A pixel is unreliable if its entropy exceeds gamma_t, the (1 - share)-quantile of the batch, and reliable
    otherwise. If both are equal, the paper defines neither, and its code makes the pixel unreliable. Then no
    pixel would be reliable if all entropies are equal.

    Args:
        entropy: (N, H, W).
        share: Fraction in [0, 1], see `unreliable_share`; with 0 no pixel is unreliable.
        valid: (N, H, W) bool, True = real pixel; other pixels are neither counted nor unreliable.

    Returns:
        The mask (N, H, W) bool, and gamma_t, a scalar.

    Raises:
        ValueError: if the shapes do not fit or `share` lies outside [0, 1].
    """
    check_map(entropy, 'entropy')
    threshold = masked_quantile(entropy, 1 - share, valid)
    return (exact_float(entropy) > threshold) & valid, threshold


@torch.no_grad()
def class_rank(probs: Tensor) -> Tensor:
    """Rank of each class at each pixel, 0 for the most probable one (U2PL, O_ij of Sec. 3.3).

    Args:
        probs: (N, C, h, w), probabilities or logits, any floating dtype.

    Returns:
        (N, C, h, w) int64 in [0, C); the lower class wins a tie.
    """
    check_logits(probs)
    order = exact_float(probs).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(probs.shape[1], device=probs.device)[:, None, None]
    return torch.empty_like(order).scatter_(1, order, places.expand_as(order))


def labeled_negatives(rank: Tensor, label: Tensor, low_rank: int) -> Tensor:
    """Classes for which a labeled pixel is a negative: probable, but not its own (U2PL, n^l of Sec. 3.3).

    1(y ≠ c) · 1(0 ≤ O(c) < r_l).

    Args:
        rank: (N, C, h, w) int64 from `class_rank`.
        label: (N, h, w) int64 ground truth, 255 = void, which is never a negative.
        low_rank: r_l.

    Returns:
        (N, C, h, w) bool.

    Raises:
        ValueError: if the shapes do not fit.
    """
    _check_ranks(rank, label, 'label')
    classes = torch.arange(rank.shape[1], device=rank.device)[:, None, None]
    label = label[:, None]
    return (rank < low_rank) & (label != classes) & (label != VOID)


def unlabeled_negatives(rank: Tensor, unreliable: Tensor, low_rank: int, high_rank: int) -> Tensor:
    """Classes for which an unreliable pixel is a negative: the improbable ones (U2PL, n^u of Sec. 3.3).

    1(H > gamma_t) · 1(r_l ≤ O(c) < r_h): the pixel may belong to any of its first classes, but not to later
    ones.

    Args:
        rank: (N, C, h, w) int64 from `class_rank`.
        unreliable: (N, h, w) bool.
        low_rank: r_l.
        high_rank: r_h, above r_l; a value >= C excludes no class.

    Returns:
        (N, C, h, w) bool.

    Raises:
        ValueError: if the shapes or the ranks do not fit.
    """
    _check_ranks(rank, unreliable, 'unreliable')
    if not low_rank < high_rank:
        raise ValueError(
            f'low_rank is {low_rank} and high_rank {high_rank}, but must be in this order.'
        )
    return (rank >= low_rank) & (rank < high_rank) & unreliable[:, None]


def _check_ranks(rank: Tensor, maps: Tensor, name: str) -> None:
    if rank.dim() != 4:
        raise ValueError(f'rank has shape {tuple(rank.shape)}, but must be (N, C, h, w).')
    check_same_shape(maps, rank[:, 0], name, 'one class of rank')
