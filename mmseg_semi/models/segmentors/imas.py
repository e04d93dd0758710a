"""iMAS: instance-specific and model-adaptive supervision (CVPR 2023)."""

from __future__ import annotations

from typing import Literal

from mmseg.registry import MODELS
from torch import Tensor

from ...functional.agreement import hardness, pixel_agreement
from ...functional.losses import confident_cross_entropy
from ..alignment import AdjustmentSettings, LogitAdjustment
from ..batch import Batch
from ..cutmix import CutMixPlan
from ..gradients import without_gradients
from ..intensity_mix import IntensityMix
from ..settings import build_part, setting
from .mean_teacher import MeanTeacherSegmentor
from .networks import check_forwards, class_weights, evaluating


@MODELS.register_module()
class IMAS(MeanTeacherSegmentor):
    """iMAS, "Instance-specific and Model-adaptive Supervision for Semi-supervised Semantic Segmentation".

    Student and teacher both label the weak view. The *hardness* of an image is their disagreement, weighted by
    their confidence (Eq. 4-6). A harder image has an intensity view closer to the weak view (Eq. 7), a lower
    probability of CutMix (Eq. 8-9), and a smaller loss weight (Eq. 10).

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    class Settings(MeanTeacherSegmentor.Settings, AdjustmentSettings):
        tau: float = setting(
            0.95,
            'Confidence threshold of the pseudo-labels.',
            low=0,
            high=1,
            hint='The paper uses 0.95 on VOC and 0.7 on Cityscapes.',
        )
        unlabeled_weight: float = setting(3.0, 'Weight of the unlabeled loss.', low=0)
        ignore_background: bool = setting(
            False,
            'Exclude class 0 from the IoU.',
            source='Eq. 6; code: True',
            reading='class 0 excluded from Eq. 6',
        )
        untriggered: Literal['official', 'literal'] = setting(
            'official',
            'Loss of a batch without CutMix: only the intensity term, or Eq. 10 with the weak view as the '
            'mixed view.',
            source='code',
            reading='Eq. 10 where CutMix is not triggered',
        )
        joint_forward: bool = setting(
            True,
            'Run the student on labeled images and views in one forward pass. False: one forward pass each.',
        )
        weak_in_joint_forward: bool = setting(
            False,
            'Also run the student on the weak view, only for the statistics of batch normalization.',
            source='code: True',
            reading='weak view in the statistics of batch normalization',
        )
        adaptive_loss: bool = setting(
            True,
            'Weight each image by 1 - hardness.',
            source='Eq. 10',
            reading='weights of Eq. 10 (1 - hardness), not of Algorithm 1',
        )
        intensity: dict | None = setting(
            {'type': 'IntensityMix'},
            'Intensity mixing; None removes its loss term ("adaptive CutMix only").',
            source='Eq. 7',
        )
        cutmix: dict | None = setting(
            {'type': 'AdaptiveCutMix'},
            'CutMix; None removes its loss term ("adaptive intensity only").',
            source='Eq. 8-9',
        )

    cfg: Settings
    unlabeled_branches = ('weak', 'strong')
    measures_hardness = True

    def __init__(self, segmentor: dict, **kwargs) -> None:
        super().__init__(segmentor, **kwargs)
        self.adjustment = None
        if self.cfg.adjust_logits:
            self.adjustment = LogitAdjustment(self.num_classes, class_weights(self.student))
        self.intensity = build_part(self.cfg.intensity, IntensityMix, 'intensity')
        if self.intensity is None:
            self.unlabeled_branches = ('weak',)

    def check_segmentor(self, segmentor: dict) -> None:
        check_forwards(segmentor, self.cfg.joint_forward)

    def semi_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of Algorithm 1 of the paper."""
        cfg, weak = self.cfg, batch.weak.images
        gamma, label, confidence, log = self.measure_hardness(batch)
        views, targets, weights, mix = self.make_views(batch, gamma, label, confidence)
        passed = [weak, *views] if cfg.weak_in_joint_forward else views
        output, logits = self.forward_views(
            self.student, batch.labeled.images, *passed, joint=cfg.joint_forward
        )
        logits = logits[-len(views) :]
        if self.adjustment is not None:
            logits = self.adjustment(logits, label, confidence >= cfg.tau, batch.labeled.label)
        return {
            **self.labeled_loss(output, batch),
            'loss_unlabeled': self.unlabeled_loss(logits, targets, weights, gamma),
            **log,
            **mix.log,
        }

    @without_gradients()
    def measure_hardness(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Label the weak view with both networks and compare the labels (Eq. 4-6).

        Returns:
            tuple: Hardness (N,); the teacher's pseudo-labels (255: ignored) and confidence (N, H, W); scalars
            for the log.
        """
        cfg, weak = self.cfg, batch.weak.images
        with evaluating(self.student):
            logits_s = self.forward_network(self.student, weak).logits
        logits_t = self.forward_network(self.teacher, weak).logits
        confidence_s, label_s = self.most_probable(logits_s, batch.size)
        confidence, label = self.most_probable(logits_t, batch.size)
        valid = batch.weak.valid if cfg.ignore_padding else None
        gamma = hardness(
            label_s,
            confidence_s,
            label,
            confidence,
            tau=cfg.tau,
            num_classes=self.num_classes,
            ignore_background=cfg.ignore_background,
            valid_mask=valid,
        )
        labels = self.label_log(label, batch.weak, confidence)
        log = {
            'hardness': gamma.mean(),
            'hardness_std': gamma.std(correction=0),
            'confident_ratio': labels['confident_ratio'],
            'teacher_student_agreement': pixel_agreement(label_s, label, valid),
            'pseudo_label_entropy': labels['pseudo_label_entropy'],
        }
        return gamma, label.masked_fill(~batch.weak.valid, 255), confidence, log

    @without_gradients()
    def make_views(
        self, batch: Batch, gamma: Tensor, label: Tensor, confidence: Tensor
    ) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]], list[Tensor], CutMixPlan]:
        """Create the student's views from the hardness (N,), and their targets (Eq. 7-9).

        Returns:
            tuple: Images of each view; their labels and confidences; their loss weights; the CutMix plan.
        """
        weak, views, targets = batch.weak.images, [], []
        if self.intensity is not None:
            images = {'strong': batch.strong.images, 'weak': weak, 'hardness': gamma}
            views.append(self.intensity(images)['strong'])
            targets.append((label, confidence))
        mix = self.cutmix.plan(len(weak), batch.size, weak.device, gamma)
        if mix.partner is not None or not views:
            # A batch without CutMix has empty boxes, so its mixed view is the weak view.
            views.append(mix(weak))
            targets.append(mix(label, confidence))
        one = gamma.new_ones(())
        if len(views) == 1:
            return views, targets, [one], mix
        triggered = mix.triggered.to(gamma.dtype)
        share = 0.5 * (triggered if self.cfg.untriggered == 'official' else one)
        return views, targets, [1 - share, share], mix

    def unlabeled_loss(
        self, logits: list[Tensor], targets: list, weights: list[Tensor], gamma: Tensor
    ) -> Tensor:
        """Return Eq. 10: the mean over images of (1 - hardness) times the weighted sum of the views' terms."""
        per_image = sum(
            weight
            * confident_cross_entropy(view, *target, self.cfg.tau, align_corners=self.align_corners)
            for view, target, weight in zip(logits, targets, weights, strict=True)
        )
        if self.cfg.adaptive_loss:
            per_image = (1 - gamma) * per_image
        return self.cfg.unlabeled_weight * per_image.mean()
