"""U2PL's contrast: representations of a class against those that a teacher holds for other classes."""

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
    """What is known of the B labeled and the N mixed images, on the grid of the features.

    Attributes:
        truth (Tensor): int64 (B, h, w), labels, 255 where there is none.
        pseudo (Tensor): int64 (N, h, w), pseudo-labels of all pixels that count, 255 elsewhere.
        candidates (Tensor): int64 (N, h, w), the pseudo-labels of those that may be anchors, 255 elsewhere.
        unreliable (Tensor): bool (N, h, w), True where a pixel may be a negative.
    """

    truth: Tensor
    pseudo: Tensor
    candidates: Tensor
    unreliable: Tensor


class NegativeContrast(nn.Module):
    """The contrast of U2PL (Sec. 3.3, Eq. 4) and its memory bank.

    Anchors of class c are the student's representations of labeled pixels of the class, and of candidates with
    its pseudo-label, where the teacher gives c more than delta_p. They are drawn to z_c+, the mean of the
    teacher's representations of these pixels, and away from negatives out of the bank of c,

        L_c = 1/C Σ_c mean over anchors z of
              -log(e^{cos(z, z_c+)/tau} / (e^{cos(z, z_c+)/tau} + Σ_n e^{cos(z, n)/tau})).

    The bank holds the teacher's representations of unreliable pixels that rank c from r_l to r_h, and of
    labeled pixels of another class that rank c below r_l. Ranks count from 0, the most probable class.
    A class without anchors or with an empty bank gives 0.

    Args:
        cfg (Settings): Its settings.
        num_classes (int): C.
        channels (int): D of the representations.

    Raises:
        ValueError: ``cfg.low_rank`` is not a rank of these classes.
    """

    class Settings(MethodSettings):
        negatives: Literal['paper', 'code'] = setting(
            'paper',
            'Stored for a class: unreliable and labeled pixels, or unreliable ones labeled so (code).',
            source='Sec. 3.3',
            reading='what enters the memory bank',
        )
        anchor_threshold: float = setting(
            0.3, "delta_p, exceeded by an anchor's probability.", low=0, high=1, source='paper'
        )
        center_pixels: Literal['anchors', 'all'] = setting(
            'anchors',
            'Pixels whose mean is z_c+: what may be an anchor, or also pixels at or below delta_p (code).',
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
            'Divisor of the sum over classes: C, or the number of those that have an anchor (code).',
            source='Eq. 4',
            reading='classes that L_c is divided by',
        )
        low_rank: int = setting(
            3, 'r_l: unreliable pixels are negatives from this rank on.', low=0, source='paper'
        )
        high_rank: int = setting(20, 'r_h, exclusive end of these ranks.', low=1, source='paper')
        queue_size: int = setting(30000, 'Entries of the queue of a class.', low=1, source='code')
        background_queue_size: int = setting(
            50000, 'Entries of the queue of class 0.', low=1, source='code'
        )
        keys_per_step: int = setting(
            1024,
            'New negatives of a class that a process draws and stores in a micro-batch. Code: all.',
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
        """Choose what may be an anchor, average it by class, and store new negatives (Sec. 3.3).

        Args:
            features (Tensor): (B + N, D, h, w), the teacher's representations.
            logits (Tensor): (B + N, C, h, w) of the teacher.
            pixels (ContrastPixels): Of these images.

        Returns:
            tuple: int64 (B + N, h, w), the classes of what may be an anchor, 255 elsewhere; and z_c+ (C, D).
        """
        probs = at_least_float(logits).softmax(dim=1)
        label = torch.cat([pixels.truth, pixels.candidates])
        anchors = self.anchors(probs, label)
        self.store(features, self.negatives(probs, pixels))
        averaged = anchors if self.cfg.center_pixels == 'anchors' else label
        return anchors, self.centers(features, averaged)

    def anchors(self, probs: Tensor, label: Tensor) -> Tensor:
        """The label map with 255 where the probability of the label does not exceed delta_p."""
        own = probs.gather(1, label.masked_fill(label == 255, 0)[:, None])[:, 0]
        return label.masked_fill(own <= self.cfg.anchor_threshold, 255)

    def negatives(self, probs: Tensor, pixels: ContrastPixels) -> Tensor:
        """Bool (B + N, C, h, w), the classes that a pixel is a negative of."""
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
        """Push some of the negatives of each class into its queue, as many places on every rank."""
        place = sample_places(negatives.transpose(0, 1).flatten(1), self.cfg.keys_per_step).t()
        keys = pixels_at(features, place.flatten()).unflatten(0, place.shape)
        self.bank.append(keys, place >= 0)

    def centers(self, features: Tensor, label: Tensor) -> Tensor:
        """(C, D), the mean of the features (M, D, h, w) of each class in a label map (M, h, w)."""
        one_part = torch.zeros_like(label)
        means, counts = masked_average_pool(features, label, one_part, self.num_classes, 1)
        sums = (means * counts[..., None]).sum(dim=0)[:, 0]
        return sums / counts.sum(dim=0).clamp(min=1)

    def loss(self, features: Tensor, anchors: Tensor, centers: Tensor) -> tuple[Tensor, dict]:
        """Eq. 4, and scalars for the log.

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
        """(C · M, 1 + N), cosines over tau of anchors (C, M, D) with their centers (C, D), then with negatives.

        ``rows`` (C, M, N), int64, are those of the negatives in the bank; -1 is none and gives -inf.
        """
        # Class by class, so that what a product needs besides its arguments exists for one class at a time.
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
