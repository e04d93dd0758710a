"""The ResNet of the semi-supervised segmentation papers."""

from __future__ import annotations

from mmseg.models.backbones import ResNetV1c
from mmseg.registry import MODELS


@MODELS.register_module()
class CeilPoolResNetV1c(ResNetV1c):
    """ResNetV1c whose max pooling rounds sizes up, as in the code of U2PL, iMAS and others.

    With ``stem_channels=128`` (three 3x3 convolutions with 64, 64 and 128 channels) this is their encoder. The
    weights are those of ResNetV1c. Rounding matters if the output of the stem has an even side, as for whole
    images but not for crops of 8k + 1 pixels: an image with side 500 has 126 instead of 125 cells at stride 4.

    Args:
        **kwargs: Arguments of :class:`mmseg.models.backbones.ResNetV1c`.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.maxpool.ceil_mode = True
