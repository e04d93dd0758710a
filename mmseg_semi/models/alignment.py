"""Distribution alignment: pseudo-labels with the class shares of the labeled images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .batch import LabeledImages
from .memory import OncePerStep

DECAY = 0.99


class DistributionAlignment(OncePerStep):
    """Distribution alignment of "ReMixMatch" (ICLR 2020, Sec. 3.1), over the pixels of images.

    The probability p of a class is multiplied by the ratio of two running means, and then normalized:

        p' ~ p * (share of the class among labeled pixels) / (mean of p over unlabeled pixels)

    A class that a network predicts too often becomes less probable, and one that it forgets becomes more
    probable. The means follow each optimizer step with a decay of 0.99; during the first steps they are plain
    means. There is no alignment before the first step has ended.

    Args:
        num_classes (int): C.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(2, num_classes)
        self.register_buffer('shares', torch.zeros(2, num_classes))
        self.register_buffer('steps', torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, logits: Tensor, real: Tensor, labeled: LabeledImages) -> Tensor:
        """Align small logits of unlabeled images, and collect what both kinds of images show.

        Args:
            logits (Tensor): (N, C, h, w).
            real (Tensor): bool (N, H, W), False on padding.
            labeled (LabeledImages): The labeled images of the batch.

        Returns:
            Tensor: float32 (N, C, h, w).
        """
        logits = logits.float()
        num_classes = logits.shape[1]
        weight = F.adaptive_avg_pool2d(real[:, None].float(), logits.shape[-2:])
        probs = (logits.softmax(dim=1) * weight).sum(dim=(0, 2, 3))
        pixels = real.sum()
        share = probs / probs.sum().clamp(min=torch.finfo(probs.dtype).tiny)
        # Void falls into a bin of its own.
        bins = labeled.label.clamp(max=num_classes).flatten()
        counts = bins.new_zeros(num_classes + 1).scatter_add_(0, bins, torch.ones_like(bins))[:-1]
        known = counts.sum()
        means = torch.stack([counts / known.clamp(min=1), share])
        aligned = logits + self.offset()[:, None, None]
        self.collect(means[None], torch.stack([known, pixels])[None])
        return aligned

    def offset(self) -> Tensor:
        """What is added to the logits of each class: the logarithm of the ratio, float32 (C,)."""
        smallest = 1e-6
        labeled, unlabeled = self.shares.clamp(min=smallest).log()
        return torch.where(self.steps > 0, labeled - unlabeled, torch.zeros_like(labeled))

    @torch.no_grad()
    def follow(self, means: Tensor, counts: Tensor) -> dict[str, Tensor]:
        """Move both shares (2, C) towards those of a step."""
        self.steps += (counts > 0).all()
        weight = (1 / self.steps.clamp(min=1).float()).clamp(min=1 - DECAY)
        present = (counts > 0).all() & means.isfinite().all()
        moved = self.shares + weight * (means - self.shares)
        self.shares.copy_(torch.where(present, moved, self.shares))
        return {}
