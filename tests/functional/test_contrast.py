"""Draws of anchors, positives and negatives by hand and by frequency; InfoNCE against loops."""

import math

import numpy as np
import pytest
import torch

from mmseg_semi.functional import contrast, losses
from mmseg_semi.functional.contrast import (
    class_mean,
    pixels_at,
    sample_anchors,
    sample_entries,
    sample_negatives,
    sample_places,
    sample_positives,
)


def labels(*counts, void=0):
    """A shuffled map (M,) with so many pixels of each class."""
    label = torch.cat(
        [torch.full((n,), c) for c, n in enumerate(counts)] + [torch.full((void,), 255)]
    )
    return label[torch.randperm(len(label))]


@pytest.mark.parametrize(
    ('counts', 'ratio', 'limit', 'expected', 'capped'),
    [
        ((30, 1, 0, 11), 0.1, 1000, [3, 1, 0, 2], [0, 0, 0, 0]),  # rounded up, at least one
        ((100, 5, 21), 0.1, 4, [4, 1, 3], [1, 0, 0]),
        ((7, 9), 1.0, 1000, [7, 9], [0, 0]),
        ((100, 300, 700), 0.07, 1000, [7, 21, 49], [0, 0, 0]),  # products that floats exceed
    ],
)
def test_share_and_limit_of_each_class(counts, ratio, limit, expected, capped):
    label = labels(*counts, void=13)
    anchors = sample_anchors(label, len(counts), ratio=ratio, limit=limit)
    assert anchors.counts.tolist() == expected
    assert anchors.capped.tolist() == [bool(x) for x in capped]
    # Each place is of the class that it is said to be, and drawn once.
    assert torch.equal(label[anchors.index], anchors.label)
    assert torch.bincount(anchors.label, minlength=len(counts)).tolist() == expected
    assert len(set(anchors.index.tolist())) == len(anchors.index) == sum(expected)


def test_empty_places_come_last_where_their_number_is_not_asked(monkeypatch):
    monkeypatch.setattr(contrast, '_taken', lambda places, number: places)
    label = labels(30, 1, 0, 11, void=13)
    anchors = sample_anchors(label, 4, ratio=0.1, limit=5)
    # At most 5 of each class, a tenth of 55 places and one of each class more: 9 places, of which 6 are taken.
    assert anchors.index.shape == (9,)
    assert anchors.index[6:].tolist() == [-1] * 3
    assert anchors.label.tolist() == [0, 0, 0, 1, 3, 3, 0, 0, 0]
    assert torch.equal(label[anchors.index[:6]], anchors.label[:6])


def test_every_candidate_is_as_likely():
    label = torch.tensor([0, 1, 0, 255, 0, 1, 0])
    hits = torch.zeros(len(label))
    for seed in range(2000):
        generator = torch.Generator().manual_seed(seed)
        drawn = sample_anchors(label, 2, ratio=0.5, generator=generator).index
        hits[drawn] += 1
    assert hits[3] == 0
    torch.testing.assert_close(hits[label < 2] / 2000, torch.full((6,), 0.5), atol=0.05, rtol=0)


@pytest.mark.parametrize('num_pixels', [0, 5])
def test_without_candidates_there_are_no_anchors(num_pixels):
    anchors = sample_anchors(torch.full((num_pixels,), 255), 3)
    assert anchors.index.shape == anchors.label.shape == (0,)
    assert anchors.counts.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'ratio': 0}, r'ratio is 0, but a share'),
        ({'ratio': 1.1}, r'ratio is 1\.1'),
        ({'limit': 0}, r'limit is 0'),
    ],
)
def test_bad_share_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        sample_anchors(torch.zeros(4, dtype=torch.int64), 1, **settings)
    with pytest.raises(ValueError, match=r'must be \(M,\)'):
        sample_anchors(torch.zeros(2, 2, dtype=torch.int64), 1)


