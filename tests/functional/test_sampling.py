"""DeS4's weights and multi-entropy sampling against plain loops, and numbers done by hand."""

import math
from fractions import Fraction
from itertools import combinations

import pytest
import torch
from host_reads import ReadsByTheHost
from hypothesis import given, settings
from hypothesis import strategies as st

from mmseg_semi.functional import sampling
from mmseg_semi.functional.sampling import (
    balanced_mask,
    class_quota,
    class_ratio,
    confidence_mask,
    entropy,
    multi_entropy_mask,
    multi_entropy_sample,
    pixel_weights,
    zone_index,
    zone_quota,
    zone_ratio,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# --- entropy -------------------------------------------------------------------------------------


def test_entropy_by_hand():
    probs = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [1 / 3] * 3], dtype=torch.float64)
    expected = torch.tensor([math.log(2), 0.0, math.log(3)], dtype=torch.float64)
    torch.testing.assert_close(entropy(probs), expected, rtol=0, atol=1e-9)


def test_entropy_has_the_constant_inside_the_logarithm():
    value = entropy(torch.tensor([[1e-10, 1.0]], dtype=torch.float64)).item()
    expected = -1e-10 * math.log(2e-10) - math.log(1 + 1e-10)
    assert value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize('dim', [0, 1, -1])
def test_entropy_equals_the_slow_reference(dim):
    probs = (torch.randn(3, 4, 5, dtype=torch.float64) * 5).softmax(dim=dim)
    result = entropy(probs, dim=dim)
    rows = probs.movedim(dim, -1).reshape(-1, probs.shape[dim]).tolist()
    expected = [-sum(p * math.log(p + 1e-10) for p in row) for row in rows]
    assert result.flatten().tolist() == pytest.approx(expected, rel=1e-6)


def test_entropy_has_the_right_gradients():
    probs = torch.rand(2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(entropy, (probs,))
    certain = torch.tensor([[1.0, 0.0]], requires_grad=True)
    entropy(certain).sum().backward()
    assert certain.grad.isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_entropy_is_computed_in_float32_also_under_autocast(dtype):
    probs = torch.randn(2, 5, 3, 3).softmax(dim=1).to(dtype)
    probs[0] = torch.tensor([1, 0, 0, 0, 0]).view(-1, 1, 1)  # 1e-10 is 0 in float16
    with torch.autocast('cpu', dtype=torch.bfloat16):
        result = entropy(probs)
    assert result.dtype == torch.float32
    assert torch.equal(result, entropy(probs.float()))
    assert (result[0] == 0).all()


# --- pixel_weights -------------------------------------------------------------------------------


def test_weights_by_hand():
    confidence = torch.tensor([[[0.5, 0.9], [0.8, 0.3]]], dtype=torch.float64)
    label = torch.tensor([[[0, 2], [1, 255]]])
    expected = torch.tensor([[[25, 1], [4, 0]]], dtype=torch.float64) / 30
    torch.testing.assert_close(pixel_weights(confidence, label), expected, rtol=1e-9, atol=0)
    label[0, 0, 0] = 7
    expected = torch.tensor([[[0, 1], [4, 49]]], dtype=torch.float64) / 54
    result = pixel_weights(confidence, label, ignore_index=7)
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=0)


def test_weights_equal_the_slow_reference():
    confidence = torch.rand(3, 6, 5, dtype=torch.float64)
    label = torch.randint(0, 4, (3, 6, 5))
    label[torch.rand(label.shape) < 0.3] = 255
    result = pixel_weights(confidence, label)
    for i in range(3):
        pixels = list(
            zip(confidence[i].flatten().tolist(), label[i].flatten().tolist(), strict=True)
        )
        raw = [(1 - c) ** 2 if y != 255 else 0.0 for c, y in pixels]
        expected = [value / sum(raw) for value in raw]
        assert result[i].flatten().tolist() == pytest.approx(expected, rel=1e-6)


