"""Agreement of label maps against plain loops in float64 and numbers done by hand."""

import numpy as np
import pytest
import torch

from mmseg_semi.functional import agreement
from mmseg_semi.functional.pseudo_label import confident_ratio


def slow_class_counts(first, second, num_classes):
    """Per class the pixels of the first, the second and both, void in either left out."""
    pairs = [
        (a, b)
        for a, b in zip(first.ravel().tolist(), second.ravel().tolist(), strict=True)
        if a != 255 and b != 255
    ]
    one = [sum(a == c for a, _ in pairs) for c in range(num_classes)]
    two = [sum(b == c for _, b in pairs) for c in range(num_classes)]
    both = [sum(a == b == c for a, b in pairs) for c in range(num_classes)]
    return one, two, both


def slow_weighted_iou(first, second, num_classes, ignore_background=False):
    out = []
    for a, b in zip(first, second, strict=True):
        one, two, both = slow_class_counts(a, b, num_classes)
        classes = range(1 if ignore_background else 0, num_classes)
        total = sum(one[c] for c in classes)
        terms = (one[c] / total * both[c] / (one[c] + two[c] - both[c]) for c in classes if one[c])
        out.append(sum(terms))
    return np.array(out, dtype=float)


def slow_mean_iou(first, second, num_classes):
    out = []
    for a, b in zip(first, second, strict=True):
        one, two, both = slow_class_counts(a, b, num_classes)
        union = [x + y - z for x, y, z in zip(one, two, both, strict=True)]
        ious = [z / u for z, u in zip(both, union, strict=True) if u]
        out.append(sum(ious) / len(ious) if ious else 0.0)
    return np.array(out)


def maps(n=4, c=5, h=7, w=6, seed=0, void=0.1):
    """Two label maps that mostly agree, with classes absent from some images."""
    gen = torch.Generator().manual_seed(seed)
    first = torch.randint(0, c, (n, h, w), generator=gen) % (torch.arange(n).view(-1, 1, 1) + 1)
    noise = torch.randint(0, c, (n, h, w), generator=gen)
    second = torch.where(torch.rand(n, h, w, generator=gen) < 0.6, first, noise)
    for x in (first, second):
        x[torch.rand(n, h, w, generator=gen) < void] = 255
    return first, second


def confidences(shape=(4, 7, 6), seed=1):
    gen = torch.Generator().manual_seed(seed)
    return [torch.rand(shape, generator=gen, dtype=torch.float64) for _ in range(2)]


# --- weighted_iou --------------------------------------------------------------------------------


def test_weighted_iou_by_hand():
    first = torch.tensor([[[0, 0, 0, 1], [1, 1, 2, 2]]])
    second = torch.tensor([[[0, 0, 1, 1], [1, 2, 2, 3]]])
    # n1 = 3, 3, 2, 0; n2 = 2, 3, 2, 1; both = 2, 2, 1, 0; IoU = 2/3, 2/4, 1/3, 0.
    expected = 3 / 8 * 2 / 3 + 3 / 8 * 2 / 4 + 2 / 8 * 1 / 3
    torch.testing.assert_close(agreement.weighted_iou(first, second, 4), torch.tensor([expected]))
    reverse = 2 / 8 * 2 / 3 + 3 / 8 * 2 / 4 + 2 / 8 * 1 / 3
    torch.testing.assert_close(agreement.weighted_iou(second, first, 4), torch.tensor([reverse]))
    without = 3 / 5 * 2 / 4 + 2 / 5 * 1 / 3
    torch.testing.assert_close(
        agreement.weighted_iou(first, second, 4, ignore_background=True), torch.tensor([without])
    )


def test_weighted_iou_void_is_left_out_of_both():
    first = torch.tensor([[[0, 0, 255, 1]]])
    second = torch.tensor([[[0, 255, 0, 0]]])
    # Left: (0, 0) and (1, 0): IoU_0 = 1/2 with weight 1/2, IoU_1 = 0.
    assert agreement.weighted_iou(first, second, 2) == 0.25
    assert agreement.weighted_iou(second, first, 2) == 0.5


@pytest.mark.parametrize('ignore_background', [False, True])
@pytest.mark.parametrize('num_classes', [5, 21, 150, 255])
def test_weighted_iou_against_loops(ignore_background, num_classes):
    first, second = maps()
    result = agreement.weighted_iou(first, second, num_classes, ignore_background=ignore_background)
    expected = slow_weighted_iou(first, second, num_classes, ignore_background)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-6)


def test_weighted_iou_degenerate():
    background = torch.zeros(1, 3, 3, dtype=torch.int64)
    void = torch.full_like(background, 255)
    assert agreement.weighted_iou(background, background, 3) == 1
    assert agreement.weighted_iou(background, background, 1) == 1
    assert agreement.weighted_iou(background, background, 3, ignore_background=True) == 0
    assert agreement.weighted_iou(background, void, 3) == 0
    assert agreement.weighted_iou(background, background + 2, 3) == 0
    assert agreement.weighted_iou(background[:0], background[:0], 3).shape == (0,)


