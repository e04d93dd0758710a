"""The normalisation that heads on a vision transformer's intermediate layers expect."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class TokenNorm(nn.Module):
    """Give every place of every map mean 0 and variance 1 over its channels.

    DINOv2's own segmentation heads read intermediate layers through the encoder's last LayerNorm
    (``get_intermediate_layers`` of facebookresearch/dinov2); mmpretrain's VisionTransformer has it behind
    the last layer alone. This is that LayerNorm without its scale and shift, which the 1x1 projections behind
    it learn anyway. No neck of MMSegmentation normalises over channels.

    Args:
        eps (float): Added to the variance; DINOv2's.
    """

    def __init__(self, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (N, D, h, w) in, maps of the same shapes out."""
        return tuple(self._normalize(feature) for feature in features)

    def _normalize(self, feature: Tensor) -> Tensor:
        tokens = feature.movedim(1, -1)
        return F.layer_norm(tokens, tokens.shape[-1:], eps=self.eps).movedim(-1, 1)