def test_positives_are_of_the_anchors_own_queue():
    fill = torch.tensor([3, 0, 1])
    queue = torch.tensor([0] * 300 + [1] * 5 + [2] * 5)
    rows = sample_positives(queue, fill, capacity=4)
    assert set(rows[:300].tolist()) == {0, 1, 2}
    torch.testing.assert_close(
        torch.bincount(rows[:300]) / 300, torch.full((3,), 1 / 3), atol=0.1, rtol=0
    )
    assert rows[300:].tolist() == [-1] * 5 + [8] * 5


def stored(fill, capacity):
    return [q * capacity + s for q, number in enumerate(fill) for s in range(number)]


def test_negatives_come_from_all_other_queues_also_of_the_same_class():
    # Two classes of two parts; the anchor is of the second part of the first class.
    fill, capacity = [3, 4, 0, 2], 4
    rows = sample_negatives(torch.tensor([1] * 40), torch.tensor(fill), capacity, num=4)
    own = set(range(4, 8))
    expected = sorted(set(stored(fill, capacity)) - own)
    assert sorted(set(rows.flatten().tolist())) == expected == [0, 1, 2, 12, 13]
    share = torch.bincount(rows.flatten(), minlength=14)[expected] / rows.numel()
    torch.testing.assert_close(share, torch.full((5,), 0.2), atol=0.12, rtol=0)


def test_same_class_can_be_left_out():
    fill, capacity = torch.tensor([3, 4, 1, 2]), 4
    rows = sample_negatives(torch.tensor([0, 1, 2, 3]), fill, capacity, num=50, block=2)
    found = [sorted(set(row.tolist()) - {-1}) for row in rows]
    assert found == [[8, 12, 13]] * 2 + [[0, 1, 2, 4, 5, 6, 7]] * 2


