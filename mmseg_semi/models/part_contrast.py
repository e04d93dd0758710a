"""Pixel-to-part contrast (ESL, Sec. 3.3): the parts of classes, their stored features, and the loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from ..functional.contrast import (
    class_mean,
    contrast_logits,
    pixels_at,
    sample_anchors,
    sample_negatives,
    sample_positives,
)
from ..functional.parts import masked_average_pool
from ..functional.resizing import resize_nearest
from .features import at_least_float, last_decoded_stage, stage_map
from .gradients import without_gradients
from .heads import conv_stack, install_tap
from .memory import PartMemoryBank, PartPrototypes
from .settings import MethodSettings, setting


class ProjectorSettings(MethodSettings):
    """Settings of the 3x3 Conv-BN-ReLU blocks between the decoder and the contrastive loss."""

    num_convs: int = setting(3, 'Convolutions of the projector.', low=1)
    channels: int = setting(512, 'Channels of all convolutions but the last.', low=1)
    out_channels: int = setting(512, 'Output channels of the last convolution.', low=1)


class PartContrast(nn.Module):
    """Pull confident pixels towards features of their own part and push them from others (Eq. 7-10, 12).

    A *part* is a cluster of a class in the encoder's feature space, represented by a prototype. A memory bank
    stores the mean projected features of each part. Each network has its own projector, see
    :meth:`add_projector`.

    Args:
        head (BaseDecodeHead): Decode head of a network with a projector.
        num_classes (int): C.
        cfg (PartContrast.Settings): Settings, with ``num_parts`` of at least 1.

    Raises:
        ValueError: The head concatenates several encoder stages, and no setting selects a stage.
    """

    class Settings(MethodSettings):
        contrast_weight: float = setting(
            0.1, 'Weight of the contrastive loss.', low=0, source='Eq. 10'
        )
        num_parts: int = setting(
            5, 'K, number of parts per class; 0 disables the contrastive loss.', low=0
        )
        projector: ProjectorSettings = setting(
            ProjectorSettings(), 'Convolutions between the decoder and the contrastive loss.'
        )
        projector_last_act: bool = setting(
            True,
            'End the projector with a ReLU. False: with a linear layer.',
            reading='projector ends with a ReLU',
        )
        tap_after_dropout: bool = setting(
            False,
            "Apply the projector to the stock head's features after dropout.",
            reading='projector after dropout',
        )
        encoder_index: int | None = setting(
            None,
            'Encoder stage used to assign pixels to parts; None is the last one that the decode head reads.',
            source='Eq. 7',
            reading='encoder stage used to assign pixels to parts (None: the last one that is decoded)',
        )
        encoder_channels: int | None = setting(None, 'Channels of that stage.', low=1)
        normalize_encoder: bool = setting(
            True,
            'Normalize encoder features to unit length before averaging.',
            reading='unit length in k-means, Eq. 7 and Eq. 12',
        )
        prototype_decay: float = setting(
            0.99, 'theta, weight of the old prototype.', low=0, high=1, source='Eq. 12'
        )
        min_conf_for_parts: float = setting(
            0.0,
            'Confidence threshold for unlabeled pixels in the bank and the prototypes.',
            low=0,
            high=1,
            reading='confidence threshold for the bank and the prototypes',
        )
        queue_size: int = setting(
            200, 'q, stored features per part.', low=1, reading='stored features per part'
        )
        anchor_threshold: float = setting(
            0.95,
            'zeta, confidence threshold of unlabeled anchors.',
            low=0,
            high=1,
            source='Eq. 9',
            reading='confidence threshold of unlabeled anchors, exclusive',
        )
        anchor_ratio: float = setting(
            0.1,
            'Fraction of the pixels of a class that are anchors.',
            above=0,
            high=1,
            reading='fraction of pixels that are anchors (Eq. 9)',
        )
        max_anchors: int = setting(1000, 'Maximum anchors per class.', low=1)
        num_negatives: int = setting(
            255,
            'Negatives per anchor.',
            low=1,
            reading='negatives per anchor, fewer if the bank has fewer (Eq. 10)',
        )
        exclude_same_class: bool = setting(
            False,
            'Exclude other parts of the same class from the negatives of an anchor.',
            reading='no negatives of the same class (Eq. 10)',
        )
        temperature: float = setting(
            0.5, 'sigma, temperature.', above=0, source='Eq. 10', hint='The paper uses 0.5.'
        )

        def check(self) -> None:
            super().check()
            if (self.encoder_index is None) != (self.encoder_channels is None):
                raise ValueError(
                    f'semi_train_cfg.encoder_index={self.encoder_index} and encoder_channels='
                    f'{self.encoder_channels} belong together. Set both or neither.'
                )

    def __init__(self, head: BaseDecodeHead, num_classes: int, cfg: Settings) -> None:
        super().__init__()
        self.cfg, self.num_classes, self.align_corners = cfg, num_classes, head.align_corners
        self.encoder_index, encoded = cfg.encoder_index, cfg.encoder_channels
        if self.encoder_index is None:
            self.encoder_index, encoded = last_decoded_stage(head)
        projected = head.projector[-1].out_channels
        self.prototypes = PartPrototypes(num_classes, cfg.num_parts, encoded, cfg.prototype_decay)
        self.bank = PartMemoryBank(num_classes, cfg.num_parts, cfg.queue_size, projected)

    @staticmethod
    def add_projector(head: BaseDecodeHead, cfg: Settings) -> None:
        """Let a head return its features, and add a projector of them as ``head.projector``."""
        channels = install_tap(head, cfg.tap_after_dropout)
        shape = cfg.projector.as_dict()
        head.projector = conv_stack(head, channels, last_act=cfg.projector_last_act, **shape)

    def stage_of(self, encoded: Sequence) -> Tensor:
        """Return the encoder stage that assigns pixels to parts, see :func:`stage_map`."""
        return stage_map(encoded, self.encoder_index, self.prototypes.vectors.shape[2])

    @without_gradients()
    def remember(
        self, encoded: Tensor, decoded: Tensor, label: Tensor, projector: nn.Module
    ) -> Tensor:
        """Assign pixels to parts, and store the mean features of the parts of unmixed images (Eq. 7, 8, 12).

        Args:
            encoded (Tensor): (N, D, h', w'), :meth:`stage_of` the teacher's encoder.
            decoded (Tensor): (N, D', h, w), features of the teacher's decoder.
            label (Tensor): int64 (N, h, w), 255 for pixels without a label.
            projector (nn.Module): The teacher's projector.

        Returns:
            Tensor: int64 (N, h, w), the part of each pixel, -1 for pixels without a label.
        """
        parts = self.prototypes.assign(encoded, label, self.align_corners)
        small = [
            resize_nearest(maps, encoded.shape[-2:], self.align_corners) for maps in (label, parts)
        ]
        sizes, stored, followed = (self.num_classes, self.cfg.num_parts), [], []
        for i in range(len(label)):
            # Image by image, since the projections of all images would be the largest tensor of the step.
            one = slice(i, i + 1)
            projected = projector(decoded[one])
            stored.append(masked_average_pool(projected, label[one], parts[one], *sizes))
            features = at_least_float(encoded[one])
            if self.cfg.normalize_encoder:
                features = F.normalize(features, dim=1)
            followed.append(masked_average_pool(features, *(maps[one] for maps in small), *sizes))
        means, counts = (torch.cat(maps) for maps in zip(*stored, strict=True))
        self.bank.push(means, counts > 0)
        means, counts = (torch.cat(maps) for maps in zip(*followed, strict=True))
        self.prototypes.collect(means, counts)
        return parts

    def loss(self, features: Tensor, label: Tensor, parts: Tensor) -> dict[str, Tensor]:
        """Return the weighted contrastive loss of anchors with stored features (Eq. 9-10), and scalars to log.

        Args:
            features (Tensor): (N, L, h, w), output of the student's projector.
            label (Tensor): int64 (N, h, w), the classes of possible anchors, 255 elsewhere.
            parts (Tensor): int64 (N, h, w), the parts of these pixels.
        """
        cfg, bank = self.cfg, self.bank
        index, label, counts, capped = sample_anchors(
            label.flatten(), self.num_classes, ratio=cfg.anchor_ratio, limit=cfg.max_anchors
        )
        queue = label * cfg.num_parts + parts.flatten()[index.clamp(min=0)].clamp(min=0)
        positive = sample_positives(queue, bank.fill, bank.capacity)
        block = cfg.num_parts if cfg.exclude_same_class else 1
        negatives = sample_negatives(
            queue, bank.fill, bank.capacity, cfg.num_negatives, block=block
        )
        terms = contrast_logits(
            pixels_at(features, index),
            bank.entries[positive.clamp(min=0)],
            bank.entries,
            negatives,
            cfg.temperature,
        )
        counted = (index >= 0) & (positive >= 0)
        loss = class_mean(terms.logsumexp(1) - terms[:, 0], label, counted, self.num_classes)
        with torch.no_grad():
            compared = counted & (negatives >= 0).any(dim=1)
            right = compared & (terms[:, 0] > terms[:, 1:].amax(dim=1))
        return {
            'loss_contrast': cfg.contrast_weight * loss,
            'contrast_accuracy': right.sum() / compared.sum().clamp(min=1),
            'anchor_classes_ratio': (counts > 0).float().mean(),
            'anchors_per_class': counts.sum() / (counts > 0).sum().clamp(min=1),
            'anchors_capped_ratio': capped.float().mean(),
            'bank_fill_ratio': bank.fill.float().mean() / bank.capacity,
        }
