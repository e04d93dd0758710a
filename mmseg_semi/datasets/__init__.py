"""Datasets, samplers and transforms, registered with MMSegmentation."""

from .camvid import CamVidDataset
from .collate import collate_branches
from .labeled_unlabeled import LabeledUnlabeledDataset
from .paths import build_checked, check_data_paths
from .sampler import LabeledUnlabeledSampler
from .shapes import LoadShapes, ShapesDataset
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
    'CamVidDataset',
    'CheckImageFile',
    'CheckLabels',
    'LabeledUnlabeledDataset',
    'LabeledUnlabeledSampler',
    'LoadShapes',
    'MultiBranch',
    'PackUnlabeledInputs',
    'RandomIntensity',
    'ShapesDataset',
    'UnlabeledDataset',
    'build_checked',
    'check_data_paths',
    'collate_branches',
]
