"""What CorrMatch adds to a network in training: correlation maps of its features, and its adaptive threshold."""

from __future__ import annotations

import torch
from mmengine.dist import all_gather
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from torch import Tensor, nn

from ..functional.correlation import correlation_map, propagate_logits
from .features import last_decoded_stage, stage_map
from .heads import conv_stack
from .memory import OncePerStep


class Correlator(nn.Module):
    """Correlates projected features of the last encoder stage that a head reads, and propagates its logits.

    Args:
        head (BaseDecodeHead): Gives the stage, the normalization and the number of classes.
        channels (int): Of the projected features.
        dropout_ratio (float): Share of these channels dropped in training.
    """

    def __init__(self, head: BaseDecodeHead, channels: int, dropout_ratio: float) -> None:
        super().__init__()
        self.index, self.in_channels = last_decoded_stage(head)
        self.align_corners = head.align_corners
        self.projector = conv_stack(head, self.in_channels, 1, channels)
        self.dropout = nn.Dropout2d(dropout_ratio)
        self.query = nn.Conv2d(channels, head.num_classes, 1)
        self.key = nn.Conv2d(channels, head.num_classes, 1)

    def forward(self, features: list[Tensor], logits: Tensor) -> tuple[Tensor, Tensor]:
        """Correlate the pixels of each image.

        Args:
            features (list[Tensor]): Stages of the encoder.
            logits (Tensor): (N, C, h', w') of the head; no gradient flows into them.

        Returns:
            tuple[Tensor, Tensor]: Propagated logits (N, C, h, w) on the stage's grid, and the correlation
            maps (N, hw, hw).
        """
        stage = stage_map(features, self.index, self.in_channels)
        projected = self.dropout(self.projector(stage))
        correlation = correlation_map(self.query(projected), self.key(projected))
        small = resize(logits.detach(), stage.shape[-2:], None, 'bilinear', self.align_corners)
        return propagate_logits(small, correlation), correlation


class AdaptiveThreshold(OncePerStep):
    """A confidence that follows the mean over classes of their largest confidence, once per optimizer step.

    Args:
        num_classes (int): C.
        start (float): Value before the first step.
        decay (float): Weight of the old value.
    """

    def __init__(self, num_classes: int, start: float, decay: float) -> None:
        super().__init__(num_classes, 1)
        self.decay = decay
        self.register_buffer('value', torch.tensor(float(start)))

    @torch.no_grad()
    def collect(self, means: Tensor, counts: Tensor) -> None:
        """Keep the larger ones of the classes' maxima (N, C, 1); ``counts`` (N, C) is 0 for absent classes."""
        self.pending_sums.copy_(torch.maximum(self.pending_sums, means.amax(dim=0)))
        self.pending_counts += counts.sum(dim=0)

    @torch.no_grad()
    def commit(self) -> dict[str, Tensor]:
        maxima = torch.stack(all_gather(self.pending_sums)).amax(dim=0)
        counts = torch.stack(all_gather(self.pending_counts)).sum(dim=0)
        self.discard()
        return self.follow(maxima, counts)

    @torch.no_grad()
    def follow(self, means: Tensor, counts: Tensor) -> dict[str, Tensor]:
        present = counts > 0
        mean = (means[:, 0] * present).sum() / present.sum().clamp(min=1)
        moved = self.decay * self.value + (1 - self.decay) * mean
        self.value.copy_(torch.where(present.any(), moved, self.value))
        return {'threshold': self.value.clone()}
