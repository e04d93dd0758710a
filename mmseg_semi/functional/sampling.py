"""Pixel weights and multi-entropy sampling of DeS4.

The sampling has these steps: the fraction to draw of each class (`class_ratio`), the number of its pixels in
this batch (`class_quota`), zones of entropy (`zone_index`), the quota of each zone (`zone_ratio`,
`zone_quota`), and the draw (`multi_entropy_sample`, `multi_entropy_mask`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._common import VOID, check_map, check_same_shape, exact_float, no_autocast

STYLES = ('multi_entropy', 'quantity', 'confidence')
RULES = ('inverse', 'literal')


def entropy(probs: Tensor, dim: int = 1) -> Tensor:
    """Entropy -Σ p ln(p + 1e-10) of probabilities, in nats (DeS4, Eq. 9).

    Args:
        probs: Probabilities along `dim`, any floating dtype.
        dim: Dimension of the classes, which the result does not have.

    Returns:
        In [0, ln C] up to 1e-10 per class, float32 (float64 for float64 probabilities).
    """
    with no_autocast(probs.device):
        probs = exact_float(probs)
        return -(probs * (probs + 1e-10).log()).sum(dim=dim)


@torch.no_grad()
def pixel_weights(confidence: Tensor, label: Tensor, ignore_index: int = VOID) -> Tensor:
    """Weight of each pixel in DeS4's supervised loss, larger for uncertain pixels (Eq. 7).

    (1 - confidence)^2 divided by its sum over the image. The paper prints argmax instead of the maximum.

    Args:
        confidence: (N, H, W) largest probability of each pixel; ignored for void pixels.
        label: (N, H, W) ground truth.
        ignore_index: Label of void pixels.

    Returns:
        (N, H, W), float32 (float64 for float64 confidence), without a gradient. The weight of void pixels is 0,
        the sum over each image is 1 (uniform if every confidence is 1), or 0 if all pixels are void. Nothing
        waits for the device.

    Raises:
        ValueError: if the shapes do not fit.
    """
    check_map(confidence, 'confidence')
    check_same_shape(label, confidence, 'label', 'confidence')
    valid = label != ignore_index
    unsure = (1 - exact_float(confidence)).square().masked_fill(~valid, 0)
    total = unsure.sum(dim=(1, 2), keepdim=True)
    weights = torch.where(total > 0, unsure, valid.to(unsure.dtype))
    count = valid.sum(dim=(1, 2), keepdim=True).clamp(min=1)
    return weights / torch.where(total > 0, total, count.to(total.dtype))


def class_ratio(dataset_counts: Tensor) -> Tensor:
    """Fraction of pixels to draw of each class, n_min / n_c (DeS4, Sec. 3.3).

    All pixels of the rarest class are drawn, and the same number of the others in expectation. The paper's text
    has the inverse, which exceeds the number of pixels.

    Args:
        dataset_counts: (C,) pixels of each class in the labeled set, without void.

    Returns:
        (C,) float64 in [0, 1]; 0 for classes without pixels, which do not count as the rarest.

    Raises:
        ValueError: if `dataset_counts` is not a vector.
    """
    _check_vector(dataset_counts, 'dataset_counts')
    counts = dataset_counts.detach().double()
    shown = counts > 0
    rarest = counts.masked_fill(~shown, torch.inf).amin() if len(counts) else counts.sum()
    return torch.where(shown, rarest / counts, 0)


def class_quota(ratio: Tensor, batch_counts: Tensor) -> Tensor:
    """Number of pixels to draw of each class in a batch: ratio · count, rounded half up (DeS4, Sec. 3.3).

    Args:
        ratio: (C,) from `class_ratio`.
        batch_counts: (C,) pixels of each class in the batch.

    Returns:
        (C,) int64, at least 1 if the batch has pixels of the class, and at most their number.

    Raises:
        ValueError: if the shapes do not fit.
    """
    _check_vector(ratio, 'ratio')
    check_same_shape(batch_counts, ratio, 'batch_counts', 'ratio')
    counts = batch_counts.detach().long()
    quota = (ratio.detach().double() * counts + 0.5).floor().long()
    return torch.minimum(quota.clamp(min=1), counts)


def zone_index(entropy: Tensor, num_zones: int) -> Tensor:
    """Zone of each pixel: intervals of equal width from the smallest to the largest entropy (DeS4, Eq. 10).

    A value on a border belongs to the upper zone, the largest value to the last zone.

    Args:
        entropy: (M,) entropies of one class.
        num_zones: k, at least 1.

    Returns:
        (M,) int64 in [0, k); all 0 if the entropies are equal. Nothing waits for the device.

    Raises:
        ValueError: if `entropy` is not a vector or `num_zones` below 1.
    """
    _check_vector(entropy, 'entropy')
    _check_zones(num_zones)
    entropy = exact_float(entropy.detach())
    if not len(entropy):
        return entropy.long()
    low = entropy.amin()
    return _zone(entropy - low, entropy.amax() - low, num_zones)


def zone_ratio(entropy: Tensor, zones: Tensor, num_zones: int, alpha: float) -> Tensor:
    """Raw share of each zone, 1 / (alpha + its mean entropy) (DeS4, Eq. 11).

    The printed equation favors low entropy, although the text describes difficult samples. A larger `alpha`
    makes the zones more equal.

    Args:
        entropy: (M,) entropies of one class.
        zones: (M,) zone of each, from `zone_index`.
        num_zones: k.
        alpha: Above 0; the paper uses 0.1.

    Returns:
        (k,), not normalized, float32 (float64 for float64 entropies); 0 for empty zones. Means are computed in
        float64. Nothing waits for the device.

    Raises:
        ValueError: if the shapes do not fit, `num_zones` is below 1 or `alpha` not above 0.
    """
    _check_vector(entropy, 'entropy')
    check_same_shape(zones, entropy, 'zones', 'entropy')
    _check_zones(num_zones)
    _check_alpha(alpha)
    return _ratio(exact_float(entropy.detach()), zones.long(), num_zones, alpha)[0]


def zone_quota(ratio: Tensor, total: int | Tensor, available: Tensor) -> Tensor:
    """Number of pixels to draw in each zone (DeS4, after Eq. 11).

    The total is divided by `ratio` with the largest remainder method (ties: the lower zone first). If a zone
    has too few pixels, the rest is taken from zones with spare pixels, the nearest first (ties: the lower zone
    first), starting with the lowest zone.

    Args:
        ratio: (k,) not negative, need not be normalized; all 0 means equal shares.
        total: Number of pixels to draw, an int or a tensor of one element.
        available: (k,) number of pixels in each zone.

    Returns:
        (k,) int64, at most `available`, with the sum min(total, available.sum()). Nothing waits for
        the device.

    Raises:
        ValueError: if the shapes do not fit or `total` is a negative int.
    """
    _check_vector(ratio, 'ratio')
    check_same_shape(available, ratio, 'available', 'ratio')
    if isinstance(total, Tensor):
        total = total.detach().reshape(1).long()
    elif total < 0:
        raise ValueError(f'total is {total}, but the number of pixels to draw cannot be negative.')
    else:
        total = torch.full((1,), int(total), device=ratio.device)
    return _quota(ratio.detach()[None], total, available.detach().long()[None])[0]


@torch.no_grad()
def multi_entropy_sample(
    entropy: Tensor,
    label: Tensor,
    quota: Tensor,
    *,
    num_zones: int = 5,
    alpha: float = 0.1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw pixels of every class from all levels of its entropy (DeS4, Sec. 3.3, steps e to i).

    Each class has its own zones (`zone_index`), divides its quota among them (`zone_ratio`, `zone_quota`) and
    draws uniformly without replacement in each. All classes and zones are processed at once: the pixels are
    shuffled, then sorted by class and zone with a stable sort, and the first ones of each zone are taken.

    Args:
        entropy: (M,) entropy of each pixel; ignored for void pixels.
        label: (M,) class of each pixel, 255 = void.
        quota: (C,) pixels to draw of each class; all pixels of a class if it has fewer.
        num_zones: k, at least 1.
        alpha: See `zone_ratio`, above 0.
        generator: Source of randomness, on any device. Default: torch's on the device of `entropy`.

    Returns:
        (S,) int64 indices into `entropy`, without repetition, in no particular order. The host waits for the
        device once, for S.

    Raises:
        ValueError: if the shapes do not fit, `num_zones` is below 1 or `alpha` not above 0.
    """
    _check_draw(entropy, label, quota)
    _check_zones(num_zones)
    _check_alpha(alpha)
    entropy, device = exact_float(entropy), entropy.device
    num_classes, num_pixels = len(quota), len(entropy)
    if not num_pixels or not num_classes:
        return torch.empty(0, dtype=torch.int64, device=device)

    pixels, ratio, count = _shuffled_cells(entropy, label, num_classes, num_zones, alpha, generator)
    # The only wait: the host divides the quotas, a few hundred numbers, fastest.
    ratio, count, quota = (
        torch.cat([ratio.double(), count.double(), quota.double()])
        .cpu()
        .split([len(count), len(count), num_classes])
    )
    shape = (num_classes, num_zones)
    count = count[: num_classes * num_zones].long()
    take = _quota(ratio[: len(count)].view(shape), quota.long(), count.view(shape)).flatten()
    first = count.cumsum(0) - count
    drawn = [
        pixels[start : start + n] for start, n in zip(first.tolist(), take.tolist(), strict=True)
    ]
    return torch.cat(drawn)


