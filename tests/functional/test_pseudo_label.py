"""Pseudo-labels against plain loops in float64 and numbers done by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmseg_semi.functional import _common, pseudo_label


def bilinear(x, size, align_corners):
    """Bilinear resize of a (C, h, w) array as two matrix products."""

    def weights(old, new):
        out = np.zeros((new, old))
        for i in range(new):
            if align_corners:
                x = i * (old - 1) / (new - 1) if new > 1 else 0.0
            else:
                x = max((i + 0.5) * old / new - 0.5, 0.0)
            low = min(int(x), old - 1)
            out[i, low] += 1 - (x - low)
            out[i, min(low + 1, old - 1)] += x - low
        return out

    _, h, w = x.shape
    return weights(h, size[0]) @ x @ weights(w, size[1]).T


def slow_probs(logits, size, align_corners=False):
    """Softmax of the upsampled logits, (N, C, H, W), one pixel at a time."""
    out = []
    for image in logits.detach().double().numpy():
        full = bilinear(image, size, align_corners)
        for y in range(size[0]):
            for x in range(size[1]):
                e = [math.exp(v - full[:, y, x].max()) for v in full[:, y, x]]
                full[:, y, x] = np.array(e) / sum(e)
        out.append(full)
    return np.stack(out)


def random_logits(n=3, c=4, h=4, w=5, seed=0, dtype=torch.float64):
    gen = torch.Generator().manual_seed(seed)
    return (torch.randn(n, c, h, w, generator=gen, dtype=torch.float64) * 2).to(dtype)


# --- confidence_and_label ------------------------------------------------------------------------


def test_confidence_and_label_by_hand():
    logits = torch.tensor([[0.0, math.log(3), 0.0], [math.log(2), 0.0, 0.0]]).view(1, 2, 1, 3)
    confidence, label = pseudo_label.confidence_and_label(logits)
    torch.testing.assert_close(confidence, torch.tensor([[[2 / 3, 3 / 4, 1 / 2]]]))
    assert label.tolist() == [[[1, 0, 0]]]  # the lower class wins the tie
    assert label.dtype == torch.int64


@pytest.mark.parametrize('size', [None, (9, 7), 6, (2, 11)])
@pytest.mark.parametrize('align_corners', [False, True])
def test_confidence_and_label_against_loops(size, align_corners):
    logits = random_logits()
    confidence, label = pseudo_label.confidence_and_label(logits, size, align_corners)
    shape = {None: (4, 5), 6: (6, 6)}.get(size, size)
    probs = slow_probs(logits, shape, align_corners)
    assert confidence.dtype == torch.float64
    np.testing.assert_allclose(confidence.numpy(), probs.max(1), rtol=1e-6)
    np.testing.assert_array_equal(label.numpy(), probs.argmax(1))


def test_upsampling_comes_before_the_softmax():
    # Between logits (4, 0) and (0, 0): the mean logit is 2, the mean probability is another number.
    logits = torch.tensor([[4.0, 0.0], [0.0, 0.0]]).view(1, 2, 1, 2)
    confidence, _ = pseudo_label.confidence_and_label(logits, (1, 3), align_corners=True)
    torch.testing.assert_close(confidence[0, 0, 1], torch.sigmoid(torch.tensor(2.0)))


def test_chunks_of_several_images_give_the_same(monkeypatch):
    logits = random_logits(n=5)
    whole = pseudo_label.confidence_and_label(logits, (9, 7))
    for elements in (1, 2 * 4 * 63, 3 * 4 * 63):
        monkeypatch.setattr(_common, 'CHUNK_ELEMENTS', elements)
        for result, expected in zip(
            pseudo_label.confidence_and_label(logits, (9, 7)), whole, strict=True
        ):
            assert torch.equal(result, expected)


def test_strips_of_rows_give_the_same(monkeypatch):
    logits = random_logits()
    whole = pseudo_label.confidence_and_label(logits, (9, 7))
    for elements in (1, 3 * 4 * 7 * 2, 3 * 4 * 7 * 9):  # 1, 2 and all rows
        monkeypatch.setattr(_common, 'CACHED_ELEMENTS', elements)
        for result, expected in zip(
            pseudo_label.confidence_and_label(logits, (9, 7)), whole, strict=True
        ):
            assert torch.equal(result, expected)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('autocast', [False, True])
def test_half_precision_is_computed_in_float32(dtype, autocast):
    logits = random_logits(dtype=dtype)
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
        confidence, label = pseudo_label.confidence_and_label(logits, (9, 7))
    expected = pseudo_label.confidence_and_label(logits.float(), (9, 7))
    assert confidence.dtype == torch.float32
    assert torch.equal(confidence, expected[0])
    assert torch.equal(label, expected[1])


def test_no_gradient_and_no_edit():
    for shape in (None, (9, 7)):
        logits = random_logits().requires_grad_()
        copy = logits.detach().clone()
        confidence, _ = pseudo_label.confidence_and_label(logits, shape)
        assert not confidence.requires_grad
        assert torch.equal(logits.detach(), copy)


def test_single_class_empty_batch_and_channels_last():
    confidence, label = pseudo_label.confidence_and_label(random_logits(c=1), (9, 7))
    assert (confidence == 1).all()
    assert (label == 0).all()
    confidence, label = pseudo_label.confidence_and_label(torch.zeros(0, 3, 4, 4), 8)
    assert confidence.shape == label.shape == (0, 8, 8)
    logits = random_logits()
    other = logits.contiguous(memory_format=torch.channels_last)
    for result, expected in zip(
        pseudo_label.confidence_and_label(other, (9, 7)),
        pseudo_label.confidence_and_label(logits, (9, 7)),
        strict=True,
    ):
        torch.testing.assert_close(result, expected)


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[1e30, -1e30], [-torch.inf, 0.0]]).view(1, 2, 1, 2)
    confidence, label = pseudo_label.confidence_and_label(logits)
    assert confidence.tolist() == [[[1.0, 1.0]]]
    assert label.tolist() == [[[0, 1]]]


def test_nan_logits_are_never_confident_and_keep_a_class_in_range():
    logits = torch.full((1, 3, 1, 2), torch.nan)
    logits[..., 1] = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1)
    confidence, label = pseudo_label.confidence_and_label(logits)
    assert confidence.isnan().tolist() == [[[True, False]]]
    assert label[0, 0, 1] == 1
    assert 0 <= label[0, 0, 0] < 3
    assert pseudo_label.confident_ratio(confidence, 0.0) == 0.5


def test_the_lowest_class_wins_ties_among_many():
    logits = torch.randint(
        0, 3, (2, 300, 4, 5)
    ).float()  # many ties, more classes than a byte counts
    _, label = pseudo_label.confidence_and_label(logits)
    np.testing.assert_array_equal(label.numpy(), logits.numpy().argmax(1))


def test_confidence_and_label_rejects():
    with pytest.raises(ValueError, match=r'logits is .*\(4, 4, 5\)'):
        pseudo_label.confidence_and_label(torch.zeros(4, 4, 5))
    with pytest.raises(ValueError, match=r'torch\.uint8'):
        pseudo_label.confidence_and_label(torch.zeros(1, 4, 4, 5, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r'size is \(0, 4\)'):
        pseudo_label.confidence_and_label(torch.zeros(1, 4, 4, 5), (0, 4))


# --- confident_ratio -----------------------------------------------------------------------------


def test_confident_ratio_by_hand():
    confidence = torch.tensor([[[0.95, 0.94], [0.99, 0.1]], [[0.0, 0.5], [0.5, 0.9]]])
    torch.testing.assert_close(
        pseudo_label.confident_ratio(confidence, 0.95), torch.tensor([0.5, 0.0])
    )
    valid = torch.tensor([[[True, True], [True, False]], [[False, False], [False, False]]])
    torch.testing.assert_close(
        pseudo_label.confident_ratio(confidence, 0.95, valid), torch.tensor([2 / 3, 0.0])
    )


def test_a_confidence_equal_to_tau_counts_in_every_dtype():
    for dtype in (torch.float32, torch.float64):
        confidence = torch.full((1, 2, 2), 0.95, dtype=dtype)
        ratio = pseudo_label.confident_ratio(confidence, 0.95)
        assert ratio == 1
        assert ratio.dtype == dtype
    # float16 stores 0.9 as 0.8999: it does not reach 0.9, though it would if tau were rounded too.
    ratio = pseudo_label.confident_ratio(torch.full((1, 2, 2), 0.9, dtype=torch.float16), 0.9)
    assert ratio == 0
    assert ratio.dtype == torch.float32


@pytest.mark.parametrize('tau', [0, 0.3, 1])
def test_confident_ratio_against_loops(tau):
    gen = torch.Generator().manual_seed(1)
    confidence = torch.rand(4, 6, 5, generator=gen, dtype=torch.float64)
    valid = torch.rand(4, 6, 5, generator=gen) < 0.5
    confidence[0] = 1.0
    for mask in (None, valid):
        expected = []
        for i in range(4):
            pixels = [
                float(confidence[i, y, x]) >= tau
                for y in range(6)
                for x in range(5)
                if mask is None or mask[i, y, x]
            ]
            expected.append(sum(pixels) / len(pixels))
        ratio = pseudo_label.confident_ratio(confidence, tau, mask)
        np.testing.assert_allclose(ratio.numpy(), expected, rtol=1e-12)


def test_confident_ratio_counts_beyond_float32():
    # 2^24 + 3 pixels of which all but one are confident: float32 counts would lose the units.
    confidence = torch.ones(1, 1, 2**24 + 3, dtype=torch.float64)
    confidence[..., 0] = 0
    ratio = pseudo_label.confident_ratio(confidence, 0.5)
    assert ratio.item() == (2**24 + 2) / (2**24 + 3)


def test_confident_ratio_degenerate():
    assert pseudo_label.confident_ratio(torch.zeros(0, 3, 3), 0.5).shape == (0,)
    assert pseudo_label.confident_ratio(torch.full((1, 2, 2), torch.nan), 0.5) == 0


def test_confident_ratio_rejects():
    confidence = torch.zeros(2, 3, 3)
    for tau in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match='tau is'):
            pseudo_label.confident_ratio(confidence, tau)
    with pytest.raises(ValueError, match='valid_mask has shape'):
        pseudo_label.confident_ratio(confidence, 0.5, torch.ones(2, 1, 3, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match='confidence has shape'):
        pseudo_label.confident_ratio(confidence[:, None], 0.5)


# --- average_label -------------------------------------------------------------------------------


def test_average_label_averages_probabilities_not_logits():
    first = torch.tensor([0.0, 20.0]).view(1, 2, 1, 1)  # p = (0, 1)
    second = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)  # p = (0.88, 0.12)
    assert pseudo_label.average_label([first, second, second]).item() == 0  # 1.76 against 1.24
    assert (first + 2 * second).argmax(1).item() == 1


@pytest.mark.parametrize('size', [None, (9, 7), 6])
@pytest.mark.parametrize('align_corners', [False, True])
def test_average_label_against_loops(size, align_corners):
    logits = [random_logits(), random_logits(h=3, w=3, seed=1), random_logits(h=8, w=2, seed=2)]
    label = pseudo_label.average_label(logits, size, align_corners)
    shape = {None: (4, 5), 6: (6, 6)}.get(size, size)
    probs = sum(slow_probs(x, shape, align_corners) for x in logits)
    assert label.dtype == torch.int64
    np.testing.assert_array_equal(label.numpy(), probs.argmax(1))


def test_average_label_of_one_network_is_its_argmax():
    logits = random_logits()
    assert torch.equal(pseudo_label.average_label([logits]), logits.argmax(1))
    assert torch.equal(
        pseudo_label.average_label((logits.half(), logits.half())), logits.half().argmax(1)
    )


def test_average_label_leaves_its_arguments_alone():
    logits = [random_logits().requires_grad_(), random_logits(seed=1)]
    copies = [x.detach().clone() for x in logits]
    label = pseudo_label.average_label(logits)
    assert not label.requires_grad
    assert all(torch.equal(x.detach(), y) for x, y in zip(logits, copies, strict=True))


def test_average_label_rejects():
    with pytest.raises(ValueError, match='logits_list is empty'):
        pseudo_label.average_label([])
    with pytest.raises(ValueError, match='the same images and classes'):
        pseudo_label.average_label([torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4, 4)])


# --- all of them ---------------------------------------------------------------------------------


def test_nothing_waits_for_the_device():
    # Tensors of the device "meta" have no values: whatever reads one raises, and so does a mix of devices.
    logits = torch.zeros(2, 3, 4, 4, device='meta')
    confidence, label = pseudo_label.confidence_and_label(logits, 8)
    ratio = pseudo_label.confident_ratio(confidence, 0.5, label == 0)
    average = pseudo_label.average_label([logits, logits], 8)
    assert {x.device.type for x in (confidence, label, ratio, average)} == {'meta'}


def test_upsampling_is_that_of_torch():
    logits = random_logits()
    full = F.interpolate(logits, (9, 7), mode='bilinear', align_corners=False)
    confidence, label = pseudo_label.confidence_and_label(logits, (9, 7))
    torch.testing.assert_close(confidence, full.softmax(1).max(1).values)
    assert torch.equal(label, full.argmax(1))


def test_entropy_of_the_class_histogram():
    label = torch.tensor([[[0, 0, 1], [3, 3, 1]]])
    everything = pseudo_label.label_entropy(label, 4)
    torch.testing.assert_close(everything, torch.tensor(3.0).log())
    valid = torch.tensor([[[True, True, True], [False, False, True]]])
    torch.testing.assert_close(pseudo_label.label_entropy(label, 4, valid), torch.tensor(2.0).log())
    assert pseudo_label.label_entropy(torch.full((2, 3, 3), 2), 4) == 0
    assert pseudo_label.label_entropy(label, 4, torch.zeros_like(valid)) == 0
    on_device = torch.zeros(2, 3, 3, dtype=torch.int64, device='meta')
    assert pseudo_label.label_entropy(on_device, 4).device.type == 'meta'


@pytest.mark.parametrize('masked', [False, True])
def test_classes_are_counted_without_void(masked):
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 5, (2, 7, 9), generator=generator)
    label[label == 4] = 255
    valid = torch.rand(2, 7, 9, generator=generator) < 0.5 if masked else torch.ones(2, 7, 9).bool()
    counts = pseudo_label.class_counts(label, 4, valid if masked else None)
    assert counts.tolist() == [int(((label == c) & valid).sum()) for c in range(4)]
    assert counts.dtype == torch.int64
