"""Networks, losses and batch transforms of the methods, registered with MMSegmentation."""

from .backbones import CeilPoolResNetV1c
from .data_preprocessor import MultiBranchDataPreprocessor
from .heads import (
    DeepClassifierHead,
    PlainDeepLabV3PlusHead,
    PrototypeClassifier,
    PrototypeHead,
)
from .losses import PixelCrossEntropyLoss
from .memory import PartMemoryBank, PartPrototypes
from .mixers import AdaptiveCutMix, IntensityMix
from .segmentors import (
    ESL,
    IMAS,
    CutMixSeg,
    DeS4,
    FixMatch,
    MeanTeacher,
    MeanTeacherSegmentor,
    SemiSegmentor,
    SlideScoreEncoderDecoder,
)
from .wrappers import SemiDistributedDataParallel

__all__ = [
    'ESL',
    'IMAS',
    'AdaptiveCutMix',
    'CeilPoolResNetV1c',
    'CutMixSeg',
    'DeS4',
    'DeepClassifierHead',
    'FixMatch',
    'IntensityMix',
    'MeanTeacher',
    'MeanTeacherSegmentor',
    'MultiBranchDataPreprocessor',
    'PartMemoryBank',
    'PartPrototypes',
    'PixelCrossEntropyLoss',
    'PlainDeepLabV3PlusHead',
    'PrototypeClassifier',
    'PrototypeHead',
    'SemiDistributedDataParallel',
    'SemiSegmentor',
    'SlideScoreEncoderDecoder',
]
