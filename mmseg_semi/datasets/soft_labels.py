"""Soft label files: the most probable classes of each pixel and their probabilities, stored beside its mask.

``<id>.soft`` is a gray 8-bit PNG image of height 2 k H: k maps of class indices above k maps of probabilities
in steps of 1/255 (:func:`mmseg_semi.functional.top_k.compress_probs`).
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from .backends import read_bytes

SOFT_SUFFIX = '.soft'


def encode_soft_label(stored: np.ndarray) -> bytes:
    """Encode soft labels, uint8 (2 k, H, W), as the content of a file."""
    content = io.BytesIO()
    Image.fromarray(stored.reshape(-1, stored.shape[-1])).save(content, format='PNG')
    return content.getvalue()


def read_soft_label(path: str, size: tuple[int, int], k: int, num_classes: int) -> np.ndarray:
    """Read a file of soft labels.

    Args:
        path: Path of the file.
        size: (height, width) of its mask, in either view of an image with an EXIF orientation.
        k: Classes per pixel.
        num_classes: Number of classes of the labels.

    Returns:
        np.ndarray: uint8 (2 k, H, W), in the stored orientation.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file cannot be read, has another size or k, or has a class index >= ``num_classes``.
    """
    again = 'Remove the folder and make the pseudo-labels again'
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f'{path} does not exist, the soft labels beside a mask. {again}, or set '
            'train_dataloader.dataset.pseudo_labeled.soft=False.'
        ) from None
    try:
        with Image.open(io.BytesIO(content)) as image:
            stored = np.array(image)
    except (OSError, SyntaxError) as error:  # Pillow raises these for broken files
        said = ' '.join(str(error).split()).rstrip('.')
        raise ValueError(f'{path} cannot be read as soft labels ({said}). {again}.') from None
    views = {(2 * k * height, width) for height, width in (size, size[::-1])}
    if stored.shape not in views:
        height, width = size
        raise ValueError(
            f'{path} is {"x".join(map(str, stored.shape))} (height x width), but {k} classes of each pixel of '
            f'its mask of {height}x{width} make {2 * k * height}x{width}. {again}.'
        )
    stored = stored.reshape(2 * k, -1, stored.shape[1])
    largest = int(stored[:k].max(initial=0))
    if largest >= num_classes:
        raise ValueError(
            f'{path} has the class {largest}, but the folder is of {num_classes} classes. {again}.'
        )
    return stored
