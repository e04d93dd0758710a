"""Networks, losses and batch transforms of the methods, registered with MMSegmentation."""

from .backbones import CeilPoolResNetV1c
from .data_preprocessor import MultiBranchDataPreprocessor
from .heads import PlainDeepLabV3PlusHead
from .losses import PixelCrossEntropyLoss
from .mixers import AdaptiveCutMix, IntensityMix
from .segmentors import IMAS, MeanTeacherSegmentor, SemiSegmentor, SlideScoreEncoderDecoder
from .wrappers import SemiDistributedDataParallel

__all__ = [
    'IMAS',
    'AdaptiveCutMix',
    'CeilPoolResNetV1c',
    'IntensityMix',
    'MeanTeacherSegmentor',
    'MultiBranchDataPreprocessor',
    'PixelCrossEntropyLoss',
    'PlainDeepLabV3PlusHead',
    'SemiDistributedDataParallel',
    'SemiSegmentor',
    'SlideScoreEncoderDecoder',
]
