"""Datasets, samplers and transforms, registered with MMSegmentation."""

from .camvid import CamVidDataset
from .children import check_files_exist
from .collate import collate_branches
from .labeled_unlabeled import LabeledUnlabeledDataset
from .mapped import MappedSegDataset
from .nuclei import NucleiDataset
from .paths import build_checked, check_data_paths
from .pseudo_labeled import PseudoLabeledDataset, SelfTrainingDataset, image_ids
from .sampler import LabeledUnlabeledSampler, PositionSampler, ShuffledSampler
from .shapes import LoadShapes, ShapesDataset
from .transforms import (
    AddValidMask,
    CheckImageFile,
    CheckLabels,
    EvaluationCenterCrop,
    MultiBranch,
    PackUnlabeledInputs,
    RandomColorJitter,
    RandomGaussianBlur,
    RandomGray,
    RandomIntensity,
    RandomNoiseCutout,
    RandomShrinkOrEnlarge,
)
from .unaugmented import crop_size, unaugmented
from .unlabeled import UnlabeledDataset
from .voc_animals import VOCAnimalsDataset

__all__ = [
    'AddValidMask',
    'CamVidDataset',
    'CheckImageFile',
    'CheckLabels',
    'EvaluationCenterCrop',
    'LabeledUnlabeledDataset',
    'LabeledUnlabeledSampler',
    'LoadShapes',
    'MappedSegDataset',
    'MultiBranch',
    'NucleiDataset',
    'PackUnlabeledInputs',
    'PositionSampler',
    'PseudoLabeledDataset',
    'RandomColorJitter',
    'RandomGaussianBlur',
    'RandomGray',
    'RandomIntensity',
    'RandomNoiseCutout',
    'RandomShrinkOrEnlarge',
    'SelfTrainingDataset',
    'ShapesDataset',
    'ShuffledSampler',
    'UnlabeledDataset',
    'VOCAnimalsDataset',
    'build_checked',
    'check_data_paths',
    'check_files_exist',
    'collate_branches',
    'crop_size',
    'image_ids',
    'unaugmented',
]