def test_highest_class_is_not_taken_for_void():
    first = torch.full((1, 2, 2), 254)
    assert agreement.weighted_iou(first, first, 255) == 1
    assert agreement.weighted_iou(first.to(torch.uint8), first, 255) == 1


# --- hardness ------------------------------------------------------------------------------------


def test_hardness_by_hand():
    label_s = torch.tensor([[[0, 0, 1, 1]]])
    label_t = torch.tensor([[[0, 0, 0, 1]]])
    confidence_s = torch.tensor([[[0.9, 0.9, 0.1, 0.1]]])
    confidence_t = torch.tensor([[[0.9, 0.8, 0.7, 0.1]]])
    # wIoU(s, t) = 1/2 · 2/3 + 1/2 · 1/2 = 7/12; wIoU(t, s) = 3/4 · 2/3 + 1/4 · 1/2 = 5/8.
    # rho_s = 1/2, rho_t = 3/4.
    gamma = agreement.hardness(label_s, confidence_s, label_t, confidence_t, tau=0.7, num_classes=2)
    torch.testing.assert_close(gamma, torch.tensor([1 - (1 / 2 * 7 / 12 + 3 / 4 * 5 / 8) / 2]))


def test_hardness_leaves_padding_out_of_everything():
    label_s = torch.tensor([[[0, 0, 1, 1, 0, 0]]])
    label_t = torch.tensor([[[0, 0, 0, 1, 1, 0]]])
    confidence_s = torch.tensor([[[0.9, 0.9, 0.1, 0.1, 1.0, 1.0]]])
    confidence_t = torch.tensor([[[0.9, 0.8, 0.7, 0.1, 1.0, 0.0]]])
    valid = torch.tensor([[[True, True, True, True, False, False]]])
    gamma = agreement.hardness(
        label_s, confidence_s, label_t, confidence_t, tau=0.7, num_classes=2, valid_mask=valid
    )
    torch.testing.assert_close(gamma, torch.tensor([1 - (1 / 2 * 7 / 12 + 3 / 4 * 5 / 8) / 2]))


def test_a_void_but_valid_pixel_leaves_the_iou_only():
    label_s = torch.tensor([[[0, 0, 1, 255]]])
    label_t = torch.tensor([[[0, 0, 0, 1]]])
    confidence_s = torch.tensor([[[0.9, 0.1, 0.1, 0.9]]])
    confidence_t = torch.tensor([[[0.9, 0.9, 0.1, 0.1]]])
    # Left for the IoU: 3 pixels, wIoU(s, t) = 2/3 · 2/3, wIoU(t, s) = 1 · 2/3; rho = 2/4 each.
    gamma = agreement.hardness(label_s, confidence_s, label_t, confidence_t, tau=0.7, num_classes=2)
    torch.testing.assert_close(gamma, torch.tensor([1 - (1 / 2 * 4 / 9 + 1 / 2 * 2 / 3) / 2]))


@pytest.mark.parametrize('ignore_background', [False, True])
@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('tau', [0.0, 0.4, 0.95])
def test_hardness_against_loops(ignore_background, masked, tau):
    label_s, label_t = maps()
    confidence_s, confidence_t = confidences()
    valid = torch.rand(4, 7, 6, generator=torch.Generator().manual_seed(2)) < 0.7
    valid = valid if masked else torch.ones_like(valid)
    padded_s, padded_t = (x.masked_fill(~valid, 255) for x in (label_s, label_t))
    agree_s = slow_weighted_iou(padded_s, padded_t, 5, ignore_background)
    agree_t = slow_weighted_iou(padded_t, padded_s, 5, ignore_background)
    rho_s, rho_t = (
        np.array([(c[v] >= tau).double().mean() for c, v in zip(x, valid, strict=True)])
        for x in (confidence_s, confidence_t)
    )
    gamma = agreement.hardness(
        label_s,
        confidence_s,
        label_t,
        confidence_t,
        tau=tau,
        num_classes=5,
        ignore_background=ignore_background,
        valid_mask=valid if masked else None,
    )
    assert gamma.dtype == torch.float64
    np.testing.assert_allclose(
        gamma.numpy(), 1 - (rho_s / 2 * agree_s + rho_t / 2 * agree_t), rtol=1e-6
    )


