"""Decode heads of the papers that MMSegmentation lacks."""

from .plain_deeplabv3plus_head import PlainDeepLabV3PlusHead

__all__ = ['PlainDeepLabV3PlusHead']
