"""Losses against plain loops in float64, the plain torch form, and numbers done by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmseg_semi.functional import _common, losses

LN2 = math.log(2)


def bilinear(x, size, align_corners):
    """Bilinear resize of a (C, h, w) array, one pixel at a time."""
    _, h, w = x.shape
    out = np.zeros((x.shape[0], *size))

    def source(i, old, new):
        if align_corners:
            return i * (old - 1) / (new - 1) if new > 1 else 0.0
        return max((i + 0.5) * old / new - 0.5, 0.0)

    for i in range(size[0]):
        y = source(i, h, size[0])
        y0 = min(int(y), h - 1)
        y1 = min(y0 + 1, h - 1)
        for j in range(size[1]):
            z = source(j, w, size[1])
            x0 = min(int(z), w - 1)
            x1 = min(x0 + 1, w - 1)
            top = x[:, y0, x0] * (1 - (z - x0)) + x[:, y0, x1] * (z - x0)
            bottom = x[:, y1, x0] * (1 - (z - x0)) + x[:, y1, x1] * (z - x0)
            out[:, i, j] = top * (1 - (y - y0)) + bottom * (y - y0)
    return out


def log_softmax(v):
    return v - v.max() - math.log(sum(math.exp(x - v.max()) for x in v))


def slow_pixels(logits, label, align_corners=False, ignore_index=255):
    """-log p at every pixel, 0 at void, by loops."""
    n, height, width = label.shape
    out = np.zeros((n, height, width))
    for i in range(n):
        full = bilinear(logits[i].detach().double().numpy(), (height, width), align_corners)
        for y in range(height):
            for x in range(width):
                c = int(label[i, y, x])
                if c != ignore_index:
                    out[i, y, x] = -log_softmax(full[:, y, x])[c]
    return out


def plain(logits, label, align_corners=False, ignore_index=255):
    """The form of every peer's code: upsample the batch, then torch's own cross-entropy."""
    if logits.shape[-2:] != label.shape[-2:]:
        logits = F.interpolate(
            logits, label.shape[-2:], mode='bilinear', align_corners=align_corners
        )
    return F.cross_entropy(logits, label, ignore_index=ignore_index, reduction='none')


def problem(n=3, c=4, small=(4, 5), size=(9, 7), void=0.2, seed=0, dtype=torch.float64):
    gen = torch.Generator().manual_seed(seed)
    logits = (torch.randn(n, c, *small, generator=gen, dtype=torch.float64) * 2).to(dtype)
    label = torch.randint(0, c, (n, *size), generator=gen)
    label[torch.rand(n, *size, generator=gen) < void] = 255
    return logits.requires_grad_(), label


def gradient(value, x):
    return torch.autograd.grad(value.sum(), x)[0]


# --- cross_entropy -------------------------------------------------------------------------------


def test_cross_entropy_by_hand():
    # Two classes with logits (0, 0): every pixel costs ln 2; with (ln 3, 0): ln(4/3) and ln 4.
    logits = torch.zeros(2, 2, 1, 2)
    logits[1, 0, 0, 0] = math.log(3)
    label = torch.tensor([[[0, 255]], [[0, 1]]])
    images = torch.tensor([LN2, math.log(4 / 3) + LN2])
    kwargs = dict(rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(losses.cross_entropy(logits, label), images.sum() / 3, **kwargs)
    torch.testing.assert_close(
        losses.cross_entropy(logits, label, reduction='pixel_mean'), images / 2, **kwargs
    )
    torch.testing.assert_close(
        losses.cross_entropy(logits, label, reduction='image_sum'), images, **kwargs
    )
    torch.testing.assert_close(
        losses.cross_entropy(logits, label, reduction='none'),
        torch.tensor([[[LN2, 0.0]], [[math.log(4 / 3), LN2]]]),
        **kwargs,
    )


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('small', [(4, 5), (9, 7), (12, 3), (1, 1)])
def test_cross_entropy_against_loops(align_corners, small):
    logits, label = problem(small=small)
    slow = slow_pixels(logits, label, align_corners)
    kwargs = dict(align_corners=align_corners)
    expected = {
        'none': slow,
        'image_sum': slow.sum((1, 2)),
        'pixel_mean': slow.sum((1, 2)) / 63,
        'valid_mean': slow.sum() / int((label != 255).sum()),
    }
    for reduction, value in expected.items():
        result = losses.cross_entropy(logits, label, reduction=reduction, **kwargs)
        assert result.dtype == torch.float64
        np.testing.assert_allclose(result.detach().numpy(), value, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize('small', [(4, 5), (9, 7)])
def test_weights_multiply_and_the_divisor_stays(small):
    logits, label = problem(small=small)
    pixel_weight = torch.rand(label.shape, generator=torch.Generator().manual_seed(1))
    class_weight = torch.tensor([1.0, 0.0, 2.5, 0.5], dtype=torch.float64)
    weight = np.where(label == 255, 0, class_weight[label.clamp(max=3)].numpy())
    slow = slow_pixels(logits, label) * weight * pixel_weight.double().numpy()
    result = losses.cross_entropy(
        logits, label, pixel_weight=pixel_weight, class_weight=class_weight
    )
    np.testing.assert_allclose(result.item(), slow.sum() / (label != 255).sum(), rtol=1e-6)
    result = losses.cross_entropy(
        logits,
        label,
        pixel_weight=pixel_weight,
        class_weight=class_weight.tolist(),
        reduction='none',
    )
    np.testing.assert_allclose(result.detach().numpy(), slow, rtol=1e-6)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('small', [(4, 5), (9, 7)])
@pytest.mark.parametrize('reduction', ['valid_mean', 'pixel_mean', 'image_sum', 'none'])
@pytest.mark.parametrize('weighted', [False, True])
def test_gradient_equals_that_of_the_plain_form(align_corners, small, reduction, weighted):
    logits, label = problem(small=small)
    gen = torch.Generator().manual_seed(2)
    weight = torch.rand(label.shape, generator=gen).double() if weighted else None
    value = losses.cross_entropy(
        logits, label, pixel_weight=weight, align_corners=align_corners, reduction=reduction
    )
    upstream = torch.randn(value.shape, generator=gen, dtype=torch.float64)
    pixels = plain(logits, label, align_corners) * (1 if weight is None else weight)
    reference = {
        'valid_mean': pixels.sum() / (label != 255).sum(),
        'pixel_mean': pixels.mean((1, 2)),
        'image_sum': pixels.sum((1, 2)),
        'none': pixels,
    }[reduction]
    ours = torch.autograd.grad(value, logits, upstream, retain_graph=True)[0]
    torch.testing.assert_close(value, reference)
    torch.testing.assert_close(ours, torch.autograd.grad(reference, logits, upstream)[0])
    torch.testing.assert_close(ours, torch.autograd.grad(value, logits, upstream)[0])  # again


@pytest.mark.parametrize('small', [(2, 3), (4, 3)])
@pytest.mark.parametrize('reduction', ['valid_mean', 'pixel_mean', 'none'])
def test_gradcheck(small, reduction):
    logits, label = problem(n=2, c=3, small=small, size=(4, 3), seed=3)
    assert torch.autograd.gradcheck(
        lambda x: losses.cross_entropy(x, label, reduction=reduction), (logits,)
    )


def test_learnable_weights_get_their_gradient():
    logits, label = problem(n=2, c=3, small=(2, 3), size=(4, 3))
    pixel_weight = torch.rand(label.shape, dtype=torch.float64).requires_grad_()
    class_weight = torch.rand(3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, p, c: losses.cross_entropy(x, label, pixel_weight=p, class_weight=c),
        (logits, pixel_weight, class_weight),
    )


def test_chunks_of_several_images_give_the_same(monkeypatch):
    logits, label = problem(n=5)
    whole = losses.cross_entropy(logits, label, reduction='image_sum')
    grad = gradient(whole, logits)
    for elements in (1, 2 * 4 * 63, 3 * 4 * 63):  # 1, 2 and 3 images at a time
        monkeypatch.setattr(_common, 'CHUNK_ELEMENTS', elements)
        for reduction in ('image_sum', 'none'):
            value = losses.cross_entropy(logits, label, reduction=reduction)
            value = value if reduction == 'image_sum' else value.sum((1, 2))
            torch.testing.assert_close(value, whole)
            torch.testing.assert_close(gradient(value, logits), grad)


@pytest.mark.parametrize('small', [(4, 5), (9, 7)])
def test_strips_of_rows_give_the_same(monkeypatch, small):
    logits, label = problem(small=small)
    _, target, valid = soft_problem(small)
    values = [
        losses.cross_entropy(logits, label, reduction='image_sum'),
        losses.soft_cross_entropy(logits, target, valid_mask=valid),
    ]
    for elements in (1, 3 * 4 * 7 * 2, 3 * 4 * 7 * 9):  # 1, 2 and all rows at a time
        monkeypatch.setattr(_common, 'CACHED_ELEMENTS', elements)
        others = [
            losses.cross_entropy(logits, label, reduction='image_sum'),
            losses.soft_cross_entropy(logits, target, valid_mask=valid),
        ]
        for value, other in zip(values, others, strict=True):
            torch.testing.assert_close(other, value)
            torch.testing.assert_close(
                gradient(other, logits),
                torch.autograd.grad(value.sum(), logits, retain_graph=True)[0],
            )


@pytest.mark.parametrize('reduction', ['valid_mean', 'pixel_mean', 'image_sum', 'none'])
@pytest.mark.parametrize('small', [(4, 5), (9, 7)])
def test_all_void_is_zero_with_a_graph(reduction, small):
    logits, label = problem(small=small)
    value = losses.cross_entropy(logits, torch.full_like(label, 255), reduction=reduction)
    assert value.requires_grad
    assert (value == 0).all()
    assert (gradient(value, logits) == 0).all()


def test_one_void_image_does_not_disturb_the_others():
    logits, label = problem()
    label[1] = 255
    images = losses.cross_entropy(logits, label, reduction='image_sum')
    assert images[1] == 0
    grad = gradient(images, logits)
    assert (grad[1] == 0).all()
    assert (grad[[0, 2]] != 0).any()


def test_empty_batch_keeps_a_graph():
    logits = torch.zeros(0, 3, 4, 4, requires_grad=True)
    label = torch.zeros(0, 8, 8, dtype=torch.int64)
    for reduction, shape in (('valid_mean', ()), ('pixel_mean', (0,)), ('none', (0, 8, 8))):
        value = losses.cross_entropy(logits, label, reduction=reduction)
        assert value.shape == shape
        assert value.requires_grad
        value.sum().backward()
    assert losses.cross_entropy(logits, label) == 0


def test_single_class_costs_nothing():
    logits, label = problem(c=1)
    value = losses.cross_entropy(logits, label)
    assert value == 0
    assert (gradient(value, logits) == 0).all()


def test_other_void_values_and_label_dtypes():
    logits, label = problem()
    expected = losses.cross_entropy(logits, label)
    torch.testing.assert_close(losses.cross_entropy(logits, label.to(torch.uint8)), expected)
    moved = label.masked_fill(label == 255, -100)
    torch.testing.assert_close(losses.cross_entropy(logits, moved, ignore_index=-100), expected)
    void_class = label.masked_fill(label == 255, 0)
    kept = losses.cross_entropy(logits, void_class, ignore_index=0)
    slow = slow_pixels(logits, void_class, ignore_index=0)
    np.testing.assert_allclose(kept.item(), slow.sum() / (void_class != 0).sum(), rtol=1e-6)


def test_a_masked_class_spoils_neither_void_nor_dropped_pixels():
    # Class 0 has logit -inf and void pixels are scored as class 0 inside: 0 · inf would be NaN.
    logits = torch.randn(1, 3, 2, 3, dtype=torch.float64)
    logits[:, 0] = -torch.inf
    logits.requires_grad_()
    label = torch.tensor([[[1, 2, 255], [0, 255, 1]]])
    weight = torch.tensor([[[1.0, 1, 1], [0, 1, 1]]], dtype=torch.float64)
    value = losses.cross_entropy(logits, label, pixel_weight=weight)
    grad = gradient(value, logits)
    assert torch.isfinite(value)
    assert torch.isfinite(grad).all()
    assert (grad[:, 0] == 0).all()


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[1e30, -1e30], [-1e30, 1e30]]).view(1, 2, 1, 2).requires_grad_()
    value = losses.cross_entropy(logits, torch.tensor([[[0, 0]]]), reduction='none')
    assert value[0, 0, 0] == 0
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient(value, logits)).all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('reduction', ['valid_mean', 'none'])
def test_half_precision_is_computed_in_float32(dtype, autocast, reduction):
    logits, label = problem(dtype=dtype)
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
        value = losses.cross_entropy(logits, label, reduction=reduction)
        value.sum().backward()
    exact = logits.detach().float().requires_grad_()
    expected = losses.cross_entropy(exact, label, reduction=reduction)
    expected.sum().backward()
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)
    assert logits.grad.dtype == dtype
    assert torch.equal(logits.grad, exact.grad.to(dtype))


def test_loss_scaling_does_not_lose_small_gradients():
    # GradScaler multiplies the loss by 65536: unscaled gradients of 1e-8 must survive in float32.
    logits, label = problem(n=1, size=(64, 64), dtype=torch.float16)
    (losses.cross_entropy(logits, label) * 65536).backward()
    exact = logits.detach().float().requires_grad_()
    losses.cross_entropy(exact, label).backward()
    torch.testing.assert_close(logits.grad.float(), exact.grad * 65536, rtol=1e-3, atol=1e-2)


def test_without_grad_nothing_is_kept():
    logits, label = problem()
    with torch.no_grad():
        value = losses.cross_entropy(logits, label)
    assert not value.requires_grad
    torch.testing.assert_close(value, losses.cross_entropy(logits, label).detach())
    assert not losses.cross_entropy(logits.detach(), label).requires_grad


def test_channels_last_logits():
    logits, label = problem()
    other = logits.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    value, expected = losses.cross_entropy(other, label), losses.cross_entropy(logits, label)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient(value, other), gradient(expected, logits))


class SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that the graph of a loss keeps for its backward pass."""

    def __init__(self):
        self.bytes = 0
        super().__init__(self._pack, lambda x: x)

    def __enter__(self):
        super().__enter__()
        return self

    def _pack(self, x):
        self.bytes += x.numel() * x.element_size()
        return x