def test_weights_of_degenerate_images():
    confidence = torch.rand(4, 3, 3)
    label = torch.zeros(4, 3, 3, dtype=torch.int64)
    label[0] = 255  # all void
    confidence[1] = 1  # all certain
    label[1, 0] = 255
    label[2] = 255  # a single pixel counts
    label[2, 1, 1] = 3
    confidence[3] = torch.nan  # not read where void
    confidence[3, 0, 0] = 0.25
    label[3] = 255
    label[3, 0, 0] = 1
    result = pixel_weights(confidence, label)
    assert (result[0] == 0).all()
    assert result[1].tolist() == [[0.0] * 3, [pytest.approx(1 / 6)] * 3, [pytest.approx(1 / 6)] * 3]
    assert result[2].sum() == result[2, 1, 1] == 1
    assert result[3].sum() == result[3, 0, 0] == 1


def test_weights_are_detached_and_edit_nothing():
    confidence, label = torch.rand(2, 3, 3), torch.randint(0, 3, (2, 3, 3))
    copies = confidence.clone(), label.clone()
    confidence.requires_grad_()
    assert not pixel_weights(confidence, label).requires_grad
    assert torch.equal(confidence, copies[0])
    assert torch.equal(label, copies[1])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_weights_sum_to_one_in_float32(dtype):
    confidence = torch.rand(2, 65, 65).to(dtype)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        result = pixel_weights(confidence, torch.zeros(2, 65, 65, dtype=torch.int64))
    assert result.dtype == torch.float32
    torch.testing.assert_close(
        result.double().sum((1, 2)), torch.ones(2).double(), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize('shapes', [((2, 3), (2, 3)), ((1, 2, 3), (1, 3, 2))])
def test_weights_refuse_wrong_shapes(shapes):
    with pytest.raises(ValueError, match='has shape'):
        pixel_weights(torch.rand(shapes[0]), torch.zeros(shapes[1], dtype=torch.int64))


# --- class_ratio and class_quota -----------------------------------------------------------------


def test_ratio_by_hand():
    ratio = class_ratio(torch.tensor([1000, 10, 0, 40]))
    assert ratio.dtype == torch.float64
    assert ratio.tolist() == [0.01, 1.0, 0.0, 0.25]
    assert class_ratio(torch.tensor([0, 0])).tolist() == [0, 0]
    assert class_ratio(torch.tensor([7])).tolist() == [1]
    assert class_ratio(torch.empty(0)).tolist() == []


def test_ratio_takes_counts_beyond_float32():
    ratio = class_ratio(torch.tensor([2**40 + 1, 2**40]))
    assert ratio[0].item() == 2**40 / (2**40 + 1) < 1


def test_quota_by_hand():
    ratio = torch.tensor([0.01, 1.0, 0.25, 0.25, 0.25, 0.0, 0.5], dtype=torch.float64)
    counts = torch.tensor([1000, 30, 6, 5, 1, 3, 0])
    # 10; all; 1.5 goes up; 1.25; 0.25 is at least 1; at least 1; no pixel
    assert class_quota(ratio, counts).tolist() == [10, 30, 2, 1, 1, 1, 0]
    assert class_quota(ratio, counts).dtype == torch.int64
    assert class_quota(torch.tensor([3.0]), torch.tensor([4])).tolist() == [4]


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**6)), min_size=1, max_size=8))
@settings(derandomize=True, deadline=None)
def test_quota_stays_within_its_bounds(pairs):
    dataset, batch = torch.tensor(pairs).T
    ratio = class_ratio(dataset)
    quota = class_quota(ratio, batch)
    for r, n, q in zip(ratio.tolist(), batch.tolist(), quota.tolist(), strict=True):
        assert q == min(n, max(1, math.floor(r * n + 0.5)))


