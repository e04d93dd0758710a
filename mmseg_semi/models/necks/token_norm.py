"""Normalization of a vision transformer's intermediate layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class TokenNorm(BaseModule):
    """LayerNorm over the channels at every position of every map.

    DINOv2's segmentation heads and UniMatch V2's DPT head apply the final LayerNorm of the encoder to each
    intermediate layer, with the same scale and shift (``get_intermediate_layers`` of
    facebookresearch/dinov2). mmpretrain's VisionTransformer only applies it to the last layer, so this neck
    replaces it. Its weights are trained with the encoder. ``init_cfg`` loads them from the encoder's
    checkpoint, in which they are called ``backbone.ln1``.

    Args:
        channels (int): Channels D of the maps.
        eps (float): Added to the variance. The default is that of DINOv2.
        init_cfg (dict, optional): Initialization of the weights. Default: scale 1 and shift 0.
    """

    def __init__(self, channels: int, eps: float = 1e-6, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Normalize maps (N, D, h, w). The shapes do not change."""
        return tuple(self._normalize(feature) for feature in features)

    def _normalize(self, feature: Tensor) -> Tensor:
        tokens = feature.movedim(1, -1)
        return F.layer_norm(tokens, self.weight.shape, self.weight, self.bias, self.eps).movedim(
            -1, 1
        )
