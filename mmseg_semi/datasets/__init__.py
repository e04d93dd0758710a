"""Datasets, samplers and transforms, registered with MMSegmentation."""

from .collate import collate_branches
from .labeled_unlabeled import LabeledUnlabeledDataset
from .sampler import LabeledUnlabeledSampler
from .transforms import (
    AddValidMask,
    CheckImageFile,
    CheckLabels,
    MultiBranch,
    PackUnlabeledInputs,
    RandomIntensity,
)
from .unlabeled import UnlabeledDataset

__all__ = [
    'AddValidMask',
    'CheckImageFile',
    'CheckLabels',
    'LabeledUnlabeledDataset',
    'LabeledUnlabeledSampler',
    'MultiBranch',
    'PackUnlabeledInputs',
    'RandomIntensity',
    'UnlabeledDataset',
    'collate_branches',
]
