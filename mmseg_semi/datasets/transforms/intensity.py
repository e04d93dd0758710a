"""iMAS's intensity view: random changes of colour and sharpness that leave the geometry alone.

The operations have Pillow's semantics (ImageOps, ImageEnhance), as the paper's code applies them
to Pillow images, and work on uint8 BGR arrays as mmseg loads them. Those that map each grey level
to another are one table look-up per channel; mmcv's own autocontrast and equalize give the same
numbers 20 times slower, its solarize and contrast 8 times.
"""

import random
from collections.abc import Callable

import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

_LEVELS = np.arange(256)


def _identity(image: np.ndarray, _) -> np.ndarray:
    return image


def _invert(image: np.ndarray, _) -> np.ndarray:
    return mmcv.iminvert(image)


def _histogram(image: np.ndarray, channel: int) -> np.ndarray:
    return cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel().astype(np.int64)


def _per_channel(image: np.ndarray, table_of: Callable) -> np.ndarray:
    """Apply to each channel the table that ``table_of`` makes of its histogram."""
    tables = [table_of(_histogram(image, c)) for c in range(3)]
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
    # Pillow's ImageEnhance blends in float32 and cuts the fraction off.
    table = level + np.float32(factor) * (_LEVELS - level).astype(np.float32)
    return cv2.LUT(image, table.astype(np.uint8))


def _brightness(image: np.ndarray, factor: float) -> np.ndarray:
    return _blend_with_level(image, 0, factor)


def _contrast(image: np.ndarray, factor: float) -> np.ndarray:
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return _blend_with_level(image, int(grey.mean() + 0.5), factor)


def _color(image: np.ndarray, factor: float) -> np.ndarray:
    return mmcv.adjust_color(image, factor, backend='cv2')


def _sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    return mmcv.adjust_sharpness(image, factor)


def _hue(image: np.ndarray, shift: float) -> np.ndarray:
    # As mmcv.adjust_hue, which in upstream's mmcv fails on negative shifts under numpy 2.
    hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV_FULL))
    hue = hue + np.uint8(int(shift * 255) % 256)  # wraps around, as hues do
    return cv2.cvtColor(cv2.merge([hue, saturation, value]), cv2.COLOR_HSV2BGR_FULL)


def _posterize(image: np.ndarray, bits: int) -> np.ndarray:
    return mmcv.posterize(image, bits)


def _solarize(image: np.ndarray, threshold: int) -> np.ndarray:
    table = np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS)
    return cv2.LUT(image, table.astype(np.uint8))


_APPLY = dict(
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
)

# Both ends belong to a range; integer ends mean integer draws; the hue's shift has a random sign.
_PAPER = dict(
    gaussian_blur=(0.1, 2.0),
    contrast=(0.05, 0.95),
    sharpness=(0.05, 0.95),
    color=(0.05, 0.95),
    brightness=(0.05, 0.95),
    hue=(0.0, 0.5),
    posterize=(4, 8),
    solarize=(1, 255),
)
_OFFICIAL = dict(
    _PAPER,
    contrast=(0.1, 0.95),
    sharpness=(0.1, 0.95),
    color=(0.1, 0.95),
    brightness=(0.1, 0.95),
    posterize=(4, 7),
)
_RANGES = dict(paper=_PAPER, official=_OFFICIAL)


@TRANSFORMS.register_module()
class RandomIntensity(BaseTransform):
    """Apply ``num_ops`` intensity operations, drawn with replacement from twelve.

    iMAS, Sec. 3.3.1: identity, invert, autocontrast, equalize, Gaussian blur, contrast, sharpness,
    color, brightness, hue, posterize, solarize. They run one after the other, each with a strength
    drawn uniformly from its range. The paper says "randomly select two"; its code draws with
    replacement, and so do we. Draws come from Python's ``random``.

    Changes ``img``, uint8 (H, W, 3) in BGR order, and nothing else.

    Args:
        num_ops: how many operations are applied, at least 1.
        ranges: ``'paper'`` or ``'official'`` (the official code: factors from 0.1 instead of 0.05,
            posterize to 4-7 bits instead of 4-8), or a dict of operation = (low, high) that
            replaces some of the paper's ranges. Units: blur sigma in pixels; contrast, sharpness,
            color and brightness as Pillow's enhancement factors (1 = unchanged); hue as a
            fraction of the hue circle; posterize in bits; solarize in grey levels.

    Raises:
        ValueError: a setting out of range; in a call, an image that is not uint8 (H, W, 3).
    """

    def __init__(self, num_ops: int = 2, ranges: str | dict = 'paper') -> None:
        if not isinstance(num_ops, int) or num_ops < 1:
            raise ValueError(
                f'RandomIntensity num_ops={num_ops!r} must be an integer of at least 1.'
            )
        if isinstance(ranges, str):
            if ranges not in _RANGES:
                raise ValueError(
                    f"RandomIntensity ranges={ranges!r} must be 'paper', 'official' or a dict of "
                    'operation = (low, high).'
                )
            self.ranges = dict(_RANGES[ranges])
        else:
            self.ranges = {**_PAPER, **_checked_ranges(ranges)}
        self.num_ops = num_ops

    def sample(self) -> tuple[tuple[str, float | int | None], ...]:
        """Draw the operations and their strengths: ``num_ops`` pairs, None for no strength."""
        return tuple(
            (name, self._strength(name)) for name in random.choices([*_APPLY], k=self.num_ops)
        )

    def _strength(self, name: str) -> float | int | None:
        if name not in self.ranges:
            return None
        low, high = self.ranges[name]
        if isinstance(_PAPER[name][0], int):
            return random.randint(low, high)
        value = random.uniform(low, high)
        return random.choice((-value, value)) if name == 'hue' else value

    @staticmethod
    def apply(image: np.ndarray, operations) -> np.ndarray:
        """Apply ``(operation, strength)`` pairs in order to a uint8 BGR image (H, W, 3)."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f'RandomIntensity works on uint8 images (H, W, 3), not on {image.dtype} '
                f"{image.shape}: load with to_float32=False and color_type='color'."
            )
        for name, strength in operations:
            image = _APPLY[name](image, strength)
        return image

    def transform(self, results: dict) -> dict:
        """Draw and apply."""
        image = np.ascontiguousarray(results['img'])
        return {**results, 'img': self.apply(image, self.sample())}

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num_ops={self.num_ops}, ranges={self.ranges})'


def _checked_ranges(ranges: dict) -> dict:
    """``ranges`` as tuples; ValueError for unknown operations and impossible ends."""
    limits = dict.fromkeys(('contrast', 'sharpness', 'color', 'brightness'), (0.0, 10.0))
    limits |= dict(gaussian_blur=(0.01, 100.0), hue=(0.0, 0.5), posterize=(1, 8), solarize=(0, 256))
    checked = {}
    for name, ends in ranges.items():
        if name not in limits:
            raise ValueError(
                f'RandomIntensity ranges has {name!r}, which is not an operation with a strength: '
                f'use some of {", ".join(_PAPER)}.'
            )
        least, most = limits[name]
        valid = len(ends) == 2 and least <= ends[0] <= ends[1] <= most
        if not valid or (isinstance(least, int) and not all(isinstance(e, int) for e in ends)):
            kind = 'integers' if isinstance(least, int) else 'numbers'
            raise ValueError(
                f'RandomIntensity ranges has {name}={ends!r}, which must be two {kind} '
                f'{least} <= low <= high <= {most}.'
            )
        checked[name] = tuple(ends)
    return checked