@pytest.mark.parametrize('reduction', ['valid_mean', 'none'])
def test_the_graph_keeps_nothing_of_full_resolution_with_channels(reduction):
    logits, label = problem(n=2, c=20, small=(4, 4), size=(64, 64), dtype=torch.float32)
    with SavedBytes() as ours:
        losses.cross_entropy(logits, label, reduction=reduction).sum()
    with SavedBytes() as naive:
        plain(logits, label).sum()
    assert naive.bytes > 2 * 20 * 64 * 64 * 4
    assert ours.bytes < naive.bytes / 4


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(logits=torch.zeros(3, 4, 5)), r'logits is .*\(3, 4, 5\), but must'),
        (dict(logits=torch.zeros(3, 4, 4, 5).long()), 'floating point'),
        (dict(label=torch.zeros(3, 1, 9, 7).long()), r'label has shape \(3, 1, 9, 7\)'),
        (dict(label=torch.zeros(3, 9, 7)), 'integer classes'),
        (dict(label=torch.zeros(2, 9, 7).long()), 'label holds 2 images and logits 3'),
        (dict(pixel_weight=torch.zeros(3, 4, 5)), 'pixel_weight has shape'),
        (dict(class_weight=torch.ones(5)), 'class_weight has shape'),
        (dict(reduction='mean'), "reduction is 'mean', but must be one of valid_mean"),
    ],
)
def test_cross_entropy_rejects(change, message):
    logits, label = problem()
    with pytest.raises(ValueError, match=message):
        losses.cross_entropy(**{'logits': logits, 'label': label, **change})