def test_hardness_is_symmetric_and_of_equal_predictions_one_minus_rho():
    label_s, label_t = maps(void=0)
    confidence_s, confidence_t = confidences()
    kwargs = dict(tau=0.5, num_classes=5)
    there = agreement.hardness(label_s, confidence_s, label_t, confidence_t, **kwargs)
    back = agreement.hardness(label_t, confidence_t, label_s, confidence_s, **kwargs)
    torch.testing.assert_close(there, back)
    assert ((there >= 0) & (there <= 1)).all()
    same = agreement.hardness(label_s, confidence_s, label_s, confidence_s, **kwargs)
    torch.testing.assert_close(same, 1 - confident_ratio(confidence_s, 0.5))


def test_hardness_extremes():
    label = torch.zeros(2, 3, 3, dtype=torch.int64)
    sure, unsure = torch.ones(2, 3, 3), torch.zeros(2, 3, 3)
    kwargs = dict(tau=0.95, num_classes=2)
    assert (agreement.hardness(label, sure, label, sure, **kwargs) == 0).all()
    assert (agreement.hardness(label, unsure, label, unsure, **kwargs) == 1).all()
    assert (agreement.hardness(label, sure, label + 1, sure, **kwargs) == 1).all()
    nothing = torch.zeros(2, 3, 3, dtype=torch.bool)
    assert (agreement.hardness(label, sure, label, sure, valid_mask=nothing, **kwargs) == 1).all()
    void = torch.full_like(label, 255)
    assert (agreement.hardness(void, sure, void, sure, **kwargs) == 1).all()
    # The official code's reading drops class 0: an image of nothing but background is hard.
    assert (
        agreement.hardness(label, sure, label, sure, ignore_background=True, **kwargs) == 1
    ).all()
    empty = agreement.hardness(label[:0], sure[:0], label[:0], sure[:0], **kwargs)
    assert empty.shape == (0,)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_hardness_of_lower_precision_is_float32(dtype):
    label_s, label_t = maps()
    confidence_s, confidence_t = (x.to(dtype).requires_grad_() for x in confidences())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        gamma = agreement.hardness(
            label_s, confidence_s, label_t, confidence_t, tau=0.5, num_classes=5
        )
    exact = agreement.hardness(
        label_s, confidence_s.float(), label_t, confidence_t.float(), tau=0.5, num_classes=5
    )
    assert gamma.dtype == torch.float32
    assert not gamma.requires_grad
    assert torch.equal(gamma, exact)


def test_counts_are_exact_beyond_float32():
    # 2^24 + 2 pixels of class 0 and one of class 1, which only the first map shows.
    first = torch.zeros(1, 1, 2**24 + 3, dtype=torch.uint8)
    second = first.clone()
    first[..., 0] = 1
    counts = agreement._joint_counts(first, second, 2)
    assert counts.dtype == torch.int64
    assert counts[0].tolist() == [[2**24 + 2, 0], [1, 0]]


def test_the_device_histogram_equals_the_host_one():
    for num_classes in (1, 5, 150):
        first, second = maps(c=min(num_classes, 5))
        arguments = first.flatten(1), second.flatten(1), num_classes + 1
        host, device = agreement._count_on_host(*arguments), agreement._count_on_device(*arguments)
        assert torch.equal(host, device)
        assert (host.sum(1) == 42).all()
    many = torch.zeros(1, 2**21 + 1, dtype=torch.int64)  # more per lane than float16 can count
    assert agreement._count_on_device(many, many, 2).tolist() == [[2**21 + 1, 0, 0, 0]]


# --- pairwise_mean_iou and stability -------------------------------------------------------------


def test_pairwise_mean_iou_by_hand():
    first = torch.tensor([[[0, 0, 1, 1]], [[0, 0, 0, 0]], [[255, 255, 255, 255]]])
    second = torch.tensor([[[0, 1, 1, 2]], [[0, 0, 0, 255]], [[0, 0, 0, 0]]])
    # IoU of image 0: 1/2, 1/3 and 0 for the class of the second only; class 3 is in neither.
    torch.testing.assert_close(
        agreement.pairwise_mean_iou(first, second, 4),
        torch.tensor([(1 / 2 + 1 / 3) / 3, 1.0, 0.0]),
    )


def test_pairwise_mean_iou_against_loops():
    for seed in range(3):
        first, second = maps(seed=seed)
        result = agreement.pairwise_mean_iou(first, second, 5)
        assert result.dtype == torch.float32
        np.testing.assert_allclose(result.numpy(), slow_mean_iou(first, second, 5), rtol=1e-6)


def test_stability_by_hand_and_against_loops():
    masks = torch.tensor([[[0, 0, 1, 1]], [[0, 1, 1, 1]], [[0, 0, 1, 1]]])
    # Mask 0 equals the last: 1; mask 1: (1/2 + 2/3) / 2.
    score = agreement.stability(masks, 2)
    assert isinstance(score, float)
    assert score == pytest.approx(1 + 7 / 12, rel=1e-12)
    masks = torch.stack([*maps(n=1), *maps(n=1, seed=1)])[:, 0]
    expected = sum(slow_mean_iou(masks[k : k + 1], masks[-1:], 5)[0] for k in range(3))
    assert agreement.stability(masks, 5) == pytest.approx(expected, rel=1e-6)


