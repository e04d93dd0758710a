"""EXIF orientation: how viewers rotate a photograph, and which view a mask was drawn on.

A file *stores* pixels in sensor order; viewers *display* them rotated by its EXIF entry. Every loader returns
images as displayed. A mask without its own entry may be drawn on either view. If the entry swaps height and
width (5 to 8), the mask's size tells the view; otherwise the user sets ``drawn_on``.
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
"""Number of the orientation entry in EXIF data and TIFF files."""
VIEWS = ('stored', 'displayed')
SETTING = "drawn_on='{}' of LoadAnnotations"
SECTION = 'docs/your_own_data.md#photographs-with-an-exif-orientation'
_QUARTER = 5  # entries from 5 on swap height and width
_PNG = b'\x89PNG\r\n\x1a\n'
_TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
_BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA = 258, 262, 277, 284, 338
BROKEN = (OSError, SyntaxError, ValueError, KeyError, TypeError, struct.error)
"""Exceptions that Pillow raises for broken files."""
_ALPHA = (1, 2)  # kinds of extra samples that are transparency


class TiffLayout(NamedTuple):
    """Layout of the first image of a TIFF file.

    Attributes:
        bands (int): Values per pixel, including transparency.
        alphas (int): Number of transparency bands.
        bits (int): Bits of the deepest band.
        gray (bool): Whether the file is tagged as gray, as files of many bands are.
        cmyk (bool): Whether the bands are print colors (CMYK).
        planar (bool): Whether the bands are stored one after the other.
        orientation (int): EXIF orientation, 1 to 8.
    """

    bands: int
    alphas: int
    bits: int
    gray: bool
    cmyk: bool
    planar: bool
    orientation: int


def tiff_layout(file) -> TiffLayout | None:
    """Read the layout of an open binary file from its first directory; None if it is not a TIFF file."""
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
    """Return the EXIF orientation of an image, 1 (as stored) to 8.

    Args:
        source: Path, content, or open binary file. Files unknown to Pillow have orientation 1.
    """
    if isinstance(source, (str, Path)):
        try:
            with open(source, 'rb') as opened:
                return orientation_of(opened)
        except FileNotFoundError:
            return 1  # the loader reports the error
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
        # If the entry is not among the first chunks, Pillow would decode all pixels to search behind them.
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
    """Return the EXIF data of an open PNG file, from any chunk after its signature."""
    while len(head := file.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], 'big'), head[4:]
        if kind == b'eXIf':
            return file.read(length)
        if kind == b'IEND':
            return None
        file.seek(length + 4, io.SEEK_CUR)
    return None


def displayed(array: np.ndarray, orientation: int) -> np.ndarray:
    """Return a stored image (H, W, ...) as displayed: flipped, rotated by multiples of 90 degrees, or both."""
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
    """Convert (height, width) of one view of an image to the other view."""
    first, second = size
    return (second, first) if orientation >= _QUARTER else (first, second)


class Pair(NamedTuple):
    """An image with an EXIF entry and its mask.

    Attributes:
        image (str, optional): Path; None for an image without a file.
        mask (str): Path.
        image_size (tuple[int, int]): (height, width) as loaded.
        mask_size (tuple[int, int]): (height, width) as stored.
        orientation (int): EXIF orientation of the image.
        is_displayed (bool): Whether the image is loaded as displayed.
        mask_orientation (int): EXIF orientation of the mask; 1 if it has no entry.
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
        """Return the pair of two local files; None if neither has an entry, so their sizes must be equal."""
        layout, own = layout_of(image), mask_orientation(mask)
        orientation = orientation_of(image)
        if (orientation, own) == (1, 1):
            return None
        # OpenCV and Pillow always rotate TIFF files.
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
        """Return the views of the image that have the mask's size."""
        size = turned_size(self.mask_size, self.mask_orientation)
        return [view for view, own in self.sizes.items() if own == size]

    def view(self, drawn_on: str | None = None, setting: str = SETTING) -> str:
        """Return the view that the mask was drawn on, 'stored' or 'displayed'.

        A mask with its own entry is displayed with its image.

        Args:
            drawn_on: Setting of the user; None if not set.
            setting: How to set ``drawn_on``, for the message, with {} for the view.

        Raises:
            ValueError: The mask fits no view, fits both while ``drawn_on`` is None, or does not fit
                ``drawn_on``.
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
            raise ValueError(f'{said}. Give every image a mask of the same size.')
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
        """Return the mask (H, W) rotated as its image is loaded; see :meth:`view` for errors."""
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
    """Raise ValueError unless ``drawn_on`` is a view or None."""
    if drawn_on is not None and drawn_on not in VIEWS:
        raise ValueError(
            f"drawn_on={drawn_on!r} must be 'stored' (masks drawn on the pixels of the file), 'displayed' (on "
            'what viewers show) or None.'
        )


def mask_orientation(source) -> int:
    """Return the EXIF orientation still to apply to a decoded mask; 1 for TIFF files, which decoders rotate.

    Args:
        source: Path or content.
    """
    return 1 if layout_of(source) is not None else orientation_of(source)


def layout_of(source) -> TiffLayout | None:
    """Return the layout of a TIFF file given by path or content; None for other or missing files."""
    try:
        if isinstance(source, bytes):
            return tiff_layout(io.BytesIO(source))
        with open(source, 'rb') as file:
            return tiff_layout(file)
    except BROKEN:  # includes FileNotFoundError, which the loader reports
        return None
