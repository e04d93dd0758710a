"""Transforms of single images: checks, valid masks, views, intensity changes."""

from .checks import CheckImageFile, CheckLabels
from .formatting import AddValidMask, PackUnlabeledInputs
from .intensity import RandomIntensity
from .multi_branch import MultiBranch

__all__ = [
    'AddValidMask',
    'CheckImageFile',
    'CheckLabels',
    'MultiBranch',
    'PackUnlabeledInputs',
    'RandomIntensity',
]
