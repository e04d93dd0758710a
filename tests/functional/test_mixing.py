"""Boxes by their statistics, pasting pixel by pixel, intensity mixing and pairing by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmseg_semi.functional import mixing

STYLES = ['imas', 'unimatch', 'u2pl', 'cps', 'cutmix_seg']


def draw(style, num, size, seed=0):
    return mixing.sample_boxes(
        num, size, style=style, generator=torch.Generator().manual_seed(seed)
    )


def sides(boxes):
    """Widths and heights."""
    return boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]


# --- sample_boxes --------------------------------------------------------------------------------


@pytest.mark.parametrize('style', STYLES)
@pytest.mark.parametrize('size', [513, (64, 96), (97, 33), 1, 2, 3, (1, 40)])
def test_boxes_are_integer_reproducible_and_inside(style, size):
    boxes = draw(style, 50, size)
    height, width = (size, size) if isinstance(size, int) else size
    assert boxes.dtype == torch.int64
    assert boxes.shape == ((50, 3, 4) if style == 'cps' else (50, 4))
    x1, y1, x2, y2 = boxes.unbind(-1)
    assert ((x1 >= 0) & (x1 <= x2) & (x2 <= width)).all()
    assert ((y1 >= 0) & (y1 <= y2) & (y2 <= height)).all()
    assert torch.equal(boxes, draw(style, 50, size))
    if height > 3:
        assert not torch.equal(boxes, draw(style, 50, size, seed=1))


@pytest.mark.parametrize('style', STYLES)
def test_no_images_and_the_default_generator(style):
    assert len(draw(style, 0, 8)) == 0
    torch.manual_seed(3)
    boxes = mixing.sample_boxes(4, 32, style=style)
    torch.manual_seed(3)
    assert torch.equal(boxes, mixing.sample_boxes(4, 32, style=style))


def test_a_generator_advances():
    generator = torch.Generator().manual_seed(0)
    first = mixing.sample_boxes(4, 64, generator=generator)
    assert not torch.equal(first, mixing.sample_boxes(4, 64, generator=generator))


def test_imas_boxes_share_one_side_per_batch_and_clip():
    height, width = 320, 160
    shares = []
    for seed in range(400):
        boxes = draw('imas', 40, (height, width), seed)
        w, h = sides(boxes)
        inside_x = (boxes[:, 0] > 0) & (boxes[:, 2] < width)
        inside_y = (boxes[:, 1] > 0) & (boxes[:, 3] < height)
        # Whatever the border does not clip has the same side: 2 (int(v S) // 2) with one v.
        assert len(set(w[inside_x].tolist())) <= 1
        assert len(set(h[inside_y].tolist())) <= 1
        assert (w % 2 == 0)[inside_x].all()
        if inside_x.any() and inside_y.any():
            side_w, side_h = int(w[inside_x][0]), int(h[inside_y][0])
            assert abs(side_h / height - side_w / width) <= 2 / width
            shares.append(side_h / height)
            centers = (boxes[inside_x, 0] + boxes[inside_x, 2]) // 2
            assert (centers >= width / 16).all()
            rows = (boxes[inside_y, 1] + boxes[inside_y, 3]) // 2
            assert (rows >= height / 16).all()
    assert 0.09 <= min(shares) < 0.13
    assert 0.8 < max(shares) <= 0.9
    # Large boxes are clipped more often, so the shares seen unclipped lean to the small ones.


@pytest.mark.parametrize('size', [(50, 90), (513, 769), (15, 33)])
def test_imas_centers_begin_at_whole_sixteenths(monkeypatch, size):
    """Whole numbers of [H // 16, H) and [W // 16, W), not from the fractions' ceilings."""
    height, width = size
    # A share of 0.1 has the smallest boxes; the least draw is the first center, the largest the last.
    for uniform, row, column in (
        (0.0, height // 16, width // 16),
        (1 - 1e-9, height - 1, width - 1),
    ):
        # The share of the batch comes first, then a row and a column of the image.
        def given(shape, uniform=uniform, dtype=None, **_):
            return torch.full(shape, uniform if shape == (2, 1) else 0.0, dtype=dtype)

        monkeypatch.setattr(torch, 'rand', given)
        ((x1, y1, x2, y2),) = mixing.sample_boxes(1, size, style='imas').tolist()
        reach_y, reach_x = int(0.1 * height) // 2, int(0.1 * width) // 2
        assert (y1, y2) == (max(row - reach_y, 0), min(row + reach_y, height))
        assert (x1, x2) == (max(column - reach_x, 0), min(column + reach_x, width))


def test_imas_centers_are_uniform():
    # Small boxes only: their centers can be read off, and cover [H/16, H).
    centers = []
    for seed in range(600):
        boxes = draw('imas', 32, 160, seed)
        w, _ = sides(boxes)
        if w.max() <= 32:  # v < 0.21: at most 16 pixels to either side
            reach = w.max() // 2
            center = torch.where(boxes[:, 0] == 0, boxes[:, 2] - reach, boxes[:, 0] + reach)
            centers.append(center)
    centers = torch.cat(centers)
    assert centers.min() == 10
    assert centers.max() == 159
    counts = torch.histc(centers.float(), bins=10, min=10, max=160)
    torch.testing.assert_close(counts, torch.full((10,), len(centers) / 10), rtol=0.15, atol=0)


def test_unimatch_boxes_have_the_area_and_ratio_of_the_recipe():
    boxes = draw('unimatch', 20000, 1000)
    w, h = sides(boxes)
    area = (w * h).double() / 1e6
    # The area is drawn once and kept while ratio and corner are drawn again: its mean stays 0.21.
    assert area.min() >= 0.0195
    assert area.max() <= 0.4
    assert area.mean().item() == pytest.approx(0.21, abs=0.004)
    assert area.quantile(0.25).item() == pytest.approx(0.115, abs=0.005)
    assert area.quantile(0.75).item() == pytest.approx(0.305, abs=0.005)
    ratio = h.double() / w
    assert ratio.min() >= 0.29
    assert ratio.max() <= 3.4
    # What does not fit is redrawn: of the corners that remain none is preferred.
    x, y = boxes[:, 0].double(), boxes[:, 1].double()
    free = (w < 1000) & (h < 1000)
    assert (x / (1000 - w))[free].mean().item() == pytest.approx(0.5, abs=0.01)
    assert (y / (1000 - h))[free].mean().item() == pytest.approx(0.5, abs=0.01)


def test_unimatch_boxes_follow_the_loop_of_the_recipe():
    # Ratio and position redrawn together: a ratio is kept in proportion to its chance to fit.
    generator = torch.Generator().manual_seed(0)
    widths = []
    while len(widths) < 4000:
        area = float(torch.rand((), generator=generator)) * 0.38 + 0.02
        while True:
            r, x, y = torch.rand(3, generator=generator).tolist()
            r = 0.3 + (1 / 0.3 - 0.3) * r
            w, h = int(math.sqrt(area * 1e4 / r)), int(math.sqrt(area * 1e4 * r))
            if int(x * 100) + w <= 100 and int(y * 100) + h <= 100:
                widths.append(w)
                break
    w, _ = sides(draw('unimatch', 20000, 100))
    widths = torch.tensor(widths).double()
    assert w.double().mean().item() == pytest.approx(widths.mean().item(), abs=0.8)
    assert w.double().std().item() == pytest.approx(widths.std().item(), abs=0.8)


def test_u2pl_boxes_have_half_the_area():
    height, width = 200, 301
    boxes = draw('u2pl', 20000, (height, width))
    w, h = sides(boxes)
    assert w.min() == 151
    assert w.max() == 300
    assert ((w * h - height * width / 2).abs() <= w / 2).all()
    assert w.double().mean().item() == pytest.approx(225.5, abs=1.5)
    x, y = boxes[:, 0].double(), boxes[:, 1].double()
    assert (x / (width - w)).mean().item() == pytest.approx(0.5, abs=0.01)
    assert (y / (height - h)).mean().item() == pytest.approx(0.5, abs=0.01)
    assert (boxes[:, 2] == width).any()
    assert (boxes[:, 0] == 0).any()


def test_cps_boxes_are_three_with_a_quarter_to_a_half_in_all():
    boxes = draw('cps', 20000, 1000)
    w, h = sides(boxes)
    area = (w * h).double() / 1e6
    assert area.min() >= 0.25 / 3 - 1e-3
    assert area.max() <= 0.5 / 3 + 1e-3
    assert area.sum(1).mean().item() == pytest.approx(0.375, abs=2e-3)
    # The height share is exp(U ln a): a third of sqrt(1/3) at most in log-uniform measure.
    share = h.double() / 1000 / math.sqrt(1 / 3)
    assert share.max() <= 1.001
    exponent = share.log() / (3 * area).log()
    assert exponent.mean().item() == pytest.approx(0.5, abs=5e-3)
    assert exponent.quantile(0.1).item() == pytest.approx(0.1, abs=0.01)
    x = boxes[..., 0].double() / (1000 - w)
    assert x.mean().item() == pytest.approx(0.5, abs=5e-3)
    assert x.quantile(0.1).item() == pytest.approx(0.1, abs=0.01)


def test_cutmix_seg_boxes_are_one_of_half_the_area():
    boxes = draw('cutmix_seg', 20000, (600, 1000))
    w, h = sides(boxes)
    assert ((w * h).double() / 6e5 - 0.5).abs().max() < 2e-3
    assert h.min() >= 300
    assert w.min() >= 500
    # The height share is exp(U ln 0.5): its logarithm is uniform, and so is the place.
    exponent = (h.double() / 600).log() / math.log(0.5)
    assert exponent.quantile(0.1).item() == pytest.approx(0.1, abs=0.01)
    assert exponent.quantile(0.9).item() == pytest.approx(0.9, abs=0.01)
    y = (boxes[:, 1].double() / (600 - h).clamp(min=1))[h < 500]
    assert y.quantile(0.1).item() == pytest.approx(0.1, abs=0.015)


def test_upsample_and_paste_is_both_for_some_images():
    logits = torch.randn(3, 2, 3, 4, generator=torch.Generator().manual_seed(2))
    partner = torch.tensor([2, 0, 1])
    boxes = torch.tensor([[0, 0, 4, 3], [2, 1, 8, 6], [0, 0, 0, 0]])
    full = F.interpolate(logits, (6, 8), mode='bilinear', align_corners=True)
    expected = full.clone()
    expected[0, :, 0:3, 0:4] = full[2, :, 0:3, 0:4]
    expected[1, :, 1:6, 2:8] = full[0, :, 1:6, 2:8]
    mixed = mixing.upsample_and_paste(
        logits, (6, 8), partner=partner, boxes=boxes, align_corners=True
    )
    assert torch.equal(mixed, expected)
    some = mixing.upsample_and_paste(
        logits, (6, 8), images=slice(1, 3), partner=partner, boxes=boxes, align_corners=True
    )
    assert torch.equal(some, expected[1:])
    half = mixing.upsample_and_paste(logits.half(), (6, 8), align_corners=True)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0, atol=2e-3)


def test_sample_boxes_rejects():
    with pytest.raises(ValueError, match="style is 'cutmix', but must be one of imas, unimatch"):
        mixing.sample_boxes(2, 8, style='cutmix')
    with pytest.raises(ValueError, match='num is -1'):
        mixing.sample_boxes(-1, 8)
    with pytest.raises(ValueError, match=r'size is \(0, 8\)'):
        mixing.sample_boxes(1, (0, 8))


# --- paste ---------------------------------------------------------------------------------------


def slow_paste(base, patch, boxes):
    out = base.clone()
    height, width = base.shape[-2:]
    boxes = boxes if boxes.dim() == 3 else boxes[:, None]
    for i in range(len(base)):
        for y in range(height):
            for x in range(width):
                cover = sum(x1 <= x < x2 and y1 <= y < y2 for x1, y1, x2, y2 in boxes[i].tolist())
                if cover % 2:
                    out[i, ..., y, x] = patch[i, ..., y, x].to(out.dtype)
    return out


def masked_paste(base, patch, boxes):
    """What `paste` does with boxes on a device, on the CPU."""
    return mixing._paste_by_mask(base, patch, boxes if boxes.dim() == 3 else boxes[:, None])


def test_paste_by_hand():
    base = torch.zeros(2, 3, 4, dtype=torch.int64)
    boxes = torch.tensor([[1, 0, 3, 2], [0, 2, 4, 3]])
    mixed = mixing.paste(base, base + 7, boxes)
    assert mixed.tolist() == [
        [[0, 7, 7, 0], [0, 7, 7, 0], [0, 0, 0, 0]],
        [[0, 0, 0, 0], [0, 0, 0, 0], [7, 7, 7, 7]],
    ]


def test_paste_overlapping_boxes_xor():
    base = torch.zeros(1, 2, 5)
    boxes = torch.tensor([[[0, 0, 3, 2], [1, 0, 5, 1], [2, 0, 3, 1]]])
    # Row 0 is covered 1, 2, 3, 1, 1 times; row 1: 1, 1, 1, 0, 0.
    mixed = mixing.paste(base, base + 1, boxes)
    assert mixed.tolist() == [[[1, 0, 1, 1, 1], [1, 1, 1, 0, 0]]]


@pytest.mark.parametrize('style', STYLES)
@pytest.mark.parametrize('shape', [(5, 3, 13, 17), (5, 13, 17)])
def test_paste_against_loops(style, shape):
    for seed in range(5):
        gen = torch.Generator().manual_seed(seed)
        base, patch = (torch.randn(shape, generator=gen) for _ in range(2))
        boxes = draw(style, 5, (13, 17), seed)
        expected = slow_paste(base, patch, boxes)
        assert torch.equal(mixing.paste(base, patch, boxes), expected)
        assert torch.equal(masked_paste(base, patch, boxes), expected)


def test_paste_many_random_boxes_also_beyond_the_image():
    gen = torch.Generator().manual_seed(1)
    base, patch = torch.zeros(6, 9, 8), torch.ones(6, 9, 8)
    for k in (1, 2, 4, 7):
        boxes = torch.randint(-4, 14, (6, k, 4), generator=gen)  # some empty, some outside
        expected = slow_paste(base, patch, boxes)
        assert torch.equal(mixing.paste(base, patch, boxes), expected)
        assert torch.equal(masked_paste(base, patch, boxes), expected)


def test_paste_degenerate():
    base = torch.randn(2, 3, 4, 4)
    empty = torch.tensor([[2, 2, 2, 4], [3, 3, 1, 4]])
    assert torch.equal(mixing.paste(base, base + 1, empty), base)
    full = torch.tensor([[0, 0, 4, 4], [-9, -9, 99, 99]])
    assert torch.equal(mixing.paste(base, base + 1, full), base + 1)
    assert mixing.paste(base[:0], base[:0], full[:0]).shape == (0, 3, 4, 4)
    assert torch.equal(mixing.paste(base, base + 1, empty[:, None][:, :0]), base)


@pytest.mark.parametrize(
    'dtype', [torch.uint8, torch.bool, torch.int64, torch.float16, torch.float64]
)
def test_paste_keeps_the_dtype_of_its_base(dtype):
    base = torch.zeros(1, 2, 2).to(dtype)
    boxes = torch.tensor([[0, 0, 1, 2]])
    for function in (mixing.paste, masked_paste):
        mixed = function(base, torch.ones(1, 2, 2), boxes)
        assert mixed.dtype == dtype
        assert mixed.long().tolist() == [[[1, 0], [1, 0]]]


def test_paste_makes_a_new_tensor_and_passes_gradients():
    base, patch = torch.zeros(1, 2, 2), torch.ones(1, 2, 2)
    boxes = torch.tensor([[0, 0, 1, 2]])
    nothing = torch.tensor([[0, 0, 0, 0]])
    mixed = mixing.paste(base, patch, nothing)
    mixed += 5
    mixing.paste(base, patch, boxes)
    assert (base == 0).all()
    assert (patch == 1).all()
    base, patch = base.requires_grad_(), patch.requires_grad_()
    (mixing.paste(base, patch, boxes) * torch.tensor([[2.0, 3.0], [4.0, 5.0]])).sum().backward()
    assert base.grad.tolist() == [[[0, 3], [0, 5]]]
    assert patch.grad.tolist() == [[[2, 0], [4, 0]]]


def test_paste_rejects():
    base = torch.zeros(2, 3, 4, 4)
    boxes = torch.zeros(2, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match='patch has shape'):
        mixing.paste(base, base[:, :1], boxes)
    with pytest.raises(ValueError, match=r'boxes has shape \(1, 4\), but 2 images need \(2, 4\)'):
        mixing.paste(base, base, boxes[:1])
    with pytest.raises(ValueError, match='boxes has shape'):
        mixing.paste(base, base, boxes[:, :3])
    with pytest.raises(ValueError, match=r'boxes is torch\.float32'):
        mixing.paste(base, base, boxes.float())
    with pytest.raises(ValueError, match='base has shape'):
        mixing.paste(base[0, 0], base[0, 0], boxes)


# --- mix_intensity -------------------------------------------------------------------------------


def test_mix_intensity_softens_hard_images():
    strong, weak = torch.full((4, 1, 1, 1), 10.0), torch.full((4, 1, 1, 1), 2.0)
    gamma = torch.tensor([0.0, 0.25, 0.5, 1.0])
    mixed = mixing.mix_intensity(strong, weak, gamma)
    assert mixed.flatten().tolist() == [10.0, 8.0, 6.0, 2.0]


def test_mix_intensity_against_the_formula():
    gen = torch.Generator().manual_seed(0)
    strong, weak = (torch.randn(5, 3, 4, 4, generator=gen, dtype=torch.float64) for _ in range(2))
    gamma = torch.rand(5, generator=gen, dtype=torch.float64)
    copies = [x.clone() for x in (strong, weak, gamma)]
    mixed = mixing.mix_intensity(strong, weak, gamma)
    for i in range(5):
        g = float(gamma[i])
        torch.testing.assert_close(mixed[i], (1 - g) * strong[i] + g * weak[i])
    assert all(torch.equal(x, y) for x, y in zip((strong, weak, gamma), copies, strict=True))
    mixed = mixing.mix_intensity(strong, weak, gamma.float())
    assert mixed.dtype == torch.float64


def test_mix_intensity_dtypes_and_gradient():
    strong, weak = torch.randn(2, 3, 4, 4).half(), torch.randn(2, 3, 4, 4)
    gamma = torch.tensor([0.3, 0.9])
    with torch.autocast('cpu', dtype=torch.bfloat16):
        mixed = mixing.mix_intensity(strong, weak.half(), gamma)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, mixing.mix_intensity(strong.float(), weak.half(), gamma))
    assert mixing.mix_intensity(strong[:0], weak[:0], gamma[:0]).shape == (0, 3, 4, 4)
    weak.requires_grad_()
    mixing.mix_intensity(strong, weak, gamma).sum().backward()
    torch.testing.assert_close(weak.grad[1], torch.full((3, 4, 4), 0.9))


