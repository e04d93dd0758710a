"""The base of all methods, and one file per method."""

from .base import SemiSegmentor
from .des4 import DeS4
from .esl import ESL
from .imas import IMAS
from .mean_teacher import MeanTeacherSegmentor
from .slide import SlideScoreEncoderDecoder
from .u2pl import U2PL

__all__ = [
    'ESL',
    'IMAS',
    'U2PL',
    'DeS4',
    'MeanTeacherSegmentor',
    'SemiSegmentor',
    'SlideScoreEncoderDecoder',
]
