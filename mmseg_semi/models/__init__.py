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
    CPS,
    ESL,
    GPS,
    IMAS,
    DeS4,
    IndependentSegmentor,
    MeanTeacherSegmentor,
    SemiSegmentor,
    SlideScoreEncoderDecoder,
)
from .wrappers import SemiDistributedDataParallel

__all__ = [
    'CPS',
    'ESL',
    'GPS',
    'IMAS',
    'AdaptiveCutMix',
    'CeilPoolResNetV1c',
    'DeS4',
    'DeepClassifierHead',
    'IndependentSegmentor',
    'IntensityMix',
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