def test_stability_degenerate():
    mask = torch.zeros(1, 3, 3, dtype=torch.int64)
    assert agreement.stability(mask, 2) == 0.0
    assert agreement.stability(mask.expand(3, 3, 3), 2) == 2.0
    assert agreement.stability(torch.full((3, 2, 2), 255), 2) == 0.0
    with pytest.raises(ValueError, match='masks holds no mask'):
        agreement.stability(mask[:0], 2)
    with pytest.raises(ValueError, match='masks has shape'):
        agreement.stability(mask[0], 2)


def test_stabilities_are_those_of_each_image():
    masks = torch.stack([maps(seed=seed)[0] for seed in range(3)])
    scores = agreement.stabilities(masks.to(torch.uint8), 5)
    assert scores.dtype == torch.float64
    assert scores.tolist() == [agreement.stability(masks[:, n], 5) for n in range(masks.shape[1])]
    assert agreement.stabilities(masks[:1], 5).tolist() == [0.0] * masks.shape[1]
    with pytest.raises(ValueError, match='must be \\(K, N, H, W\\)'):
        agreement.stabilities(masks[0], 5)


@pytest.mark.parametrize('num_classes', [2, 21, 100, 150, 255])
def test_counts_of_any_number_of_classes(num_classes):
    generator = torch.Generator().manual_seed(num_classes)
    first, second = torch.randint(0, num_classes, (2, 1, 31, 41), generator=generator)
    result = agreement.pairwise_mean_iou(first, second, num_classes)
    np.testing.assert_allclose(result.numpy(), slow_mean_iou(first, second, num_classes), rtol=1e-6)


# --- all of them ---------------------------------------------------------------------------------


def test_arguments_are_left_alone():
    label_s, label_t = maps()
    confidence_s, confidence_t = confidences()
    valid = torch.rand(4, 7, 6) < 0.7
    arguments = [label_s, confidence_s, label_t, confidence_t, valid]
    copies = [x.clone() for x in arguments]
    agreement.hardness(*arguments[:4], tau=0.5, num_classes=5, valid_mask=valid)
    agreement.weighted_iou(label_s, label_t, 5)
    agreement.pairwise_mean_iou(label_s, label_t, 5)
    agreement.stability(label_s, 5)
    assert all(torch.equal(x, y) for x, y in zip(arguments, copies, strict=True))


def test_hardness_does_not_wait_for_the_device():
    # Tensors of the device "meta" have no values: whatever reads one raises, and so does a mix of devices.
    label = torch.zeros(2, 8, 8, dtype=torch.int64, device='meta')
    confidence = torch.rand(2, 8, 8, device='meta')
    gamma = agreement.hardness(
        label, confidence, label, confidence, tau=0.5, num_classes=3, valid_mask=label == 0
    )
    assert gamma.device.type == 'meta'
    assert agreement.weighted_iou(label, label, 3).device.type == 'meta'


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_cuda_gives_the_numbers_of_the_cpu_without_synchronizing():
    label_s, label_t = maps()
    confidence_s, confidence_t = confidences()
    arguments = [label_s, confidence_s, label_t, confidence_t]
    expected = agreement.hardness(*arguments, tau=0.5, num_classes=5)
    arguments = [x.cuda() for x in arguments]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        gamma = agreement.hardness(*arguments, tau=0.5, num_classes=5)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    torch.testing.assert_close(gamma.cpu(), expected)


def test_rejections():
    label = torch.zeros(2, 3, 3, dtype=torch.int64)
    confidence = torch.ones(2, 3, 3)
    with pytest.raises(ValueError, match='second label map has shape'):
        agreement.weighted_iou(label, label[:1], 3)
    with pytest.raises(ValueError, match='first label map has shape'):
        agreement.weighted_iou(label[0], label[0], 3)
    for num_classes in (0, 256):
        with pytest.raises(ValueError, match=f'num_classes is {num_classes}'):
            agreement.pairwise_mean_iou(label, label, num_classes)
    kwargs = dict(tau=0.5, num_classes=3)
    with pytest.raises(ValueError, match='tau is 95'):
        agreement.hardness(label, confidence, label, confidence, tau=95, num_classes=3)
    with pytest.raises(ValueError, match='confidence_t has shape'):
        agreement.hardness(label, confidence, label, confidence[1:], **kwargs)
    with pytest.raises(ValueError, match='valid_mask has shape'):
        agreement.hardness(
            label, confidence, label, confidence, valid_mask=confidence[:, None] > 0, **kwargs
        )