# --- confident_cross_entropy ---------------------------------------------------------------------


def test_confident_cross_entropy_by_hand():
    logits = torch.zeros(2, 2, 2, 2)
    label = torch.zeros(2, 2, 2, dtype=torch.int64)
    label[0, 0, 0] = 255
    confidence = torch.tensor([[[0.99, 0.95], [0.94, 0.95]], [[0.9, 0.9], [0.9, 0.9]]])
    # Image 0: two confident non-void pixels (0.95 reaches 0.95) of four; image 1: nobody.
    value = losses.confident_cross_entropy(logits, label, confidence, 0.95)
    torch.testing.assert_close(value, torch.tensor([2 * LN2 / 4, 0.0]))
    valid = torch.ones(2, 2, 2, dtype=torch.bool)
    valid[0, 1, 1] = False
    value = losses.confident_cross_entropy(logits, label, confidence, 0.95, valid_mask=valid)
    torch.testing.assert_close(value, torch.tensor([LN2 / 4, 0.0]))  # the divisor stays 4


@pytest.mark.parametrize('small', [(4, 5), (9, 7)])
@pytest.mark.parametrize('align_corners', [False, True])
def test_confident_cross_entropy_against_loops(small, align_corners):
    logits, label = problem(small=small)
    gen = torch.Generator().manual_seed(4)
    confidence = torch.rand(label.shape, generator=gen)
    valid = torch.rand(label.shape, generator=gen) < 0.8
    keep = ((confidence >= 0.6) & valid).numpy()
    value = losses.confident_cross_entropy(
        logits, label, confidence, 0.6, valid_mask=valid, align_corners=align_corners
    )
    slow = (slow_pixels(logits, label, align_corners) * keep).sum((1, 2)) / 63
    np.testing.assert_allclose(value.detach().numpy(), slow, rtol=1e-6)
    reference = (plain(logits, label, align_corners) * torch.from_numpy(keep)).mean((1, 2))
    torch.testing.assert_close(gradient(value, logits), gradient(reference, logits))


