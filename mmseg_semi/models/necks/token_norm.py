"""The normalization that heads on a vision transformer's intermediate layers expect."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class TokenNorm(BaseModule):
    """One LayerNorm over the channels of every place of every map.

    DINOv2's segmentation heads and UniMatch V2's DPT read each intermediate layer through the encoder's final
    LayerNorm (``get_intermediate_layers`` of facebookresearch/dinov2), whose scale and shift all layers share.
    mmpretrain's VisionTransformer applies it to the last layer alone, so this neck has it instead. Its weights
    are learned with the encoder; ``init_cfg`` loads them from the encoder's checkpoint, where they are named
    ``backbone.ln1``. No neck of MMSegmentation normalizes over channels.

    Args:
        channels (int): Channels D of the maps.
        eps (float): Added to the variance; DINOv2's.
        init_cfg (dict, optional): Where the weights come from; by default the scale is 1 and the shift 0.
    """

    def __init__(self, channels: int, eps: float = 1e-6, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (N, D, h, w) in, maps of the same shapes out."""
        return tuple(self._normalize(feature) for feature in features)

    def _normalize(self, feature: Tensor) -> Tensor:
        tokens = feature.movedim(1, -1)
        return F.layer_norm(tokens, self.weight.shape, self.weight, self.bias, self.eps).movedim(
            -1, 1
        )
