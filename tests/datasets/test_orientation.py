"""Photographs with an EXIF orientation: what files say, and which view a mask was drawn on."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from mmseg_semi.datasets.orientation import (
    Pair,
    check_drawn_on,
    displayed,
    orientation_of,
    stored,
    tiff_layout,
    turned_size,
)

PIXELS = np.arange(24, dtype=np.uint8).reshape(4, 6)


def content(orientation, kind='PNG', pixels=PIXELS):
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(np.stack([pixels] * 3, axis=-1)).save(buffer, kind, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize('orientation', range(1, 9))
def test_an_image_is_turned_as_pillow_displays_it(orientation):
    with Image.open(io.BytesIO(content(orientation))) as image:
        expected = np.array(ImageOps.exif_transpose(image))[..., 0]
    turned = displayed(PIXELS, orientation)
    assert np.array_equal(turned, expected)
    assert turned.flags.c_contiguous
    assert np.array_equal(stored(turned, orientation), PIXELS)
    assert turned_size(PIXELS.shape, orientation) == turned.shape


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF'])
def test_the_entry_is_read_from_every_kind_of_file(tmp_path, kind):
    for orientation in range(1, 9):
        written = content(orientation, kind)
        (tmp_path / 'image').write_bytes(written)
        assert orientation_of(written) == orientation
        assert orientation_of(str(tmp_path / 'image')) == orientation
    assert orientation_of(content(9, kind)) == 1  # means nothing


def test_an_entry_behind_the_pixels_of_a_png_file_counts():
    """libpng and OpenCV take it from there as well."""
    written = content(6)
    start = written.index(b'eXIf') - 4
    end = start + 12 + int.from_bytes(written[start : start + 4], 'big')
    last = written.index(b'IEND') - 4
    moved = written[:start] + written[end:last] + written[start:end] + written[last:]
    assert orientation_of(moved) == 6


@pytest.mark.parametrize(
    'broken', [b'', b'no image', b'II*\0' + b'\xff' * 20, content(6, 'TIFF')[:9]]
)
def test_broken_files_have_no_entry(broken):
    assert orientation_of(broken) == 1


def test_a_file_that_is_not_there_has_no_entry():
    assert orientation_of('/no/where.jpg') == 1


def test_layout_of_tiff_files():
    layout = tiff_layout(io.BytesIO(content(6, 'TIFF')))
    assert layout[:4] == (3, 0, 8, False)
    assert layout.orientation == 6
    assert tiff_layout(io.BytesIO(content(6))) is None


def pair(orientation, mask_size=(4, 6), stored_size=(4, 6), is_displayed=True, own=1):
    size = turned_size(stored_size, orientation) if is_displayed else stored_size
    return Pair('a.jpg', 'm.png', size, mask_size, orientation, is_displayed, own)


@pytest.mark.parametrize('is_displayed', [True, False])
@pytest.mark.parametrize('orientation', [5, 6, 7, 8])
def test_sizes_tell_the_view_where_height_becomes_width(orientation, is_displayed):
    assert pair(orientation, (4, 6), is_displayed=is_displayed).view() == 'stored'
    assert pair(orientation, (6, 4), is_displayed=is_displayed).view() == 'displayed'
    with pytest.raises(
        ValueError, match=r'^m\.png is 4x5 .* a\.jpg is 4x6 as stored and 6x4 as displayed'
    ) as error:
        pair(orientation, (4, 5), is_displayed=is_displayed).view()
    assert str(error.value).endswith(
        f'(EXIF orientation {orientation}). Give every image a mask of the same size.'
    )


@pytest.mark.parametrize('one', [pair(2), pair(3), pair(4), pair(6, (6, 6), (6, 6))])
def test_where_sizes_do_not_tell_the_user_must(one):
    with pytest.raises(
        ValueError,
        match=r"do not tell .* Set drawn_on='stored' .* or drawn_on='displayed' of LoadAnn",
    ):
        one.view()
    assert one.view('stored') == 'stored'
    assert one.view('displayed') == 'displayed'


def test_a_setting_that_the_sizes_contradict_is_refused():
    with pytest.raises(
        ValueError, match=r"drawn on the stored image, against drawn_on='displayed'"
    ):
        pair(6).view('displayed')


def test_a_mask_with_an_entry_of_its_own_is_displayed():
    one = pair(3, own=3)
    assert np.array_equal(one.match(PIXELS), PIXELS[::-1, ::-1])
    assert np.array_equal(pair(1, own=3).match(PIXELS), PIXELS[::-1, ::-1])
    # Its image is loaded as stored, so that it is turned back.
    assert np.array_equal(pair(3, own=3, is_displayed=False).match(PIXELS), PIXELS)


def test_drawn_on_is_a_view():
    check_drawn_on(None)
    check_drawn_on('stored')
    with pytest.raises(ValueError, match="drawn_on='raw' must be 'stored'"):
        check_drawn_on('raw')
