"""Contents of masks: values and sizes of many files, and the classes that MMSegmentation reads from them.

survey = survey_masks(paths)                     # one pass over the files, with a progress bar
classes = count_classes(survey.pixels, num_classes=21)
beyond = values_beyond(survey.pixels, num_classes=21)
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
from mmengine.fileio import BaseStorageBackend
from tqdm import tqdm

from .backends import open_stored_image

VOID = 255
_VALUES = 256
_COUNTED_AT_ONCE = 1 << 24
_INDEX_MODES = ('1', 'L', 'P')


class MaskSurvey(NamedTuple):
    """Result of reading a list of mask files, in its order.

    Attributes:
        paths (list[str]): N files.
        pixels (np.ndarray): int64 (N, 256), pixel count of each value in the file, 0 if it cannot be read.
        sizes (list[tuple[int, int] | None]): (height, width); None if the file cannot be read.
        problems (dict[str, str]): One sentence for each file that cannot be read as a mask.
    """

    paths: list[str]
    pixels: np.ndarray
    sizes: list[tuple[int, int] | None]
    problems: dict[str, str]


class ClassCount(NamedTuple):
    """Pixel counts of N masks, as training sees them.

    Attributes:
        pixels (np.ndarray): int64 (N, C), pixels of each class.
        void (np.ndarray): int64 (N,), pixels that losses ignore.
        beyond (np.ndarray): int64 (N,), pixels whose value is neither a class nor void.
    """

    pixels: np.ndarray
    void: np.ndarray
    beyond: np.ndarray


def read_values(path: str, backend: BaseStorageBackend | None = None) -> np.ndarray:
    """Return the values of a mask file, uint8 (H, W).

    Args:
        path: Path of the file.
        backend: Backend that has the file; None for the local disk.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is truncated, is not an image, or is not 8-bit with one channel or a palette.
    """
    try:
        with open_stored_image(path, backend) as image:
            if image.mode not in _INDEX_MODES:
                raise ValueError(
                    f'{path} has mode {image.mode}: a mask must be an 8-bit image with one channel (or a '
                    f'palette) whose values are class indices or {VOID}. Convert the masks, such as with '
                    'tools/dataset_converters/folders.py (--colors for color masks).'
                )
            return np.array(image).astype(np.uint8, copy=False)
    except FileNotFoundError:
        raise FileNotFoundError(
            f'{path} does not exist. Restore the mask, or take its image out of the list.'
        ) from None
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG chunk
        reason = ' '.join(str(error).split()).rstrip('.')
        raise ValueError(
            f'{path} cannot be read as an image ({reason}). Replace it, or take its image out of the list.'
        ) from None


def survey_masks(
    paths: Sequence[str],
    what: str = 'masks',
    workers: int = 4,
    quiet: bool = False,
    backend: BaseStorageBackend | None = None,
) -> MaskSurvey:
    """Read every mask once.

    Args:
        paths: Paths of the files.
        what: Noun for the progress bar.
        workers: Number of reader threads.
        quiet: If True, show no progress bar.
        backend: Backend that has the files; None for the local disk.
    """
    survey = MaskSurvey(list(paths), np.zeros((len(paths), _VALUES), np.int64), [], {})
    # Read the first file before starting threads: this opens a connection, such as a database, that they share.
    first = [_summary(path, backend) for path in survey.paths[:1]]
    with ThreadPoolExecutor(workers) as pool:
        results = chain(first, pool.map(partial(_summary, backend=backend), survey.paths[1:]))
        for i, result in enumerate(tqdm(results, what, len(paths), disable=quiet, unit='img')):
            if isinstance(result, str):
                survey.problems[survey.paths[i]] = result
                survey.sizes.append(None)
            else:
                survey.pixels[i], size = result
                survey.sizes.append(size)
    return survey


def _summary(
    path: str, backend: BaseStorageBackend | None = None
) -> tuple[np.ndarray, tuple[int, int]] | str:
    try:
        values = read_values(path, backend)
    except (OSError, ValueError) as error:
        return str(error)
    # Count in parts, since numpy needs 8 bytes per pixel to count.
    parts = np.array_split(values.ravel(), 1 + values.size // _COUNTED_AT_ONCE)
    height, width = values.shape
    counts = np.sum([np.bincount(part, minlength=_VALUES) for part in parts], axis=0)
    return counts, (height, width)


def meaning_of_values(
    num_classes: int,
    reduce_zero_label: bool = False,
    label_map: dict[int, int] | None = None,
    void: int = VOID,
) -> np.ndarray:
    """Return the class that mmseg loads for each value of a mask file, int64 (256,).

    As in mmseg's ``LoadAnnotations``, ``reduce_zero_label`` comes first: 0 becomes void, and 1, 2, ... become
    classes 0, 1, .... Then ``label_map`` applies, which mmseg creates if ``metainfo`` changes the classes.

    Returns:
        np.ndarray: 0 ... C-1, 255 for the value ``void``, and -1 for other values.
    """
    values: np.ndarray = np.arange(_VALUES)
    if reduce_zero_label:
        values = np.where((values == 0) | (values == VOID), VOID, values - 1)
    if label_map:
        values = np.array([label_map.get(value, value) for value in values.tolist()])
    classes = np.where((values >= 0) & (values < num_classes), values, -1)
    return np.where(values == void, VOID, classes)


def count_classes(
    pixels: np.ndarray,
    num_classes: int,
    reduce_zero_label: bool = False,
    label_map: dict[int, int] | None = None,
    void: int = VOID,
) -> ClassCount:
    """Count the pixels of each class, of void and of other values.

    Args:
        pixels: Counts of a :class:`MaskSurvey`, (N, 256).
        num_classes: C, at most 255.
        reduce_zero_label: Setting of the dataset.
        label_map: Setting of the dataset, old class = new class.
        void: Void value, the dataset's ``ignore_index``.
    """
    meaning = meaning_of_values(num_classes, reduce_zero_label, label_map, void)
    classes = np.stack([pixels[:, meaning == c].sum(1) for c in range(num_classes)], axis=1)
    return ClassCount(classes, pixels[:, meaning == VOID].sum(1), pixels[:, meaning == -1].sum(1))


def values_beyond(
    pixels: np.ndarray,
    num_classes: int,
    reduce_zero_label: bool = False,
    label_map: dict[int, int] | None = None,
    void: int = VOID,
) -> dict[int, int]:
    """Return the values that are neither a class nor void, with the number of masks that contain them."""
    meaning = meaning_of_values(num_classes, reduce_zero_label, label_map, void)
    masks = (pixels > 0).sum(0)
    return {int(v): int(masks[v]) for v in np.flatnonzero((meaning == -1) & (masks > 0))}