def test_divisors_of_the_confident_cross_entropy_by_hand():
    logits = torch.zeros(2, 2, 2, 2, requires_grad=True)
    label = torch.zeros(2, 2, 2, dtype=torch.int64)
    label[0, 0, 0] = 255
    confidence = torch.tensor([[[0.99, 0.95], [0.94, 0.95]], [[0.9, 0.9], [0.9, 0.96]]])
    valid = torch.ones(2, 2, 2, dtype=torch.bool)
    valid[1, 0] = False
    # Two confident pixels of three in image 0, one of two in image 1.
    for divisor, expected in (('valid', 3 * LN2 / 5), ('confident', LN2)):
        value = losses.confident_cross_entropy(
            logits, label, confidence, 0.95, valid_mask=valid, divisor=divisor
        )
        assert value.shape == ()
        assert value.item() == pytest.approx(expected, rel=1e-6)
        nobody = losses.confident_cross_entropy(logits, label, confidence, 1.0, divisor=divisor)
        assert nobody == 0
        nobody.backward()
    assert (logits.grad == 0).all()
    with pytest.raises(ValueError, match="divisor is 'mean', but must be one of area, valid"):
        losses.confident_cross_entropy(logits, label, confidence, 0.95, divisor='mean')


def test_nobody_confident_is_zero_with_a_graph():
    logits, label = problem()
    value = losses.confident_cross_entropy(logits, label, torch.zeros(label.shape), 0.95)
    assert value.requires_grad
    assert (value == 0).all()
    assert (gradient(value, logits) == 0).all()