@torch.no_grad()
def multi_entropy_mask(
    entropy: Tensor,
    label: Tensor,
    quota: Tensor,
    *,
    num_zones: int = 5,
    alpha: float = 0.1,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Same draw as `multi_entropy_sample`, returned as a mask, without waiting for the device.

    With one zone the draw is uniform over the pixels of a class (DeS4, Table 4, quantity balance).

    Args:
        entropy, label, quota, num_zones, alpha, generator: See `multi_entropy_sample`.

    Returns:
        (M,) bool, True for drawn pixels, and (C, k) int64, the number of drawn pixels in each zone of each
        class.

    Raises:
        ValueError: See `multi_entropy_sample`.
    """
    _check_draw(entropy, label, quota)
    _check_zones(num_zones)
    _check_alpha(alpha)
    entropy, num_classes = exact_float(entropy), len(quota)
    if not len(entropy) or not num_classes:
        return torch.zeros_like(entropy, dtype=torch.bool), quota.new_zeros(num_classes, num_zones)
    pixels, ratio, count = _shuffled_cells(entropy, label, num_classes, num_zones, alpha, generator)
    shape, known = (num_classes, num_zones), num_classes * num_zones
    take = _quota(ratio[:known].view(shape), quota.detach().long(), count[:known].view(shape))
    return _first_of_each(
        pixels, count, torch.cat([take.flatten(), count.new_zeros(num_zones)])
    ), take


@torch.no_grad()
def confidence_mask(
    confidence: Tensor,
    label: Tensor,
    quota: Tensor,
    *,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw pixels of every class with probabilities proportional to their confidence (DeS4, Table 4).

    Drawing is without replacement: the pixels of a class with the smallest ratios of an exponential variable to
    their confidence are taken, which equals successive weighted draws.

    Args:
        confidence: (M,) largest probability of each pixel, above 0; ignored for void pixels.
        label: (M,) class of each pixel, 255 = void.
        quota: (C,) pixels to draw of each class; all pixels of a class if it has fewer.
        generator: Source of randomness, on any device. Default: torch's on the device of `confidence`.

    Returns:
        (M,) bool, True for drawn pixels, and (C, 1) int64, the number of drawn pixels of each class. Nothing
        waits for the device.

    Raises:
        ValueError: if the shapes do not fit.
    """
    _check_draw(confidence, label, quota, 'confidence')
    confidence, num_classes = exact_float(confidence), len(quota)
    where = confidence.device if generator is None else generator.device
    uniform = torch.rand(len(confidence), generator=generator, dtype=torch.float64, device=where)
    key = -torch.log1p(-uniform.to(confidence.device, non_blocking=True)) / confidence
    row = label.masked_fill(label == VOID, num_classes).long()
    by_key = key.argsort()
    pixels = by_key.index_select(0, row.index_select(0, by_key).sort(stable=True).indices)
    count = row.new_zeros(num_classes + 1).index_add_(0, row, torch.ones_like(row))
    take = torch.minimum(quota.detach().long().clamp(min=0), count[:num_classes])
    mask = _first_of_each(pixels, count, torch.cat([take, take.new_zeros(1)]))
    return mask, take[:, None]


@torch.no_grad()
def balanced_mask(
    logits: Tensor,
    label: Tensor,
    dataset_counts: Tensor,
    *,
    style: str = 'multi_entropy',
    rule: str = 'inverse',
    num_zones: int = 5,
    alpha: float = 0.1,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw the same expected number of pixels of every class (DeS4, Sec. 3.3; Table 4).

    Args:
        logits: (N, C, h, w), any floating dtype.
        label: (N, h, w) class of each pixel, 255 = void.
        dataset_counts: (C,) pixels of each class in the labeled set, without void.
        style: 'multi_entropy' draws from zones of entropy (`multi_entropy_mask`), 'quantity' uniformly,
            'confidence' by the largest probability (`confidence_mask`).
        rule: 'inverse' draws the fraction n_min / n_c of a class's pixels (`class_ratio`); 'literal' uses the
            paper's n_c / n_min, which is at least 1 and draws all pixels.
        num_zones, alpha: See `multi_entropy_mask`.
        generator: Source of randomness, on any device. Default: torch's on the device of `logits`.

    Returns:
        (N, h, w) bool, True for drawn pixels, and int64 (C, k), the number of drawn pixels in each zone of each
        class; k = 1 except for 'multi_entropy'. Nothing waits for the device.

    Raises:
        ValueError: if the shapes do not fit, or `style` or `rule` is unknown.
    """
    for name, value, known in (('style', style, STYLES), ('rule', rule, RULES)):
        if value not in known:
            raise ValueError(f'{name} is {value!r}, but must be one of {", ".join(known)}.')
    check_map(label, 'label')
    num_classes, flat = logits.shape[1], label.flatten()
    ratio = class_ratio(dataset_counts)
    if rule == 'literal':
        ratio = ratio.reciprocal().masked_fill(ratio == 0, 0)
    row = flat.masked_fill(flat == VOID, num_classes).long()
    counts = row.new_zeros(num_classes + 1).index_add_(0, row, torch.ones_like(row))
    quota = class_quota(ratio, counts[:num_classes])
    with no_autocast(logits.device):
        probs = exact_float(logits).softmax(dim=1)
    # If features overflow in half precision, the step is lost, but the numbers of samples remain finite.
    if style == 'confidence':
        confidence = probs.amax(dim=1).flatten().nan_to_num()
        drawn, taken = confidence_mask(confidence, flat, quota, generator=generator)
    else:
        drawn, taken = multi_entropy_mask(
            entropy(probs).flatten().nan_to_num(),
            flat,
            quota,
            num_zones=num_zones if style == 'multi_entropy' else 1,
            alpha=alpha,
            generator=generator,
        )
    return drawn.view_as(label), taken


def _shuffled_cells(
    entropy: Tensor,
    label: Tensor,
    num_classes: int,
    num_zones: int,
    alpha: float,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return all pixels by class and zone, shuffled within each, with `zone_ratio` and pixels of each zone.

    Void is one more class at the end, which is not drawn.
    """
    device = entropy.device
    row = label.masked_fill(label == VOID, num_classes).long()
    edge = entropy.new_full((2, num_classes + 1), torch.inf)
    low = edge[0].scatter_reduce(0, row, entropy, 'amin')
    span = (-edge[1]).scatter_reduce(0, row, entropy, 'amax') - low
    cell = _zone(entropy - low.index_select(0, row), span.index_select(0, row), num_zones)
    cell.add_(row, alpha=num_zones)
    ratio, count = _ratio(entropy, cell, (num_classes + 1) * num_zones, alpha)

    where = device if generator is None else generator.device
    shuffled = torch.randperm(len(entropy), generator=generator, device=where)
    shuffled = shuffled.to(device, non_blocking=True)
    # The CPU sorts 8- and 16-bit keys five times faster than 64-bit ones.
    fits = (
        dtype
        for dtype in (torch.uint8, torch.int16, torch.int64)
        if len(count) - 1 <= torch.iinfo(dtype).max
    )
    order = cell.to(next(fits)).index_select(0, shuffled).sort(stable=True).indices
    return shuffled.index_select(0, order), ratio, count


def _first_of_each(pixels: Tensor, count: Tensor, take: Tensor) -> Tensor:
    """(M,) bool, True for the first `take` of each run of `count` places in the order `pixels`."""
    place = torch.arange(len(pixels), device=pixels.device)
    end = count.cumsum(0)
    # A place's run is the first that ends after it; this is cheaper than repeating each run's number.
    run = torch.searchsorted(end, place, right=True)
    drawn = place < (end - count + take).index_select(0, run)
    return torch.zeros_like(drawn).scatter_(0, pixels, drawn)


def _zone(offset: Tensor, span: Tensor, num_zones: int) -> Tensor:
    """Zone of each `offset` from the smallest entropy, if the largest offset is `span`."""
    # Multiply before dividing, so that representable borders are exact.
    zone = (offset * num_zones).div_(span.masked_fill(span <= 0, 1))
    return zone.long().clamp_(0, num_zones - 1)


def _ratio(entropy: Tensor, row: Tensor, num_rows: int, alpha: float) -> tuple[Tensor, Tensor]:
    """1 / (alpha + mean entropy) of each row (0 if empty), and the number of pixels of each row."""
    count = row.new_zeros(num_rows).index_add_(0, row, torch.ones_like(row))
    total = entropy.new_zeros(num_rows, dtype=torch.float64)
    total = total.index_add_(0, row, entropy.double())
    ratio = (1 / (alpha + total / count.clamp(min=1))).masked_fill(count == 0, 0)
    return ratio.to(entropy.dtype), count


def _quota(ratio: Tensor, total: Tensor, available: Tensor) -> Tensor:
    """`zone_quota` for many classes: ratio and available (C, k), total (C,)."""
    num_zones = ratio.shape[1]
    total = torch.minimum(total, available.sum(dim=1)).clamp(min=0)[:, None]
    ratio = ratio.double()
    weight = ratio.sum(dim=1, keepdim=True)
    ratio = torch.where(weight > 0, ratio / weight, 1 / max(1, num_zones))
    share = ratio * total
    quota = share.floor()
    left = total - quota.sum(dim=1, keepdim=True)
    order = (share - quota).argsort(dim=1, descending=True, stable=True)
    bonus = torch.arange(num_zones, device=ratio.device) < left
    quota = quota.scatter_add(1, order, bonus.to(quota.dtype)).long()

    take = torch.minimum(quota, available)
    lack = list((quota - take).unbind(dim=1))
    spare = list((available - take).unbind(dim=1))
    taken = list(take.unbind(dim=1))
    for zone in range(num_zones):
        by_distance = sorted(range(num_zones), key=lambda other: (abs(other - zone), other))
        for other in by_distance[1:]:
            moved = torch.minimum(lack[zone], spare[other])
            lack[zone] = lack[zone] - moved
            spare[other] = spare[other] - moved
            taken[other] = taken[other] + moved
    return torch.stack(taken, dim=1)


def _check_vector(x: Tensor, name: str) -> None:
    if x.dim() != 1:
        raise ValueError(f'{name} has shape {tuple(x.shape)}, but must have one dimension.')


def _check_draw(values: Tensor, label: Tensor, quota: Tensor, name: str = 'entropy') -> None:
    _check_vector(values, name)
    check_same_shape(label, values, 'label', name)
    _check_vector(quota, 'quota')


def _check_zones(num_zones: int) -> None:
    if num_zones < 1:
        raise ValueError(f'num_zones is {num_zones}, but at least one zone is needed.')


def _check_alpha(alpha: float) -> None:
    if not alpha > 0:
        raise ValueError(f'alpha is {alpha}, but must be above 0: a mean entropy can be 0.')
