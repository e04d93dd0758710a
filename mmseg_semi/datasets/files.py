"""Files: which there are, asked cheaply at start-up, and images opened whatever their size."""

import os
from collections.abc import Iterable

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from .orientation import orientation_of, turned_size

_TIFF_WIDTH, _TIFF_HEIGHT = 0x0100, 0x0101
MAX_PIXELS = 1 << 30
"""Pixels of the largest image that OpenCV decodes, and with it mmcv."""

# Pillow, by which mmcv loads masks, calls what has more than 179 million pixels an attack; training takes crops
# of larger images. Set here, so that the workers of loaders have it as well.
if Image.MAX_IMAGE_PIXELS is not None:
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, MAX_PIXELS)


def open_image(file) -> Image.Image:
    """Open an image of up to :data:`MAX_PIXELS` by Pillow; it is decoded when it is used.

    Args:
        file: path, or binary file.

    Raises:
        OSError: as Pillow raises it, and for larger images.
    """
    try:
        image = Image.open(file)
    except Image.DecompressionBombError as error:  # no OSError
        raise OSError(f'{str(error).partition(",")[0]}. Cut it into tiles') from None
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise OSError(
            f'{image.width}x{image.height} is more than the {MAX_PIXELS} pixels that OpenCV decodes. Cut it '
            'into tiles'
        )
    return image


def image_size(path: str) -> tuple[int, int] | None:
    """(height, width) of an image by its header, as it is displayed; None where it cannot be told."""
    try:
        with open_image(path) as image:
            width, height = image.size
            if isinstance(
                image, TiffImageFile
            ):  # some versions of Pillow have turned the size already
                width, height = image.tag_v2[_TIFF_WIDTH], image.tag_v2[_TIFF_HEIGHT]
    except (OSError, SyntaxError, ValueError, KeyError, TypeError):  # of broken bytes
        return None
    return turned_size((height, width), orientation_of(path))


class Folders:
    """Which local files exist, at the price of listing each folder once."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}

    def __contains__(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self._names:
            try:
                self._names[folder] = set(os.listdir(folder or '.'))
            except OSError:
                self._names[folder] = set()
        return name in self._names[folder]


def missing_files(paths: Iterable[str]) -> list[str]:
    """Those of the local ``paths`` at which there is no file; remote ones (``s3://``) are not asked for."""
    folders = Folders()
    return [path for path in paths if '://' not in path and path not in folders]


def real_paths(paths: Iterable[str]) -> Iterable[str]:
    """Each path with its links resolved, folders only once."""
    folders: dict[str, str] = {}
    for path in paths:
        if os.path.islink(path):
            yield os.path.realpath(path)
            continue
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        yield os.path.join(folders[folder], name)
