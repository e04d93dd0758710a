"""Cutout with noise and void labels: pixel by pixel, and its boxes by their statistics."""

import random

import numpy as np
import pytest
from scipy import stats

from mmseg_semi.datasets import RandomNoiseCutout


def results(height=30, width=40, dtype=np.uint8):
    rng = np.random.default_rng(0)
    return dict(
        img=rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        gt_seg_map=rng.integers(0, 21, (height, width)).astype(dtype),
        img_path='a.jpg',
    )


def boxes(transform, height, width, num):
    """(num, 4) of x1, y1, x2, y2."""
    return np.array([transform.sample(height, width)[0] for _ in range(num)])


def test_apply_by_hand():
    image, label = np.full((3, 4, 3), 9, np.uint8), np.full((3, 4), 5, np.int64)
    noise = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    changed, void = RandomNoiseCutout().apply(image, label, (1, 2, 3, 3), noise)
    assert void.tolist() == [[5, 5, 5, 5], [5, 5, 5, 5], [5, 255, 255, 5]]
    assert changed[2].tolist() == [[9, 9, 9], [1, 2, 3], [4, 5, 6], [9, 9, 9]]
    assert (changed[:2] == 9).all()
    assert (image == 9).all()
    assert (label == 5).all()
    assert void.dtype == np.int64


@pytest.mark.parametrize('dtype', [np.uint8, np.int64])
def test_the_label_is_void_where_the_image_is_noise_and_nowhere_else(dtype):
    transform = RandomNoiseCutout(prob=1.0)
    for seed in range(20):
        random.seed(seed)
        np.random.seed(seed)
        before = results(dtype=dtype)
        after = transform(before)
        reference = results(dtype=dtype)
        assert np.array_equal(before['img'], reference['img'])
        assert np.array_equal(before['gt_seg_map'], reference['gt_seg_map'])
        void = after['gt_seg_map'] == 255
        rows, columns = np.flatnonzero(void.any(1)), np.flatnonzero(void.any(0))
        assert void.sum() == len(rows) * len(columns)  # one full box
        assert rows[-1] - rows[0] + 1 == len(rows)
        assert columns[-1] - columns[0] + 1 == len(columns)
        outside = ~void
        assert np.array_equal(after['img'][outside], reference['img'][outside])
        assert np.array_equal(after['gt_seg_map'][outside], reference['gt_seg_map'][outside])
        assert (after['img'][void] != reference['img'][void]).mean() > 0.9
        assert after['gt_seg_map'].dtype == dtype