def test_quota_is_equal_in_expectation():
    dataset = torch.tensor([10_000, 500, 2_000])
    quota = class_quota(class_ratio(dataset), dataset // 10)
    assert quota.tolist() == [50, 50, 50]


def test_ratio_and_quota_refuse_wrong_shapes():
    with pytest.raises(ValueError, match='dataset_counts has shape'):
        class_ratio(torch.ones(2, 2))
    with pytest.raises(ValueError, match='batch_counts has shape'):
        class_quota(torch.ones(3), torch.ones(4))


# --- zones ---------------------------------------------------------------------------------------


def test_zones_by_hand():
    values = torch.tensor([0.0, 1, 2, 3, 4, 5, 0.99, 4.99])
    assert zone_index(values, 5).tolist() == [0, 1, 2, 3, 4, 4, 0, 4]  # the last zone is closed, D7
    assert zone_index(values, 1).tolist() == [0] * 8
    assert zone_index(values + 7, 2).tolist() == [0, 0, 0, 1, 1, 1, 0, 1]


def test_zones_of_degenerate_entropies():
    assert zone_index(torch.tensor([0.3, 0.3, 0.3]), 5).tolist() == [0, 0, 0]
    assert zone_index(torch.tensor([2.0]), 5).tolist() == [0]
    assert zone_index(torch.empty(0), 5).tolist() == []
    assert zone_index(torch.empty(0), 5).dtype == torch.int64


@pytest.mark.parametrize('num_zones', [1, 2, 5, 16])
def test_zones_equal_the_slow_reference(num_zones):
    values = torch.rand(200, dtype=torch.float64) * 3 + 1
    low, high = values.min().item(), values.max().item()
    width = (high - low) / num_zones
    zones = zone_index(values, num_zones)
    for value, zone in zip(values.tolist(), zones.tolist(), strict=True):
        assert 0 <= zone < num_zones
        assert low + zone * width - 1e-12 <= value <= low + (zone + 1) * width + 1e-12
    assert zones[values.argmax()] == num_zones - 1
    assert zones[values.argmin()] == 0


def test_zone_ratio_by_hand():
    values = torch.tensor([0.1, 0.3, 2.0, 0.9], dtype=torch.float64)
    ratio = zone_ratio(values, torch.tensor([0, 0, 3, 1]), 5, 0.1)
    expected = torch.tensor([1 / 0.3, 1.0, 0.0, 1 / 2.1, 0.0], dtype=torch.float64)
    torch.testing.assert_close(ratio, expected, rtol=1e-9, atol=0)
    assert zone_ratio(torch.empty(0), torch.empty(0).long(), 3, 0.1).tolist() == [0, 0, 0]
    flat = zone_ratio(values, torch.tensor([0, 0, 3, 1]), 5, 100.0)
    assert flat[flat > 0].max() / flat[flat > 0].min() < 1.02  # a large alpha flattens


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.float16])
def test_zone_ratio_takes_its_means_in_float64(dtype):
    values = torch.rand(10_000).to(dtype)
    ratio = zone_ratio(values, torch.zeros(10_000, dtype=torch.int64), 1, 0.1)
    assert ratio.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = 1 / (0.1 + values.double().mean().item())
    assert ratio.item() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(
    ('call', 'words'),
    [
        (lambda: zone_index(torch.ones(2, 2), 5), 'entropy has shape'),
        (lambda: zone_index(torch.ones(2), 0), 'num_zones is 0'),
        (lambda: zone_ratio(torch.ones(2), torch.zeros(3).long(), 5, 0.1), 'zones has shape'),
        (lambda: zone_ratio(torch.ones(2), torch.zeros(2).long(), 0, 0.1), 'num_zones is 0'),
        (lambda: zone_ratio(torch.ones(2), torch.zeros(2).long(), 5, 0.0), r'alpha is 0\.0'),
        (lambda: zone_quota(torch.ones(2), 3, torch.ones(3)), 'available has shape'),
        (lambda: zone_quota(torch.ones(2), -3, torch.ones(2)), 'total is -3'),
        (lambda: zone_quota(torch.ones(2, 1), 3, torch.ones(2, 1)), 'ratio has shape'),
    ],
)
def test_zones_refuse(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# --- zone_quota ----------------------------------------------------------------------------------


def slow_zone_quota(ratio, total, available, number=float):
    """Largest remainder, then the neighbors, one pixel's worth of rule at a time."""
    zones = range(len(ratio))
    total = min(total, sum(available))
    weight = sum(ratio)
    share = [
        number(r) / number(weight) * total if weight else number(total) / len(ratio) for r in ratio
    ]
    quota = [math.floor(s) for s in share]
    by_remainder = sorted(zones, key=lambda i: (-(share[i] - quota[i]), i))
    for i in by_remainder[: total - sum(quota)]:
        quota[i] += 1
    take = [min(q, a) for q, a in zip(quota, available, strict=True)]
    for i in zones:
        for _ in range(quota[i] - min(quota[i], available[i])):
            with_spare = [j for j in zones if take[j] < available[j]]
            take[min(with_spare, key=lambda j: (abs(j - i), j))] += 1
    return take


@pytest.mark.parametrize(
    ('ratio', 'total', 'available', 'expected'),
    [
        ([1, 1, 1], 9, [9, 9, 9], [3, 3, 3]),
        ([1, 1, 1], 4, [9, 9, 9], [2, 1, 1]),  # equal remainders: the lower zone
        ([5, 3, 2], 3, [9, 9, 9], [1, 1, 1]),  # shares 1.5, 0.9, 0.6
        ([2, 1, 1], 8, [1, 9, 9], [1, 5, 2]),  # what zone 0 lacks, zone 1 gives
        ([1, 2, 1], 8, [9, 0, 9], [6, 0, 2]),  # equal distance: the lower zone
        ([1, 2, 1], 8, [3, 0, 9], [3, 0, 5]),  # then the other one
        ([0, 1, 0, 0, 1], 6, [2, 1, 0, 3, 9], [2, 1, 0, 0, 3]),
        ([1, 0, 2], 50, [3, 0, 4], [3, 0, 4]),  # beyond the supply: all
        ([1, 1], 0, [5, 5], [0, 0]),
        ([0, 0, 0], 5, [0, 0, 0], [0, 0, 0]),
        ([0, 0], 3, [9, 9], [2, 1]),
        ([7], 3, [2], [2]),
    ],
)
def test_zone_quota_by_hand(ratio, total, available, expected):
    ratio, available = torch.tensor(ratio, dtype=torch.float32), torch.tensor(available)
    for given_total in (total, torch.tensor(total), torch.tensor([total])):
        result = zone_quota(ratio, given_total, available)
        assert result.tolist() == expected
        assert result.dtype == torch.int64


ZONES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30)), min_size=1, max_size=7)


