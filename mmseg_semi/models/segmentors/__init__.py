"""The base of all methods, and one file per method."""

from .base import SemiSegmentor
from .corrmatch import CorrMatch
from .cps import CPS
from .cutmix_seg import CutMixSeg
from .des4 import DeS4
from .esl import ESL
from .fixmatch import FixMatch
from .gps import GPS
from .imas import IMAS
from .independent import IndependentSegmentor
from .mean_teacher import MeanTeacherSegmentor
from .mean_teacher_consistency import MeanTeacher
from .prevmatch import PrevMatch
from .slide import SlideScoreEncoderDecoder
from .u2pl import U2PL
from .unimatch import UniMatch
from .unimatch_v2 import UniMatchV2

__all__ = [
    'CPS',
    'ESL',
    'GPS',
    'IMAS',
    'U2PL',
    'CorrMatch',
    'CutMixSeg',
    'DeS4',
    'FixMatch',
    'IndependentSegmentor',
    'MeanTeacher',
    'MeanTeacherSegmentor',
    'PrevMatch',
    'SemiSegmentor',
    'SlideScoreEncoderDecoder',
    'UniMatch',
    'UniMatchV2',
]
