"""Class shares of the unlabeled images: align the pseudo-labels, or adjust the logits that learn from them.

Pseudo-labels contain too few pixels of rare classes. Distribution alignment changes the pseudo-labels until
their shares are those of the labeled pixels. Logit adjustment keeps the pseudo-labels, and keeps the student
from learning their shares.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..functional.pseudo_label import class_counts
from .memory import OncePerStep
from .settings import MethodSettings, setting

#: Weight of the past in the running shares. ReMixMatch averages over 128 batches.
DECAY = 0.99
#: Lower bound of shares in a divisor or logarithm.
SMALLEST = 1e-6
#: Bounds of the ratio of logit adjustment. A class without pseudo-labels is common, and its logit must hardly
#: fall. A class that is hardly labeled has a large ratio by chance, for example in the first steps.
RATIOS = (0.01, 10)


class LabeledWeights(NamedTuple):
    """Class weights of the L losses of the labeled pixels.

    Attributes:
        class_weight (Tensor): float32 (L, C), 1 for a loss without class weights.
        loss_weight (Tensor): float32 (L,), the weight of each loss; their sum is 1.
        divided (Tensor): bool (L,), whether a loss is divided by the sum of the weights of its pixels, and not
            by their number.
    """

    class_weight: Tensor
    loss_weight: Tensor
    divided: Tensor


class AdjustmentSettings(MethodSettings):
    """Setting of the methods with logit adjustment."""

    adjust_logits: bool = setting(
        False,
        "Logit adjustment: the unlabeled loss does not teach the student the pseudo-labels' class shares.",
        source='Menon et al., ICLR 2021; DebiasPL, CVPR 2022',
    )


class ClassShares(OncePerStep):
    """Running means of the class shares of the labeled and of the unlabeled pixels.

    They change once per optimizer step.

    Args:
        num_classes (int): C.

    Attributes:
        shares (Tensor): float32 (2, C), the running means of labeled and of unlabeled pixels. Those of labeled
            pixels with class weights need not sum to 1.
        steps (Tensor): int64 scalar, the optimizer steps behind them.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(2, num_classes)
        self.register_buffer('shares', torch.zeros(2, num_classes))
        self.register_buffer('steps', torch.zeros((), dtype=torch.int64))

    @property
    @abstractmethod
    def offset(self) -> Tensor:
        """Offset of the logits of each class, float32 (C,): the logarithm of a ratio of both shares."""

    @abstractmethod
    def log(self) -> dict[str, Tensor]:
        """Return scalars for the log."""

    def count(self, label: Tensor, valid_mask: Tensor | None = None) -> Tensor:
        """Count the pixels of each class, int64 (C,), in labels of any shape. Void is not counted."""
        return class_counts(label, self.shares.shape[1], valid_mask)

    def observe(self, labeled: Tensor, unlabeled: Tensor, *pixels: Tensor) -> None:
        """Collect the shares of a micro-batch.

        Args:
            labeled (Tensor): float32 (C,), the share of each class in the labeled pixels.
            unlabeled (Tensor): (C,), the sum of the probabilities of each class, or the number of its
                pseudo-labels.
            *pixels (Tensor): int64 scalars, the number of labeled and of unlabeled pixels.
        """
        counts, unlabeled = torch.stack(pixels), unlabeled.float()
        means = torch.stack([labeled, unlabeled / unlabeled.sum().clamp(min=SMALLEST)])
        self.collect(means[None], counts[None])

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
        return self.log()


class DistributionAlignment(ClassShares):
    """Distribution alignment of "ReMixMatch" (ICLR 2020, Sec. 3.1), for pixels.

    The probability p of each class is multiplied by a ratio of two running means, and normalized again:

        p' ∝ p * (share of the class among the labeled pixels) / (mean of p over the unlabeled pixels)

    A class that the network predicts too often becomes less probable, and one that it forgets becomes more
    probable. The ratio is 1 during the first step. A training that starts from a checkpoint with these shares
    continues them.

    Args: see :class:`ClassShares`.
    """

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
        logits = logits.float()
        weight = F.adaptive_avg_pool2d(real[:, None].float(), logits.shape[-2:])
        probs = (logits.softmax(dim=1) * weight).sum(dim=(0, 2, 3))
        counts = self.count(label)
        total = counts.sum()
        self.observe(counts / total.clamp(min=1), probs, total, real.sum())
        return logits + self.offset[:, None, None]

    @property
    def offset(self) -> Tensor:
        labeled, unlabeled = self.shares.clamp(min=SMALLEST).log()
        return labeled - unlabeled

    def log(self) -> dict[str, Tensor]:
        return {'alignment_ratio': self.offset.abs().max().exp()}


