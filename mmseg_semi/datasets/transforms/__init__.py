"""Transforms of single images: loaders, checks, valid masks, resize, crop, views, colors, Cutout."""

from .checks import CheckImageFile, CheckLabels
from .color import RandomColorJitter, RandomGaussianBlur, RandomGray
from .crop import EvaluationCenterCrop
from .cutout import RandomNoiseCutout
from .formatting import AddValidMask, PackUnlabeledInputs
from .intensity import RandomIntensity
from .loading import LoadAnnotations, LoadImageFromFile
from .multi_branch import MultiBranch
from .resize import RandomShrinkOrEnlarge
from .soft_labels import AddSoftLabels, PackSoftLabels

__all__ = [
    'AddSoftLabels',
    'AddValidMask',
    'CheckImageFile',
    'CheckLabels',
    'EvaluationCenterCrop',
    'LoadAnnotations',
    'LoadImageFromFile',
    'MultiBranch',
    'PackSoftLabels',
    'PackUnlabeledInputs',
    'RandomColorJitter',
    'RandomGaussianBlur',
    'RandomGray',
    'RandomIntensity',
    'RandomNoiseCutout',
    'RandomShrinkOrEnlarge',
]
