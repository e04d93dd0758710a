"""Transforms of single images: checks, valid masks, views, changes of intensity and colour, Cutout."""

from .checks import CheckImageFile, CheckLabels
from .color import RandomColorJitter, RandomGaussianBlur, RandomGray
from .cutout import RandomNoiseCutout
from .formatting import AddValidMask, PackUnlabeledInputs
from .intensity import RandomIntensity
from .multi_branch import MultiBranch

__all__ = [
    'AddValidMask',
    'CheckImageFile',
    'CheckLabels',
    'MultiBranch',
    'PackUnlabeledInputs',
    'RandomColorJitter',
    'RandomGaussianBlur',
    'RandomGray',
    'RandomIntensity',
    'RandomNoiseCutout',
]