def test_mix_intensity_rejects():
    images = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ValueError, match='weak has shape'):
        mixing.mix_intensity(images, images[:1], torch.zeros(2))
    with pytest.raises(ValueError, match='hardness has shape'):
        mixing.mix_intensity(images, images, torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r'strong is torch\.uint8'):
        mixing.mix_intensity(images.byte(), images.byte(), torch.zeros(2))


# --- hard_easy_partners --------------------------------------------------------------------------


def test_partners_by_hand():
    assert mixing.hard_easy_partners(torch.tensor([0.9, 0.1, 0.5, 0.7])).tolist() == [1, 0, 3, 2]
    assert mixing.hard_easy_partners(torch.tensor([0.9, 0.1, 0.5])).tolist() == [1, 0, 2]
    assert mixing.hard_easy_partners(torch.tensor([0.4])).tolist() == [0]
    assert mixing.hard_easy_partners(torch.tensor([])).tolist() == []


@pytest.mark.parametrize('num', range(1, 12))
def test_partners_are_an_involution_also_with_ties(num):
    for seed in range(5):
        gen = torch.Generator().manual_seed(seed)
        for gamma in (
            torch.rand(num, generator=gen),
            torch.randint(0, 3, (num,), generator=gen) / 2,
            torch.full((num,), 0.5),
            torch.full((num,), torch.nan),
        ):
            partner = mixing.hard_easy_partners(gamma)
            assert partner.dtype == torch.int64
            assert torch.equal(partner[partner], torch.arange(num))
            assert int((partner == torch.arange(num)).sum()) == num % 2
    gamma = torch.rand(num, generator=gen)
    rank = gamma.argsort().argsort()
    assert torch.equal(rank[mixing.hard_easy_partners(gamma)], num - 1 - rank)


