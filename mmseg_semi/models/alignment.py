"""Distribution alignment: pseudo-labels with the class shares of the labeled images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .memory import OncePerStep

#: Weight of the past in the running shares. ReMixMatch averages over 128 batches.
DECAY = 0.99
#: Lower bound of shares before division or logarithm.
SMALLEST = 1e-6


class DistributionAlignment(OncePerStep):
    """Distribution alignment of "ReMixMatch" (ICLR 2020, Sec. 3.1), for pixels.

    The probability p of each class is multiplied by a ratio of two running means, and normalized again:

        p' ∝ p * (share of the class among the labeled pixels) / (mean of p over the unlabeled pixels)

    A class that the network predicts too often becomes less probable, and one that it forgets becomes more
    probable. The ratio changes once per optimizer step. It is 1 during the first step.

    Args:
        num_classes (int): C.

    Attributes:
        shares (Tensor): float32 (2, C), the running means of labeled and of unlabeled pixels.
        steps (Tensor): int64 scalar, the optimizer steps behind them.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(2, num_classes)
        self.register_buffer('shares', torch.zeros(2, num_classes))
        self.register_buffer('steps', torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, logits: Tensor, real: Tensor, label: Tensor) -> Tensor:
        """Align the logits of unlabeled images, and collect the class shares of a micro-batch.

        Args:
            logits (Tensor): (N, C, h, w) of the unlabeled images.
            real (Tensor): bool (N, H, W), False on padding, which is not counted.
            label (Tensor): int64 (B, H, W) of the labeled images, 255 for void.

        Returns:
            Tensor: float32 (N, C, h, w).
        """
        logits, num_classes = logits.float(), logits.shape[1]
        weight = F.adaptive_avg_pool2d(real[:, None].float(), logits.shape[-2:])
        probs = (logits.softmax(dim=1) * weight).sum(dim=(0, 2, 3))
        # Void has its own bin.
        bins = label.clamp(max=num_classes).flatten()
        counts = bins.new_zeros(num_classes + 1).scatter_add_(0, bins, torch.ones_like(bins))[:-1]
        means = [one / one.sum().clamp(min=SMALLEST) for one in (counts.float(), probs)]
        self.collect(torch.stack(means)[None], torch.stack([counts.sum(), real.sum()])[None])
        return logits + self.offset[:, None, None]

    @property
    def offset(self) -> Tensor:
        """Offset of the logits of each class, float32 (C,): the logarithm of the ratio."""
        labeled, unlabeled = self.shares.clamp(min=SMALLEST).log()
        return labeled - unlabeled

    @torch.no_grad()
    def follow(self, means: Tensor, counts: Tensor) -> dict[str, Tensor]:
        """Update both shares (2, C) by the means of a step. The first steps have equal weights.

        A step without labeled or without unlabeled pixels, or with a non-finite mean, is ignored.
        """
        counted = (counts > 0).all() & means.isfinite().all()
        self.steps += counted
        weight = self.steps.clamp(min=1).float().reciprocal().clamp(min=1 - DECAY)
        moved = torch.lerp(self.shares, means, weight)
        self.shares.copy_(torch.where(counted, moved, self.shares))
        return {'alignment_ratio': self.offset.abs().max().exp()}
