"""The base of all methods, and one file per method."""

from .base import SemiSegmentor
from .des4 import DeS4
from .esl import ESL
from .imas import IMAS
from .mean_teacher import MeanTeacherSegmentor
from .slide import SlideScoreEncoderDecoder
from .unimatch import UniMatch
from .unimatch_v2 import UniMatchV2

__all__ = [
    'ESL',
    'IMAS',
    'DeS4',
    'MeanTeacherSegmentor',
    'SemiSegmentor',
    'SlideScoreEncoderDecoder',
    'UniMatch',
    'UniMatchV2',
]
