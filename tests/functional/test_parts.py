"""Parts of classes against plain loops in float64, and numbers done by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmseg_semi.functional import parts
from mmseg_semi.functional.parts import assign_parts, masked_average_pool

NUM_CLASSES, NUM_PARTS, CHANNELS = 4, 3, 6


def cosine(a, b):
    lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


def slow_parts(features, label, prototypes, valid=None, align_corners=False):
    """The cosines of one part at a time, resized, then the first largest by comparison."""
    n, _, h, w = features.shape
    part = torch.full(label.shape, -1)
    for i in range(n):
        maps = {}
        for c in range(len(prototypes)):
            for k, prototype in enumerate(prototypes[c].double().tolist()):
                small = torch.tensor(
                    [
                        [
                            cosine(features[i, :, y, x].double().tolist(), prototype)
                            for x in range(w)
                        ]
                        for y in range(h)
                    ],
                    dtype=torch.float64,
                )
                maps[c, k] = F.interpolate(
                    small[None, None],
                    tuple(label.shape[1:]),
                    mode='bilinear',
                    align_corners=align_corners,
                )[0, 0]
        for y in range(label.shape[1]):
            for x in range(label.shape[2]):
                c = int(label[i, y, x])
                if c == 255:
                    continue
                best, part[i, y, x] = -math.inf, 0
                for k in range(prototypes.shape[1]):
                    if (valid is None or valid[c, k]) and maps[c, k][y, x] > best:
                        best, part[i, y, x] = maps[c, k][y, x], k
    return part


def slow_pool(features, label, part, num_classes, num_parts):
    n, d, h, w = features.shape
    means = torch.zeros(n, num_classes, num_parts, d, dtype=torch.float64)
    counts = torch.zeros(n, num_classes, num_parts, dtype=torch.int64)
    for i in range(n):
        for c in range(num_classes):
            for k in range(num_parts):
                inside = [
                    features[i, :, y, x].double()
                    for y in range(h)
                    for x in range(w)
                    if label[i, y, x] == c and part[i, y, x] == k
                ]
                counts[i, c, k] = len(inside)
                if inside:
                    means[i, c, k] = sum(inside) / len(inside)
    return means, counts


def scene(size=(7, 9), feature_size=None, dtype=torch.float64, num=2):
    """Features, a label with every tenth pixel void and the last class absent, prototypes."""
    features = torch.randn(num, CHANNELS, *(feature_size or size), dtype=dtype)
    label = torch.randint(0, NUM_CLASSES - 1, (num, *size))
    label[torch.rand(label.shape) < 0.1] = 255
    return features, label, torch.randn(NUM_CLASSES, NUM_PARTS, CHANNELS, dtype=dtype)


# --- assign_parts --------------------------------------------------------------------------------


def test_parts_by_hand():
    features = torch.tensor([[5.0, 1.0], [0.1, 2.0], [-1.0, 0.1]]).T.reshape(1, 2, 1, 3)
    prototypes = torch.tensor([[[0.0, 1.0], [2.0, 0.0]], [[-3.0, 0.0], [0.0, 9.0]]])
    assert assign_parts(features, torch.tensor([[[0, 0, 0]]]), prototypes).tolist() == [[[1, 0, 0]]]
    assert assign_parts(features, torch.tensor([[[1, 1, 1]]]), prototypes).tolist() == [[[1, 1, 0]]]
    label = torch.tensor([[[0, 255, 1]]])
    assert assign_parts(features, label, prototypes).tolist() == [[[1, -1, 0]]]


def test_cosines_are_resized_and_not_the_features():
    # Two pixels of very different length: resized features would follow the long one, but the
    # cosines (1, 0) and (0, 1) weigh the same, so that the border lies in the middle.
    features = torch.tensor([[100.0, 0.0], [0.0, 1.0]]).T.reshape(1, 2, 1, 2)
    prototypes = torch.eye(2)[None]
    label = torch.zeros(1, 1, 8, dtype=torch.int64)
    expected = [0, 0, 0, 0, 1, 1, 1, 1]
    for align_corners in (False, True):
        part = assign_parts(features, label, prototypes, align_corners=align_corners)
        assert part.flatten().tolist() == expected


def test_align_corners_moves_the_border():
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]).T.reshape(1, 2, 1, 3)
    label = torch.zeros(1, 1, 9, dtype=torch.int64)
    prototypes = torch.eye(2)[None]
    counts = [
        (assign_parts(features, label, prototypes, align_corners=align) == 0).sum().item()
        for align in (False, True)
    ]
    # The border lies at 0.5: at x = 0.5 · 3 + 1 = 2.5 with half-pixel centers, at x = 2 with corners
    # aligned, where the tie goes to the lower part.
    assert counts == [3, 3]
    assert assign_parts(features, label[..., :8], prototypes).eq(0).sum() == 3
    aligned = assign_parts(features, label[..., :8], prototypes, align_corners=True)
    assert aligned.eq(0).sum() == 2


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('feature_size', [None, (3, 4), (1, 1)])
def test_parts_equal_the_slow_reference(feature_size, align_corners):
    features, label, prototypes = scene(feature_size=feature_size)
    part = assign_parts(features, label, prototypes, align_corners=align_corners)
    assert part.dtype == torch.int64
    assert torch.equal(part, slow_parts(features, label, prototypes, None, align_corners))


def test_parts_with_invalid_prototypes_equal_the_slow_reference():
    features, label, prototypes = scene(feature_size=(3, 4))
    valid = torch.rand(NUM_CLASSES, NUM_PARTS) < 0.5
    valid[1] = False
    prototypes[~valid] = torch.nan  # what was never set may hold anything
    prototypes_read = prototypes.nan_to_num(0.0)
    part = assign_parts(features, label, prototypes, valid=valid)
    assert torch.equal(part, slow_parts(features, label, prototypes_read, valid))
    assert (part[label == 1] == 0).all()


def test_invalid_prototypes_are_never_chosen_though_most_similar():
    features, label, prototypes = scene()
    prototypes[:] = -features[0, :, 0, 0]
    prototypes[:, 0] = features[0, :, 0, 0]
    label[0, 0, 0] = 2
    valid = torch.ones(NUM_CLASSES, NUM_PARTS, dtype=torch.bool)
    assert assign_parts(features, label, prototypes, valid=valid)[0, 0, 0] == 0
    valid[2, 0] = False
    assert assign_parts(features, label, prototypes, valid=valid)[0, 0, 0] == 1


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('channels', [6, 512])
def test_ties_go_to_the_lower_part(dtype, channels):
    _, label, _ = scene()
    features = torch.randn(2, channels, 3, 4, dtype=dtype)
    prototypes = torch.randn(NUM_CLASSES, NUM_PARTS, channels, dtype=dtype)
    prototypes[:, 1] = prototypes[:, 2]
    part = assign_parts(features, label, prototypes)
    assert (part != 2).all()
    assert (part == 1).any()
    same = prototypes[:, :1].expand(-1, NUM_PARTS, -1)
    assert (assign_parts(features, label, same)[label != 255] == 0).all()
    assert (assign_parts(torch.zeros_like(features), label, prototypes)[label != 255] == 0).all()


def test_classes_in_chunks_give_the_same(monkeypatch):
    features, label, prototypes = scene(feature_size=(3, 4))
    whole = assign_parts(features, label, prototypes)
    for elements in (1, 2 * NUM_PARTS * 63, 3 * NUM_PARTS * 63):
        monkeypatch.setattr(parts, 'CHUNK_ELEMENTS', elements)
        assert torch.equal(assign_parts(features, label, prototypes), whole)


def test_all_void_and_one_pixel():
    features, label, prototypes = scene()
    assert (assign_parts(features, torch.full_like(label, 255), prototypes) == -1).all()
    one = assign_parts(features[:1, :, :1, :1], torch.tensor([[[3]]]), prototypes)
    expected = slow_parts(features[:1, :, :1, :1], torch.tensor([[[3]]]), prototypes)
    assert torch.equal(one, expected)
    assert assign_parts(features[:0], label[:0], prototypes).shape == (0, 7, 9)


def test_class_255_is_void_also_with_more_than_255_classes():
    features, label, _ = scene()
    prototypes = torch.randn(300, 2, CHANNELS, dtype=torch.float64)
    label[0, 0] = 255
    label[0, 1] = 299
    part = assign_parts(features, label, prototypes)
    assert (part[0, 0] == -1).all()
    assert (part[0, 1] >= 0).all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_parts_are_computed_in_float32_also_under_autocast(dtype):
    features, label, prototypes = scene((16, 16), (5, 5), torch.float32)
    features = features.to(dtype)
    expected = assign_parts(features.float(), label, prototypes)
    assert torch.equal(assign_parts(features, label, prototypes), expected)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(assign_parts(features, label, prototypes), expected)
        assert torch.equal(assign_parts(features.float(), label, prototypes), expected)


def test_parts_edit_nothing_and_have_no_gradient():
    features, label, prototypes = scene(feature_size=(3, 4))
    valid = torch.rand(NUM_CLASSES, NUM_PARTS) < 0.5
    arguments = [features, label, prototypes, valid]
    copies = [x.clone() for x in arguments]
    features.requires_grad_()
    assert not assign_parts(features, label, prototypes, valid=valid).requires_grad
    assert all(torch.equal(a, b) for a, b in zip(arguments, copies, strict=True))


@pytest.mark.parametrize(
    ('features', 'label', 'prototypes', 'valid', 'words'),
    [
        ((2, 6, 4, 4), (2, 4), (3, 2, 6), None, 'label has shape'),
        ((2, 6, 4, 4), (2, 4, 4), (3, 6), None, r'must be \(C, K, D\)'),
        ((2, 5, 4, 4), (2, 4, 4), (3, 2, 6), None, 'features has shape'),
        ((3, 6, 4, 4), (2, 4, 4), (3, 2, 6), None, 'features has shape'),
        ((2, 6, 4), (2, 4, 4), (3, 2, 6), None, 'features has shape'),
        ((2, 6, 4, 4), (2, 4, 4), (3, 2, 6), (2, 3), r'valid .* must be \(3, 2\)'),
    ],
)
def test_parts_refuse_wrong_shapes(features, label, prototypes, valid, words):
    valid = None if valid is None else torch.ones(valid, dtype=torch.bool)
    label = torch.zeros(label, dtype=torch.int64)
    with pytest.raises(ValueError, match=words):
        assign_parts(torch.ones(features), label, torch.ones(prototypes), valid=valid)


# --- masked_average_pool -------------------------------------------------------------------------


def test_pool_by_hand():
    features = torch.tensor([[1.0, 10.0], [3.0, 30.0], [5.0, 50.0], [7.0, 70.0]]).T
    label = torch.tensor([0, 0, 1, 255]).view(1, 2, 2)
    part = torch.tensor([1, 1, 0, 0]).view(1, 2, 2)
    means, counts = masked_average_pool(features.reshape(1, 2, 2, 2), label, part, 3, 2)
    assert counts.tolist() == [[[0, 2], [1, 0], [0, 0]]]
    expected = torch.zeros(1, 3, 2, 2)
    expected[0, 0, 1] = torch.tensor([2.0, 20.0])
    expected[0, 1, 0] = torch.tensor([5.0, 50.0])
    torch.testing.assert_close(means, expected)


def test_pool_equals_the_slow_reference():
    features, label, _ = scene(num=3)
    part = torch.randint(-1, NUM_PARTS, label.shape)
    means, counts = masked_average_pool(features, label, part, NUM_CLASSES, NUM_PARTS)
    slow_means, slow_counts = slow_pool(features, label, part, NUM_CLASSES, NUM_PARTS)
    assert means.dtype == torch.float64
    assert counts.dtype == torch.int64
    torch.testing.assert_close(means, slow_means, rtol=1e-6, atol=1e-12)
    assert torch.equal(counts, slow_counts)


def test_pool_does_not_read_what_counts_nowhere():
    features, label, _ = scene()
    part = torch.zeros_like(label)
    part[0, 0] = -1
    nowhere = (label == 255) | (part < 0)
    features.movedim(1, -1)[nowhere] = torch.nan
    means, counts = masked_average_pool(features, label, part, NUM_CLASSES, NUM_PARTS)
    assert means.isfinite().all()
    assert counts.sum() == (~nowhere).sum()


def test_pool_of_an_all_void_image_and_of_no_image():
    features, label, _ = scene()
    part = torch.zeros_like(label)
    label[1] = 255
    means, counts = masked_average_pool(features, label, part, NUM_CLASSES, NUM_PARTS)
    assert (means[1] == 0).all()
    assert (counts[1] == 0).all()
    assert counts[0].sum() > 0
    means, counts = masked_average_pool(features[:0], label[:0], part[:0], 2, 5)
    assert means.shape == (0, 2, 5, CHANNELS)
    assert counts.shape == (0, 2, 5)


def test_pool_has_the_right_gradients():
    features, label, _ = scene((3, 3))
    part = torch.randint(-1, NUM_PARTS, label.shape)
    features.requires_grad_()

    def means(f):
        return masked_average_pool(f, label, part, NUM_CLASSES, NUM_PARTS)[0]

    assert torch.autograd.gradcheck(means, (features,))
    means(features).sum().backward()
    assert (features.grad.movedim(1, -1)[(label == 255) | (part < 0)] == 0).all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_pool_is_computed_in_float32_also_under_autocast(dtype):
    features = (1000 + torch.rand(1, 2, 64, 64)).to(dtype)
    label, part = torch.zeros(2, 1, 64, 64, dtype=torch.int64)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        means, counts = masked_average_pool(features, label, part, 1, 1)
    assert means.dtype == torch.float32
    torch.testing.assert_close(
        means.flatten(), features.double().mean((0, 2, 3)).float(), rtol=1e-4, atol=0
    )
    assert counts.item() == 4096


def test_pool_edits_nothing():
    features, label, _ = scene()
    part = torch.randint(-1, NUM_PARTS, label.shape)
    copies = features.clone(), label.clone(), part.clone()
    masked_average_pool(features, label, part, NUM_CLASSES, NUM_PARTS)
    assert all(torch.equal(a, b) for a, b in zip((features, label, part), copies, strict=True))


def test_parts_and_pool_together_reach_the_prototypes():
    # Features that are the prototypes: each part's mean is its prototype again.
    prototypes = F.normalize(torch.randn(NUM_CLASSES, NUM_PARTS, CHANNELS).double(), dim=2)
    features = prototypes.flatten(0, 1).T.reshape(1, CHANNELS, NUM_CLASSES, NUM_PARTS)
    label = torch.arange(NUM_CLASSES).view(1, -1, 1).expand(1, NUM_CLASSES, NUM_PARTS)
    part = assign_parts(features, label, prototypes)
    assert torch.equal(part[0], torch.arange(NUM_PARTS).expand(NUM_CLASSES, NUM_PARTS))
    means, counts = masked_average_pool(features, label, part, NUM_CLASSES, NUM_PARTS)
    torch.testing.assert_close(means[0], prototypes)
    assert (counts == 1).all()


@pytest.mark.parametrize(
    ('features', 'label', 'part', 'numbers', 'words'),
    [
        ((1, 6, 4, 4), (1, 8, 8), (1, 8, 8), (3, 2), 'resize the label'),
        ((1, 6, 4, 4), (1, 4, 4), (1, 4, 5), (3, 2), 'part has shape'),
        ((1, 6, 4, 4), (4, 4), (4, 4), (3, 2), 'label has shape'),
        ((6, 4, 4), (6, 4, 4), (6, 4, 4), (3, 2), 'features has shape'),
        ((1, 6, 4, 4), (1, 4, 4), (1, 4, 4), (0, 2), 'num_classes is 0'),
        ((1, 6, 4, 4), (1, 4, 4), (1, 4, 4), (3, 0), 'num_parts 0'),
    ],
)
def test_pool_refuses(features, label, part, numbers, words):
    label, part = torch.zeros(label).long(), torch.zeros(part).long()
    with pytest.raises(ValueError, match=words):
        masked_average_pool(torch.ones(features), label, part, *numbers)


# --- devices -------------------------------------------------------------------------------------


def everything(features, label, prototypes, valid):
    part = assign_parts(features, label, prototypes, valid=valid)
    yield part
    features = F.interpolate(features, label.shape[1:])
    yield from masked_average_pool(features, label, part, NUM_CLASSES, NUM_PARTS)


def every_argument():
    valid = torch.tensor([True, False, True]).expand(NUM_CLASSES, NUM_PARTS).contiguous()
    features, _, prototypes = scene(feature_size=(3, 4))
    return features, torch.arange(2 * 7 * 9).view(2, 7, 9) % NUM_CLASSES, prototypes, valid


def test_nothing_waits_for_a_device():
    valid = torch.ones(NUM_CLASSES, NUM_PARTS, dtype=torch.bool, device='meta')
    features = torch.rand(2, CHANNELS, 3, 4, device='meta')
    label = torch.zeros(2, 7, 9, dtype=torch.int64, device='meta')
    prototypes = torch.rand(NUM_CLASSES, NUM_PARTS, CHANNELS, device='meta')
    values = everything(features, label, prototypes, valid)
    assert all(value.device.type == 'meta' for value in values)


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
        torch.testing.assert_close(value.cpu(), expected)


def test_a_part_beyond_the_last_is_an_error_and_not_the_next_class():
    features = torch.ones(1, 2, 1, 2)
    label, part = torch.tensor([[[0, 1]]]), torch.tensor([[[2, 0]]])
    with pytest.raises((IndexError, RuntimeError)):
        parts.masked_average_pool(features, label, part, 2, 2)