def test_noise_is_uniform_and_independent_in_each_channel():
    random.seed(0)
    np.random.seed(0)
    _, noise = RandomNoiseCutout(area=(0.3, 0.3), ratio=(1, 1), prob=1.0).sample(400, 400)
    assert noise.dtype == np.uint8
    assert noise.shape == (219, 219, 3)  # int(sqrt(0.3) * 400)
    for channel in range(3):
        counts = np.bincount(noise[..., channel].ravel(), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-3
    correlation = np.corrcoef(noise.reshape(-1, 3).T)
    assert np.abs(correlation - np.eye(3)).max() < 0.02


@pytest.mark.parametrize(('height', 'width'), [(321, 321), (200, 400)])
def test_boxes_lie_inside_and_have_the_papers_mean_area(height, width):
    random.seed(1)
    transform = RandomNoiseCutout(prob=1.0)
    x1, y1, x2, y2 = boxes(transform, height, width, 4000).T
    assert min(x1.min(), y1.min()) >= 0
    assert x2.max() <= width
    assert y2.max() <= height
    area = (x2 - x1) * (y2 - y1) / (height * width)
    assert 0.018 < area.min() < 0.03
    assert 0.3 < area.max() <= 0.4
    ratio = (y2 - y1) / (x2 - x1)
    assert 0.28 < ratio.min() < 0.35
    assert 2.5 < ratio.max() < 3.45
    if height == width:
        # 0.142 of the image, against 0.21 if only the place were drawn again (5 sigma = 0.0076).
        assert abs(area.mean() - 0.142) < 0.008


def test_height_and_width_follow_area_and_ratio():
    random.seed(2)
    transform = RandomNoiseCutout(area=(0.1, 0.1), ratio=(0.5, 0.5), prob=1.0)
    x1, y1, x2, y2 = boxes(transform, 100, 200, 50).T
    assert set(y2 - y1) == {31}  # int(sqrt(2000 * 0.5)) = int(31.6)
    assert set(x2 - x1) == {63}  # int(sqrt(2000 / 0.5)) = int(63.2)


def test_places_are_uniform_for_a_box_of_one_size():
    random.seed(3)
    transform = RandomNoiseCutout(area=(0.04, 0.04), ratio=(1, 1), prob=1.0)
    x1, y1, _, _ = boxes(transform, 20, 20, 3400).T  # 4x4 boxes, 17 places either way
    for place in (x1, y1):
        assert stats.chisquare(np.bincount(place, minlength=17)).pvalue > 1e-3
        assert place.max() == 16


def test_probability():
    random.seed(4)
    transform = RandomNoiseCutout()
    drawn = sum(transform.sample(32, 32) is not None for _ in range(3000))
    assert stats.binomtest(drawn, 3000, 0.5).pvalue > 1e-3
    untouched = results()
    assert RandomNoiseCutout(prob=0.0)(untouched) is untouched


def test_same_random_states_same_result():
    outputs = []
    for seed in (5, 5, 6):
        random.seed(seed)
        np.random.seed(seed)
        outputs.append(RandomNoiseCutout(prob=1.0)(results()))
    assert np.array_equal(outputs[0]['img'], outputs[1]['img'])
    assert np.array_equal(outputs[0]['gt_seg_map'], outputs[1]['gt_seg_map'])
    assert not np.array_equal(outputs[0]['gt_seg_map'], outputs[2]['gt_seg_map'])


def test_a_flipped_view_of_an_image_is_fine():
    view = results()
    view['img'], view['gt_seg_map'] = view['img'][:, ::-1], view['gt_seg_map'][:, ::-1]
    random.seed(7)
    changed = RandomNoiseCutout(prob=1.0)(view)
    kept = changed['gt_seg_map'] != 255
    assert np.array_equal(changed['img'][kept], view['img'][kept])


@pytest.mark.parametrize(
    ('settings', 'said'),
    [
        (dict(area=(0.4, 0.02)), r'RandomNoiseCutout area=\(0.4, 0.02\) must be two numbers'),
        (dict(area=(0.5, 1.5)), '0.0 <= low <= high <= 1.0'),
        (dict(ratio=(0, 1)), r'RandomNoiseCutout ratio=\(0, 1\) must be two numbers 0.01'),
        (dict(ratio=2), 'ratio=2 must be two numbers'),
        (dict(prob=2), 'RandomNoiseCutout prob=2 must be a number from 0.0 to 1.0'),
    ],
)
def test_bad_settings(settings, said):
    with pytest.raises(ValueError, match=said):
        RandomNoiseCutout(**settings)


def test_a_box_that_never_fits():
    transform = RandomNoiseCutout(area=(0.9, 1.0), ratio=(3, 4), prob=1.0)
    said = r'area=\(0.9, 1.0\), ratio=\(3, 4\) gave no box inside an image of 30x40 in 1000 draws'
    with pytest.raises(ValueError, match=said):
        transform(results())


@pytest.mark.parametrize('label', [None, np.zeros((30, 39), np.uint8)])
def test_no_label_map_of_the_size_of_the_image(label):
    with pytest.raises(ValueError, match=r'a\.jpg has no label map of the size of its image'):
        RandomNoiseCutout(prob=0.0)(dict(results(), gt_seg_map=label))


def test_bad_image():
    with pytest.raises(ValueError, match=r'RandomNoiseCutout works on uint8 images \(H, W, 3\)'):
        RandomNoiseCutout()(dict(results(), img=np.zeros((30, 40, 3), np.float32)))
