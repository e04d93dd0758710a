"""Prototype classification and averaging against plain loops, and numbers done by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmseg_semi.functional.prototypes import (
    cluster_centers,
    cosine_logits,
    mean_similarity,
    mean_turn,
    update_prototypes,
)


def slow_cosine(a, b):
    a, b = a.tolist(), b.tolist()
    lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


def slow_logits(features, prototypes, temperature):
    n, _, h, w = features.shape
    out = torch.zeros(n, len(prototypes), h, w, dtype=torch.float64)
    for i in range(n):
        for c, prototype in enumerate(prototypes.double()):
            for y in range(h):
                for x in range(w):
                    cosine = slow_cosine(features[i, :, y, x].double(), prototype)
                    out[i, c, y, x] = cosine / temperature
    return out


# --- cosine_logits -------------------------------------------------------------------------------


def test_cosines_by_hand():
    features = torch.tensor([[3.0, 4.0], [0.0, -2.0]]).T.reshape(1, 2, 1, 2)
    prototypes = torch.tensor([[10.0, 0.0], [0.0, 0.5], [-1.0, -1.0]])
    half = math.sqrt(0.5)
    expected = torch.tensor([[0.6, 0.0], [0.8, -1.0], [-1.4 * half, half]])
    result = cosine_logits(features, prototypes)
    torch.testing.assert_close(result, expected.view(1, 3, 1, 2), rtol=1e-6, atol=1e-7)
    result = cosine_logits(features, prototypes, temperature=0.1)
    torch.testing.assert_close(result, 10 * expected.view(1, 3, 1, 2), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('temperature', [1.0, 0.1, 2.5])
def test_cosines_equal_the_slow_reference(temperature):
    features = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    prototypes = torch.randn(6, 5, dtype=torch.float64)
    result = cosine_logits(features, prototypes, temperature)
    assert result.dtype == torch.float64
    expected = slow_logits(features, prototypes, temperature)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-12)


def test_cosines_do_not_depend_on_lengths():
    features, prototypes = torch.randn(1, 8, 4, 4).double(), torch.randn(3, 8).double()
    expected = cosine_logits(features, prototypes)
    scaled = cosine_logits(features * 1e-6, prototypes * 1e6)
    torch.testing.assert_close(scaled, expected, rtol=1e-9, atol=1e-12)


def test_zero_vectors_have_cosine_zero_and_finite_gradients():
    features = torch.randn(1, 4, 2, 2)
    features[..., 0, 0] = 0
    prototypes = torch.randn(3, 4)
    prototypes[1] = 0
    features.requires_grad_()
    prototypes.requires_grad_()
    result = cosine_logits(features, prototypes)
    assert (result[..., 0, 0] == 0).all()
    assert (result[:, 1] == 0).all()
    assert (result[0, [0, 2], 1, 1] != 0).all()
    F.cross_entropy(result, torch.zeros(1, 2, 2, dtype=torch.int64)).backward()
    assert features.grad.abs().max() < 10
    assert prototypes.grad.abs().max() < 10


def test_cosines_have_the_right_gradients():
    features = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    prototypes = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f, p: cosine_logits(f, p, 0.3), (features, prototypes))


def test_cosines_equal_torchs_own():
    features, prototypes = torch.randn(2, 16, 5, 5), torch.randn(7, 16)
    expected = F.cosine_similarity(features[:, None], prototypes[None, :, :, None, None], dim=2)
    torch.testing.assert_close(cosine_logits(features, prototypes), expected)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_cosines_are_computed_in_float32_also_under_autocast(dtype):
    features, prototypes = torch.randn(2, 16, 5, 5).to(dtype), torch.randn(7, 16).to(dtype)
    expected = cosine_logits(features.float(), prototypes.float())
    assert expected.dtype == torch.float32
    assert torch.equal(cosine_logits(features, prototypes), expected)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(cosine_logits(features, prototypes), expected)
        assert torch.equal(cosine_logits(features.float(), prototypes.float()), expected)


def test_dtypes_are_promoted():
    features, prototypes = torch.randn(1, 4, 2, 2), torch.randn(3, 4)
    assert cosine_logits(features.half(), prototypes).dtype == torch.float32
    assert cosine_logits(features.double(), prototypes).dtype == torch.float64
    assert cosine_logits(features, prototypes.double()).dtype == torch.float64


def test_cosines_of_nothing():
    assert cosine_logits(torch.zeros(0, 4, 2, 3), torch.ones(5, 4)).shape == (0, 5, 2, 3)
    assert cosine_logits(torch.zeros(2, 4, 0, 3), torch.ones(5, 4)).shape == (2, 5, 0, 3)


@pytest.mark.parametrize(
    ('features', 'prototypes'),
    [((1, 4, 2, 2), (3, 5)), ((4, 2, 2), (3, 4)), ((1, 4, 2, 2), (3, 2, 4))],
)
def test_cosines_refuse_wrong_shapes(features, prototypes):
    with pytest.raises(ValueError, match='one D'):
        cosine_logits(torch.ones(features), torch.ones(prototypes))


@pytest.mark.parametrize('temperature', [0, -1.0, float('nan')])
def test_cosines_refuse_a_wrong_temperature(temperature):
    with pytest.raises(ValueError, match='temperature is'):
        cosine_logits(torch.ones(1, 4, 2, 2), torch.ones(3, 4), temperature)


# --- update_prototypes ---------------------------------------------------------------------------


def test_update_by_hand():
    prototypes = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    means = torch.tensor([[2.0, 0.0], [9.0, 9.0], [1.0, 1.0]])
    present = torch.tensor([True, False, True])
    initialised = torch.tensor([True, True, False])
    result = update_prototypes(prototypes, means, present, 0.75, initialised=initialised)
    torch.testing.assert_close(result, torch.tensor([[1.25, 1.5], [3.0, 4.0], [1.0, 1.0]]))
    result = update_prototypes(prototypes, means, present, 0.75)
    torch.testing.assert_close(result, torch.tensor([[1.25, 1.5], [3.0, 4.0], [4.0, 4.75]]))


def test_update_of_parts_equals_the_slow_reference():
    prototypes = torch.randn(4, 3, 5, dtype=torch.float64)
    means = torch.randn(4, 3, 5, dtype=torch.float64)
    present, initialised = torch.rand(4, 3) < 0.6, torch.rand(4, 3) < 0.6
    result = update_prototypes(prototypes, means, present, 0.99, initialised=initialised)
    for c in range(4):
        for k in range(3):
            for d in range(5):
                old, mean = prototypes[c, k, d].item(), means[c, k, d].item()
                expected = old
                if present[c, k]:
                    expected = 0.99 * old + 0.01 * mean if initialised[c, k] else mean
                assert result[c, k, d].item() == pytest.approx(expected, rel=1e-12)


def test_absent_rows_are_not_read_and_stay_bit_for_bit():
    prototypes = torch.randn(3, 4)
    means = torch.full((3, 4), torch.nan)
    absent = torch.zeros(3, dtype=torch.bool)
    for initialised in (None, absent, ~absent):
        result = update_prototypes(prototypes, means, absent, 0.99, initialised=initialised)
        assert torch.equal(result, prototypes)
        assert result.data_ptr() != prototypes.data_ptr()


def test_rows_that_are_set_do_not_read_their_old_value():
    prototypes = torch.full((2, 3), torch.nan)
    means = torch.randn(2, 3)
    present = torch.ones(2, dtype=torch.bool)
    result = update_prototypes(prototypes, means, present, 0.99, initialised=~present)
    assert torch.equal(result, means)


def test_ends_of_the_decay():
    prototypes, means = torch.randn(3, 4), torch.randn(3, 4)
    present = torch.ones(3, dtype=torch.bool)
    assert torch.equal(update_prototypes(prototypes, means, present, 1.0), prototypes)
    assert torch.equal(update_prototypes(prototypes, means, present, 0.0), means)


def test_counts_may_say_what_is_present():
    prototypes, means = torch.zeros(3, 2), torch.ones(3, 2)
    result = update_prototypes(prototypes, means, torch.tensor([5, 0, 1]), 0.0)
    assert result[:, 0].tolist() == [1, 0, 1]


def test_update_edits_nothing_and_has_no_gradient():
    prototypes, means = torch.randn(3, 4), torch.randn(3, 4)
    present, initialised = torch.rand(3) < 0.5, torch.rand(3) < 0.5
    arguments = [prototypes, means, present, initialised]
    copies = [x.clone() for x in arguments]
    means.requires_grad_()
    result = update_prototypes(prototypes, means, present, 0.9, initialised=initialised)
    assert not result.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(arguments, copies, strict=True))


@pytest.mark.parametrize(
    ('dtype', 'means_dtype', 'expected'),
    [
        (torch.float16, torch.float16, torch.float32),
        (torch.bfloat16, torch.float32, torch.float32),
        (torch.float32, torch.float16, torch.float32),
        (torch.float32, torch.float64, torch.float32),
        (torch.float64, torch.float32, torch.float64),
    ],
)
def test_result_has_the_prototypes_precision(dtype, means_dtype, expected):
    prototypes, means = torch.randn(3, 4).to(dtype), torch.randn(3, 4).to(means_dtype)
    present = torch.ones(3, dtype=torch.bool)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        result = update_prototypes(prototypes, means, present, 0.99)
    assert result.dtype == expected
    exact = 0.99 * prototypes.double() + 0.01 * means.double()
    torch.testing.assert_close(result.double(), exact, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ('means', 'present', 'initialised', 'decay', 'words'),
    [
        ((3, 5), (3,), None, 0.9, 'means has shape'),
        ((3, 4), (4,), None, 0.9, r'present has shape \(4,\)'),
        ((3, 4), (3, 1), None, 0.9, 'present has shape'),
        ((3, 4), (3,), (2,), 0.9, 'initialised has shape'),
        ((3, 4), (3,), None, 1.5, r'decay is 1\.5'),
        ((3, 4), (3,), None, -0.1, r'decay is -0\.1'),
    ],
)
def test_update_refuses(means, present, initialised, decay, words):
    initialised = None if initialised is None else torch.ones(initialised, dtype=torch.bool)
    with pytest.raises(ValueError, match=words):
        update_prototypes(
            torch.ones(3, 4),
            torch.ones(means),
            torch.ones(present, dtype=torch.bool),
            decay,
            initialised=initialised,
        )


# --- devices -------------------------------------------------------------------------------------


def everything(features, prototypes, means, present, initialised):
    yield cosine_logits(features, prototypes, 0.1)
    yield update_prototypes(prototypes, means, present, 0.99, initialised=initialised)


def every_argument():
    present, initialised = torch.rand(5) < 0.5, torch.rand(5) < 0.5
    return torch.randn(2, 8, 4, 4), torch.randn(5, 8), torch.randn(5, 8), present, initialised


def test_nothing_waits_for_a_device():
    arguments = [x.to('meta') for x in every_argument()]
    assert all(value.device.type == 'meta' for value in everything(*arguments))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_cuda_gives_the_numbers_of_the_cpu_without_synchronizing():
    arguments = every_argument()
    on_gpu = [x.cuda() for x in arguments]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        values = list(everything(*on_gpu))
    finally:
        torch.cuda.set_sync_debug_mode('default')
    for value, expected in zip(values, everything(*arguments), strict=True):
        torch.testing.assert_close(value.cpu(), expected, rtol=1e-5, atol=1e-5)


def test_centers_of_separate_clusters():
    centers = torch.tensor([[5.0, 0, 0], [0, 5, 0], [0, 0, 5]])
    features = centers.repeat_interleave(40, dim=0) + torch.randn(120, 3) * 0.1
    found = cluster_centers(features[torch.randperm(120)], 3)
    order = found.argmax(dim=1).argsort()
    means = features.view(3, 40, 3).mean(dim=1)
    torch.testing.assert_close(found[order], means)
    assert found.dtype == torch.float32


def test_same_features_and_seed_give_the_same_centers():
    features = torch.randn(300, 8, dtype=torch.float64)
    first, second = cluster_centers(features, 5, seed=3), cluster_centers(features, 5, seed=3)
    assert torch.equal(first, second)
    assert first.shape == (5, 8)
    assert first.dtype == torch.float64


@pytest.mark.parametrize(
    ('features', 'expected'),
    [
        (torch.zeros(0, 3), torch.zeros(0, 3)),
        (torch.tensor([[1.0, 2], [0, 3]]), torch.tensor([[0.0, 3], [1, 2]])),
        (torch.ones(50, 2), torch.ones(1, 2)),  # fewer different vectors than clusters
        (torch.tensor([[0.0, 1]] * 20 + [[1, 0]] * 20), torch.tensor([[0.0, 1], [1, 0]])),
    ],
)
@pytest.mark.filterwarnings('error')
def test_few_vectors_give_few_centers(features, expected):
    found = cluster_centers(features, 5)
    assert found.shape == expected.shape
    torch.testing.assert_close(found[found[:, 0].argsort()], expected)


def test_vectors_that_no_cluster_holds_are_refused():
    with pytest.raises(ValueError, match='NaN or infinite'):
        cluster_centers(torch.tensor([[1.0, float('nan')]]), 2)
    with pytest.raises(ValueError, match=r'must be floating point and \(M, D\)'):
        cluster_centers(torch.zeros(3), 2)
    with pytest.raises(ValueError, match='num_clusters is 0'):
        cluster_centers(torch.zeros(3, 2), 0)


def test_mean_turn_is_an_angle():
    before = torch.tensor([[1.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    small = 1e-5
    after = torch.tensor([[1.0, 1.0], [1.0, small], [0.0, 1.0], [0.0, 5.0]], dtype=torch.float64)
    known = torch.tensor([True, True, False, True])
    expected = (45 + math.degrees(math.atan(small)) + 0) / 3
    assert mean_turn(before, after, known).item() == pytest.approx(expected, rel=1e-9)
    # In float32, too, where the cosine of a small angle is 1.
    only = torch.tensor([False, True, False, False])
    turned = mean_turn(before.float(), after.float(), only)
    assert turned.item() == pytest.approx(math.degrees(small), rel=1e-2)
    assert mean_turn(before, after, torch.zeros(4, dtype=torch.bool)) == 0
    assert mean_turn(before, -before, known).item() == pytest.approx(180)


def test_mean_similarity_is_of_pairs_of_known_classes():
    prototypes = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0], [-9.0, 0.0]])
    known = torch.tensor([True, True, True, False])
    expected = (0 + 2 * math.sqrt(0.5)) / 3
    assert mean_similarity(prototypes, known).item() == pytest.approx(expected)
    assert mean_similarity(prototypes, torch.tensor([True, False, False, False])) == 0
    with pytest.raises(ValueError, match='known has shape'):
        mean_similarity(prototypes, known[:2])