@given(ZONES, st.integers(0, 150))
@settings(derandomize=True, deadline=None, max_examples=200)
def test_zone_quota_equals_the_slow_reference(zones, total):
    # As in use, where an empty zone has ratio 0.
    ratio = [r if a else 0 for r, a in zones]
    available = [a for _, a in zones]
    result = zone_quota(torch.tensor(ratio).double(), total, torch.tensor(available)).tolist()
    assert result == slow_zone_quota(ratio, total, available)
    assert sum(result) == min(total, sum(available))
    assert all(0 <= t <= a for t, a in zip(result, available, strict=True))
    # Rounding may break exact ties of the remainders the other way, by one pixel per zone.
    if all(
        sum(ratio) == 0 or r * total / max(1, sum(ratio)) + 1 <= a
        for r, a in zip(ratio, available, strict=True)
    ):
        exact = slow_zone_quota(ratio, total, available, Fraction)
        assert max(abs(a - b) for a, b in zip(result, exact, strict=True)) <= 1


def test_many_classes_at_once_equal_one_by_one():
    ratio, available = torch.rand(50, 5).double(), torch.randint(0, 20, (50, 5))
    total = torch.randint(0, 80, (50,))
    together = sampling._quota(ratio, total, available)
    for row, r, t, a in zip(together, ratio, total, available, strict=True):
        assert torch.equal(row, zone_quota(r, t, a))


# --- multi_entropy_sample ------------------------------------------------------------------------


