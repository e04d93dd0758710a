"""Backbones of the papers that MMSegmentation lacks, and its wrapper of timm."""

from .resnet import CeilPoolResNetV1c
from .timm_backbone import TIMMBackbone

__all__ = ['CeilPoolResNetV1c', 'TIMMBackbone']