@pytest.mark.parametrize('num', [4, 5, 255])
def test_few_negatives_are_all_taken_once(num):
    fill, capacity = torch.tensor([2, 3, 1]), 3
    rows = sample_negatives(torch.tensor([0, 1, 2]), fill, capacity, num=num)
    assert rows.shape == (3, num)
    for row, own in zip(rows.tolist(), range(3), strict=True):
        others = [x for x in stored(fill.tolist(), capacity) if x // capacity != own]
        taken = [x for x in row if x >= 0]
        if len(others) <= num:
            assert taken == others
            assert row[len(others) :] == [-1] * (num - len(others))
        else:
            assert len(taken) == num
            assert set(taken) <= set(others)


def test_an_empty_bank_has_no_negatives():
    rows = sample_negatives(torch.tensor([0, 1]), torch.tensor([0, 0]), 4, num=3)
    assert rows.tolist() == [[-1] * 3] * 2
    only_own = sample_negatives(torch.tensor([1]), torch.tensor([0, 4]), 4, num=3)
    assert only_own.tolist() == [[-1] * 3]
    with pytest.raises(ValueError, match='num is 0'):
        sample_negatives(torch.tensor([0]), torch.tensor([1]), 4, num=0)
    with pytest.raises(ValueError, match='block is 2, but 3 queues'):
        sample_negatives(torch.tensor([0]), torch.tensor([1, 1, 1]), 4, num=1, block=2)


def test_mean_of_class_means_counts_absent_classes():
    values = torch.tensor([1.0, 3.0, 10.0, math.inf], requires_grad=True)
    label = torch.tensor([0, 0, 2, 1])
    weight = torch.tensor([True, True, True, False])
    mean = class_mean(values, label, weight, 4)
    assert mean == (2 + 10) / 4
    mean.backward()
    assert values.grad.tolist() == [1 / 8, 1 / 8, 1 / 4, 0]
    empty = torch.zeros(0, requires_grad=True)
    nothing = class_mean(empty, label[:0], weight[:0], 4)
    assert nothing == 0
    nothing.backward()


def test_nothing_waits_for_a_device():
    label = torch.zeros(500, dtype=torch.int64, device='meta')
    anchors = sample_anchors(label, 3, ratio=0.1, limit=10)
    # What the shapes allow, not what there is.
    assert anchors.index.shape == (30,)
    fill = torch.zeros(6, dtype=torch.int64, device='meta')
    assert sample_positives(anchors.label, fill, 5).shape == (30,)
    rows = sample_negatives(anchors.label, fill, 5, 7, block=2)
    assert rows.shape == (30, 7)
    values = torch.rand(30, device='meta')
    assert class_mean(values, anchors.label, anchors.index >= 0, 3).shape == ()


def test_entries_of_queues_of_several_lengths():
    fill, starts = torch.tensor([3, 0, 2]), torch.tensor([0, 5, 9])
    queue = torch.tensor([[0, 1, 2]]).expand(500, 3)
    rows = sample_entries(queue, fill, starts)
    assert [set(column.tolist()) for column in rows.t()] == [{0, 1, 2}, {-1}, {9, 10}]


def test_places_are_drawn_once_and_uniformly():
    mask = torch.tensor([[1, 0, 1, 1, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]).bool()
    hits = torch.zeros(5)
    for seed in range(1000):
        place = sample_places(mask, 2, generator=torch.Generator().manual_seed(seed))
        assert place.shape == (3, 2)
        assert len(set(place[0].tolist())) == 2
        assert place[1:].tolist() == [[3, -1], [-1, -1]]
        hits[place[0]] += 1
    assert hits[1] == 0
    torch.testing.assert_close(hits[[0, 2, 3, 4]] / 2000, torch.full((4,), 0.25), rtol=0, atol=0.03)
    # More than there are: each of them.
    every = sample_places(mask, 9)
    assert sorted(every[0].tolist()) == [-1, 0, 2, 3, 4]


def test_places_refuse_what_is_no_mask():
    with pytest.raises(ValueError, match='must be bool'):
        sample_places(torch.ones(2, 3), 1)
    with pytest.raises(ValueError, match='num is 0'):
        sample_places(torch.ones(2, 3).bool(), 0)


def test_features_of_pixels_with_gradients():
    features = torch.randn(2, 3, 4, 5, requires_grad=True)
    place = torch.tensor([0, 7, 39, 7])
    found = pixels_at(features, place)
    assert torch.equal(found, features.movedim(1, -1).reshape(40, 3)[place])
    found.sum().backward()
    grad = features.grad.movedim(1, -1).reshape(40, 3)
    assert grad.sum(dim=1).nonzero().flatten().tolist() == [0, 7, 39]
    assert (grad[7] == 2).all()


# --- info_nce ------------------------------------------------------------------------------------


def contrast_problem(anchors=6, dim=5, rows=9, chosen=4, seed=7):
    gen = torch.Generator().manual_seed(seed)
    kwargs = dict(generator=gen, dtype=torch.float64)
    negatives = torch.randint(-1, rows, (anchors, chosen), generator=gen)
    return (
        torch.randn(anchors, dim, **kwargs).requires_grad_(),
        torch.randn(anchors, dim, **kwargs),
        torch.randn(rows, dim, **kwargs),
        negatives,
    )


def gradient(value, x):
    return torch.autograd.grad(value.sum(), x)[0]


def slow_info_nce(anchors, positives, bank, negatives, temperature):
    def cosine(a, b):
        norm = math.sqrt(sum(a * a)) * math.sqrt(sum(b * b))
        return sum(a * b) / norm if norm else 0.0

    anchors, positives, bank = (x.detach().numpy() for x in (anchors, positives, bank))
    out = []
    for a, p, chosen in zip(anchors, positives, negatives.tolist(), strict=True):
        positive = math.exp(cosine(a, p) / temperature)
        total = sum(math.exp(cosine(a, bank[n]) / temperature) for n in chosen if n >= 0)
        out.append(-math.log(positive / (positive + total)))
    return np.array(out)


@pytest.mark.parametrize('temperature', [0.1, 0.5, 1.0])
def test_info_nce_against_loops(temperature):
    args = contrast_problem()
    expected = slow_info_nce(*args, temperature)
    each = contrast.info_nce(*args, temperature, reduction='none')
    np.testing.assert_allclose(each.detach().numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(
        contrast.info_nce(*args, temperature).item(), expected.mean(), rtol=1e-6
    )


def test_info_nce_known_values():
    # 255 orthogonal negatives, σ = 0.5: ln(1 + 255 e^-2) = 3.5698; all equal: ln 256 = 5.545.
    anchor = torch.tensor([[1.0, 0.0]])
    chosen = torch.zeros(1, 255, dtype=torch.int64)
    value = contrast.info_nce(anchor, 3 * anchor, torch.tensor([[0.0, 2.0]]), chosen, 0.5)
    np.testing.assert_allclose(value.item(), 3.5698, atol=1e-4)
    value = contrast.info_nce(anchor, anchor, 5 * anchor, chosen, 0.5)
    np.testing.assert_allclose(value.item(), math.log(256), rtol=1e-6)


def test_info_nce_gradient():
    anchors, positives, bank, negatives = contrast_problem()
    positives.requires_grad_()
    bank.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, p, b: contrast.info_nce(a, p, b, negatives, 0.5), (anchors, positives, bank)
    )


def test_info_nce_in_chunks(monkeypatch):
    args = contrast_problem(anchors=11)
    whole = contrast.info_nce(*args, 0.5, reduction='none')
    grad = gradient(whole, args[0])
    monkeypatch.setattr(contrast, '_PRODUCTS', 4 * len(args[2]))
    value = contrast.info_nce(*args, 0.5, reduction='none')
    torch.testing.assert_close(value, whole)
    torch.testing.assert_close(gradient(value, args[0]), grad)


def test_info_nce_no_anchor_is_zero_with_a_graph():
    anchors, positives, bank, negatives = contrast_problem()
    value = contrast.info_nce(anchors[:0], positives[:0], bank, negatives[:0], 0.5)
    assert value == 0
    assert value.shape == ()
    assert (gradient(value, anchors) == 0).all()
    each = contrast.info_nce(anchors[:0], positives[:0], bank, negatives[:0], 0.5, reduction='none')
    assert each.shape == (0,)


@pytest.mark.parametrize('rows', [0, 9])
@pytest.mark.parametrize('chosen', [0, 4])
def test_info_nce_without_negatives_is_zero_and_counted(rows, chosen):
    anchors, positives, bank, _ = contrast_problem()
    negatives = torch.full((6, chosen), -1)
    value = contrast.info_nce(anchors, positives, bank[:rows], negatives, 0.5, reduction='none')
    torch.testing.assert_close(value, torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-12)
    grad = gradient(value, anchors)
    torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=1e-12)


def test_info_nce_mean_counts_anchors_without_negatives():
    anchors, positives, bank, negatives = contrast_problem()
    negatives[1:] = -1
    each = contrast.info_nce(anchors, positives, bank, negatives, 0.5, reduction='none')
    torch.testing.assert_close(
        contrast.info_nce(anchors, positives, bank, negatives, 0.5), each[0] / 6
    )


def test_info_nce_zero_vector_has_cosine_zero_and_a_tame_gradient():
    anchors, positives, bank, negatives = contrast_problem()
    anchors = anchors.detach()
    anchors[0] = 0
    bank[0] = 0
    anchors.requires_grad_()
    negatives[:, 0] = 0
    value = contrast.info_nce(anchors, positives, bank, negatives, 0.5, reduction='none')
    expected = slow_info_nce(anchors, positives, bank, negatives, 0.5)
    np.testing.assert_allclose(value.detach().numpy(), expected, rtol=1e-6)
    assert gradient(value, anchors).abs().max() < 100


def test_info_nce_half_and_autocast():
    anchors, positives, bank, negatives = contrast_problem()
    half = [x.detach().half() for x in (anchors, positives, bank)]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = contrast.info_nce(*half, negatives, 0.5)
    assert value.dtype == torch.float32
    # A bfloat16 matrix product would be wrong in the third digit.
    expected = slow_info_nce(*(x.double() for x in half), negatives, 0.5).mean()
    np.testing.assert_allclose(value.item(), expected, rtol=1e-6)


def test_info_nce_large_similarities_do_not_overflow():
    anchors, positives, bank, negatives = contrast_problem()
    value = contrast.info_nce(anchors.float(), positives.float(), bank.float(), negatives, 1e-4)
    assert torch.isfinite(value)


def test_info_nce_stands_among_the_losses_too():
    assert losses.info_nce is contrast.info_nce


def test_info_nce_rejects():
    anchors, positives, bank, negatives = contrast_problem()
    with pytest.raises(ValueError, match='anchors is'):
        contrast.info_nce(anchors[0], positives, bank, negatives, 0.5)
    with pytest.raises(ValueError, match='positives has shape'):
        contrast.info_nce(anchors, positives[1:], bank, negatives, 0.5)
    with pytest.raises(ValueError, match=r'bank has shape \(9, 4\), but must be \(M, 5\)'):
        contrast.info_nce(anchors, positives, bank[:, 1:], negatives, 0.5)
    with pytest.raises(ValueError, match='negatives is'):
        contrast.info_nce(anchors, positives, bank, negatives.float(), 0.5)
    with pytest.raises(ValueError, match='temperature is 0'):
        contrast.info_nce(anchors, positives, bank, negatives, 0)
    with pytest.raises(ValueError, match="reduction is 'sum'"):
        contrast.info_nce(anchors, positives, bank, negatives, 0.5, reduction='sum')


def test_contrast_logits_are_cosines_with_the_positive_first():
    anchors, positives = torch.tensor([[3.0, 4], [0, 2]]), torch.tensor([[1.0, 0], [0, 7]])
    bank = torch.tensor([[0.0, 1], [2, 0]])
    terms = contrast.contrast_logits(anchors, positives, bank, torch.tensor([[0, -1], [1, 0]]), 0.5)
    expected = torch.tensor([[1.2, 1.6, -torch.inf], [2, 0, 2]])
    torch.testing.assert_close(terms, expected)
    lonely = contrast.contrast_logits(anchors, positives, bank[:0], torch.full((2, 3), -1), 0.5)
    torch.testing.assert_close(lonely, expected[:, :1])


def test_drawn_contrast_logits_are_those_of_the_whole_bank():
    generator = torch.Generator().manual_seed(0)
    anchors, positives, bank = (
        torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (4, 4, 7)
    )
    rows = torch.randint(-1, 7, (4, 6), generator=generator)
    rows[0] = -1
    grads = []
    for drawn in (False, True):
        leaf = anchors.clone().requires_grad_()
        if drawn:
            terms = contrast.drawn_contrast_logits(
                leaf, positives, bank[rows.clamp(min=0)], rows >= 0, 0.5
            )
        else:
            terms = expected = contrast.contrast_logits(leaf, positives, bank, rows, 0.5)
        (terms.logsumexp(1) - terms[:, 0]).sum().backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(terms, expected)
    torch.testing.assert_close(*grads)
    assert torch.isinf(terms).sum() == (rows < 0).sum() > 6


@pytest.mark.parametrize(
    ('shapes', 'temperature', 'message'),
    [
        (((2, 3), (1, 3), (2, 4, 3), (2, 4)), 0.5, r'positives \(1, 3\), but must be alike'),
        (((2, 3), (2, 3), (2, 4, 5), (2, 4)), 0.5, r'negatives have shape \(2, 4, 5\)'),
        (((2, 3), (2, 3), (3, 4, 3), (3, 4)), 0.5, r'there \(3, 4\).*for 2 anchors'),
        (((2, 3), (2, 3), (2, 4, 3), (2, 4)), 0.0, r'temperature is 0\.0'),
    ],
)
def test_drawn_contrast_logits_refuse(shapes, temperature, message):
    anchors, positives, negatives, there = (torch.ones(shape) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        contrast.drawn_contrast_logits(anchors, positives, negatives, there.bool(), temperature)


def test_contrast_of_equal_features_and_its_lower_bounds():
    same = torch.ones(1, 4)
    rows = torch.zeros(1, 255, dtype=torch.int64)
    loss = contrast.info_nce(same, same, same, rows, 0.5)
    torch.testing.assert_close(loss, torch.tensor(256.0).log())
    # Features that end in ReLU cannot be further apart than at a right angle.
    apart = contrast.info_nce(same, same, torch.tensor([[1.0, -1, 1, -1]]), rows, 0.5)
    assert apart.item() == pytest.approx(3.5698, abs=1e-4)
    opposite = contrast.info_nce(same, same, -same, rows, 0.5)
    assert opposite.item() == pytest.approx(1.7353, abs=1e-4)
