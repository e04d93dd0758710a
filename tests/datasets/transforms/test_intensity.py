"""RandomIntensity against Pillow, which the paper's code uses."""

import random
from collections import Counter

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from mmseg_semi.datasets import RandomIntensity
from mmseg_semi.datasets.transforms.intensity import _OFFICIAL, _OPERATIONS, _PAPER


def texture(kind):
    """uint8 BGR (40, 50, 3)."""
    rng = np.random.default_rng(7)
    if kind == 'smooth':
        small = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        return cv2.resize(small, (50, 40), interpolation=cv2.INTER_CUBIC)
    if kind == 'dark':  # uses part of the range, so that autocontrast and equalize have work
        return rng.integers(20, 90, (40, 50, 3), dtype=np.uint8)
    image = np.full((40, 50, 3), (30, 60, 90), dtype=np.uint8)  # 'flat'
    image[20:] = (31, 60, 200)
    return image


def pillow(image, operation, strength):
    """The operation as Pillow does it, on BGR in and out."""
    rgb = Image.fromarray(np.ascontiguousarray(image[..., ::-1]))
    enhancers = dict(
        contrast=ImageEnhance.Contrast,
        sharpness=ImageEnhance.Sharpness,
        color=ImageEnhance.Color,
        brightness=ImageEnhance.Brightness,
    )
    if operation == 'identity':
        out = rgb
    elif operation in enhancers:
        out = enhancers[operation](rgb).enhance(strength)
    elif operation == 'gaussian_blur':
        out = rgb.filter(ImageFilter.GaussianBlur(strength))
    elif operation == 'hue':
        h, s, v = rgb.convert('HSV').split()
        shifted = (np.asarray(h).astype(int) + int(strength * 255)) % 256
        out = Image.merge('HSV', (Image.fromarray(shifted.astype(np.uint8)), s, v)).convert('RGB')
    else:
        function = getattr(ImageOps, operation)
        out = function(rgb) if strength is None else function(rgb, strength)
    return np.asarray(out)[..., ::-1]


# Largest and mean difference in gray levels. Table look-ups are exact; contrast depends on the
# rounding of one gray mean; Pillow blurs with three boxes and its HSV has coarser saturation.
@pytest.mark.parametrize(
    ('operation', 'strengths', 'largest', 'mean'),
    [
        ('identity', [None], 0, 0),
        ('invert', [None], 0, 0),
        ('autocontrast', [None], 0, 0),
        ('equalize', [None], 0, 0),
        ('posterize', [4, 5, 6, 7, 8], 0, 0),
        ('solarize', [1, 77, 128, 255], 0, 0),
        ('brightness', [0.05, 0.33, 0.5, 0.95], 0, 0),
        ('contrast', [0.05, 0.33, 0.5, 0.95], 1, 1),
        ('color', [0.05, 0.33, 0.5, 0.95], 2, 0.8),
        ('sharpness', [0.05, 0.33, 0.5, 0.95], 1, 0.3),
        ('gaussian_blur', [0.1, 0.7, 1.3, 2.0], 8, 1.3),
        ('hue', [-0.5, -0.2, 0.0, 0.13, 0.5], 14, 1.1),
    ],
)
@pytest.mark.parametrize('kind', ['smooth', 'dark', 'flat'])
def test_equals_pillow(kind, operation, strengths, largest, mean):
    image = texture(kind)
    for strength in strengths:
        ours = RandomIntensity.apply(image, [(operation, strength)])
        assert ours.dtype == np.uint8
        assert ours.shape == image.shape
        difference = np.abs(ours.astype(int) - pillow(image, operation, strength))
        if operation == 'sharpness':  # Pillow leaves the outermost pixels unfiltered
            difference = difference[1:-1, 1:-1]
        assert difference.max() <= largest, strength
        assert difference.mean() <= mean, strength


