"""The ResNet of the semi-supervised segmentation papers."""

from __future__ import annotations

from mmseg.models.backbones import ResNetV1c
from mmseg.registry import MODELS


@MODELS.register_module()
class CeilPoolResNetV1c(ResNetV1c):
    """ResNetV1c whose max-pool rounds sizes up, as in the code of U2PL, iMAS and others.

    With ``stem_channels=128`` (three 3x3 convolutions of 64, 64 and 128 channels) this is their encoder. It
    takes the weights of ResNetV1c. Rounding matters where the stem's output has an even side (whole
    images, not crops of 8k + 1 pixels): the map of an image of side 500 has 126 cells at stride 4, not 125.

    Args:
        **kwargs: Of :class:`mmseg.models.backbones.ResNetV1c`.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.maxpool.ceil_mode = True
