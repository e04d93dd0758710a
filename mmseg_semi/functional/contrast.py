"""Contrast of pixels with stored vectors (ESL, U2PL): sampling, and the loss on cosines.

The stored vectors are first-in-first-out queues, side by side in one bank. Entry s of queue j is row start_j +
s, or j · capacity + s if all queues have one capacity. The first `fill` entries of a queue are in use. Nothing
here waits for the device: sizes of samples depend only on the shapes of the arguments, and -1 marks missing
samples.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ._common import check_same_shape, exact_float, no_autocast, unit

# Maximum products of anchors and bank in memory; 2048 anchors at ESL's sizes.
_PRODUCTS = 2048 * 21000


class Anchors(NamedTuple):
    """Pixels drawn by `sample_anchors`.

    Attributes:
        index: (A,) int64, positions in the label map, sorted by class; -1 = none.
        label: (A,) int64, their classes; 0 for none.
        counts: (C,) int64, number of anchors of each class.
        capped: (C,) bool, True if the limit excluded pixels.
    """

    index: Tensor  # type: ignore[assignment]  # hides tuple.index
    label: Tensor
    counts: Tensor
    capped: Tensor


@torch.no_grad()
def sample_anchors(
    label: Tensor,
    num_classes: int,
    *,
    ratio: float = 0.1,
    limit: int = 1000,
    generator: torch.Generator | None = None,
) -> Anchors:
    """Draw a fraction of the pixels of each class, without replacement (ESL, Eq. 9).

    A class with n candidates gets ceil(ratio · n) anchors (at least one), and at most `limit`. The paper uses
    10 % and no limit.

    Args:
        label: (M,) int64 classes of the candidates; values outside [0, C), such as 255, are not candidates.
        num_classes: C.
        ratio: Fraction in (0, 1].
        limit: Maximum anchors per class, at least 1.
        generator: Source of randomness on the label's device. Default: torch's.

    Returns:
        Anchors: A = min(C · limit, ratio · M + C) rounded down, with empty places last. On the CPU, where
        reading the number does not wait, A is the number of anchors.

    Raises:
        ValueError: if an argument is out of range.
    """
    if label.dim() != 1:
        raise ValueError(f'label has shape {tuple(label.shape)}, but must be (M,).')
    if not 0 < ratio <= 1:
        raise ValueError(f'ratio is {ratio}, but a share of the candidates lies in (0, 1].')
    if limit < 1:
        raise ValueError(f'limit is {limit}, but must be at least 1.')
    device = label.device
    row = torch.where((label >= 0) & (label < num_classes), label, num_classes)
    candidates = row.new_zeros(num_classes + 1)
    candidates = candidates.scatter_add_(0, row, torch.ones_like(row))
    # Round up, except for the last digits, in which a tenth of 30 exceeds 3.
    wanted = (candidates[:num_classes].double() * ratio * (1 - 1e-12)).ceil().long()
    counts = wanted.clamp(max=limit)
    most = min(num_classes * limit, int(ratio * len(label)) + num_classes, len(label))
    ends = counts.cumsum(0)
    places = _taken(torch.arange(most, device=device), ends[-1])
    # Each candidate has a random place within its class.
    key = torch.rand(len(label), dtype=torch.float64, generator=generator, device=device)
    order = (row + key).argsort()
    chosen = torch.searchsorted(ends, places, right=True).clamp(max=num_classes - 1)
    first = candidates.cumsum(0) - candidates
    position = first[chosen] + places - (ends - counts)[chosen]
    taken = places < ends[-1]
    index = order[position.clamp(max=len(label) - 1)].masked_fill(~taken, -1)
    return Anchors(index, chosen.masked_fill(~taken, 0), counts, wanted > limit)


def _taken(places: Tensor, number: Tensor) -> Tensor:
    """Return the first places on the CPU, where reading their number does not wait for a device; else all."""
    return places[: int(number)] if places.device.type == 'cpu' else places


@torch.no_grad()
def sample_positives(
    queue: Tensor, fill: Tensor, capacity: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """Draw one entry from each anchor's own queue (ESL, text before Eq. 10).

    Args:
        queue: (A,) int64, queue of each anchor.
        fill: (Q,) int64, number of entries of each queue.
        capacity: Capacity of each queue.
        generator: Source of randomness on the queue's device. Default: torch's.

    Returns:
        (A,) int64 rows of the bank; -1 if the queue is empty.
    """
    starts = torch.arange(len(fill), device=fill.device) * capacity
    return sample_entries(queue, fill, starts, generator=generator)


@torch.no_grad()
def sample_entries(
    queue: Tensor, fill: Tensor, starts: Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    """Draw one entry uniformly from the queue of each given number.

    Args:
        queue: Any shape, int64 numbers of queues.
        fill: (Q,) int64, number of entries of each queue.
        starts: (Q,) int64, first row of each queue.
        generator: Source of randomness on the queue's device. Default: torch's.

    Returns:
        int64 rows of the bank, in the shape of `queue`; -1 if the queue is empty.
    """
    own = fill[queue]
    uniform = torch.rand(queue.shape, dtype=torch.float64, generator=generator, device=queue.device)
    entry = (uniform * own).long()
    return (starts[queue] + entry).masked_fill(own == 0, -1)


@torch.no_grad()
def sample_places(mask: Tensor, num: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw at most `num` places from each row of a mask, without replacement (U2PL, anchors and keys).

    Args:
        mask: (R, P) bool, True = may be drawn.
        num: Places to draw per row, at least 1.
        generator: Source of randomness on the mask's device. Default: torch's.

    Returns:
        (R, min(num, P)) int64 places in random order, filled with -1 if a row has fewer.

    Raises:
        ValueError: if `mask` is not a matrix or `num` below 1.
    """
    if mask.dim() != 2 or mask.dtype != torch.bool:
        raise ValueError(
            f'mask is a {mask.dtype} tensor of shape {tuple(mask.shape)}, but must be bool and (R, P).'
        )
    if num < 1:
        raise ValueError(f'num is {num}, but must be at least 1.')
    key = torch.rand(mask.shape, generator=generator, device=mask.device).masked_fill_(~mask, -1)
    key, place = key.topk(min(num, mask.shape[1]), dim=1)
    return place.masked_fill_(key < 0, -1)


