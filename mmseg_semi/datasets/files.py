"""Local files: fast existence checks at start-up, and opening images of any size."""

import hashlib
import os
from collections.abc import Iterable

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from .orientation import orientation_of, turned_size

_TIFF_WIDTH, _TIFF_HEIGHT = 0x0100, 0x0101
MAX_PIXELS = 1 << 30
"""Maximum number of pixels that OpenCV, and so mmcv, decodes."""

# mmcv loads masks with Pillow, which refuses images of more than 179 million pixels as an attack. Training can
# take crops of larger images. Set at import, so that the limit also holds in loader workers.
if Image.MAX_IMAGE_PIXELS is not None:
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, MAX_PIXELS)


def open_image(file) -> Image.Image:
    """Open an image of up to :data:`MAX_PIXELS` with Pillow, which decodes it on first use.

    Args:
        file: Path or binary file.

    Raises:
        OSError: Pillow cannot open the image, or it is larger.
    """
    try:
        image = Image.open(file)
    except Image.DecompressionBombError as error:  # not an OSError
        raise OSError(f'{str(error).partition(",")[0]}. Cut it into tiles') from None
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise OSError(
            f'{image.width}x{image.height} is more than the {MAX_PIXELS} pixels that OpenCV decodes. Cut it '
            'into tiles'
        )
    return image


def image_size(path: str) -> tuple[int, int] | None:
    """Return (height, width) of an image as displayed, from its header; None if it cannot be determined."""
    try:
        with open_image(path) as image:
            width, height = image.size
            if isinstance(
                image, TiffImageFile
            ):  # some versions of Pillow have already applied the rotation to the size
                width, height = image.tag_v2[_TIFF_WIDTH], image.tag_v2[_TIFF_HEIGHT]
    except (OSError, SyntaxError, ValueError, KeyError, TypeError):  # broken files
        return None
    return turned_size((height, width), orientation_of(path))


class Folders:
    """Tells which local files exist, listing each folder only once."""

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
    """Return the local ``paths`` without a file; remote paths (``s3://``) are skipped."""
    folders = Folders()
    return [path for path in paths if '://' not in path and path not in folders]


def real_paths(paths: Iterable[str]) -> Iterable[str]:
    """Return each path with its links resolved; each folder is resolved only once."""
    folders: dict[str, str] = {}
    for path in paths:
        if os.path.islink(path):
            yield os.path.realpath(path)
            continue
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        yield os.path.join(folders[folder], name)


def copies_of(paths: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return the local ``paths`` with the same name and content as one of ``others``.

    Files are only opened if their name and size occur on both sides, and then once each.
    """

    def by_size(files: Iterable[str], names: set[str]) -> dict[tuple[str, int], list[str]]:
        found: dict[tuple[str, int], list[str]] = {}
        for file in files:
            name = os.path.basename(file)
            if name in names and os.path.isfile(file):
                found.setdefault((name, os.path.getsize(file)), []).append(file)
        return found

    paths, others = list(paths), list(others)
    names = set(map(os.path.basename, paths)) & set(map(os.path.basename, others))
    first, second = by_size(paths, names), by_size(others, names)
    copies = []
    for key in first.keys() & second.keys():
        known = set(map(_digest, second[key]))
        copies += [path for path in first[key] if _digest(path) in known]
    return copies


def _digest(path: str) -> bytes:
    with open(path, 'rb') as file:
        return hashlib.sha256(file.read()).digest()
