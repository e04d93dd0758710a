"""Datasets, samplers and transforms, registered with MMSegmentation."""

from .camvid import CamVidDataset
from .collate import collate_branches
from .labeled_unlabeled import LabeledUnlabeledDataset, check_files_exist
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
from .unaugmented import unaugmented
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
    'check_files_exist',
    'collate_branches',
    'unaugmented',
]
