"""Image operations with Pillow's semantics on uint8 BGR images, shared by the random transforms.

The papers' codes change Pillow images (ImageOps, ImageEnhance, ImageFilter). These functions give the same
results on arrays as mmseg loads them. Operations that map gray levels are one table lookup per channel. mmcv's
autocontrast and equalize give the same results but are 20 times slower; its solarize and contrast are 8 times
slower.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence

import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform

_LEVELS = np.arange(256)


def _identity(image: np.ndarray, _) -> np.ndarray:
    return image


def _invert(image: np.ndarray, _) -> np.ndarray:
    return mmcv.iminvert(image)


def _histogram(image: np.ndarray, channel: int) -> np.ndarray:
    return cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel().astype(np.int64)


def _per_channel(image: np.ndarray, table_of: Callable) -> np.ndarray:
    """Apply to each channel the table that ``table_of`` computes from its histogram."""
    channels = image.shape[2] if image.ndim == 3 else 1
    tables = [table_of(_histogram(image, c)) for c in range(channels)]
    return cv2.LUT(image, np.stack(tables, axis=-1).astype(np.uint8)[None])


def _autocontrast(image: np.ndarray, _) -> np.ndarray:
    def stretch(histogram: np.ndarray) -> np.ndarray:
        present = np.flatnonzero(histogram)
        low, high = present[0], present[-1]
        if low == high:
            return _LEVELS
        scale = 255.0 / (high - low)
        return np.clip(_LEVELS * scale - low * scale, 0, 255)

    return _per_channel(image, stretch)


def _equalize(image: np.ndarray, _) -> np.ndarray:
    def flatten(histogram: np.ndarray) -> np.ndarray:
        step = (histogram.sum() - histogram[np.flatnonzero(histogram)[-1]]) // 255
        if step == 0:
            return _LEVELS
        below = np.cumsum(histogram) - histogram
        return np.minimum((below + step // 2) // step, 255)

    return _per_channel(image, flatten)


def _gaussian_blur(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)  # as Pillow


def _blend_with_level(image: np.ndarray, level: int, factor: float) -> np.ndarray:
    # Pillow's ImageEnhance blends in float32, truncates and clips to 8 bits.
    table = level + np.float32(factor) * (_LEVELS - level).astype(np.float32)
    return cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8))


def _brightness(image: np.ndarray, factor: float) -> np.ndarray:
    return _blend_with_level(image, 0, factor)


def _contrast(image: np.ndarray, factor: float) -> np.ndarray:
    rgb = image.ndim == 3 and image.shape[2] == 3
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if rgb else image
    return _blend_with_level(image, int(gray.mean() + 0.5), factor)


def _color(image: np.ndarray, factor: float) -> np.ndarray:
    return mmcv.adjust_color(image, factor, backend='cv2')


def _sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    return mmcv.adjust_sharpness(image, factor)


def _grayscale(image: np.ndarray, _) -> np.ndarray:
    # mmcv's RandomGrayscale by default weights the channels equally, and truncates.
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)


def _hue(image: np.ndarray, shift: float) -> np.ndarray:
    # Same as mmcv.adjust_hue, which in upstream's mmcv fails for negative shifts under numpy 2.
    hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV_FULL))
    hue = hue + np.uint8(int(shift * 255) % 256)  # hues wrap around
    return cv2.cvtColor(cv2.merge([hue, saturation, value]), cv2.COLOR_HSV2BGR_FULL)


def _posterize(image: np.ndarray, bits: int) -> np.ndarray:
    return mmcv.posterize(image, bits)


def _solarize(image: np.ndarray, threshold: int) -> np.ndarray:
    table = np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS)
    return cv2.LUT(image, table.astype(np.uint8))


OPERATIONS = dict(
    identity=_identity,
    invert=_invert,
    autocontrast=_autocontrast,
    equalize=_equalize,
    gaussian_blur=_gaussian_blur,
    contrast=_contrast,
    sharpness=_sharpness,
    color=_color,
    brightness=_brightness,
    hue=_hue,
    posterize=_posterize,
    solarize=_solarize,
    grayscale=_grayscale,
)
"""Name = function of an image (H, W, 3) and a strength (None for operations without one)."""

COLOR_OPERATIONS = ('color', 'hue', 'grayscale')
"""Operations that mix the channels of a BGR image; the others accept gray (H, W) and any channels."""


class RandomOperations(BaseTransform):
    """Draw operations and apply them to ``img``; a subclass defines ``sample``.

    Changes only ``img``, uint8 (H, W, 3) in BGR order. If no operation of `possible` needs colors, ``img`` may
    also be uint8 (H, W) or (H, W, C). Draws use Python's ``random``.
    """

    @property
    @abstractmethod
    def possible(self) -> tuple[str, ...]:
        """Names of all operations that may be drawn."""

    @abstractmethod
    def sample(self) -> tuple[tuple[str, float | int | None], ...]:
        """Draw ``(operation, strength)`` pairs, None for no strength; an empty tuple changes nothing."""

    @staticmethod
    def apply(image: np.ndarray, operations) -> np.ndarray:
        """Apply ``(operation, strength)`` pairs in order to a uint8 BGR image (H, W, 3).

        Units: ``brightness``, ``contrast``, ``color`` (saturation) and ``sharpness`` as Pillow's
        enhancement factors (1 = unchanged); ``gaussian_blur`` sigma in pixels; ``hue`` as a signed
        fraction of the hue circle; ``posterize`` in bits; ``solarize`` in gray levels.

        Returns:
            A new image, or ``image`` itself if nothing changes it.
        """
        for name, strength in operations:
            image = OPERATIONS[name](image, strength)
        return image

    def transform(self, results: dict) -> dict:
        """Draw and apply; ``results`` and its image do not change."""
        colors = [name for name in COLOR_OPERATIONS if name in self.possible]
        image = checked_image(results, type(self).__name__, colors)
        return {**results, 'img': self.apply(image, self.sample())}


def checked_image(results: dict, transform: str, colors: Sequence[str] | None = None) -> np.ndarray:
    """Return ``results['img']`` as a contiguous array; ValueError unless it is uint8 (H, W, 3).

    Args:
        results: Results of the pipeline.
        transform: Name of the transform, for the message.
        colors: Operations that need three channels; if empty, any number of channels is allowed. None: the
            whole transform needs three.
    """
    image = results['img']
    rgb = image.ndim == 3 and image.shape[2] == 3
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (colors != [] and not rgb):
        without = (
            f', or use RandomIntensity with operations without {", ".join(colors)}'
            if colors
            else ''
        )
        raise ValueError(
            f'{transform} works on uint8 images (H, W, {3 if colors != [] else "C"}), not on {image.dtype} '
            f"{image.shape}. Load with to_float32=False and color_type='color'{without}, or leave it out."
        )
    return np.ascontiguousarray(image)


def checked_number(value: float, least: float, most: float, setting: str) -> float:
    """Return ``value``; raise ValueError, starting with ``setting``, unless least <= value <= most."""
    if not (isinstance(value, (int, float)) and least <= value <= most):
        raise ValueError(f'{setting}={value!r} must be a number from {least} to {most}.')
    return value


def checked_ends(ends, least: float, most: float, setting: str) -> tuple[float, float]:
    """Return ``ends`` as a tuple; ValueError unless they are two numbers, least <= low <= high <= most."""
    valid = (
        isinstance(ends, (list, tuple))
        and [isinstance(e, (int, float)) for e in ends] == [True] * 2
    )
    if not (valid and least <= ends[0] <= ends[1] <= most):
        raise ValueError(
            f'{setting}={ends!r} must be two numbers {least} <= low <= high <= {most}.'
        )
    return tuple(ends)
