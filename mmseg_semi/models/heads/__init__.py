"""Decode heads of the papers that MMSegmentation lacks, and access to the features of any head."""

from .feature_map_dpt_head import FeatureMapDPTHead
from .feature_tap import DeepClassifierHead, TappedLogits, conv_stack, install_tap, tapped, tapping
from .plain_deeplabv3plus_head import PlainDeepLabV3PlusHead
from .prototype_classifier import PrototypeClassifier, PrototypeHead

__all__ = [
    'DeepClassifierHead',
    'FeatureMapDPTHead',
    'PlainDeepLabV3PlusHead',
    'PrototypeClassifier',
    'PrototypeHead',
    'TappedLogits',
    'conv_stack',
    'install_tap',
    'tapped',
    'tapping',
]
