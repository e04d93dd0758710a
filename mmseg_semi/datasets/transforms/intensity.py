"""iMAS's intensity augmentation: random changes of color and sharpness that keep the geometry."""

import random
from collections.abc import Sequence

from mmseg.registry import TRANSFORMS

from .operations import RandomOperations

# Ranges include both ends. Integer ends give integer draws. The hue shift has a random sign.
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
_WITHOUT_STRENGTH = ('identity', 'invert', 'autocontrast', 'equalize')
_OPERATIONS = (*_WITHOUT_STRENGTH, *_PAPER)
_RANGES = dict(paper=_PAPER, official=_OFFICIAL)


@TRANSFORMS.register_module()
class RandomIntensity(RandomOperations):
    """Apply ``num_ops`` intensity operations, drawn with replacement from twelve.

    iMAS, Sec. 3.3.1: identity, invert, autocontrast, equalize, Gaussian blur, contrast, sharpness, color,
    brightness, hue, posterize, solarize. They run one after the other, each with a strength drawn uniformly
    from its range. The paper says "randomly select two"; its code draws with replacement, and so does this
    class. Draws use Python's ``random``.

    Changes only ``img``, uint8 (H, W, 3) in BGR order. With ``operations`` without color and hue, it also
    accepts gray images (H, W) and images of any number of channels.

    Args:
        num_ops: Number of operations to apply, at least 1.
        ranges: ``'paper'`` or ``'official'`` (the official code: factors from 0.1 instead of 0.05, posterize to
            4-7 bits instead of 4-8), or a dict of operation = (low, high) that replaces some of the paper's
            ranges. Units: blur sigma in pixels; contrast, sharpness, color and brightness as Pillow's
            enhancement factors (1 = unchanged); hue as a fraction of the hue circle; posterize in bits;
            solarize in gray levels.
        operations: Names of the operations to draw from. Default: all twelve.

    Raises:
        ValueError: A setting is out of range. In a call: the image is not uint8 (H, W, 3).
    """

    def __init__(
        self,
        num_ops: int = 2,
        ranges: str | dict = 'paper',
        operations: Sequence[str] = _OPERATIONS,
    ) -> None:
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
        unknown = [name for name in operations if name not in _OPERATIONS]
        if unknown or not operations or isinstance(operations, str):
            raise ValueError(
                f'RandomIntensity operations={operations!r} must be some of {", ".join(_OPERATIONS)}.'
            )
        self.operations = tuple(operations)

    @property
    def possible(self) -> tuple[str, ...]:
        """Names of all operations that may be drawn."""
        return self.operations

    def sample(self) -> tuple[tuple[str, float | int | None], ...]:
        """Draw ``num_ops`` pairs of an operation and its strength, None for operations without strength."""
        return tuple(
            (name, self._strength(name)) for name in random.choices(self.operations, k=self.num_ops)
        )

    def _strength(self, name: str) -> float | int | None:
        if name not in self.ranges:
            return None
        low, high = self.ranges[name]
        if isinstance(_PAPER[name][0], int):
            return random.randint(int(low), int(high))
        value = random.uniform(low, high)
        return random.choice((-value, value)) if name == 'hue' else value

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(num_ops={self.num_ops}, ranges={self.ranges}, '
            f'operations={self.operations})'
        )


def _checked_ranges(ranges: dict) -> dict:
    """Return ``ranges`` as tuples; ValueError for unknown operations and invalid ends."""
    limits = dict.fromkeys(('contrast', 'sharpness', 'color', 'brightness'), (0.0, 10.0))
    limits |= dict(gaussian_blur=(0.01, 100.0), hue=(0.0, 0.5), posterize=(1, 8), solarize=(0, 256))
    checked = {}
    for name, ends in ranges.items():
        if name not in limits:
            raise ValueError(
                f'RandomIntensity ranges has {name!r}, which is not an operation with a strength. '
                f'Use some of {", ".join(_PAPER)}.'
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
