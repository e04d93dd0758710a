"""How the camera was held: the EXIF entry by which viewers turn a photograph, and what a mask was drawn on.

A file *stores* its pixels as the sensor had them; viewers *display* them turned as the entry says. Images are
loaded as they are displayed, whatever decodes them. Of a mask without an entry of its own, the size tells which
view it was drawn on where the entry turns height into width (5 to 8); else the user says it (``drawn_on``).
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

ENTRY = 0x0112
"""Number of the entry in EXIF data and of the tag in TIFF files."""
VIEWS = ('stored', 'displayed')
SETTING = "drawn_on='{}' of LoadAnnotations"
SECTION = 'docs/your_own_data.md#photographs-with-an-exif-orientation'
_QUARTER = 5  # from 5 on the entry turns height into width
_PNG = b'\x89PNG\r\n\x1a\n'
_TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
_BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA = 258, 262, 277, 284, 338
BROKEN = (OSError, SyntaxError, ValueError, KeyError, TypeError, struct.error)
"""What Pillow raises on broken bytes."""
_ALPHA = (1, 2)  # kinds of extra samples that say how opaque a pixel is


class TiffLayout(NamedTuple):
    """How a TIFF file holds its first image.

    Attributes:
        bands (int): Values per pixel, those of transparency included.
        alphas (int): How many of them are transparency.
        bits (int): Of the deepest band.
        gray (bool): Whether the file calls itself gray, as files of many bands do.
        cmyk (bool): Whether the bands are the inks of a print.
        planar (bool): Whether the bands are stored one after the other.
        orientation (int): 1 to 8.
    """

    bands: int
    alphas: int
    bits: int
    gray: bool
    cmyk: bool
    planar: bool
    orientation: int


def tiff_layout(file) -> TiffLayout | None:
    """The layout of an open binary file from its first directory; None where it is not a TIFF file."""
    file.seek(0)
    header = file.read(8)
    if header[:4] not in _TIFF:
        return None
    if header[2:3] == b'+' or header[3:4] == b'+':  # BigTIFF
        header += file.read(8)
    tags = ImageFileDirectory_v2(header)
    file.seek(tags.next)
    tags.load(file)
    orientation = tags.get(ENTRY, 1)
    extra = tags.get(_EXTRA, ())
    extra = extra if isinstance(extra, tuple) else (extra,)
    return TiffLayout(
        bands=tags.get(_SAMPLES, 1),
        alphas=sum(kind in _ALPHA for kind in extra),
        bits=max(tags.get(_BITS, (1,))),
        gray=tags.get(_PHOTOMETRIC, 1) in (0, 1),
        cmyk=tags.get(_PHOTOMETRIC) == 5,
        planar=tags.get(_PLANAR, 1) == 2,
        orientation=orientation if orientation in range(1, 9) else 1,
    )


def orientation_of(source) -> int:
    """The EXIF orientation of an image, 1 (as stored) to 8.

    Args:
        source: path, content, or open binary file. What Pillow does not know has no entry.
    """
    if isinstance(source, (str, Path)):
        try:
            with open(source, 'rb') as opened:
                return orientation_of(opened)
        except FileNotFoundError:
            return 1  # whoever loads it says so
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        layout = tiff_layout(file)
        if layout is not None:
            return layout.orientation
        value = _entry(file)
    except (*BROKEN, Image.DecompressionBombError):
        return 1
    return value if value in range(1, 9) else 1


def _entry(file) -> int:
    file.seek(0)
    if file.read(8) == _PNG:
        # Without the entry among the first chunks, Pillow would decode all pixels to look behind them.
        data = _png_exif(file)
        if data is None:
            return 1
        exif = Image.Exif()
        exif.load(data)
        return exif.get(ENTRY, 1)
    file.seek(0)
    with Image.open(file) as image:
        return image.getexif().get(ENTRY, 1)


def _png_exif(file) -> bytes | None:
    """The EXIF data of an open PNG file behind its signature, wherever its chunk is."""
    while len(head := file.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], 'big'), head[4:]
        if kind == b'eXIf':
            return file.read(length)
        if kind == b'IEND':
            return None
        file.seek(length + 4, io.SEEK_CUR)
    return None


def displayed(array: np.ndarray, orientation: int) -> np.ndarray:
    """A stored image (H, W, ...) as it is displayed: mirrored, turned by quarters, or both."""
    if orientation >= _QUARTER:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def stored(array: np.ndarray, orientation: int) -> np.ndarray:
    """The inverse of :func:`displayed`."""
    return displayed(array, {6: 8, 8: 6}.get(orientation, orientation))


def turned_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(height, width) of one view of an image from that of the other."""
    first, second = size
    return (second, first) if orientation >= _QUARTER else (first, second)


