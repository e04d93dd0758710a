"""U2PL's random resize: its factors by their statistics, its images, labels and masks by their sizes."""

import random

import numpy as np
import pytest
from mmseg.registry import TRANSFORMS
from scipy import stats

from mmseg_semi.datasets import RandomShrinkOrEnlarge


def factors(num: int, ratio_range=(0.5, 2.0)) -> np.ndarray:
    transform = RandomShrinkOrEnlarge(scale=(100000, 100000), ratio_range=ratio_range)
    return np.array([transform._random_scale()[0] for _ in range(num)]) / 100000


def test_half_of_the_images_are_shrunk_and_both_halves_are_uniform():
    random.seed(0)
    drawn = factors(20000)
    small, large = drawn[drawn < 1], drawn[drawn >= 1]
    # The standard error is 0.0035; a uniform draw from [0.5, 2] would have 1/3 here.
    assert len(small) / len(drawn) == pytest.approx(0.5, abs=0.015)
    assert stats.kstest(small, 'uniform', (0.5, 0.5)).pvalue > 1e-3
    assert stats.kstest(large, 'uniform', (1.0, 1.0)).pvalue > 1e-3
    assert drawn.min() >= 0.499
    assert drawn.max() <= 2


def test_draws_follow_the_seed():
    random.seed(3)
    first = factors(50).tolist()
    random.seed(3)
    assert factors(50).tolist() == first
    assert factors(50).tolist() != first


@pytest.mark.parametrize('ratio_range', [(0.5, 1.0), (1.0, 2.0)])
def test_image_label_and_mask_get_one_size(ratio_range):
    random.seed(1)
    transform = TRANSFORMS.build(
        dict(
            type='RandomShrinkOrEnlarge',
            scale=(80, 80),
            ratio_range=ratio_range,
            keep_ratio=True,
        )
    )
    seen = set()
    for _ in range(40):
        data = dict(
            img=np.zeros((60, 80, 3), np.uint8),
            gt_seg_map=np.zeros((60, 80), np.uint8),
            valid_mask=np.ones((60, 80), np.uint8),
            seg_fields=['gt_seg_map', 'valid_mask'],
            img_shape=(60, 80),
        )
        data = transform(data)
        height, width = data['img'].shape[:2]
        assert data['gt_seg_map'].shape == data['valid_mask'].shape == (height, width)
        assert data['img_shape'] == (height, width)
        assert height == pytest.approx(0.75 * width, abs=1)
        seen.add(height)
    low, high = 60 * ratio_range[0], 60 * ratio_range[1]
    assert min(seen) >= low - 1
    assert max(seen) <= high
    assert len(seen) > 10


@pytest.mark.parametrize(
    ('settings', 'says'),
    [
        (dict(scale=[(500, 500), (600, 600)]), 'Give width and height in pixels'),
        (dict(scale=(500.0, 500.0)), r'scale=\(500.0, 500.0\)'),
        (dict(scale=(500, 500), ratio_range=(1.1, 2.0)), r'ratio_range=\(1.1, 2.0\)'),
        (dict(scale=(500, 500), ratio_range=(0.5, 0.9)), 'the largest, 1 or more'),
        (dict(scale=(500, 500), ratio_range=(0, 2.0)), r'the smallest factor, in \(0, 1\]'),
    ],
)
def test_bad_settings_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        RandomShrinkOrEnlarge(**settings)