class LogitAdjustment(ClassShares):
    """Logit adjustment of the student's loss on pseudo-labels.

    Sources: "Long-tail learning via logit adjustment" (ICLR 2021), and the adaptive margins of "Debiased
    Learning from Naturally Imbalanced Pseudo-Labels" (CVPR 2022). There, the class shares are compared with
    uniform ones, and here with those of the labeled images.

    The loss of the unlabeled images has the student's logits z plus the logarithm of a ratio:

        z' = z + log((share of the class among the pseudo-labels) / (its share among the labeled pixels))

    If z predicts the shares of the labeled images, z' predicts those of the pseudo-labels, and the loss leaves
    the shares as they are. The pixels of other classes hardly lower the logit of a class without pseudo-labels,
    which would otherwise be forgotten. The ratio is 1 during the first step, and is kept between 0.01 and 10. A
    training that starts from a checkpoint with these shares continues them.

    A labeled loss with class weights teaches z the weighted shares. Therefore, each labeled pixel counts by the
    weight of its class. ``PixelCrossEntropyLoss`` is divided by the number of pixels, and MMSegmentation's
    ``CrossEntropyLoss`` by the sum of their weights. So with the first, a batch with many pixels of heavy
    classes counts more. All unlabeled pixels count equally, even if the loss weights the images.

    Args:
        num_classes (int): C.
        weights (LabeledWeights, optional): Class weights of the labeled losses.
    """

    def __init__(self, num_classes: int, weights: LabeledWeights | None = None) -> None:
        super().__init__(num_classes)
        if weights is None:
            weights = LabeledWeights(
                torch.ones(1, num_classes), torch.ones(1), torch.zeros(1, dtype=torch.bool)
            )
        for name, value in weights._asdict().items():
            self.register_buffer(name, value, persistent=False)

    def forward(
        self, logits: Sequence[Tensor], pseudo_label: Tensor, confident: Tensor, label: Tensor
    ) -> list[Tensor]:
        """Adjust the logits of the student's views, and collect the class shares of a micro-batch.

        Args:
            logits (sequence of Tensor): (N, C, h, w) of each view.
            pseudo_label (Tensor): int64 (N, H, W) before CutMix, 255 for ignored pixels.
            confident (Tensor): bool (N, H, W), True where the confidence reaches the threshold.
            label (Tensor): int64 (B, H, W) of the labeled images, 255 for void.

        Returns:
            list[Tensor]: (N, C, h, w) of each view, at least float32.
        """
        labeled = self.count(label)
        counts = self.count(pseudo_label, confident)
        # The mean share of the steps, as the loss is a mean over the pixels of each step.
        weighted = self.class_weight * labeled
        divisor = torch.where(self.divided, weighted.sum(dim=1), labeled.sum())
        share = (self.loss_weight[:, None] * weighted / divisor.clamp(min=SMALLEST)[:, None]).sum(0)
        self.observe(share, counts, labeled.sum(), counts.sum())
        offset = self.offset[:, None, None]
        return [one + offset for one in logits]

    @property
    def offset(self) -> Tensor:
        labeled, unlabeled = self.shares
        labeled = labeled / labeled.sum().clamp(min=SMALLEST)
        ratio = unlabeled / labeled.clamp(min=SMALLEST)
        # Before the first step, and for a class that neither labels nor pseudo-labels have.
        unseen = (self.shares == 0).all(dim=0)
        return ratio.masked_fill(unseen, 1).clamp(*RATIOS).log()

    def log(self) -> dict[str, Tensor]:
        return {'adjustment_ratio': self.offset.min().exp()}