def test_confident_cross_entropy_gradcheck():
    logits, label = problem(n=2, c=3, small=(2, 3), size=(4, 3))
    confidence = torch.rand(label.shape, generator=torch.Generator().manual_seed(5))
    assert torch.autograd.gradcheck(
        lambda x: losses.confident_cross_entropy(x, label, confidence, 0.5), (logits,)
    )


def test_confident_cross_entropy_rejects():
    logits, label = problem()
    confidence = torch.ones(label.shape)
    with pytest.raises(
        ValueError, match=r'tau is 1.5, but a confidence threshold lies in \[0, 1\]'
    ):
        losses.confident_cross_entropy(logits, label, confidence, 1.5)
    with pytest.raises(ValueError, match='confidence has shape'):
        losses.confident_cross_entropy(logits, label, confidence[:, 1:], 0.5)
    with pytest.raises(ValueError, match='valid_mask has shape'):
        losses.confident_cross_entropy(logits, label, confidence, 0.5, valid_mask=confidence[:1])


# --- ohem_cross_entropy --------------------------------------------------------------------------


def ohem_problem(probs, void=()):
    """A 1×1×len(probs) image of two classes in which the target class 0 has these probabilities."""
    probs = torch.tensor(probs, dtype=torch.float64)
    logits = torch.stack([probs, 1 - probs]).log().view(1, 2, 1, -1).requires_grad_()
    label = torch.zeros(1, 1, len(probs), dtype=torch.int64)
    label[..., list(void)] = 255
    return logits, label


def mean_nll(*probs):
    return sum(-math.log(p) for p in probs) / len(probs)


@pytest.mark.parametrize(
    ('void', 'threshold', 'min_kept', 'kept'),
    [
        ((), 0.7, 1, (0.1, 0.3, 0.6)),  # the threshold decides
        ((), 0.7, 3, (0.1, 0.3, 0.6)),
        ((), 0.7, 4, (0.1, 0.3, 0.6, 0.8)),  # min_kept decides
        ((), 0.2, 1, (0.1,)),
        ((), 0.0, 2, (0.1, 0.3)),
        ((), 0.7, 5, (0.1, 0.3, 0.6, 0.8, 0.9)),
        ((), 0.7, 6, (0.1, 0.3, 0.6, 0.8, 0.9)),  # more than there are: all
        ((), 0.7, 0, (0.1, 0.3, 0.6, 0.8, 0.9)),
        ((), 0.7, -1, (0.1, 0.3, 0.6, 0.8, 0.9)),
        ((1,), 0.2, 2, (0.1, 0.6)),  # void is never among the smallest
        ((0, 1), 0.7, 3, (0.6, 0.8, 0.9)),  # as many as there are non-void
        ((0, 1), 0.7, 4, (0.6, 0.8, 0.9)),  # more than there are non-void: all
        ((3, 4), 0.2, 3, (0.1, 0.3, 0.6)),
    ],
)
def test_ohem_by_hand(void, threshold, min_kept, kept):
    logits, label = ohem_problem([0.1, 0.3, 0.6, 0.8, 0.9], void)
    value = losses.ohem_cross_entropy(logits, label, threshold=threshold, min_kept=min_kept)
    np.testing.assert_allclose(value.item(), mean_nll(*kept), rtol=1e-9)
    grad = gradient(value, logits)[0, 0, 0]
    assert int((grad != 0).sum()) == len(kept)


