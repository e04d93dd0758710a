"""ST++'s color jitter, grayscale and blur: values by hand, distributions by their statistics."""

import random
from collections import Counter

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from mmseg_semi.datasets import RandomColorJitter, RandomGaussianBlur, RandomGray

DRAWS = 5000
TRANSFORMS = [RandomColorJitter, RandomGray, RandomGaussianBlur]


def image(*pixels):
    """A uint8 BGR image of one row from RGB pixels."""
    return np.array([pixels], np.uint8)[..., ::-1].copy()


def rgb(array):
    return array[0, :, ::-1].tolist()


def texture():
    small = np.random.default_rng(7).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return cv2.resize(small, (50, 40), interpolation=cv2.INTER_CUBIC)


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('operation', 'factor', 'expected'),
    [
        ('brightness', 0.5, [[100, 50, 5], [0, 0, 125]]),
        ('brightness', 1.5, [[255, 150, 15], [0, 0, 255]]),
        # Luma 119.6 and 28.5, so 120 and 29 (rounded), whose mean 74.5 rounds to 75.
        ('contrast', 0.5, [[137, 87, 42], [37, 37, 162]]),
        ('contrast', 1.5, [[255, 112, 0], [0, 0, 255]]),
        # Each pixel goes towards its own luma, 120 and 29, or away from it.
        ('color', 0.5, [[160, 110, 65], [14, 14, 140]]),
        ('color', 1.5, [[240, 90, 0], [0, 0, 255]]),
    ],
)
def test_jitter_by_hand(operation, factor, expected):
    changed = RandomColorJitter.apply(image((200, 100, 10), (0, 0, 250)), [(operation, factor)])
    assert np.abs(np.array(rgb(changed)) - expected).max() <= 1


def test_a_third_of_the_hue_circle_turns_red_into_green_and_back():
    primary = image((255, 0, 0), (0, 255, 0), (0, 0, 255))
    # One of 256 steps of the hue circle is up to 6 gray levels.
    turned = RandomColorJitter.apply(primary, [('hue', 0.334)])
    assert np.abs(np.array(rgb(turned)) - [[0, 255, 0], [0, 0, 255], [255, 0, 0]]).max() <= 6
    back = RandomColorJitter.apply(turned, [('hue', -0.334)])
    assert np.abs(back.astype(int) - primary).max() <= 6


def test_gray_weighs_red_green_and_blue_as_pillow():
    primary = image((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))
    gray = RandomGray(prob=1.0)(dict(img=primary))['img']
    assert rgb(gray) == [[76] * 3, [150] * 3, [29] * 3, [255] * 3]
    ours = RandomGray(prob=1.0)(dict(img=texture()))['img']
    pillows = np.asarray(Image.fromarray(texture()[..., ::-1].copy()).convert('L')).astype(int)
    assert (ours == ours[..., :1]).all()
    assert np.abs(ours[..., 0] - pillows).max() <= 1
    assert abs((ours[..., 0] - pillows).mean()) < 0.01


def test_gray_pixels_stay_as_they_are():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert np.array_equal(RandomGray(prob=1.0)(dict(img=ramp))['img'], ramp)


@pytest.mark.parametrize('sigma', [0.7, 2.0])
def test_blur_of_a_point_is_a_gaussian(sigma):
    point = np.zeros((31, 31, 3), np.uint8)
    point[15, 15] = 255
    blurred = RandomGaussianBlur(sigma=(sigma, sigma), prob=1.0)(dict(img=point))['img']
    distance = np.arange(31) - 15
    weights = np.exp(-(distance**2) / (2 * sigma**2))
    weights /= weights.sum()
    assert np.abs(blurred[..., 0] - 255 * np.outer(weights, weights)).max() <= 1.5
    assert (blurred == blurred[..., :1]).all()


def test_operations_run_in_the_order_given():
    # Twice as bright clips at 255 before half as bright halves; the other way nothing is lost.
    bright = image((200, 200, 200))
    double, half = ('brightness', 2.0), ('brightness', 0.5)
    assert rgb(RandomColorJitter.apply(bright, [double, half])) == [[127] * 3]
    assert rgb(RandomColorJitter.apply(bright, [half, double])) == [[200] * 3]


# --- draws ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('transform', 'prob'), [(RandomColorJitter, 0.8), (RandomGray, 0.2), (RandomGaussianBlur, 0.5)]
)
def test_probability_is_the_papers(transform, prob):
    random.seed(0)
    transform = transform()
    changed = sum(transform.sample() != () for _ in range(DRAWS))
    assert stats.binomtest(changed, DRAWS, prob).pvalue > 1e-3
    never, always = type(transform)(prob=0.0), type(transform)(prob=1.0)
    assert not any(never.sample() for _ in range(100))
    assert all(always.sample() for _ in range(100))


