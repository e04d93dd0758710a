"""ESL's soft label against a plain loop in float64, torch's sort, and numbers done by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmseg_semi.functional import soft_label
from mmseg_semi.functional.losses import soft_cross_entropy
from mmseg_semi.functional.mixing import paste
from mmseg_semi.functional.soft_label import (
    dominant_soft_label,
    soft_label_cross_entropy,
    top_soft_label,
)


def one_pixel(values, eta, dtype=torch.float64):
    probs = torch.tensor(values, dtype=dtype).view(1, -1, 1, 1)
    return dominant_soft_label(probs, eta).flatten()


def slow_pixel(p, eta):
    """Equations 3 to 5 for one pixel, as they are written."""
    falling = sorted(p, reverse=True)
    total, delta = 0.0, falling[-1]
    for value in falling:
        total += value
        if total >= eta:
            delta = value
            break
    kept = [value if value >= delta else 0.0 for value in p]
    return [value / sum(kept) for value in kept]


def slow(probs, eta):
    pixels = probs.double().movedim(1, -1).reshape(-1, probs.shape[1]).tolist()
    out = torch.tensor([slow_pixel(p, eta) for p in pixels], dtype=torch.float64)
    n, c, h, w = probs.shape
    return out.view(n, h, w, c).movedim(-1, 1)


def by_sort(probs, eta):
    """The usual form: torch sorts every pixel."""
    falling = probs.sort(dim=1, descending=True).values
    last = (falling.cumsum(dim=1) < eta).sum(dim=1, keepdim=True).clamp(max=probs.shape[1] - 1)
    kept = torch.where(probs >= falling.gather(1, last), probs, 0)
    return kept / kept.sum(dim=1, keepdim=True)


def softmax_of(sharpness, shape=(2, 7, 9, 11), dtype=torch.float64):
    return (torch.randn(shape, dtype=dtype) * sharpness).softmax(dim=1)


@pytest.mark.parametrize(
    ('values', 'eta', 'expected'),
    [
        ([0.6, 0.3, 0.08, 0.02], 0.85, [2 / 3, 1 / 3, 0, 0]),
        ([0.1, 0.7, 0.2], 0.85, [0, 7 / 9, 2 / 9]),  # the C*-th of the sorted vector, E2
        ([0.4, 0.3, 0.3], 0.6, [0.4, 0.3, 0.3]),  # a tie at delta brings both in, E1
        ([0.25, 0.25, 0.5], 0.75, [0.25, 0.25, 0.5]),  # also when one of them would do
        ([0.5, 0.25, 0.25], 0.5, [1, 0, 0]),  # the sum that equals eta suffices
        ([0.02, 0.97, 0.01], 0.95, [0, 1, 0]),
        ([0.5, 0.5, 0.0], 0.4, [0.5, 0.5, 0]),
        ([0.2] * 5, 0.3, [0.2] * 5),  # exactly uniform: all
        ([0.5, 0.3, 0.15, 0.05], 1.0, [0.5, 0.3, 0.15, 0.05]),
        ([0.7, 0.2, 0.0999], 1.0, [0.7 / 0.9999, 0.2 / 0.9999, 0.0999 / 0.9999]),
        ([1.0], 0.95, [1.0]),
    ],
)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_by_hand(values, eta, expected, dtype):
    result = one_pixel(values, eta, dtype)
    torch.testing.assert_close(result, torch.tensor(expected, dtype=dtype), rtol=1e-6, atol=0)
    assert result.dtype == dtype


def test_largest_probability_at_eta_gives_an_exact_hard_label():
    result = one_pixel([0.95, 0.03, 0.02], 0.95, torch.float32)
    assert result.tolist() == [1, 0, 0]


def test_sum_that_rounding_keeps_below_eta_makes_all_classes_dominant():
    values = [0.4, 0.25, 0.15, 0.12, 0.08 - 1e-9]
    assert (one_pixel(values, 1.0) > 0).all()
    assert one_pixel([0.1] * 10, 1.0).tolist() == pytest.approx([0.1] * 10, rel=1e-12)


@pytest.mark.parametrize('eta', [0.05, 0.5, 0.8, 0.95, 0.999, 1.0])
@pytest.mark.parametrize('sharpness', [0.1, 2.0, 8.0])
def test_equals_the_slow_reference(eta, sharpness):
    probs = softmax_of(sharpness)
    result = dominant_soft_label(probs, eta)
    torch.testing.assert_close(result, slow(probs, eta), rtol=1e-6, atol=0)


@pytest.mark.parametrize('sharpness', [0.1, 2.0, 8.0])
def test_float32_keeps_the_very_classes_that_sorting_every_pixel_keeps(sharpness):
    probs = softmax_of(sharpness, (2, 21, 65, 65), torch.float32)
    result, expected = dominant_soft_label(probs, 0.95), by_sort(probs, 0.95)
    assert torch.equal(result > 0, expected > 0)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=0)


def test_form_for_devices_equals_the_one_for_the_cpu():
    probs = softmax_of(3.0, (1, 21, 40, 40), torch.float32)[0].flatten(1)
    on_device = soft_label._delta(probs.neg().sort(dim=0).values, 0.95)
    assert torch.equal(on_device, soft_label._delta_on_cpu(probs, 0.95))


def test_chunks_do_not_change_the_result(monkeypatch):
    probs = softmax_of(3.0)
    whole = dominant_soft_label(probs, 0.9)
    monkeypatch.setattr(soft_label, '_CACHED_PIXELS', 7)
    result = dominant_soft_label(probs, 0.9)
    torch.testing.assert_close(result, whole, rtol=1e-12, atol=0)


def test_image_by_image_equals_the_batch():
    probs = softmax_of(3.0)
    parts = [dominant_soft_label(image[None], 0.9) for image in probs]
    assert torch.equal(torch.cat(parts), dominant_soft_label(probs, 0.9))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 8)), elements=st.integers(1, 20).map(float)),
    st.floats(0.01, 1.0),
)
def test_dominant_set_is_the_smallest_that_suffices(weights, eta):
    p = weights / weights.sum()
    result = one_pixel(p.tolist(), eta).numpy()
    dominant = result > 0
    assert result.sum() == pytest.approx(1, rel=1e-12)
    np.testing.assert_allclose(result[dominant], p[dominant] / p[dominant].sum(), rtol=1e-12)
    delta = p[dominant].min()
    assert (dominant == (p >= delta)).all()
    assert p[dominant].sum() >= eta - 1e-12
    assert p[p > delta].sum() < eta


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_also_under_autocast(dtype):
    probs = softmax_of(2.0, dtype=torch.float32).to(dtype)
    expected = dominant_soft_label(probs.float(), 0.9)
    assert expected.dtype == torch.float32
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(dominant_soft_label(probs, 0.9), expected)
    assert torch.equal(dominant_soft_label(probs, 0.9), expected)


def test_argument_is_not_edited_and_no_gradient_flows():
    probs = softmax_of(2.0).requires_grad_()
    copy = probs.detach().clone()
    result = dominant_soft_label(probs, 0.9)
    assert torch.equal(probs, copy)
    assert not result.requires_grad


def test_layout_of_the_argument_does_not_matter():
    probs = softmax_of(3.0)
    expected = dominant_soft_label(probs, 0.9)
    for other in (probs.to(memory_format=torch.channels_last), probs.mT.contiguous().mT):
        assert torch.equal(dominant_soft_label(other, 0.9), expected)


@pytest.mark.parametrize('shape', [(0, 3, 4, 4), (2, 3, 0, 4), (1, 3, 1, 1)])
def test_empty_and_tiny_batches(shape):
    result = dominant_soft_label(torch.full(shape, 1 / 3), 0.95)
    assert result.shape == shape
    assert (result == 1 / 3).all()


@pytest.mark.parametrize('eta', [0.0, -0.5, 1.01, float('nan')])
def test_eta_out_of_range_is_refused(eta):
    with pytest.raises(ValueError, match=r'eta is .*\(0, 1\]'):
        dominant_soft_label(torch.ones(1, 1, 2, 2), eta)


@pytest.mark.parametrize('probs', [torch.ones(3, 2, 2), torch.ones(1, 3, 2, 2, dtype=torch.int64)])
def test_wrong_probabilities_are_refused(probs):
    with pytest.raises(ValueError, match='probs is a'):
        dominant_soft_label(probs, 0.9)


def test_nothing_waits_for_a_device():
    probs = torch.rand(2, 5, 8, 8, device='meta')
    assert dominant_soft_label(probs, 0.9).device.type == 'meta'


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_cuda_gives_the_numbers_of_the_cpu_without_synchronizing():
    probs = softmax_of(3.0)
    on_gpu = probs.cuda()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        result = dominant_soft_label(on_gpu, 0.95)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    torch.testing.assert_close(result.cpu(), dominant_soft_label(probs, 0.95))


@pytest.mark.parametrize(
    ('num', 'expected'),
    [
        (1, [0, 1, 0, 0]),
        (2, [0, 5 / 8, 0, 3 / 8]),
        (3, [1 / 9, 5 / 9, 0, 3 / 9]),
        (4, [0.1, 0.5, 0.1, 0.3]),
        (9, [0.1, 0.5, 0.1, 0.3]),
    ],
)
def test_most_probable_classes(num, expected):
    probs = torch.tensor([0.1, 0.5, 0.1, 0.3], dtype=torch.float64).view(1, 4, 1, 1)
    got = top_soft_label(probs, num).flatten()
    if num == 3:  # two classes tie: one of them is kept
        assert sorted(got.tolist()) == pytest.approx(sorted(expected))
    else:
        torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))


def test_hard_label_is_one_hot_also_where_classes_tie():
    label = top_soft_label(torch.full((2, 5, 3, 3), 0.2), 1)
    assert torch.equal(label.sum(dim=1), torch.ones(2, 3, 3))
    assert label.count_nonzero() == 18
    with pytest.raises(ValueError, match='num is 0'):
        top_soft_label(torch.rand(1, 2, 3, 3), 0)
    with pytest.raises(ValueError, match='must be floating'):
        top_soft_label(torch.rand(2, 3, 3), 1)


SIZE = (12, 14)


def plain_loss(student, teacher, mixed, valid, corners):
    """Upsample, soft label, cut and paste, cross-entropy: of the batch, in this order."""
    full = torch.nn.functional.interpolate(teacher, SIZE, mode='bilinear', align_corners=corners)
    target = by_sort(full.softmax(dim=1), 0.9)
    if mixed is not None:
        partner, boxes = mixed
        target = paste(target, target[partner], boxes)
    return soft_cross_entropy(student, target, valid_mask=valid, align_corners=corners), target


@pytest.mark.parametrize('chunk', [1, 1 << 22])
@pytest.mark.parametrize('corners', [False, True])
@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('mix', [False, True])
def test_loss_image_by_image_is_that_of_the_batch(mix, masked, corners, chunk, monkeypatch):
    monkeypatch.setattr('mmseg_semi.functional._common.CHUNK_ELEMENTS', chunk)
    student, teacher = torch.randn(2, 3, 5, 4, 6, dtype=torch.float64).mul(3)
    boxes = torch.tensor([[1, 2, 9, 7], [0, 0, 14, 12], [3, 3, 3, 3]])
    mixed = (torch.tensor([1, 2, 0]), boxes) if mix else None
    valid = torch.rand(3, *SIZE) < 0.7 if masked else None
    logits = [student.clone().requires_grad_() for _ in range(2)]
    expected, target = plain_loss(logits[0], teacher, mixed, valid, corners)
    got, classes_at = soft_label_cross_entropy(
        logits[1],
        teacher,
        SIZE,
        lambda probs: dominant_soft_label(probs, 0.9),
        **(dict(partner=mixed[0], boxes=boxes) if mix else {}),
        valid_mask=valid,
        align_corners=corners,
    )
    torch.testing.assert_close(got, expected)
    for loss in (expected, got):
        loss.mean().backward()
    torch.testing.assert_close(logits[1].grad, logits[0].grad)
    number = (target > 0).sum(dim=1)[slice(None) if valid is None else valid]
    counts = [(number == 1).sum(), (number == 2).sum(), (number > 2).sum()]
    assert classes_at.tolist() == counts
    assert min(counts) > 0


def test_teacher_gets_no_gradient_and_half_precision_is_exact():
    teacher = torch.randn(2, 5, 4, 6, dtype=torch.bfloat16, requires_grad=True)
    student = torch.randn(2, 5, 4, 6, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        got, _ = soft_label_cross_entropy(
            student, teacher, SIZE, lambda probs: dominant_soft_label(probs, 0.9)
        )
    assert got.dtype == torch.float32
    exact, _ = plain_loss(student.float(), teacher.float(), None, None, False)
    torch.testing.assert_close(got, exact)
    got.sum().backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0
    with pytest.raises(ValueError, match='same images and classes'):
        soft_label_cross_entropy(student, teacher[:1], SIZE, dominant_soft_label)
