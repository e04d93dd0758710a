"""The DeepLabv3+ decoder of the semi-supervised segmentation papers."""

from __future__ import annotations

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import ASPPHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class PlainDeepLabV3PlusHead(ASPPHead):
    """DeepLabv3+ decoder with plain convolutions, as in iMAS's code.

    MMSegmentation's ``DepthwiseSeparableASPPHead`` has depthwise separable convolutions in ASPP and decoder,
    and a 3x3 convolution after the ASPP. This head has plain convolutions, and a 1x1 convolution after the
    ASPP. The arguments are the same.

    Args:
        c1_in_channels (int): Channels of the low-level features, the first output of the backbone.
        c1_channels (int): Channels of the low-level features after their 1x1 convolution.
        **kwargs: Arguments of :class:`mmseg.models.decode_heads.ASPPHead`.
    """

    def __init__(self, c1_in_channels: int, c1_channels: int, **kwargs) -> None:
        super().__init__(**kwargs)
        cfg = {'conv_cfg': self.conv_cfg, 'norm_cfg': self.norm_cfg, 'act_cfg': self.act_cfg}
        # The ASPP returns one map per dilation rate and one of global pooling.
        self.bottleneck = ConvModule(
            (len(self.dilations) + 1) * self.channels, self.channels, 1, **cfg
        )
        self.c1_bottleneck = ConvModule(c1_in_channels, c1_channels, 1, **cfg)
        self.decoder = nn.Sequential(
            ConvModule(self.channels + c1_channels, self.channels, 3, padding=1, **cfg),
            ConvModule(self.channels, self.channels, 3, padding=1, **cfg),
        )

    def _forward_feature(self, inputs: list[Tensor]) -> Tensor:
        """Return the features (N, channels, h, w) before the classifier, in the size of the low-level ones."""
        low = self.c1_bottleneck(inputs[0])
        high = resize(
            super()._forward_feature(inputs),
            size=low.shape[2:],
            mode='bilinear',
            align_corners=self.align_corners,
        )
        return self.decoder(torch.cat([low, high], dim=1))
