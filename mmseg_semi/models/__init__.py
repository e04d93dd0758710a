"""Networks, losses and batch transforms of the methods, registered with MMSegmentation."""

from .data_preprocessor import MultiBranchDataPreprocessor
from .losses import PixelCrossEntropyLoss
from .mixers import AdaptiveCutMix, IntensityMix
from .segmentors import IMAS, MeanTeacherSegmentor, SemiSegmentor
from .wrappers import SemiDistributedDataParallel

__all__ = [
    'IMAS',
    'AdaptiveCutMix',
    'IntensityMix',
    'MeanTeacherSegmentor',
    'MultiBranchDataPreprocessor',
    'PixelCrossEntropyLoss',
    'SemiDistributedDataParallel',
    'SemiSegmentor',
]
