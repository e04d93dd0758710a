"""Values of mask files, and the classes that they become when MMSegmentation loads them."""

import numpy as np
import pytest
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from mmseg_semi.datasets.labels import (
    count_classes,
    meaning_of_values,
    survey_masks,
    values_beyond,
)


def save(path, values, mode=None):
    image = Image.fromarray(np.asarray(values))
    if mode == 'P':
        image.putpalette([255, 0, 0] * 256)
    image.save(path)
    return str(path)


@pytest.fixture
def masks(tmp_path):
    """A gray mask, a palette mask, and five files that are not masks."""
    gray = np.array([[0, 1, 1], [2, 255, 9]], np.uint8)
    good = [
        save(tmp_path / 'gray.png', gray),
        save(tmp_path / 'palette.png', gray.T % 3, 'P'),
    ]
    color = save(tmp_path / 'color.png', np.zeros((2, 3, 3), np.uint8))
    deep = save(tmp_path / 'deep.png', np.full((2, 3), 300, np.uint16))
    noise = np.random.default_rng(0).integers(0, 9, (40, 40), np.uint8)
    cut = tmp_path / 'cut.png'
    save(cut, noise)
    cut.write_bytes(cut.read_bytes()[:200])
    (tmp_path / 'text.png').write_text('no image')
    return good, [color, deep, str(cut), str(tmp_path / 'text.png'), str(tmp_path / 'gone.png')]


def test_survey_counts_the_values_of_the_files(masks):
    good, bad = masks
    survey = survey_masks([good[0], *bad, good[1]], quiet=True)
    assert survey.sizes == [(2, 3), *[None] * 5, (3, 2)]
    assert {v: int(n) for v, n in enumerate(survey.pixels[0]) if n} == {
        0: 1,
        1: 2,
        2: 1,
        9: 1,
        255: 1,
    }
    assert survey.pixels[-1].tolist()[:4] == [3, 2, 1, 0]
    assert survey.pixels[1:-1].sum() == 0
    assert list(survey.problems) == bad
    for path, words in zip(
        bad, ('mode RGB', 'mode I;16', 'cannot be', 'cannot be', 'not exist'), strict=True
    ):
        assert survey.problems[path].startswith(f'{path} ')
        assert words in survey.problems[path]
        assert '\n' not in survey.problems[path]


def test_classes_by_hand():
    pixels = np.zeros((2, 256), np.int64)
    pixels[0, [0, 1, 2, 255]] = 4, 3, 2, 1
    pixels[1, [2, 3, 7]] = 5, 6, 7
    plain = count_classes(pixels, 3)
    assert plain.pixels.tolist() == [[4, 3, 2], [0, 0, 5]]
    assert plain.void.tolist() == [1, 0]
    assert plain.beyond.tolist() == [0, 13]
    assert values_beyond(pixels, 3) == {3: 1, 7: 1}
    reduced = count_classes(pixels, 3, reduce_zero_label=True)
    assert reduced.pixels.tolist() == [[3, 2, 0], [0, 5, 6]]
    assert reduced.void.tolist() == [5, 0]
    assert values_beyond(pixels, 3, reduce_zero_label=True) == {7: 1}
    mapped = count_classes(pixels, 2, label_map={0: 0, 1: 1, 2: 255, 3: 1, 7: 0})
    assert mapped.pixels.tolist() == [[4, 3], [7, 6]]
    assert mapped.void.tolist() == [3, 5]


@pytest.mark.parametrize('reduced', [False, True])
@pytest.mark.parametrize('label_map', [None, {0: 255, 1: 0, 2: 1, 3: 1}])
def test_values_become_what_mmseg_makes_of_them(tmp_path, reduced, label_map):
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = save(tmp_path / 'every.png', every)
    results = dict(seg_map_path=path, seg_fields=[], reduce_zero_label=reduced, label_map=label_map)
    loaded = LoadAnnotations().transform(results)['gt_seg_map'].ravel().astype(int)
    meaning = meaning_of_values(4, reduced, label_map)
    assert meaning.tolist() == [v if v < 4 or v == 255 else -1 for v in loaded]