@pytest.mark.parametrize('operation', ['brightness', 'contrast', 'color'])
@pytest.mark.parametrize('factor', [1.2, 1.5, 3.0])
def test_factors_above_one_clip_as_pillow_does(operation, factor):
    image = texture('smooth')
    ours = RandomIntensity.apply(image, [(operation, factor)])
    assert (ours == 255).mean() > (image == 255).mean()
    difference = np.abs(ours.astype(int) - pillow(image, operation, factor))
    assert difference.max() <= (0 if operation == 'brightness' else 3)


def test_channel_order_is_bgr():
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 2] = 255
    gray = RandomIntensity.apply(red, [('color', 0.0)])
    assert abs(int(gray[0, 0, 0]) - 76) <= 1  # 0.299 * 255; it would be 29 for blue
    green = RandomIntensity.apply(red, [('hue', 1 / 3)])
    assert green[0, 0, 1] > 250  # blue if the order were wrong
    assert green[0, 0, 0] < 10


def test_operations_run_in_the_order_given():
    image = texture('smooth')
    ours = RandomIntensity.apply(image, [('invert', None), ('brightness', 0.5)])
    assert np.array_equal(ours, ((255 - image.astype(int)) // 2).astype(np.uint8))


def test_arguments_stay_as_they_are():
    image = texture('smooth')
    before = image.copy()
    for operation in _OPERATIONS:
        strength = _PAPER[operation][1] if operation in _PAPER else None
        RandomIntensity.apply(image, [(operation, strength)])
        assert np.array_equal(image, before), operation


def test_any_memory_layout():
    image = texture('smooth')
    for operation in _OPERATIONS:
        strength = _PAPER[operation][0] if operation in _PAPER else None
        transform = RandomIntensity()
        transform.sample = lambda pair=(operation, strength): [pair]
        flipped = transform(dict(img=image[:, ::-1]))['img']
        assert np.array_equal(
            flipped, RandomIntensity.apply(image[:, ::-1].copy(), [(operation, strength)])
        )


def test_sampling_draws_with_replacement_and_uniformly():
    random.seed(0)
    transform = RandomIntensity(num_ops=2)
    drawn = [transform.sample() for _ in range(6000)]
    assert all(len(pair) == 2 for pair in drawn)
    counts = Counter(name for pair in drawn for name, _ in pair)
    assert set(counts) == set(_OPERATIONS)
    assert len(counts) == 12
    assert all(abs(count - 1000) < 160 for count in counts.values())  # 5 sigma
    same = sum(first == second for (first, _), (second, _) in drawn)
    assert abs(same - 500) < 110  # 1/12 of the pairs


@pytest.mark.parametrize(('ranges', 'table'), [('paper', _PAPER), ('official', _OFFICIAL)])
def test_strengths_fill_their_ranges(ranges, table):
    random.seed(1)
    transform = RandomIntensity(num_ops=12000, ranges=ranges)
    values = {}
    for name, strength in transform.sample():
        values.setdefault(name, []).append(strength)
    for name in ('identity', 'invert', 'autocontrast', 'equalize'):
        assert set(values[name]) == {None}
    assert sorted(set(values['posterize'])) == list(range(4, 9 if ranges == 'paper' else 8))
    assert set(values['solarize']) <= set(range(1, 256))
    assert min(values['solarize']) < 10
    assert max(values['solarize']) > 245
    assert min(values['hue']) < -0.49
    assert max(values['hue']) > 0.49
    for name in ('gaussian_blur', 'contrast', 'sharpness', 'color', 'brightness'):
        low, high = table[name]
        step = (high - low) / 50
        assert low <= min(values[name]) < low + step
        assert high - step < max(values[name]) <= high
    assert table['contrast'][0] == (0.05 if ranges == 'paper' else 0.1)


def test_same_random_state_same_result():
    transform = RandomIntensity()
    results = dict(img=texture('smooth'))
    outputs = []
    for _ in range(2):
        random.seed(5)
        outputs.append(transform(results)['img'])
    assert np.array_equal(*outputs)


def test_own_ranges_replace_the_papers():
    transform = RandomIntensity(ranges=dict(brightness=(0.5, 0.5)))
    assert transform.ranges['brightness'] == (0.5, 0.5)
    assert transform.ranges['color'] == _PAPER['color']


@pytest.mark.parametrize(
    ('settings', 'said'),
    [
        (dict(num_ops=0), 'num_ops=0'),
        (dict(ranges='ours'), "ranges='ours' must be 'paper', 'official'"),
        (dict(ranges=dict(gamma=(0, 1))), "'gamma', which is not an operation"),
        (dict(ranges=dict(contrast=(0.9, 0.1))), r'contrast=\(0\.9, 0\.1\)'),
        (dict(ranges=dict(posterize=(0, 4))), 'posterize'),
        (dict(ranges=dict(posterize=(4.0, 8.0))), 'two integers'),
        (dict(ranges=dict(hue=(0, 0.6))), 'hue'),
        (
            dict(operations=('invert', 'gamma')),
            r"operations=\('invert', 'gamma'\) must be some of identity",
        ),
        (dict(operations=()), 'must be some of'),
        (dict(operations='invert'), 'must be some of'),
    ],
)
def test_bad_settings(settings, said):
    with pytest.raises(ValueError, match=said):
        RandomIntensity(**settings)


@pytest.mark.parametrize('image', [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8)])
def test_bad_image(image):
    with pytest.raises(ValueError, match=r'works on uint8 images \(H, W, 3\)'):
        RandomIntensity()(dict(img=image))


GRAY = tuple(name for name in RandomIntensity().operations if name not in ('color', 'hue'))
STRENGTHS = dict(
    gaussian_blur=1.5, contrast=0.3, sharpness=0.4, brightness=0.5, posterize=4, solarize=99
)


@pytest.mark.parametrize('name', GRAY)
def test_gray_images_change_as_their_copies_in_three_channels(name):
    image = np.random.default_rng(0).integers(0, 256, (9, 7), dtype=np.uint8)
    operations = [(name, STRENGTHS.get(name))]
    gray = RandomIntensity.apply(image, operations)
    rgb = RandomIntensity.apply(np.stack([image] * 3, axis=-1), operations)
    assert gray.shape == image.shape
    assert gray.dtype == np.uint8
    # Pillow's weights of the three channels round the mean that contrast turns around.
    assert np.abs(gray.astype(int) - rgb[..., 0]).max() <= (name == 'contrast')


@pytest.mark.parametrize('name', [name for name in GRAY if name != 'contrast'])
def test_channels_change_as_images_of_one_channel(name):
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 5), dtype=np.uint8)
    operations = [(name, STRENGTHS.get(name))]
    changed = RandomIntensity.apply(image, operations)
    for channel in range(5):
        alone = RandomIntensity.apply(np.ascontiguousarray(image[..., channel]), operations)
        assert np.array_equal(changed[..., channel], alone)


def test_only_the_operations_that_are_named():
    transform = RandomIntensity(operations=('invert',))
    image = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    twice = transform(dict(img=image))
    assert np.array_equal(twice['img'], image)
    assert np.array_equal(
        RandomIntensity(1, operations=('invert',))(dict(img=image))['img'], 255 - image
    )


def test_colors_of_other_images_are_refused_at_once():
    with pytest.raises(
        ValueError,
        match='or use RandomIntensity with operations without color, hue, or leave it out',
    ) as error:
        RandomIntensity()(dict(img=np.zeros((4, 4, 4), np.uint8)))
    assert '(4, 4, 4)' in str(error.value)
    with pytest.raises(ValueError, match='not on uint16'):
        RandomIntensity(operations=('invert',))(dict(img=np.zeros((4, 4), np.uint16)))
