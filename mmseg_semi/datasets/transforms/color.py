"""ST++'s strong augmentation of color and sharpness, for pseudo-labeled images after weak augmentation."""

import random

from mmseg.registry import TRANSFORMS

from .operations import RandomOperations, checked_ends, checked_number


@TRANSFORMS.register_module()
class RandomColorJitter(RandomOperations):
    """Change brightness, contrast, saturation and hue, each uniformly and in a random order.

    ST++, Sec. 3.1, with the values of its code; equal to torchvision's ``ColorJitter`` on Pillow images.
    Changes only ``img``, uint8 (H, W, 3) in BGR order.

    Args:
        brightness, contrast, saturation: Half-width b of the range of factors [max(0, 1 - b), 1 + b]. A factor
            of 1 does not change the image. 0 disables the operation.
        hue: Largest shift in either direction, as a fraction of the hue circle, at most 0.5.
        prob: Probability of changing an image.

    Raises:
        ValueError: A setting is out of range. In a call: the image is not uint8 (H, W, 3).
    """

    def __init__(
        self,
        brightness: float = 0.5,
        contrast: float = 0.5,
        saturation: float = 0.5,
        hue: float = 0.25,
        prob: float = 0.8,
    ) -> None:
        halves = dict(brightness=brightness, contrast=contrast, saturation=saturation)
        for name, half in halves.items():
            checked_number(half, 0.0, 10.0, f'RandomColorJitter {name}')
        checked_number(hue, 0.0, 0.5, 'RandomColorJitter hue')
        self.prob = checked_number(prob, 0.0, 1.0, 'RandomColorJitter prob')
        halves['color'] = halves.pop('saturation')
        ranges = {name: (max(0.0, 1 - half), 1 + half) for name, half in halves.items() if half}
        self.ranges = {**ranges, 'hue': (-hue, hue)} if hue else ranges

    @property
    def possible(self) -> tuple[str, ...]:
        """Names of all operations that may be drawn."""
        return tuple(self.ranges)

    def sample(self) -> tuple[tuple[str, float], ...]:
        """Draw the operations, in order, and their strengths; empty with probability 1 - ``prob``."""
        if random.random() >= self.prob:
            return ()
        order = random.sample([*self.ranges], len(self.ranges))
        return tuple((name, random.uniform(*self.ranges[name])) for name in order)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(ranges={self.ranges}, prob={self.prob})'


@TRANSFORMS.register_module()
class RandomGray(RandomOperations):
    """Replace an image by its luma, 0.299 R + 0.587 G + 0.114 B, in three equal channels.

    ST++, Sec. 3.1. mmcv's ``RandomGrayscale`` by default weights the channels equally and truncates, so its
    images are half a gray level darker and some gray images change.

    Args:
        prob: Probability of changing an image.

    Raises:
        ValueError: ``prob`` is out of range. In a call: the image is not uint8 (H, W, 3).
    """

    def __init__(self, prob: float = 0.2) -> None:
        self.prob = checked_number(prob, 0.0, 1.0, 'RandomGray prob')

    @property
    def possible(self) -> tuple[str, ...]:
        """Names of all operations that may be drawn."""
        return ('grayscale',)

    def sample(self) -> tuple[tuple[str, None], ...]:
        """Draw whether the image becomes gray; empty with probability 1 - ``prob``."""
        return (('grayscale', None),) if random.random() < self.prob else ()

    def __repr__(self) -> str:
        return f'{type(self).__name__}(prob={self.prob})'


@TRANSFORMS.register_module()
class RandomGaussianBlur(RandomOperations):
    """Blur with a Gaussian whose sigma is drawn uniformly (ST++, Sec. 3.1); images may have any channels.

    Args:
        sigma: Smallest and largest sigma in pixels.
        prob: Probability of changing an image.

    Raises:
        ValueError: A setting is out of range. In a call: the image is not uint8.
    """

    def __init__(self, sigma: tuple[float, float] = (0.1, 2.0), prob: float = 0.5) -> None:
        self.sigma = checked_ends(sigma, 0.01, 100.0, 'RandomGaussianBlur sigma')
        self.prob = checked_number(prob, 0.0, 1.0, 'RandomGaussianBlur prob')

    @property
    def possible(self) -> tuple[str, ...]:
        """Names of all operations that may be drawn."""
        return ('gaussian_blur',)

    def sample(self) -> tuple[tuple[str, float], ...]:
        """Draw the sigma; empty with probability 1 - ``prob``."""
        if random.random() >= self.prob:
            return ()
        return (('gaussian_blur', random.uniform(*self.sigma)),)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(sigma={self.sigma}, prob={self.prob})'
