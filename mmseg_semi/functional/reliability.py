"""Which pseudo-labels U2PL trusts, and for which classes the others are negatives.

From the teacher's logits to the entropy of each pixel (`pixel_entropy`), the share that is held to be
unreliable (`unreliable_share`), the split (`unreliable_mask`), the rank of each class at a pixel
(`class_rank`), and the classes that a pixel is a negative of (`labeled_negatives`,
`unlabeled_negatives`). Nothing here waits for the device.
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

    The logits are upsampled before the softmax. Images are taken one by one, so that the
    probabilities of a batch never exist at full resolution.

    Args:
        logits: (N, C, h, w), any floating dtype.
        size: (H, W) of the result, an int for a square; by default the logits' own.
        align_corners: how the upsampling aligns its grid.

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
            del full  # or it would live on while the next one is made
    return result


def unreliable_share(step: float, length: float, start: float) -> float:
    """Share of pixels that are held to be unreliable: start · (1 - step / length) (U2PL, Sec. 3.2).

    The paper calls it alpha_t and gives it in percent; it falls to 0 as the teacher gets better.

    Args:
        step: where the training is, in any unit.
        length: where it ends, in the same unit.
        start: the share at step 0, in [0, 1]; the paper has 0.2.

    Returns:
        The share in [0, start]; 0 from `length` on.

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
    """Value below which a share of the masked values lies, with linear interpolation.

    `torch.quantile` refuses more than 16 million values and knows no mask; to choose the values by
    the mask would wait for the device.

    Args:
        values: any shape, floating.
        share: in [0, 1]; 0.5 is the median.
        mask: bool of the same shape, True = counts.

    Returns:
        A scalar of the values' dtype (float32 for half precision), what `numpy.percentile` gives of the
        values that count; infinity when none does.

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
    # One step up stays among those that count: where it does not, `place` is whole.
    ends = torch.stack([below, torch.minimum(below + 1, (count - 1).clamp(min=0).double())]).long()
    low, high = ordered.take(ends).unbind()
    value = low + (high - low) * (place - below).to(ordered.dtype)
    return torch.where(count > 0, value, torch.inf)


def unreliable_mask(entropy: Tensor, share: float, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Split the pixels of a batch by entropy: the given share with the highest is unreliable (U2PL, Eq. 6).

    A pixel is unreliable where its entropy exceeds gamma_t, the (1 - share)-quantile of the batch, and
    reliable elsewhere. Where the two are equal the paper has neither, its code an unreliable pixel: with
    one entropy everywhere nothing would be left to learn from.

    Args:
        entropy: (N, H, W).
        share: in [0, 1], as of `unreliable_share`; 0 finds no pixel unreliable.
        valid: (N, H, W) bool, True = real pixel; the others are neither counted nor unreliable.

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
    """Classes that a labeled pixel is a negative of: likely, and not its own (U2PL, n^l of Sec. 3.3).

    1(y ≠ c) · 1(0 ≤ O(c) < r_l).

    Args:
        rank: (N, C, h, w) int64 as of `class_rank`.
        label: (N, h, w) int64 true classes, 255 = void, which is a negative of none.
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
    """Classes that an unreliable pixel is a negative of: those that it hardly can be (U2PL, n^u of Sec. 3.3).

    1(H > gamma_t) · 1(r_l ≤ O(c) < r_h): the pixel may be mistaken among its first classes, but is sure
    not to be of those that come behind.

    Args:
        rank: (N, C, h, w) int64 as of `class_rank`.
        unreliable: (N, h, w) bool.
        low_rank: r_l.
        high_rank: r_h, above r_l; beyond C it leaves out no class.

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
