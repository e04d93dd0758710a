"""Contrastive loss of U2PL with unreliable pixels as negative samples."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..functional.contrast import (
    class_mean,
    drawn_contrast_logits,
    pixels_at,
    sample_entries,
    sample_places,
)
from ..functional.parts import masked_average_pool
from ..functional.reliability import class_rank, labeled_negatives, unlabeled_negatives
from .features import at_least_float
from .memory import NegativeMemoryBank
from .settings import MethodSettings, setting


class ContrastPixels(NamedTuple):
    """Labels and masks of B labeled and N mixed images, at the resolution of the features.

    Attributes:
        truth (Tensor): int64 (B, h, w), ground truth, 255 for void.
        pseudo (Tensor): int64 (N, h, w), pseudo-labels of all pixels that count, 255 elsewhere.
        candidates (Tensor): int64 (N, h, w), pseudo-labels of pixels that may be anchors, 255 elsewhere.
        unreliable (Tensor): bool (N, h, w), True for pixels that may be negatives.
    """

    truth: Tensor
    pseudo: Tensor
    candidates: Tensor
    unreliable: Tensor


class NegativeContrast(nn.Module):
    """The contrastive loss of U2PL (Sec. 3.3, Eq. 4) and its memory bank.

    Anchors of class c are the student's representations of labeled pixels of c and of candidates with the
    pseudo-label c, if the teacher's probability of c exceeds delta_p. The loss pulls them towards z_c+, the
    mean of the teacher's representations of these pixels, and away from negatives in the bank of c,

        L_c = 1/C Σ_c mean over anchors z of
              -log(e^{cos(z, z_c+)/tau} / (e^{cos(z, z_c+)/tau} + Σ_n e^{cos(z, n)/tau})).

    The bank of c stores the teacher's representations of two kinds of pixels: unreliable pixels in which c has
    a rank from r_l to r_h, and labeled pixels of another class in which c has a rank below r_l. The most
    probable class has rank 0. A class without anchors or with an empty bank contributes 0.

    Args:
        cfg (Settings): Settings of the loss.
        num_classes (int): C.
        channels (int): D of the representations.

    Raises:
        ValueError: ``cfg.low_rank`` is not a rank of these classes.
    """

    class Settings(MethodSettings):
        negatives: Literal['paper', 'code'] = setting(
            'paper',
            'Pixels in the bank of a class: unreliable and labeled ones, or unreliable ones with its '
            'pseudo-label (code).',
            source='Sec. 3.3',
            reading='pixels that enter the memory bank',
        )
        anchor_threshold: float = setting(
            0.3, 'delta_p, probability threshold of anchors.', low=0, high=1, source='paper'
        )
        center_pixels: Literal['anchors', 'all'] = setting(
            'anchors',
            'Pixels whose mean is z_c+: possible anchors, or also pixels at or below delta_p (code).',
            source='paper',
            reading='pixels whose mean is z_c+',
        )
        num_anchors: int = setting(
            50, 'M, anchors per class.', low=1, source='paper; code 256', reading='M, per class'
        )
        num_negatives: int = setting(
            256, 'N, negatives per anchor.', low=1, source='paper; code 50', reading='N, per anchor'
        )
        temperature: float = setting(
            0.5, 'tau.', above=0, source='Eq. 4', hint='The paper has 0.5.'
        )
        class_average: Literal['all', 'present'] = setting(
            'all',
            'Divisor of the sum over classes: C, or the number of classes with an anchor (code).',
            source='Eq. 4',
            reading='divisor of L_c',
        )
        low_rank: int = setting(
            3, 'r_l, first rank at which unreliable pixels are negatives.', low=0, source='paper'
        )
        high_rank: int = setting(20, 'r_h, end of these ranks, exclusive.', low=1, source='paper')
        queue_size: int = setting(
            30000, 'Entries of the queue of each class.', low=1, source='code'
        )
        background_queue_size: int = setting(
            50000, 'Entries of the queue of class 0.', low=1, source='code'
        )
        keys_per_step: int = setting(
            1024,
            'New negatives of a class that each process samples and stores per micro-batch. Code: all.',
            low=1,
            reading='negatives of a class stored in a micro-batch',
        )

        def check(self) -> None:
            super().check()
            if self.high_rank <= self.low_rank:
                raise ValueError(
                    f'semi_train_cfg.high_rank must be above low_rank={self.low_rank}, got {self.high_rank}. '
                    'Raise high_rank or lower low_rank.'
                )

    def __init__(self, cfg: Settings, num_classes: int, channels: int) -> None:
        super().__init__()
        if cfg.low_rank >= num_classes:
            raise ValueError(
                f'semi_train_cfg.low_rank must be below the number of classes, {num_classes}, got '
                f'{cfg.low_rank}. Set it to at most {num_classes - 1}.'
            )
        self.cfg, self.num_classes = cfg, num_classes
        sizes = cfg.queue_size, cfg.background_queue_size
        self.bank = NegativeMemoryBank(num_classes, *sizes, channels)

    @torch.no_grad()
    def remember(
        self, features: Tensor, logits: Tensor, pixels: ContrastPixels
    ) -> tuple[Tensor, Tensor]:
        """Select possible anchors, average them by class, and store new negatives (Sec. 3.3).

        Args:
            features (Tensor): (B + N, D, h, w), the teacher's representations.
            logits (Tensor): (B + N, C, h, w) of the teacher.
            pixels (ContrastPixels): Labels and masks of these images.

        Returns:
            tuple: int64 (B + N, h, w), the classes of possible anchors, 255 elsewhere; and z_c+ (C, D).
        """
        probs = at_least_float(logits).softmax(dim=1)
        label = torch.cat([pixels.truth, pixels.candidates])
        anchors = self.anchors(probs, label)
        self.store(features, self.negatives(probs, pixels))
        averaged = anchors if self.cfg.center_pixels == 'anchors' else label
        return anchors, self.centers(features, averaged)

    def anchors(self, probs: Tensor, label: Tensor) -> Tensor:
        """Return the label map, with 255 where the probability of the label does not exceed delta_p."""
        own = probs.gather(1, label.masked_fill(label == 255, 0)[:, None])[:, 0]
        return label.masked_fill(own <= self.cfg.anchor_threshold, 255)

    def negatives(self, probs: Tensor, pixels: ContrastPixels) -> Tensor:
        """Return bool (B + N, C, h, w), the classes for which a pixel is a negative."""
        cfg = self.cfg
        ranks = class_rank(probs).split([len(pixels.truth), len(pixels.pseudo)])
        labeled = labeled_negatives(ranks[0], pixels.truth, cfg.low_rank)
        unlabeled = unlabeled_negatives(ranks[1], pixels.unreliable, cfg.low_rank, cfg.high_rank)
        if cfg.negatives == 'code':
            classes = torch.arange(self.num_classes, device=probs.device)[:, None, None]
            labeled = torch.zeros_like(labeled)
            unlabeled = unlabeled & (pixels.pseudo[:, None] == classes)
        return torch.cat([labeled, unlabeled])

    def store(self, features: Tensor, negatives: Tensor) -> None:
        """Push a sample of the negatives of each class into its queue, with the same size on every rank."""
        place = sample_places(negatives.transpose(0, 1).flatten(1), self.cfg.keys_per_step).t()
        keys = pixels_at(features, place.flatten()).unflatten(0, place.shape)
        self.bank.append(keys, place >= 0)

    def centers(self, features: Tensor, label: Tensor) -> Tensor:
        """Return the mean (C, D) of the features (M, D, h, w) of each class in a label map (M, h, w)."""
        one_part = torch.zeros_like(label)
        means, counts = masked_average_pool(features, label, one_part, self.num_classes, 1)
        sums = (means * counts[..., None]).sum(dim=0)[:, 0]
        return sums / counts.sum(dim=0).clamp(min=1)

    def loss(self, features: Tensor, anchors: Tensor, centers: Tensor) -> tuple[Tensor, dict]:
        """Return Eq. 4, and scalars for the log.

        Args:
            features (Tensor): (B + N, D, h, w), the student's representations.
            anchors (Tensor): int64 (B + N, h, w), see :meth:`remember`.
            centers (Tensor): (C, D).
        """
        classes = torch.arange(self.num_classes, device=features.device)
        place = sample_places(anchors.flatten() == classes[:, None], self.cfg.num_anchors)
        drawn = pixels_at(features, place.flatten()).unflatten(0, place.shape)
        queue = classes[:, None, None].expand(*place.shape, self.cfg.num_negatives)
        rows = sample_entries(queue, self.bank.fill, self.bank.starts)
        terms = self.similarities(drawn, centers, rows)
        there = place >= 0
        label, counted = classes[:, None].expand_as(place).flatten(), there.flatten()
        loss = class_mean(terms.logsumexp(1) - terms[:, 0], label, counted, self.num_classes)
        present = there.any(dim=1)
        if self.cfg.class_average == 'present':
            loss = loss * (self.num_classes / present.sum().clamp(min=1))
        with torch.no_grad():
            compared = counted & (rows >= 0).any(dim=2).flatten()
            right = compared & (terms[:, 0] > terms[:, 1:].amax(dim=1))
        return loss, {
            'contrast_accuracy': right.sum() / compared.sum().clamp(min=1),
            'anchor_classes_ratio': present.float().mean(),
            'bank_fill_ratio': (self.bank.fill / self.bank.limits).mean(),
        }

    def similarities(self, anchors: Tensor, centers: Tensor, rows: Tensor) -> Tensor:
        """Return cosine / tau of anchors (C, M, D) with centers (C, D) and with negatives, (C · M, 1 + N).

        ``rows`` (C, M, N), int64, are the rows of the negatives in the bank. -1 means no negative and gives
        -inf.
        """
        # Class by class, so that only one class needs temporary memory.
        terms = [
            drawn_contrast_logits(
                anchors[c],
                centers[c].expand_as(anchors[c]),
                self.bank.entries[rows[c].clamp(min=0)],
                rows[c] >= 0,
                self.cfg.temperature,
            )
            for c in range(self.num_classes)
        ]
        return torch.cat(terms)