def test_jitter_draws_four_uniform_factors_in_any_order():
    random.seed(1)
    transform = RandomColorJitter(prob=1.0)
    drawn = [transform.sample() for _ in range(DRAWS)]
    orders = Counter(tuple(name for name, _ in pairs) for pairs in drawn)
    assert len(orders) == 24
    assert all(len(set(order)) == 4 for order in orders)
    assert stats.chisquare([*orders.values()]).pvalue > 1e-3
    ranges = dict(brightness=(0.5, 1.5), contrast=(0.5, 1.5), color=(0.5, 1.5), hue=(-0.25, 0.25))
    for name, (low, high) in ranges.items():
        values = [dict(pairs)[name] for pairs in drawn]
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3, name
    brightness, contrast = ([dict(pairs)[n] for pairs in drawn] for n in ('brightness', 'contrast'))
    assert abs(stats.pearsonr(brightness, contrast)[0]) < 0.06


def test_jitter_leaves_out_what_is_zero_and_cuts_factors_at_zero():
    random.seed(2)
    transform = RandomColorJitter(brightness=2.0, contrast=0, saturation=0, hue=0, prob=1.0)
    drawn = [transform.sample() for _ in range(500)]
    assert {len(pairs) for pairs in drawn} == {1}
    factors = [factor for ((name, factor),) in drawn if name == 'brightness']
    assert len(factors) == 500
    assert 0 <= min(factors) < 0.1
    assert 2.9 < max(factors) <= 3


def test_blur_draws_its_sigma_uniformly():
    random.seed(3)
    transform = RandomGaussianBlur(prob=1.0)
    sigmas = [transform.sample()[0][1] for _ in range(DRAWS)]
    assert stats.kstest(sigmas, stats.uniform(0.1, 1.9).cdf).pvalue > 1e-3


# --- contract ------------------------------------------------------------------------------------


@pytest.mark.parametrize('transform', TRANSFORMS)
def test_only_the_image_changes_and_arguments_stay(transform):
    random.seed(1)
    label = np.arange(2000, dtype=np.uint8).reshape(40, 50) % 21
    results = dict(img=texture(), gt_seg_map=label.copy(), img_path='a.jpg')
    changed = transform(prob=1.0)(results)
    assert np.array_equal(results['img'], texture())
    assert changed['gt_seg_map'] is results['gt_seg_map']
    assert np.array_equal(changed['gt_seg_map'], label)
    assert not np.array_equal(changed['img'], texture())
    assert changed['img'].dtype == np.uint8
    assert changed['img'].shape == (40, 50, 3)


@pytest.mark.parametrize('transform', TRANSFORMS)
def test_any_memory_layout(transform):
    outputs = []
    for view in (texture()[:, ::-1], texture()[:, ::-1].copy()):
        random.seed(5)
        outputs.append(transform(prob=1.0)(dict(img=view))['img'])
    assert np.array_equal(*outputs)


@pytest.mark.parametrize('transform', TRANSFORMS)
def test_same_random_state_same_result(transform):
    outputs = []
    for seed in (6, 6, 7):
        random.seed(seed)
        outputs.append([transform()(dict(img=texture()))['img'] for _ in range(8)])
    assert np.array_equal(outputs[0], outputs[1])
    assert not np.array_equal(outputs[0], outputs[2])


@pytest.mark.parametrize(
    ('transform', 'settings', 'said'),
    [
        (RandomColorJitter, dict(brightness=-0.1), 'RandomColorJitter brightness=-0.1 must be a'),
        (RandomColorJitter, dict(contrast='a'), "contrast='a' must be a number from 0.0 to 10.0"),
        (RandomColorJitter, dict(saturation=11), 'saturation=11'),
        (RandomColorJitter, dict(hue=0.6), 'hue=0.6 must be a number from 0.0 to 0.5'),
        (RandomColorJitter, dict(prob=1.1), 'RandomColorJitter prob=1.1'),
        (RandomGray, dict(prob=-1), 'RandomGray prob=-1 must be a number from 0.0 to 1.0'),
        (RandomGaussianBlur, dict(sigma=(2.0, 0.1)), r'sigma=\(2.0, 0.1\) must be two numbers'),
        (RandomGaussianBlur, dict(sigma=(0, 1)), 'must be two numbers 0.01 <= low <= high'),
        (RandomGaussianBlur, dict(sigma=1.0), 'RandomGaussianBlur sigma=1.0 must be two'),
        (RandomGaussianBlur, dict(sigma=('a', 'b')), 'RandomGaussianBlur sigma='),
        (RandomGaussianBlur, dict(prob=None), 'RandomGaussianBlur prob=None'),
    ],
)
def test_bad_settings(transform, settings, said):
    with pytest.raises(ValueError, match=said):
        transform(**settings)


@pytest.mark.parametrize('transform', TRANSFORMS)
@pytest.mark.parametrize('array', [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8)])
def test_bad_image(transform, array):
    if transform is RandomGaussianBlur and array.dtype == np.uint8:
        pytest.skip('blurs any channels')
    said = rf'{transform.__name__} works on uint8 images \(H, W, [3C]\)'
    with pytest.raises(ValueError, match=said):
        transform(prob=0.0)(dict(img=array))