def test_partners_reject():
    with pytest.raises(ValueError, match='hardness has shape'):
        mixing.hard_easy_partners(torch.zeros(2, 1))


# --- all of them ---------------------------------------------------------------------------------


def test_nothing_waits_for_the_device():
    # Tensors of the device "meta" have no values: whatever reads one raises, and so does a mix of devices.
    images = torch.zeros(4, 3, 8, 8, device='meta')
    gamma = torch.zeros(4, device='meta')
    partner = mixing.hard_easy_partners(gamma)
    boxes = torch.zeros(4, 3, 4, dtype=torch.int64, device='meta')
    results = [
        partner,
        mixing.mix_intensity(images, images, gamma),
        mixing.paste(images, images[partner], boxes),
        mixing.paste(images[:, 0], images[partner][:, 0], boxes[:, 0]),
    ]
    assert {x.device.type for x in results} == {'meta'}


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('style', STYLES)
def test_cuda_does_not_synchronize(style):
    generator = torch.Generator('cuda').manual_seed(0)
    images = torch.randn(6, 3, 40, 50, device='cuda')
    on_host = draw(style, 6, (40, 50))
    mixing.sample_boxes(6, (40, 50), style=style, generator=generator)  # loads the kernels
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        boxes = mixing.sample_boxes(6, (40, 50), style=style, generator=generator)
        mixed = mixing.paste(images, images.flip(0), boxes)
        sliced = mixing.paste(images, images.flip(0), on_host)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    images = images.cpu()
    assert torch.equal(mixed.cpu(), mixing.paste(images, images.flip(0), boxes.cpu()))
    assert torch.equal(sliced.cpu(), mixing.paste(images, images.flip(0), on_host))
