"""Backbones of the papers that MMSegmentation lacks."""

from .resnet import CeilPoolResNetV1c

__all__ = ['CeilPoolResNetV1c']
