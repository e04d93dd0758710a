"""U2PL: pseudo-labels for reliable pixels, negative samples from unreliable pixels (CVPR 2022)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...functional.losses import cross_entropy
from ...functional.reliability import (
    masked_quantile,
    pixel_entropy,
    unreliable_mask,
    unreliable_share,
)
from ...functional.resizing import resize_nearest
from ..batch import Batch
from ..gradients import without_gradients
from ..heads import conv_stack, install_tap
from ..negative_contrast import ContrastPixels, NegativeContrast
from ..settings import MethodSettings, setting
from .mean_teacher import MeanTeacherSegmentor
from .networks import NetworkOutput


class Targets(NamedTuple):
    """The teacher's targets for a batch.

    Attributes:
        images (Tensor): (N, 3, H, W), the unlabeled images after CutMix.
        label (Tensor): int64 (N, H, W), their reliable pseudo-labels, 255 elsewhere.
        weight (Tensor): Scalar, the reciprocal of the fraction of reliable pixels.
        log (dict[str, Tensor]): Scalars for the log.
        anchors (Tensor, optional): int64 (B + N, h, w), the classes of possible anchors in the labeled and the
            mixed images, 255 elsewhere.
        centers (Tensor, optional): (C, D), mean of the teacher's representations of each class.
    """

    images: Tensor
    label: Tensor
    weight: Tensor
    log: dict[str, Tensor]
    anchors: Tensor | None = None
    centers: Tensor | None = None


class RepresentationSettings(MethodSettings):
    """``semi_train_cfg.representation``."""

    num_convs: int = setting(2, 'Number of 3x3 Conv-BN-ReLU-dropout blocks.', low=1)
    channels: int = setting(256, 'Channels of the blocks.', low=1)
    out_channels: int = setting(256, 'Output channels of the final 1x1 convolution.', low=1)
    dropout_ratio: float = setting(
        0.1, 'Fraction of channels that the blocks drop in training.', low=0, below=1
    )


@MODELS.register_module()
class U2PL(MeanTeacherSegmentor):
    """U2PL, "Semi-Supervised Semantic Segmentation Using Unreliable Pseudo-Labels" (CVPR 2022).

    The teacher labels the unlabeled images, and CutMix mixes images and labels. The fraction alpha_t of pixels
    with the highest entropy of the teacher is unreliable (Eq. 5-6), with alpha_t = alpha_0 (1 - t / T) and t in
    optimizer steps. The student is trained on the other pixels,

        L_u = eta · 1 / (fraction of reliable pixels) · mean over the reliable pixels of CE,

    and by a contrastive loss on a representation head next to the classifier. In this loss, unreliable pixels
    are negative samples (see :class:`~mmseg_semi.models.NegativeContrast`).

    Details that the equations leave open: The teacher computes entropy, ranks and representations from the
    *mixed* images, as in the authors' code (Haochen-Wang409/U2PL), but in eval mode. A pixel at the threshold
    is reliable. Ignored padding does not count as pixels.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    class Settings(NegativeContrast.Settings, MeanTeacherSegmentor.Settings):
        unlabeled_weight: float = setting(1.0, 'eta, weight of L_u.', low=0, source='paper')
        contrast_weight: float = setting(
            0.1,
            'Weight of L_c. With 0, there is no representation head and no memory bank. Code: 1 / n on n GPUs.',
            low=0,
            source='paper; issue 22',
            reading='weight of L_c',
        )
        unlabeled_start: int = setting(
            0,
            'Optimizer steps on labeled images only, before the unlabeled loss starts. Code: one epoch on VOC.',
            low=0,
            reading='optimizer steps on labeled images only, at first',
        )
        unreliable_share: float = setting(
            0.2, 'alpha_0, initial fraction of unreliable pixels.', low=0, high=1, source='Eq. 6'
        )
        ignore_padding: bool = setting(
            False,
            'Exclude the padding of unlabeled images from the loss and from the fractions of pixels.',
            source='code',
            reading='padding excluded from loss and counts',
        )
        anchor_pixels: Literal['reliable', 'surest'] = setting(
            'reliable',
            'Unlabeled pixels that may be anchors: reliable pixels, or the fraction alpha_t of pixels with the '
            'lowest entropy (code).',
            source='paper',
            reading='unlabeled anchors',
        )
        representation: RepresentationSettings = setting(
            RepresentationSettings(),
            'Representation head. Its input is the features before the classifier.',
            source='code',
        )
        cutmix: dict | None = setting(
            {'type': 'AdaptiveCutMix', 'adaptive': False, 'prob': 0.5, 'style': 'u2pl'},
            'CutMix of the unlabeled images; None trains on the unmixed weak view.',
            source='code',
            reading='probability and box of CutMix',
        )

    cfg: Settings
    unlabeled_branches = ('weak',)
    training_only = ('decode_head.representation.',)
    renamed_modules = {'bank.': 'contrast.bank.'}

    def __init__(self, segmentor: dict, **kwargs) -> None:
        super().__init__(segmentor, **kwargs)
        if self.contrasts:
            channels = self.cfg.representation.out_channels
            self.contrast = NegativeContrast(self.cfg, self.num_classes, channels)

    @property
    def contrasts(self) -> bool:
        return self.cfg.contrast_weight > 0

    def add_training_modules(self, network: nn.Module) -> None:
        if not self.contrasts:
            return
        head, cfg = network.decode_head, self.cfg.representation
        blocks = conv_stack(head, install_tap(head), cfg.num_convs, cfg.channels)
        layers = [layer for block in blocks for layer in (block, nn.Dropout2d(cfg.dropout_ratio))]
        last = nn.Conv2d(cfg.channels, cfg.out_channels, kernel_size=1)
        head.representation = nn.Sequential(*layers, last)

    @property
    def alpha(self) -> float:
        """Return the fraction of unreliable pixels in this step."""
        start, clock = self.cfg.unreliable_share, self.clock
        if clock.num_steps is None:
            return start
        return unreliable_share(clock.step, clock.num_steps, start)

    def semi_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the labeled loss, L_u and L_c."""
        labeled, targets = batch.labeled.images, self.make_targets(batch)
        images = torch.cat([labeled, targets.images])
        output = self.forward_network(self.student, images, len(labeled), tap=self.contrasts)
        own, mixed = output.logits.split([len(labeled), len(targets.images)])
        losses = {
            **self.labeled_loss(output._replace(logits=own), batch),
            'loss_unlabeled': self.unlabeled_loss(mixed, targets),
            **targets.log,
        }
        if self.contrasts:
            features = self.student.decode_head.representation(output.decoder)
            loss, log = self.contrast.loss(features, targets.anchors, targets.centers)
            losses.update({'loss_contrast': self.cfg.contrast_weight * loss, **log})
        return losses

    def labeled_only_loss(self, batch: Batch, update: str) -> dict[str, Tensor]:
        """Return the labeled loss. The representation head of the student gets a gradient of 0."""
        if not self.contrasts:
            return super().labeled_only_loss(batch, update)
        images = batch.labeled.images
        output = self.forward_network(self.student, images, len(images), tap=True)
        features = self.student.decode_head.representation(output.decoder)
        return {**self.labeled_loss(output, batch), 'loss_contrast': 0 * features.sum()}

    def unlabeled_loss(self, logits: Tensor, targets: Targets) -> Tensor:
        """Return eta times the cross-entropy of reliable pixels, divided by their fraction (Sec. 3.2)."""
        loss = cross_entropy(logits, targets.label, align_corners=self.align_corners)
        return self.cfg.unlabeled_weight * targets.weight * loss

    @without_gradients()
    def make_targets(self, batch: Batch) -> Targets:
        """Label the weak images, apply CutMix, and separate reliable from unreliable pixels (Eq. 5-6)."""
        size, weak, corners = batch.size, batch.weak, self.align_corners
        logits = self.forward_network(self.teacher, weak.images).logits
        _, weak_label = self.most_probable(logits, size)
        mix = self.cutmix.plan(len(weak), size, logits.device)
        images, label, valid = mix(weak.images, weak_label, weak.valid)
        label = label.masked_fill(~valid, 255)

        labeled = batch.labeled.images if self.contrasts else images[:0]
        output = self.forward_network(
            self.teacher, torch.cat([labeled, images]), tap=self.contrasts
        )
        output = output._replace(encoder=[])  # frees memory
        entropy = pixel_entropy(output.logits[len(labeled) :], size, corners)
        unreliable, threshold = unreliable_mask(entropy, self.alpha, valid)
        reliable = label.masked_fill(unreliable, 255)
        kept, total = (reliable != 255).sum(), valid.sum()
        log = {
            **self.label_log(weak_label, weak),
            **mix.log,
            'entropy_threshold': threshold.masked_fill(total == 0, 0),
            'reliable_ratio': kept / total.clamp(min=1),
        }
        targets = Targets(images, reliable, total / kept.clamp(min=1), log)
        if not self.contrasts:
            return targets
        candidates = reliable
        if self.cfg.anchor_pixels == 'surest':
            surest = entropy <= masked_quantile(entropy, self.alpha, valid)
            candidates = label.masked_fill(~surest, 255)
        pixels = ContrastPixels(batch.labeled.label, label, candidates, unreliable)
        anchors, centers = self.remember(output, pixels)
        return targets._replace(anchors=anchors, centers=centers)

    def remember(self, output: NetworkOutput, pixels: ContrastPixels) -> tuple[Tensor, Tensor]:
        """Pass the teacher's output and the classes and masks (H, W) of the pixels to the contrast."""
        grid = output.decoder.shape[-2:]
        small = (resize_nearest(one, grid, self.align_corners) for one in pixels)
        features = self.teacher.decode_head.representation(output.decoder)
        return self.contrast.remember(features, output.logits, ContrastPixels(*small))
