"""Cutout of ST++: a box of noise with void labels."""

import math
import random

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from .checks import IGNORE_INDEX
from .operations import checked_ends, checked_image, checked_number

_MAX_DRAWS = 1000


@TRANSFORMS.register_module()
class RandomNoiseCutout(BaseTransform):
    """Fill a random box with noise and make its labels void.

    ST++, Sec. 3.1, with the values of its code. Area S and ratio r are uniform; the box is int(sqrt(S r)) high
    and int(sqrt(S / r)) wide; its top left pixel is uniform in the image. Size, ratio and position are redrawn
    together until the box is inside, which favors small boxes: with the default settings the mean area is 0.142
    of the image. Noise is uniform from 0 to 255 per pixel and channel. The box is drawn with Python's
    ``random``, the noise with NumPy.

    Changes ``img``, uint8 (H, W, 3), and ``gt_seg_map``, (H, W).

    Args:
        area: Smallest and largest area as a fraction of the image.
        ratio: Smallest and largest height / width.
        prob: Probability of changing an image.
        ignore_index: Void label.

    Raises:
        ValueError: A setting is out of range. In a call: the image is not uint8 (H, W, 3), there is no label
            map of its size, or no box fits in 1000 draws.
    """

    def __init__(
        self,
        area: tuple[float, float] = (0.02, 0.4),
        ratio: tuple[float, float] = (0.3, 1 / 0.3),
        prob: float = 0.5,
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        self.area = checked_ends(area, 0.0, 1.0, 'RandomNoiseCutout area')
        self.ratio = checked_ends(ratio, 0.01, 100.0, 'RandomNoiseCutout ratio')
        self.prob = checked_number(prob, 0.0, 1.0, 'RandomNoiseCutout prob')
        self.ignore_index = ignore_index

    def sample(
        self, height: int, width: int
    ) -> tuple[tuple[int, int, int, int], np.ndarray] | None:
        """Draw a box (x1, y1, x2, y2), half-open, and its noise, uint8 (h, w, 3); None for no box."""
        if random.random() >= self.prob:
            return None
        for _ in range(_MAX_DRAWS):
            area = random.uniform(*self.area) * height * width
            ratio = random.uniform(*self.ratio)
            h, w = int(math.sqrt(area * ratio)), int(math.sqrt(area / ratio))
            x, y = random.randrange(width), random.randrange(height)
            if x + w <= width and y + h <= height:
                noise = np.random.randint(256, size=(h, w, 3), dtype=np.uint8)
                return (x, y, x + w, y + h), noise
        raise ValueError(
            f'RandomNoiseCutout area={self.area}, ratio={self.ratio} gave no box inside an image of '
            f'{height}x{width} in {_MAX_DRAWS} draws. Lower the area, or widen the ratio.'
        )

    def apply(
        self,
        image: np.ndarray,
        label: np.ndarray,
        box: tuple[int, int, int, int],
        noise: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a new image and label map with ``noise`` and void in the box."""
        x1, y1, x2, y2 = box
        image, label = image.copy(), label.copy()
        image[y1:y2, x1:x2] = noise
        label[y1:y2, x1:x2] = self.ignore_index
        return image, label

    def transform(self, results: dict) -> dict:
        """Draw and apply; ``results`` and its arrays do not change."""
        image, label = checked_image(results, type(self).__name__), results.get('gt_seg_map')
        if label is None or label.shape != image.shape[:2]:
            raise ValueError(
                f'{results.get("img_path")} has no label map of the size of its image where '
                'RandomNoiseCutout runs. Load annotations before it, and resize and crop both alike.'
            )
        drawn = self.sample(*label.shape)
        if drawn is None:
            return results
        image, label = self.apply(image, label, *drawn)
        return {**results, 'img': image, 'gt_seg_map': label}

    def __repr__(self) -> str:
        return f'{type(self).__name__}(area={self.area}, ratio={self.ratio}, prob={self.prob})'