def slow_supply_and_quota(values, label, quota, num_zones, alpha):
    """Per class and zone the pixels that it has and how many to take, by loops."""
    cells = {}
    for c, wanted in enumerate(quota.tolist()):
        pixels = [i for i, y in enumerate(label.tolist()) if y == c]
        zones = [[] for _ in range(num_zones)]
        if pixels:
            e = {i: values[i].item() for i in pixels}
            low, span = min(e.values()), max(e.values()) - min(e.values())
            for i in pixels:
                zone = int((e[i] - low) / span * num_zones) if span else 0
                zones[min(zone, num_zones - 1)].append(i)
        ratio = [1 / (alpha + sum(e[i] for i in z) / len(z)) if z else 0.0 for z in zones]
        take = slow_zone_quota(ratio, wanted, [len(z) for z in zones])
        for k in range(num_zones):
            cells[c, k] = zones[k], take[k]
    return cells


def batch(num_pixels=600, num_classes=6, dtype=torch.float64):
    """Unbalanced classes, a tenth void, the last class absent."""
    values = torch.rand(num_pixels, dtype=dtype) ** 2 * 3
    label = (torch.rand(num_pixels) ** 2 * (num_classes - 1)).long()
    label[torch.rand(num_pixels) < 0.1] = 255
    return values, label


@pytest.mark.parametrize(
    ('num_zones', 'alpha', 'share'), [(5, 0.1, 0.3), (1, 0.1, 0.5), (3, 2.0, 0.9), (8, 0.01, 0.05)]
)
def test_sample_takes_from_every_class_and_zone_what_the_slow_reference_says(
    num_zones, alpha, share
):
    values, label = batch()
    quota = (torch.bincount(label, minlength=256)[:6] * share).long()
    quota[2] = 10**6  # beyond the supply
    drawn = multi_entropy_sample(values, label, quota, num_zones=num_zones, alpha=alpha)
    assert drawn.dtype == torch.int64
    chosen = set(drawn.tolist())
    assert len(chosen) == len(drawn)
    cells = slow_supply_and_quota(values, label, quota, num_zones, alpha)
    for pixels, take in cells.values():
        assert len(chosen & set(pixels)) == take
    assert len(drawn) == sum(take for _, take in cells.values())
    assert (label[drawn] != 255).all()


def test_sample_agrees_with_the_functions_of_its_steps():
    values, label = batch(3000, dtype=torch.float32)
    counts = torch.bincount(label, minlength=256)[:6]
    quota = class_quota(class_ratio(counts), counts)
    drawn = multi_entropy_sample(values, label, quota)
    taken = torch.zeros_like(label, dtype=torch.bool)
    taken[drawn] = True
    for c in range(6):
        inside = label == c
        zones = zone_index(values[inside], 5)
        supply = torch.bincount(zones, minlength=5)
        expected = zone_quota(zone_ratio(values[inside], zones, 5, 0.1), quota[c], supply)
        assert torch.equal(torch.bincount(zones[taken[inside]], minlength=5), expected)


def test_sample_is_uniform_without_replacement_within_each_zone():
    # Every class has 4 pixels of low and 4 of high entropy; each pair of a zone's pixels should come
    # equally often, independently of the other zone's.
    num_classes = 4000
    values = torch.tensor([0.0] * 4 + [1.0] * 4).repeat(num_classes)
    label = torch.arange(num_classes).repeat_interleave(8)
    label += label >= 255  # no class is called void
    quota = torch.full((num_classes + 1,), 4)
    drawn = multi_entropy_sample(values, label, quota, alpha=1e6, num_zones=2, generator=seeded())
    chosen = torch.zeros(num_classes * 8, dtype=torch.bool)
    chosen[drawn] = True
    chosen = chosen.view(num_classes, 2, 4)
    assert (chosen.sum(dim=2) == 2).all()
    code = (chosen * torch.tensor([1, 2, 4, 8])).sum(dim=2)
    pairs = torch.tensor([2**a + 2**b for a, b in combinations(range(4), 2)])
    which = (code[..., None] == pairs).int().argmax(dim=2)
    counts = torch.bincount(which[:, 0] * 6 + which[:, 1], minlength=36).double()
    expected = num_classes / 36
    chi_squared = ((counts - expected) ** 2 / expected).sum().item()
    assert chi_squared < 66.6  # 0.1 % of 35 degrees of freedom