@pytest.mark.parametrize('min_kept', [0, 1, 20, 60, 100, 140, 190, 1000])
@pytest.mark.parametrize('threshold', [0.05, 0.3, 0.7, 1.0])
def test_ohem_against_loops(min_kept, threshold):
    logits, label = problem()
    pixels = slow_pixels(logits, label)
    valid = (label != 255).numpy()
    q = np.where(valid, np.exp(-pixels), 1.0)
    if 0 < min_kept <= valid.sum():
        keep = valid & (q <= max(threshold, np.sort(q.ravel())[min_kept - 1]) + 1e-12)
    else:
        keep = valid
    value = losses.ohem_cross_entropy(logits, label, threshold=threshold, min_kept=min_kept)
    np.testing.assert_allclose(value.item(), pixels[keep].mean(), rtol=1e-6)
    reference = plain(logits, label)[torch.from_numpy(keep)].mean()
    torch.testing.assert_close(gradient(value, logits), gradient(reference, logits))


def test_ohem_counts_pixels_of_the_batch_not_of_an_image():
    easy, hard = ohem_problem([0.9, 0.95, 0.99]), ohem_problem([0.1, 0.2, 0.3])
    logits = torch.cat([easy[0], hard[0]]).detach().requires_grad_()
    label = torch.cat([easy[1], hard[1]])
    value = losses.ohem_cross_entropy(logits, label, threshold=0.7, min_kept=3)
    np.testing.assert_allclose(value.item(), mean_nll(0.1, 0.2, 0.3), rtol=1e-9)
    assert (gradient(value, logits)[0] == 0).all()


def test_ohem_all_void_is_zero_with_a_graph():
    logits, label = problem()
    for min_kept in (0, 1, 100000):
        value = losses.ohem_cross_entropy(logits, torch.full_like(label, 255), min_kept=min_kept)
        assert value == 0
        assert (gradient(value, logits) == 0).all()


def test_ohem_of_certain_pixels_keeps_them_all_at_threshold_one():
    logits = torch.zeros(1, 2, 2, 2)
    logits[:, 0] = 100
    value = losses.ohem_cross_entropy(
        logits, torch.zeros(1, 2, 2).long(), threshold=1.0, min_kept=1
    )
    assert value == 0


def test_ohem_half_and_autocast():
    logits, label = problem(dtype=torch.bfloat16)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = losses.ohem_cross_entropy(logits, label, min_kept=20)
    assert value.dtype == torch.float32
    assert torch.equal(value, losses.ohem_cross_entropy(logits.float(), label, min_kept=20))


def test_ohem_rejects():
    logits, label = problem()
    with pytest.raises(ValueError, match='threshold is 7'):
        losses.ohem_cross_entropy(logits, label, threshold=7)


# --- soft_cross_entropy --------------------------------------------------------------------------


def soft_problem(small, seed=6):
    logits, label = problem(small=small)
    gen = torch.Generator().manual_seed(seed)
    target = torch.rand(3, 4, 9, 7, generator=gen, dtype=torch.float64)
    target[:, 1] = 0
    return logits, target / target.sum(1, keepdim=True), label != 255


@pytest.mark.parametrize('small', [(4, 5), (9, 7)])
@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('masked', [False, True])
def test_soft_cross_entropy_against_loops(small, align_corners, masked):
    logits, target, valid = soft_problem(small)
    mask = valid if masked else None
    value = losses.soft_cross_entropy(logits, target, valid_mask=mask, align_corners=align_corners)
    expected = np.zeros(3)
    for i in range(3):
        full = bilinear(logits[i].detach().numpy(), (9, 7), align_corners)
        for y in range(9):
            for x in range(7):
                if valid[i, y, x] or not masked:
                    expected[i] -= (target[i, :, y, x].numpy() * log_softmax(full[:, y, x])).sum()
    np.testing.assert_allclose(value.detach().numpy(), expected / 63, rtol=1e-6)
    full = F.interpolate(logits, (9, 7), mode='bilinear', align_corners=align_corners)
    pixels = F.cross_entropy(full, target, reduction='none') * (valid if masked else 1)
    torch.testing.assert_close(gradient(value, logits), gradient(pixels.mean((1, 2)), logits))


def test_soft_cross_entropy_of_one_hot_targets_is_the_hard_one():
    logits, label = problem(void=0)
    target = F.one_hot(label, 4).permute(0, 3, 1, 2)
    torch.testing.assert_close(
        losses.soft_cross_entropy(logits, target),
        losses.cross_entropy(logits, label, reduction='pixel_mean'),
    )