class Pair(NamedTuple):
    """An image with an EXIF entry and its mask.

    Attributes:
        image (str, optional): Path; None for an image without a file.
        mask (str): Path.
        image_size (tuple[int, int]): (height, width) as loaded.
        mask_size (tuple[int, int]): As stored.
        orientation (int): Of the image.
        is_displayed (bool): Whether the image is loaded as it is displayed.
        mask_orientation (int): Of the mask's own entry; 1 where it has none.
    """

    image: str | None
    mask: str
    image_size: tuple[int, int]
    mask_size: tuple[int, int]
    orientation: int
    is_displayed: bool
    mask_orientation: int = 1

    @classmethod
    def of_files(
        cls, image: str, mask: str, image_size: tuple, mask_size: tuple, is_displayed: bool
    ) -> Pair | None:
        """The pair of two local files; None where neither has an entry, so that their sizes must be equal."""
        layout, own = layout_of(image), mask_orientation(mask)
        orientation = orientation_of(image)
        if (orientation, own) == (1, 1):
            return None
        # OpenCV and Pillow turn TIFF files whatever they are told.
        is_displayed = is_displayed or layout is not None
        return cls(image, mask, image_size, mask_size, orientation, is_displayed, own)

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """(height, width) of each view of the image."""
        height, width = self.image_size
        own = (height, width)
        other = turned_size(self.image_size, self.orientation)
        if self.is_displayed:
            return dict(stored=other, displayed=own)
        return dict(stored=own, displayed=other)

    @property
    def views(self) -> list[str]:
        """The views of the image whose size the mask has."""
        size = turned_size(self.mask_size, self.mask_orientation)
        return [view for view, own in self.sizes.items() if own == size]

    def view(self, drawn_on: str | None = None, setting: str = SETTING) -> str:
        """The view that the mask was drawn on, 'stored' or 'displayed'.

        A mask with an entry of its own is displayed with its image.

        Args:
            drawn_on: what the user says, None for nothing.
            setting: how she says it, for the message, with {} for the view.

        Raises:
            ValueError: the mask fits no view, or both and ``drawn_on`` is None, or not the one it names.
        """
        views = self.views
        if 'displayed' in views and (self.mask_orientation != 1 or self.orientation == 1):
            return 'displayed'
        if drawn_on in views:
            return drawn_on
        if drawn_on is None and len(views) == 1:
            return views[0]
        sizes = {view: _said(size) for view, size in self.sizes.items()}
        size = _said(turned_size(self.mask_size, self.mask_orientation))
        said = (
            f'{self.mask} is {size} (height x width) and its image {self.image} is {sizes["stored"]} as stored '
            f'and {sizes["displayed"]} as displayed (EXIF orientation {self.orientation})'
        )
        if not views:
            raise ValueError(f'{said}. Give every image a mask of its own size.')
        if drawn_on is None:
            stored_or_displayed = ' or '.join(setting.format(view) for view in VIEWS)
            raise ValueError(
                f'{said}, so the sizes do not tell which of the two it was drawn on. Set {stored_or_displayed} '
                f'({SECTION}), or save the image as it is displayed, without the entry.'
            )
        raise ValueError(
            f'{said}, so it was drawn on the {views[0]} image, against {setting.format(drawn_on)}. Set '
            f'{setting.format(views[0])}, or draw all masks on one view.'
        )

    def match(
        self, mask: np.ndarray, drawn_on: str | None = None, setting: str = SETTING
    ) -> np.ndarray:
        """The mask (H, W) turned as its image is loaded; ValueError as of :meth:`view`."""
        view = self.view(drawn_on, setting)
        if self.mask_orientation != 1:
            mask = displayed(mask, self.mask_orientation)
        if view == 'stored' and self.is_displayed:
            return displayed(mask, self.orientation)
        if view == 'displayed' and not self.is_displayed:
            return stored(mask, self.orientation)
        return mask


def _said(size: tuple[int, int]) -> str:
    return f'{size[0]}x{size[1]}'


def check_drawn_on(drawn_on: str | None) -> None:
    """Raise ValueError unless it names a view, or is None."""
    if drawn_on is not None and drawn_on not in VIEWS:
        raise ValueError(
            f"drawn_on={drawn_on!r} must be 'stored' (masks drawn on the pixels of the file), 'displayed' (on "
            'what viewers show) or None.'
        )


def mask_orientation(source) -> int:
    """The EXIF orientation that remains to be applied to a decoded mask: none of a TIFF file, which is turned.

    Args:
        source: path or content.
    """
    return 1 if layout_of(source) is not None else orientation_of(source)


def layout_of(source) -> TiffLayout | None:
    """The layout of a TIFF file by its path or content; None of any other file, or one that is not there."""
    try:
        if isinstance(source, bytes):
            return tiff_layout(io.BytesIO(source))
        with open(source, 'rb') as file:
            return tiff_layout(file)
    except BROKEN:  # FileNotFoundError is one: whoever loads it says so
        return None
