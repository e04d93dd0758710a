"""Random resize of U2PL, which shrinks and enlarges images equally often."""

from __future__ import annotations

import random

from mmcv.transforms import RandomResize
from mmcv.transforms.utils import cache_randomness
from mmseg.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomShrinkOrEnlarge(RandomResize):
    """Resize an image by a factor that is below 1 with probability 1/2, and above 1 otherwise.

    U2PL's code (``RandResize``): the factor is uniform in [shrink, 1] or uniform in [1, enlarge]. A factor that
    is uniform in [0.5, 2], as mmcv's ``RandomResize`` draws it, enlarges two images of three. Everything else
    is as in that class: images, labels and masks of valid pixels are resized alike.

    Args:
        scale (tuple[int, int]): Width and height in pixels that the factor multiplies. With ``keep_ratio=True``
            the image is fitted into the product.
        ratio_range (tuple[float, float]): The smallest and the largest factor, (shrink, enlarge).
        **kwargs: ``resize_type`` and the settings of the resize, such as ``keep_ratio``.

    Raises:
        ValueError: ``scale`` is not one pair of whole numbers, or 1 does not lie between two positive factors.
    """

    def __init__(
        self,
        scale: tuple[int, int],
        ratio_range: tuple[float, float] = (0.5, 2.0),
        **kwargs,
    ) -> None:
        if len(scale) != 2 or not all(isinstance(side, int) for side in scale):
            raise ValueError(
                f'RandomShrinkOrEnlarge has scale={scale}. Give width and height in pixels.'
            )
        if len(ratio_range) != 2 or not 0 < ratio_range[0] <= 1 <= ratio_range[1]:
            raise ValueError(
                f'RandomShrinkOrEnlarge has ratio_range={ratio_range}. Give the smallest factor, in (0, 1], '
                'and the largest, 1 or more.'
            )
        super().__init__(tuple(scale), tuple(ratio_range), **kwargs)

    @cache_randomness
    def _random_scale(self) -> tuple[int, int]:
        shrink, enlarge = self.ratio_range
        ends = (shrink, 1.0) if random.random() < 0.5 else (1.0, enlarge)
        factor = random.uniform(*ends)
        width, height = self.scale
        return int(width * factor), int(height * factor)
