"""Modules of CorrMatch for training: correlation maps of features, and an adaptive threshold."""

from __future__ import annotations

import torch
from mmengine.dist import all_gather
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from torch import Tensor, nn

from ..functional.correlation import class_maxima, correlation_map, propagate_logits
from .features import last_decoded_stage, stage_map
from .heads import conv_stack
from .memory import OncePerStep
from .settings import MethodSettings, setting


class Correlator(nn.Module):
    """Correlate projected features of the last encoder stage of a head, and propagate the head's logits.

    Args:
        head (BaseDecodeHead): Defines the stage, the normalization and the number of classes.
        cfg (Correlator.Settings): Settings of the method.
    """

    class Settings(MethodSettings):
        channels: int = setting(256, 'Channels of the correlated features.', low=1, source='code')
        projector_dropout: float = setting(
            0.1, 'Fraction of these channels that is dropped.', low=0, below=1, source='code'
        )
        num_regions: int = setting(
            128, 'Sampled pixels per image for label propagation.', low=0, source='code'
        )
        region_threshold: float = setting(
            0.5,
            'Threshold of the scaled correlation for pixels of a region.',
            low=0,
            below=1,
            source='code',
        )
        tau_start: float = setting(
            0.85, 'Initial confidence threshold.', low=0, high=1, source='code'
        )
        tau_decay: float = setting(
            0.999,
            'Weight of the old threshold in its moving average.',
            low=0,
            high=1,
            source='code',
        )

    def __init__(self, head: BaseDecodeHead, cfg: Settings) -> None:
        super().__init__()
        self.num_regions = cfg.num_regions
        self.index, self.in_channels = last_decoded_stage(head)
        self.align_corners = head.align_corners
        self.projector = conv_stack(head, self.in_channels, 1, cfg.channels)
        self.dropout = nn.Dropout2d(cfg.projector_dropout)
        self.query = nn.Conv2d(cfg.channels, head.num_classes, 1)
        self.key = nn.Conv2d(cfg.channels, head.num_classes, 1)

    def forward(self, features: list[Tensor], logits: Tensor) -> tuple[Tensor, Tensor]:
        """Correlate the pixels of each image.

        Args:
            features (list[Tensor]): Stages of the encoder.
            logits (Tensor): (N, C, h', w') of the head; detached.

        Returns:
            tuple[Tensor, Tensor]: Propagated logits (N, C, h, w) at the resolution of the stage, and the
            correlation maps (N, hw, hw).
        """
        stage = stage_map(features, self.index, self.in_channels)
        projected = self.dropout(self.projector(stage))
        correlation = correlation_map(self.query(projected), self.key(projected))
        small = resize(logits.detach(), stage.shape[-2:], None, 'bilinear', self.align_corners)
        return propagate_logits(small, correlation), correlation

    @torch.no_grad()
    def sample_rows(self, correlation: Tensor, features: list[Tensor]) -> Tensor:
        """Sample M pixels on the host, the same in all images, and return their rows (N, M, h, w) of the maps.

        The correlation maps are (N, hw, hw).
        """
        grid = stage_map(features, self.index, self.in_channels).shape[-2:]
        places = torch.randint(grid.numel(), (self.num_regions,))
        return correlation[:, places.to(correlation.device, non_blocking=True)].unflatten(2, grid)


class AdaptiveThreshold(OncePerStep):
    """Confidence threshold: a moving average of the mean over classes of their largest confidence.

    It is updated once per optimizer step.

    Args:
        num_classes (int): C.
        cfg (Correlator.Settings): Defines the initial value and the weight of the old value.
    """

    def __init__(self, num_classes: int, cfg: Correlator.Settings) -> None:
        super().__init__(num_classes, 1)
        self.decay = cfg.tau_decay
        self.register_buffer('value', torch.tensor(float(cfg.tau_start)))

    def observe(self, label: Tensor, confidence: Tensor, valid: Tensor) -> None:
        """Collect the labels, confidences and valid pixels (N, H, W) of a micro-batch."""
        maxima = class_maxima(label, confidence, len(self.pending_counts), valid)[None]
        self.collect(maxima[..., None], (maxima > 0).long())

    @torch.no_grad()
    def collect(self, means: Tensor, counts: Tensor) -> None:
        """Update the maxima of the classes by (N, C, 1); ``counts`` (N, C) is 0 for absent classes."""
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
        # A step that the loss scaler skips can have non-finite confidences.
        present = (counts > 0) & means[:, 0].isfinite()
        mean = means[:, 0].masked_fill(~present, 0).sum() / present.sum().clamp(min=1)
        moved = self.decay * self.value + (1 - self.decay) * mean
        self.value.copy_(torch.where(present.any(), moved, self.value))
        return {'threshold': self.value.clone()}