def test_sample_follows_its_generator():
    values, label = batch()
    quota = torch.full((6,), 20)
    first = multi_entropy_sample(values, label, quota, generator=seeded(3))
    assert torch.equal(multi_entropy_sample(values, label, quota, generator=seeded(3)), first)
    other = multi_entropy_sample(values, label, quota, generator=seeded(4))
    assert not torch.equal(other.sort().values, first.sort().values)
    generator = seeded(3)
    multi_entropy_sample(values, label, quota, generator=generator)
    second = multi_entropy_sample(values, label, quota, generator=generator)
    assert not torch.equal(second.sort().values, first.sort().values)
    torch.manual_seed(7)
    default = multi_entropy_sample(values, label, quota)
    torch.manual_seed(7)
    assert torch.equal(multi_entropy_sample(values, label, quota), default)


@pytest.mark.parametrize('num_classes', [3, 60, 7000])
def test_sample_with_keys_of_every_width(num_classes):
    values = torch.rand(9000)
    label = torch.randint(0, min(num_classes, 250), (9000,))
    drawn = multi_entropy_sample(values, label, torch.full((num_classes,), 7))
    counts = torch.bincount(label[drawn], minlength=num_classes)
    available = torch.bincount(label, minlength=num_classes)
    assert torch.equal(counts, available.clamp(max=7))


def test_sample_of_degenerate_batches():
    empty = torch.empty(0)
    assert multi_entropy_sample(empty, empty.long(), torch.tensor([3, 3])).tolist() == []
    assert multi_entropy_sample(torch.ones(3), torch.zeros(3).long(), empty.long()).tolist() == []
    void = torch.full((4,), 255)
    result = multi_entropy_sample(torch.rand(4), void, torch.tensor([3, 3]))
    assert result.tolist() == []
    assert result.dtype == torch.int64
    # not read where void
    values = torch.tensor([torch.nan, 0.5, torch.inf, 0.7])
    label = torch.tensor([255, 1, 255, 1])
    assert sorted(multi_entropy_sample(values, label, torch.tensor([9, 9])).tolist()) == [1, 3]
    # one pixel; equal entropies
    assert multi_entropy_sample(torch.ones(1), torch.ones(1).long(), torch.tensor([1, 1])) == 0
    assert len(multi_entropy_sample(torch.ones(9), torch.zeros(9).long(), torch.tensor([4]))) == 4
    # nothing asked for
    assert len(multi_entropy_sample(torch.rand(9), torch.zeros(9).long(), torch.tensor([0]))) == 0


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_sample_equals_float32_also_under_autocast(dtype):
    values, label = batch()
    values, quota = values.to(dtype), torch.full((6,), 20)
    expected = multi_entropy_sample(values.float(), label, quota, generator=seeded())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        result = multi_entropy_sample(values, label, quota, generator=seeded())
    assert torch.equal(result, expected)


def test_sampling_edits_nothing():
    values, label = batch()
    quota, counts = torch.full((6,), 20), torch.bincount(label, minlength=256)[:6]
    ratio = torch.rand(6)
    zones = zone_index(values, 5)
    arguments = [values, label, quota, counts, ratio, zones]
    copies = [x.clone() for x in arguments]
    values.requires_grad_()
    multi_entropy_sample(values, label, quota)
    assert not zone_ratio(values, zones, 5, 0.1).requires_grad
    class_quota(ratio, counts)
    zone_quota(ratio, quota[0], counts)
    assert all(torch.equal(a, b) for a, b in zip(arguments, copies, strict=True))


@pytest.mark.parametrize(
    ('values', 'label', 'quota', 'kwargs', 'words'),
    [
        ((2, 3), (2, 3), (4,), {}, 'entropy has shape'),
        ((5,), (6,), (4,), {}, 'label has shape'),
        ((5,), (5,), (4, 1), {}, 'quota has shape'),
        ((5,), (5,), (4,), dict(num_zones=0), 'num_zones is 0'),
        ((5,), (5,), (4,), dict(alpha=0), 'alpha is 0'),
        ((5,), (5,), (4,), dict(alpha=float('nan')), 'alpha is nan'),
    ],
)
def test_sample_refuses(values, label, quota, kwargs, words):
    label, quota = torch.zeros(label).long(), torch.ones(quota).long()
    with pytest.raises(ValueError, match=words):
        multi_entropy_sample(torch.rand(values), label, quota, **kwargs)