def test_soft_cross_entropy_image_by_image():
    logits, target, valid = soft_problem((4, 5))
    whole = losses.soft_cross_entropy(logits, target, valid_mask=valid)
    single = [
        losses.soft_cross_entropy(logits[i : i + 1], target[i : i + 1], valid_mask=valid[i : i + 1])
        for i in range(3)
    ]
    torch.testing.assert_close(torch.cat(single), whole)


@pytest.mark.parametrize('small', [(2, 3), (4, 3)])
def test_soft_cross_entropy_gradcheck(small):
    logits, _ = problem(n=2, c=3, small=small, size=(4, 3))
    target = torch.rand(2, 3, 4, 3, dtype=torch.float64)  # need not even be normalized
    valid = torch.rand(2, 4, 3) < 0.7
    assert torch.autograd.gradcheck(
        lambda x: losses.soft_cross_entropy(x, target, valid_mask=valid), (logits,)
    )


def test_soft_cross_entropy_targets_are_constants():
    logits, target, _ = soft_problem((4, 5))
    target.requires_grad_()
    losses.soft_cross_entropy(logits, target).sum().backward()
    assert target.grad is None
    assert logits.grad is not None


def test_soft_cross_entropy_nothing_valid_is_zero_with_a_graph():
    logits, target, valid = soft_problem((4, 5))
    value = losses.soft_cross_entropy(logits, target, valid_mask=torch.zeros_like(valid))
    assert (value == 0).all()
    assert (gradient(value, logits) == 0).all()


def test_soft_cross_entropy_half_and_autocast():
    logits, target, _ = soft_problem((4, 5))
    half, probs = logits.detach().half(), target.float()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = losses.soft_cross_entropy(half, probs)
    assert value.dtype == torch.float32
    assert torch.equal(value, losses.soft_cross_entropy(half.float(), probs))


def test_soft_cross_entropy_rejects():
    logits, target, valid = soft_problem((4, 5))
    with pytest.raises(ValueError, match='target_probs has shape'):
        losses.soft_cross_entropy(logits, target[:, 1:])
    with pytest.raises(ValueError, match='valid_mask has shape'):
        losses.soft_cross_entropy(logits, target, valid_mask=valid[:, 1:])


# --- squared_error --------------------------------------------------------------------------------


