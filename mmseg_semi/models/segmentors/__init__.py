"""The base of all methods, and one file per method."""

from .base import SemiSegmentor
from .cps import CPS
from .des4 import DeS4
from .esl import ESL
from .gps import GPS
from .imas import IMAS
from .independent import IndependentSegmentor
from .mean_teacher import MeanTeacherSegmentor
from .slide import SlideScoreEncoderDecoder

__all__ = [
    'CPS',
    'ESL',
    'GPS',
    'IMAS',
    'DeS4',
    'IndependentSegmentor',
    'MeanTeacherSegmentor',
    'SemiSegmentor',
    'SlideScoreEncoderDecoder',
]
