"""Panels: where the pixels of a grid come from."""

import numpy as np
import pytest
from PIL import Image

from mmseg_semi.visualization import as_pictures, colorize, heatmap, overlay, save_panels

PALETTE = [[10, 20, 30], [40, 50, 60]]


def test_colorize():
    label = np.array([[0, 1, 255], [2, -1, 1]])
    colors = colorize(label, PALETTE)
    white = [255, 255, 255]
    assert colors.dtype == np.uint8
    assert colors.tolist() == [[PALETTE[0], PALETTE[1], white], [white, white, PALETTE[1]]]
    assert colorize(label, PALETTE, ignore_index=1)[0, 1].tolist() == white


def test_heatmap_is_clipped_and_rises():
    colors = heatmap(np.array([[-1.0, 0.0, 0.5, 1.0, 2.0, np.nan]]))
    assert colors.shape == (1, 6, 3)
    assert colors[0, 0].tolist() == colors[0, 1].tolist() == colors[0, 5].tolist()
    assert colors[0, 3].tolist() == colors[0, 4].tolist()
    assert colors[0, 1].sum() < colors[0, 2].sum() < colors[0, 3].sum()
    assert colors[0, 1, 2] > colors[0, 1, 1]  # RGB: viridis begins violet
    assert colors[0, 3, 0] > colors[0, 3, 2]  # and ends yellow


@pytest.mark.parametrize('channels', [1, 2, 3, 4])
@pytest.mark.parametrize('bgr', [True, False])
def test_pictures_of_any_channels(channels, bgr):
    images = np.random.default_rng(0).integers(0, 256, (2, channels, 3, 4), dtype=np.uint8)
    first = [0, 0, 0] if channels < 3 else [2, 1, 0] if bgr else [0, 1, 2]
    expected = images[:, first].transpose(0, 2, 3, 1)
    images[0, 0, 0, 0] = expected[0, 0, 0, first.index(0)] = 255
    if channels < 3:
        expected[0, 0, 0] = 255
    assert np.array_equal(as_pictures(images, bgr), expected)
    deep = as_pictures(images.astype(np.uint16) * 257, bgr)
    assert deep.dtype == np.uint8
    assert np.array_equal(deep, expected)


def test_overlay():
    image, colors = np.full((2, 2, 3), 100, np.uint8), np.full((2, 2, 3), 200, np.uint8)
    assert (overlay(image, colors, 0.25) == 125).all()


def test_pictures_keep_their_pixels(tmp_path):
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)
    second = rng.integers(0, 256, (100, 50, 3), dtype=np.uint8)
    path = tmp_path / 'new/folder/grid.png'
    save_panels(str(path), [[first, second], [None, first]], ['a', 'b'], ['one', 'two'])
    grid = np.asarray(Image.open(path))
    assert grid.shape[1] == 6 + 2 * 306
    assert np.array_equal(grid[26:226, 6:306], first)
    assert np.array_equal(grid[26:126, 312:362], second)
    assert np.array_equal(grid[252:452, 312:612], first)
    assert len(np.unique(grid[252:452, 6:306])) == 1  # the blank


def test_small_pictures_are_enlarged_by_a_whole_factor(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    save_panels(str(tmp_path / 'grid.png'), [[picture]], ['a title that is far too long for it'])
    grid = np.asarray(Image.open(tmp_path / 'grid.png'))
    assert np.array_equal(grid[26:146:3, 6:150:3], picture)
    assert np.array_equal(grid[27:147:3, 8:152:3], picture)


@pytest.mark.parametrize(
    ('rows', 'captions', 'said'),
    [
        ([[None]], None, 'Row 0 .* 1 pictures for 2 titles'),
        ([[None, np.zeros((2, 2, 3))]], None, "Picture 'b' in row 0 .* float64"),
        ([[None, np.zeros((2, 2), np.uint8)]], None, 'Give uint8 RGB'),
        ([[None, None]], ['x', 'y'], '2 captions for 1 rows'),
    ],
)
def test_bad_arguments(tmp_path, rows, captions, said):
    with pytest.raises(ValueError, match=said):
        save_panels(str(tmp_path / 'grid.png'), rows, ['a', 'b'], captions)