def pixels_at(features: Tensor, place: Tensor) -> Tensor:
    """Return the features of selected pixels, with gradients.

    It indexes the flat tensor, since channels-last features would be another copy of all of them.

    Args:
        features: (N, D, h, w).
        place: (A,) int64 places in a map (N, h, w); -1 = none returns the first pixel.

    Returns:
        (A, D).
    """
    length, area = features[0].numel(), features[0, 0].numel()
    place = place.clamp(min=0)
    start = place // area * length + place % area
    channel = torch.arange(features.shape[1], device=features.device) * area
    return features.flatten().take(start[:, None] + channel)


@torch.no_grad()
def sample_negatives(
    queue: Tensor,
    fill: Tensor,
    capacity: int,
    num: int,
    *,
    block: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw entries from all other queues for each anchor (ESL, text before Eq. 10).

    Entries are drawn uniformly with replacement: 255 draws from twenty thousand entries contain one or two
    duplicates. If there are at most `num` entries, each is taken once.

    Args:
        queue: (A,) int64, queue of each anchor.
        fill: (Q,) int64, number of entries of each queue.
        capacity: Capacity of each queue.
        num: S, negatives per anchor, at least 1.
        block: Number of neighboring queues, starting at a multiple of `block`, that are excluded together with
            the anchor's own. 1 excludes only the anchor's own, so other parts of its class are negatives.
        generator: Source of randomness on the queue's device. Default: torch's.

    Returns:
        (A, S) int64 rows of the bank, -1 = none.

    Raises:
        ValueError: if `num` is below 1 or the queues are not a multiple of `block`.
    """
    if num < 1:
        raise ValueError(f'num is {num}, but an anchor needs at least 1 negative.')
    if block < 1 or len(fill) % block:
        raise ValueError(f'block is {block}, but {len(fill)} queues must be a multiple of it.')
    ends = fill.cumsum(0)
    starts = ends - fill
    own = queue // block
    own_start, own_fill = starts[own * block], fill.view(-1, block).sum(dim=1)[own]
    others = (ends[-1] - own_fill)[:, None]
    shape = (len(queue), num)
    # Single precision and in place: these are the largest tensors of the contrast.
    pick = torch.rand(shape, generator=generator, device=queue.device).mul_(others).long()
    pick = torch.minimum(pick, others - 1)
    every = torch.arange(num, device=queue.device)
    pick = torch.where(others > num, pick, every)
    none = pick >= others
    pick += own_fill[:, None] * (pick >= own_start[:, None])
    holder = torch.searchsorted(ends, pick, right=True).clamp_(max=len(fill) - 1)
    pick += (torch.arange(len(fill), device=queue.device) * capacity - starts)[holder]
    return pick.masked_fill_(none, -1)


def class_mean(values: Tensor, label: Tensor, weight: Tensor, num_classes: int) -> Tensor:
    """Mean of the class means; an absent class counts as 0 (ESL, Eq. 10: 1/C Σ_c 1/|A_c| Σ_a).

    Args:
        values: (A,).
        label: (A,) int64 classes.
        weight: (A,) bool, False excludes an anchor.
        num_classes: C, the divisor.

    Returns:
        A scalar of the values' dtype; 0 with a graph without anchors.
    """
    counts = values.new_zeros(num_classes).index_add(0, label, weight.to(values.dtype))
    share = weight / counts.clamp(min=1)[label]
    # torch.where instead of a product, since excluded values may be infinite.
    return torch.where(weight, values, 0).mul(share).sum() / num_classes


def info_nce(
    anchors: Tensor,
    positives: Tensor,
    bank: Tensor,
    negatives: Tensor,
    temperature: float,
    *,
    reduction: str = 'mean',
) -> Tensor:
    """Contrast each anchor's positive with negatives from a bank (ESL, Eq. 10).

    -log( e^{cos(a, p)/σ} / ( e^{cos(a, p)/σ} + Σ_s e^{cos(a, n_s)/σ} ) ); the denominator includes the
    positive. One matrix product per 2048 anchors gives all similarities with the bank, from which the negatives
    are gathered. Copying 255 negatives per anchor would cost far more.

    Args:
        anchors: (A, D).
        positives: (A, D), one per anchor.
        bank: (M, D), the stored vectors; M may be 0.
        negatives: (A, S) int64, rows of `bank`; -1 = none; S may be 0. Duplicates count twice.
        temperature: σ, above 0.
        reduction: 'mean' over the anchors, or 'none' for (A,).

    Returns:
        A scalar or (A,), float32 (float64 for float64 anchors). Without anchors the mean is 0 with a graph. An
        anchor without negatives has loss 0 and counts in the mean. A zero vector has cosine 0.

    Raises:
        ValueError: if a shape is wrong, `temperature` is not positive or `reduction` is unknown.
    """
    if reduction not in ('mean', 'none'):
        raise ValueError(f'reduction is {reduction!r}, but must be mean or none.')
    terms = contrast_logits(anchors, positives, bank, negatives, temperature)
    losses = terms.logsumexp(dim=1) - terms[:, 0]
    return losses if reduction == 'none' else losses.sum() / max(1, len(anchors))


def contrast_logits(
    anchors: Tensor, positives: Tensor, bank: Tensor, negatives: Tensor, temperature: float
) -> Tensor:
    """Cosines of each anchor with its positive and its negatives, divided by a temperature (ESL, Eq. 10).

    The log-softmax of the first column is the logarithm of the fraction in Eq. 10. If the first column is the
    largest, the anchor is closer to its positive than to all negatives.

    Args:
        anchors: (A, D).
        positives: (A, D), one per anchor.
        bank: (M, D), the stored vectors; M may be 0.
        negatives: (A, S) int64, rows of `bank`; -1 = none; S may be 0.
        temperature: σ, above 0.

    Returns:
        (A, 1 + S), float32 (float64 for float64 anchors): the positive first, -inf for missing negatives. With
        an empty bank only the positives: (A, 1).

    Raises:
        ValueError: if a shape is wrong or `temperature` is not positive.
    """
    _check_contrast(anchors, positives, bank, negatives)
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise ValueError(f'temperature is {temperature}, but must be above 0.')
    with no_autocast(anchors.device):
        anchors = unit(exact_float(anchors), dim=1)
        positives = unit(exact_float(positives).to(anchors.dtype), dim=1)
        bank = unit(exact_float(bank).to(anchors.dtype), dim=1)
        columns = [(anchors * positives).sum(dim=1, keepdim=True)]
        if len(bank) and negatives.shape[1]:
            step = max(1, min(2048, _PRODUCTS // len(bank)))
            parts = [slice(i, i + step) for i in range(0, max(1, len(anchors)), step)]
            columns.append(torch.cat([_chosen(anchors[p], bank, negatives[p]) for p in parts]))
        return torch.cat(columns, dim=1) / temperature


def drawn_contrast_logits(
    anchors: Tensor, positives: Tensor, negatives: Tensor, there: Tensor, temperature: float
) -> Tensor:
    """Same as `contrast_logits`, for negatives drawn separately for each anchor (U2PL, Eq. 4).

    The drawn vectors are already gathered, so only the needed products are computed.

    Args:
        anchors: (A, D).
        positives: (A, D), one per anchor.
        negatives: (A, S, D), without gradients; S may be 0.
        there: (A, S) bool, False = no negative; its vector is ignored.
        temperature: tau, above 0.

    Returns:
        (A, 1 + S), float32 (float64 for float64 anchors): the positive first, -inf for missing negatives.

    Raises:
        ValueError: if a shape is wrong or `temperature` is not positive.
    """
    if anchors.dim() != 2 or positives.shape != anchors.shape:
        raise ValueError(
            f'anchors have shape {tuple(anchors.shape)} and positives {tuple(positives.shape)}, but must be '
            'alike and (A, D).'
        )
    if negatives.shape != (*there.shape, anchors.shape[1]) or len(there) != len(anchors):
        raise ValueError(
            f'negatives have shape {tuple(negatives.shape)} and there {tuple(there.shape)}, but must be '
            f'(A, S, D) and (A, S) for {len(anchors)} anchors of {anchors.shape[1]} numbers.'
        )
    if not temperature > 0:
        raise ValueError(f'temperature is {temperature}, but must be above 0.')
    with no_autocast(anchors.device):
        anchors = unit(exact_float(anchors), dim=1)
        positives = unit(exact_float(positives).to(anchors.dtype), dim=1)
        negatives = unit(exact_float(negatives).to(anchors.dtype), dim=2)
        first = (anchors * positives).sum(dim=1, keepdim=True)
        others = torch.bmm(negatives, anchors[:, :, None]).squeeze(2)
        return torch.cat([first, others.masked_fill(~there, -torch.inf)], dim=1) / temperature


def _chosen(anchors: Tensor, bank: Tensor, rows: Tensor) -> Tensor:
    """Return products (a, S) of vectors (a, D) with rows (a, S) of the bank, -inf for row -1."""
    return _ChosenProducts.apply(anchors, bank, rows).masked_fill(rows < 0, -torch.inf)


class _ChosenProducts(torch.autograd.Function):
    """Selected products of the rows of two matrices, without storing all products for the backward pass.

    `gather` would store them: 1.8 GB for 21000 anchors and as many stored vectors.
    """

    @staticmethod
    def forward(ctx, anchors, bank, rows):
        ctx.save_for_backward(anchors, bank, rows)
        return (anchors @ bank.t()).gather(1, rows.clamp(min=0))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        anchors, bank, rows = ctx.saved_tensors
        rows = rows.clamp(min=0)
        for_anchors = for_bank = None
        with no_autocast(grad.device):
            if ctx.needs_input_grad[0]:
                # Weighted sums of only the selected rows, which are one in a hundred of a full bank.
                for_anchors = F.embedding_bag(rows, bank, per_sample_weights=grad, mode='sum')
            if ctx.needs_input_grad[1]:
                every = grad.new_zeros((len(anchors), len(bank))).scatter_add_(1, rows, grad)
                for_bank = every.t() @ anchors
        return for_anchors, for_bank, None


def _check_contrast(anchors: Tensor, positives: Tensor, bank: Tensor, negatives: Tensor) -> None:
    if anchors.dim() != 2 or not anchors.is_floating_point():
        raise ValueError(
            f'anchors is a {anchors.dtype} tensor of shape {tuple(anchors.shape)}, but must be '
            'floating point and (A, D).'
        )
    check_same_shape(positives, anchors, 'positives', 'anchors')
    num_anchors, dim = anchors.shape
    if bank.dim() != 2 or bank.shape[1] != dim:
        raise ValueError(f'bank has shape {tuple(bank.shape)}, but must be (M, {dim}).')
    if negatives.dim() != 2 or len(negatives) != num_anchors or negatives.dtype != torch.int64:
        raise ValueError(
            f'negatives is a {negatives.dtype} tensor of shape {tuple(negatives.shape)}, but must '
            f'be int64 and ({num_anchors}, S).'
        )
