"""Pictures of scores: the histogram, and images with their masks."""

import numpy as np
import pytest
from PIL import Image

from mmseg_semi.visualization import colorize, overlay, save_examples, save_histogram

PALETTE = [[200, 0, 0], [0, 200, 0]]


def red_columns(path):
    """Columns of the picture with the color of the threshold's line."""
    picture = np.array(Image.open(path).convert('RGB')).astype(int)
    red = (picture[..., 0] > 150) & (picture[..., 1] < 80) & (picture[..., 2] < 80)
    return np.flatnonzero(red.sum(axis=0) > 60)


def test_the_line_of_a_histogram_is_where_the_threshold_is(tmp_path):
    scores = np.linspace(0, 2, 200)
    path = str(tmp_path / 'x.png')
    columns = []
    for threshold in (0.5, 1.5):
        save_histogram(path, scores, threshold, 'stability')
        columns.append(red_columns(path).mean())
    assert columns[1] - columns[0] > 150
    save_histogram(path, scores, None, 'stability', 'title')
    assert len(red_columns(path)) == 0


@pytest.mark.parametrize('scores', [[1.0], [0.5] * 3])
def test_a_histogram_of_almost_nothing(tmp_path, scores):
    save_histogram(str(tmp_path / 'x.png'), scores, scores[0], 'stability')
    assert (tmp_path / 'x.png').stat().st_size > 1000


def test_rows_of_examples(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (200, 320, 3), dtype=np.uint8)
    masks = [np.zeros((200, 320), np.int64), np.ones((200, 320), np.uint8)]
    path = str(tmp_path / 'x.png')
    save_examples(path, [image], [masks], PALETTE, ['first', 'second'], ['0.5'])
    picture = np.array(Image.open(path))
    shown = [picture[26:226, 6 + k * 326 : 326 + k * 326] for k in range(3)]
    assert (shown[0] == image).all()
    for panel, mask in zip(shown[1:], masks, strict=True):
        assert (panel == overlay(image, colorize(mask, PALETTE))).all()


def test_large_images_are_made_smaller(tmp_path):
    image = np.zeros((1024, 2048, 3), np.uint8)
    mask = np.zeros((1024, 2048), np.uint8)
    mask[:, 1024:] = 1
    path = str(tmp_path / 'x.png')
    save_examples(path, [image], [[mask]], PALETTE, ['mask'], ['0.5'])
    picture = np.array(Image.open(path))
    assert picture.shape[1] == 2 * 320 + 3 * 6
    panel = picture[26:186, 332:652]
    assert {tuple(color) for color in panel.reshape(-1, 3)} == {(120, 0, 0), (0, 120, 0)}
    assert (panel[:, :160, 0] == 120).all()