def test_squared_error_by_hand():
    # Probabilities (1/2, 1/2) and (3/4, 1/4): a squared distance of 1/8 at each of two pixels.
    student = torch.zeros(1, 2, 1, 2)
    teacher = torch.tensor([math.log(3), 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    torch.testing.assert_close(
        losses.squared_error(student, teacher, (1, 2)), torch.tensor([1 / 8])
    )
    half = losses.squared_error(student, teacher, (1, 2), class_mean=True)
    torch.testing.assert_close(half, torch.tensor([1 / 16]))
    mask = torch.tensor([[[True, False]]])
    # The divisor stays two pixels.
    value = losses.squared_error(student, teacher, (1, 2), pixel_weight=mask)
    torch.testing.assert_close(value, torch.tensor([1 / 16]))
    value = losses.squared_error(student, teacher, (1, 2), pixel_weight=mask * 0.5)
    torch.testing.assert_close(value, torch.tensor([1 / 32]))


def squared_problem(seed=8, size=(6, 8)):
    gen = torch.Generator().manual_seed(seed)

    def logits():
        return torch.randn(3, 4, 3, 4, generator=gen, dtype=torch.float64) * 2

    weight = torch.rand(3, *size, generator=gen, dtype=torch.float64)
    boxes = torch.tensor([[0, 0, 4, 3], [2, 1, 8, 6], [0, 0, 0, 0]])
    mixing = dict(partner=torch.tensor([2, 0, 1]), boxes=boxes)
    return logits().requires_grad_(), logits().requires_grad_(), weight, mixing


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('mixed', [False, True])
@pytest.mark.parametrize('limit', [1, 10**9])
def test_squared_error_against_the_plain_form(align_corners, mixed, limit, monkeypatch):
    monkeypatch.setattr(_common, 'CHUNK_ELEMENTS', limit)
    student, teacher, weight, mixing = squared_problem()

    def probs(logits):
        return F.interpolate(logits, (6, 8), mode='bilinear', align_corners=align_corners).softmax(
            dim=1
        )

    target = probs(teacher).detach()
    if mixed:
        other = target[mixing['partner']]
        for i, (x1, y1, x2, y2) in enumerate(mixing['boxes'].tolist()):
            target[i, :, y1:y2, x1:x2] = other[i, :, y1:y2, x1:x2]
    expected = ((probs(student) - target) ** 2).sum(dim=1).mul(weight).mean(dim=(1, 2))
    value = losses.squared_error(
        student,
        teacher,
        (6, 8),
        pixel_weight=weight,
        align_corners=align_corners,
        **(mixing if mixed else {}),
    )
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient(value, student), gradient(expected, student))
    assert not torch.autograd.grad(value.sum(), teacher, allow_unused=True)[0]


def test_squared_error_half_and_autocast():
    student, teacher, *_ = squared_problem()
    half, other = student.detach().half(), teacher.detach().half()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        leaf = half.clone().requires_grad_()
        value = losses.squared_error(leaf, other, (6, 8))
    value.sum().backward()
    assert value.dtype == torch.float32
    exact = half.float().requires_grad_()
    expected = losses.squared_error(exact, other.float(), (6, 8))
    expected.sum().backward()
    assert torch.equal(value, expected)
    torch.testing.assert_close(leaf.grad.float(), exact.grad, rtol=2e-3, atol=1e-6)


def test_squared_error_of_no_images_keeps_a_graph():
    logits = torch.zeros(0, 3, 2, 2, requires_grad=True)
    value = losses.squared_error(logits, torch.zeros(0, 3, 2, 2), 4)
    assert value.shape == (0,)
    value.sum().backward()


def test_squared_error_rejects():
    student, teacher, weight, _ = squared_problem()
    with pytest.raises(ValueError, match='both must be of the same images and classes'):
        losses.squared_error(student, teacher[:2], (6, 8))
    with pytest.raises(
        ValueError, match=r'pixel_weight has shape \(3, 6, 7\), but must be \(3, 6, 8\)'
    ):
        losses.squared_error(student, teacher, (6, 8), pixel_weight=weight[..., 1:])


# --- all of them ---------------------------------------------------------------------------------


def every_loss(logits, label, confidence, target, anchors, bank, negatives):
    valid = label != 255
    weight = torch.ones(logits.shape[1], dtype=torch.float32, device=logits.device)
    return [
        losses.cross_entropy(logits, label, pixel_weight=confidence, class_weight=weight),
        losses.cross_entropy(logits, label, reduction='none'),
        losses.confident_cross_entropy(logits, label, confidence, 0.5, valid_mask=valid),
        losses.ohem_cross_entropy(logits, label, min_kept=10),
        losses.soft_cross_entropy(logits, target, valid_mask=valid),
        losses.info_nce(anchors, anchors.detach(), bank, negatives, 0.5),
    ]


def every_argument(device='cpu', n=2):
    gen = torch.Generator().manual_seed(8) if device == 'cpu' else None
    return (
        torch.randn(n, 3, 4, 4, generator=gen, device=device, requires_grad=True),
        torch.randint(0, 3, (n, 8, 8), generator=gen, device=device),
        torch.rand(n, 8, 8, generator=gen, device=device),
        torch.rand(n, 3, 8, 8, generator=gen, device=device),
        torch.randn(5, 4, generator=gen, device=device, requires_grad=True),
        torch.randn(6, 4, generator=gen, device=device),
        torch.randint(-1, 6, (5, 3), generator=gen, device=device),
    )


def test_arguments_are_left_alone():
    arguments = every_argument()
    copies = [x.detach().clone() for x in arguments]
    for value in every_loss(*arguments):
        value.sum().backward()
    assert all(torch.equal(x.detach(), y) for x, y in zip(arguments, copies, strict=True))


def test_nothing_waits_for_the_device(meta):
    for value in every_loss(*every_argument(meta)):
        assert value.device == meta
        value.sum().backward()


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_cuda_gives_the_numbers_of_the_cpu_without_synchronizing():
    on_cpu = every_argument()
    on_gpu = [x.detach().cuda().requires_grad_(x.requires_grad) for x in on_cpu]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        values = every_loss(*on_gpu)
        for value in values:
            value.sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode('default')
    expected = every_loss(*on_cpu)
    for value, other in zip(values, expected, strict=True):
        other.sum().backward()
        torch.testing.assert_close(value.cpu(), other, rtol=1e-4, atol=1e-6)
    for x, y in zip(on_gpu, on_cpu, strict=True):
        if y.requires_grad:
            torch.testing.assert_close(x.grad.cpu(), y.grad, rtol=1e-4, atol=1e-6)


def test_soft_target_may_mask_a_class():
    logits = torch.tensor([[0.3, -0.2, -torch.inf]]).view(1, 3, 1, 1)
    target = torch.tensor([[0.25, 0.75, 0.0]]).view(1, 3, 1, 1)
    logp = torch.tensor([0.3, -0.2]).log_softmax(0)
    expected = -(0.25 * logp[0] + 0.75 * logp[1])
    torch.testing.assert_close(losses.soft_cross_entropy(logits, target), expected[None])