# --- devices -------------------------------------------------------------------------------------


def everything_without_waiting(confidence, label, counts):
    yield pixel_weights(confidence, label)
    values = entropy(confidence)
    yield values
    ratio = class_ratio(counts)
    yield class_quota(ratio, counts)
    zones = zone_index(values.flatten(), 5)
    yield zones
    ratio = zone_ratio(values.flatten(), zones, 5, 0.1)
    yield ratio
    yield zone_quota(ratio, 3, counts)
    yield zone_quota(ratio, counts.sum(), counts)


def test_nothing_waits_for_a_device():
    confidence = torch.rand(2, 8, 8, device='meta')
    label = torch.zeros(2, 8, 8, dtype=torch.int64, device='meta')
    counts = torch.ones(5, dtype=torch.int64, device='meta')
    values = everything_without_waiting(confidence, label, counts)
    assert all(value.device.type == 'meta' for value in values)


def test_sample_waits_for_a_device_once(monkeypatch):
    values, label = batch()
    copies = []
    to_host = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, 'cpu', lambda x: copies.append(x.shape) or to_host(x))
    with ReadsByTheHost() as reads:
        multi_entropy_sample(values, label, torch.full((6,), 20), generator=seeded())
    assert reads.seen == []
    assert len(copies) == 1
    with ReadsByTheHost() as reads:
        values[label == 0].sum().item()
    assert reads.seen == ['index', '_local_scalar_dense']


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_cuda_gives_the_numbers_of_the_cpu_without_synchronizing():
    confidence, label = torch.rand(2, 8, 8), torch.randint(0, 5, (2, 8, 8))
    arguments = confidence, label, torch.randint(1, 30, (5,))
    on_gpu = [x.cuda() for x in arguments]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        values = list(everything_without_waiting(*on_gpu))
    finally:
        torch.cuda.set_sync_debug_mode('default')
    for value, expected in zip(values, everything_without_waiting(*arguments), strict=True):
        torch.testing.assert_close(value.cpu(), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_sample_on_cuda_draws_the_same_with_a_generator_of_the_cpu(recwarn):
    values, label = batch()
    quota = torch.full((6,), 20)
    expected = multi_entropy_sample(values, label, quota, generator=seeded())
    on_gpu = values.cuda(), label.cuda(), quota.cuda()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('warn')
    try:
        drawn = multi_entropy_sample(*on_gpu)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert sum('synchroniz' in str(warning.message) for warning in recwarn) <= 1
    assert torch.equal(torch.bincount(label[drawn.cpu()]), torch.bincount(label[expected]))
    result = multi_entropy_sample(*on_gpu, generator=seeded())
    assert torch.equal(result.cpu(), expected)


# ------------------------------------------------------------------------------ draws as masks


def _pixels(num=4000, num_classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    entropy = torch.rand(num, generator=generator)
    label = torch.randint(0, num_classes, (num,), generator=generator)
    label[:100] = 255
    return entropy, label


@pytest.mark.parametrize('num_zones', [1, 5])
def test_mask_is_the_draw_of_multi_entropy_sample(num_zones):
    entropy, label = _pixels()
    quota = torch.tensor([10, 700, 0, 99999, 1])
    draws = []
    for function in (multi_entropy_sample, multi_entropy_mask):
        generator = torch.Generator().manual_seed(7)
        draws.append(function(entropy, label, quota, num_zones=num_zones, generator=generator))
    mask, taken = draws[1]
    assert torch.equal(mask.nonzero().squeeze(1), draws[0].sort().values)
    counts = torch.bincount(label[label != 255], minlength=5)
    assert taken.shape == (5, num_zones)
    assert torch.equal(taken.sum(dim=1), torch.minimum(quota, counts))
    assert torch.equal(torch.bincount(label[mask], minlength=5), taken.sum(dim=1))
    for c in (1, 3):
        zones = zone_index(entropy[label == c], num_zones)
        drawn = torch.bincount(zones[mask[label == c]], minlength=num_zones)
        assert torch.equal(drawn, taken[c])


def test_masks_of_nothing_are_empty():
    nothing = torch.empty(0)
    for function in (multi_entropy_mask, confidence_mask):
        mask, taken = function(nothing, nothing.long(), torch.tensor([3, 1]))
        assert mask.shape == (0,)
        assert taken.sum() == 0
    void = torch.full((4,), 255)
    for function in (multi_entropy_mask, confidence_mask):
        mask, taken = function(torch.rand(4) + 0.1, void, torch.tensor([3, 1]))
        assert not mask.any()
        assert taken.sum() == 0


def test_confident_pixels_are_drawn_in_proportion():
    # Two pixels of each of many classes with confidences 3 : 1: the first draw is the first in 3/4.
    num = 20000
    confidence = torch.tensor([0.9, 0.3]).repeat(num)
    label = torch.arange(num).repeat_interleave(2)
    label = torch.where(label >= 255, label + 1, label)
    quota = torch.ones(num + 1, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    mask, taken = confidence_mask(confidence, label, quota, generator=generator)
    assert mask.sum() == taken.sum() == num
    assert mask[0::2].float().mean() == pytest.approx(0.75, abs=0.01)
    # All are taken where the quota is beyond them, each once.
    mask, taken = confidence_mask(confidence, label, 5 * quota)
    assert mask.all()
    assert taken.max() == 2


def test_balanced_draw_has_the_papers_numbers():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 4, 16, 16, generator=generator)
    label = torch.randint(0, 3, (2, 16, 16), generator=generator)
    label[:, 0] = 255
    counts = torch.tensor([1000, 250, 500, 0])
    present = torch.bincount(label[label != 255], minlength=4)
    quota = class_quota(class_ratio(counts), present)
    drawn = {}
    for style in ('multi_entropy', 'quantity', 'confidence'):
        generator = torch.Generator().manual_seed(2)
        mask, taken = balanced_mask(logits, label, counts, style=style, generator=generator)
        assert mask.shape == label.shape
        assert torch.equal(taken.sum(dim=1), quota)
        assert torch.equal(torch.bincount(label[mask], minlength=4), quota)
        assert taken.shape[1] == (5 if style == 'multi_entropy' else 1)
        drawn[style] = mask
    assert not torch.equal(drawn['multi_entropy'], drawn['quantity'])
    assert not torch.equal(drawn['confidence'], drawn['quantity'])
    # The paper's n_c / n_min asks for more than there are: every pixel is taken.
    mask, taken = balanced_mask(logits, label, counts, rule='literal')
    assert torch.equal(mask, label != 255)
    assert torch.equal(taken.sum(dim=1), present)
    for key in ('style', 'rule'):
        with pytest.raises(ValueError, match=f"{key} is 'odd', but must be one of"):
            balanced_mask(logits, label, counts, **{key: 'odd'})


def test_confident_draw_prefers_confident_pixels():
    label = torch.zeros(1, 64, 64, dtype=torch.int64)
    logits = torch.zeros(1, 3, 64, 64)
    logits[:, 0, :32] = 6.0
    counts = torch.tensor([4, 1, 1])
    generator = torch.Generator().manual_seed(0)
    sure = balanced_mask(logits, label, counts, style='confidence', generator=generator)[0]
    assert sure.sum() == 1024
    assert sure[:, :32].sum() > 2.2 * sure[:, 32:].sum()


@pytest.mark.parametrize('style', ['multi_entropy', 'quantity', 'confidence'])
def test_balanced_draw_never_waits_for_a_device(style):
    logits = torch.rand(2, 21, 33, 33, device='meta')
    label = torch.zeros(2, 33, 33, dtype=torch.int64, device='meta')
    counts = torch.ones(21, dtype=torch.int64, device='meta')
    mask, taken = balanced_mask(logits, label, counts, style=style)
    assert mask.device.type == taken.device.type == 'meta'
