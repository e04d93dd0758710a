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
from .memory import FeatureQueues, NegativeMemoryBank, PartMemoryBank, PartPrototypes
from .mixers import AdaptiveCutMix, IntensityMix
from .segmentors import (
    ESL,
    IMAS,
    U2PL,
    DeS4,
    MeanTeacherSegmentor,
    SemiSegmentor,
    SlideScoreEncoderDecoder,
)
from .wrappers import SemiDistributedDataParallel

__all__ = [
    'ESL',
    'IMAS',
    'U2PL',
    'AdaptiveCutMix',
    'CeilPoolResNetV1c',
    'DeS4',
    'DeepClassifierHead',
    'FeatureQueues',
    'IntensityMix',
    'MeanTeacherSegmentor',
    'MultiBranchDataPreprocessor',
    'NegativeMemoryBank',
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
