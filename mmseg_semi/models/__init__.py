"""Networks, losses and batch transforms of the methods, registered with MMSegmentation."""

from .backbones import CeilPoolResNetV1c, TIMMBackbone
from .checkpoints import read_checkpoint
from .cutmix import AdaptiveCutMix
from .data_preprocessor import MultiBranchDataPreprocessor
from .heads import (
    DeepClassifierHead,
    FeatureMapDPTHead,
    PlainDeepLabV3PlusHead,
    PrototypeClassifier,
    PrototypeHead,
)
from .intensity_mix import IntensityMix
from .losses import PixelCrossEntropyLoss
from .memory import FeatureQueues, NegativeMemoryBank, PartMemoryBank, PartPrototypes
from .necks import TokenNorm
from .negative_contrast import NegativeContrast
from .pretrained import PretrainedInit as PretrainedInit
from .segmentors import (
    CPS,
    ESL,
    GPS,
    IMAS,
    U2PL,
    CutMixSeg,
    DeS4,
    FixMatch,
    IndependentSegmentor,
    MeanTeacher,
    MeanTeacherSegmentor,
    PrevMatch,
    SemiSegmentor,
    SlideScoreEncoderDecoder,
    UniMatch,
    UniMatchV2,
)
from .wrappers import SemiDistributedDataParallel

__all__ = [
    'CPS',
    'ESL',
    'GPS',
    'IMAS',
    'U2PL',
    'AdaptiveCutMix',
    'CeilPoolResNetV1c',
    'CutMixSeg',
    'DeS4',
    'DeepClassifierHead',
    'FeatureMapDPTHead',
    'FeatureQueues',
    'FixMatch',
    'IndependentSegmentor',
    'IntensityMix',
    'MeanTeacher',
    'MeanTeacherSegmentor',
    'MultiBranchDataPreprocessor',
    'NegativeContrast',
    'NegativeMemoryBank',
    'PartMemoryBank',
    'PartPrototypes',
    'PixelCrossEntropyLoss',
    'PlainDeepLabV3PlusHead',
    'PrevMatch',
    'PrototypeClassifier',
    'PrototypeHead',
    'SemiDistributedDataParallel',
    'SemiSegmentor',
    'SlideScoreEncoderDecoder',
    'TIMMBackbone',
    'TokenNorm',
    'UniMatch',
    'UniMatchV2',
    'read_checkpoint',
]
