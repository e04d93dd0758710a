"""CPS: two networks, each trained on the pseudo-labels of the other (CVPR 2021)."""

from __future__ import annotations

import torch
from mmseg.registry import MODELS
from torch import Tensor

from ...functional.agreement import pixel_agreement
from ..batch import Batch
from ..settings import setting
from .independent import IndependentSegmentor


@MODELS.register_module()
class CPS(IndependentSegmentor):
    """CPS, "Semi-Supervised Semantic Segmentation with Cross Pseudo Supervision".

    Two networks with different initializations are trained on the labeled images. Each is also trained on the
    hard pseudo-labels of the other for the unlabeled images, without a confidence threshold. One optimizer
    updates both.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    class Settings(IndependentSegmentor.Settings):
        cps_weight: float = setting(
            1.5,
            'Weight of the cross pseudo supervision. With CutMix: 1 on VOC and 5 on Cityscapes. Without '
            'CutMix: 1.5 and 6.',
            low=0,
            source='CPS code',
            reading='weight of the cross pseudo supervision',
        )
        cps_on_labeled: bool = setting(
            True,
            'Without CutMix, also apply the cross pseudo supervision to the labeled images. Void pixels of '
            'their ground truth count as padding. Eq. 6 of GPS uses only the unlabeled images.',
            source='CPS code',
            reading='cross pseudo supervision of labeled images, too, without CutMix',
        )

    cfg: Settings
    networks = built_networks = ('student1', 'student2')
    optimized = {'students': networks}
    updates = {'students': 'semi_loss'}

    def semi_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the labeled losses and the cross pseudo supervision of both networks."""
        cfg, weak = self.cfg, batch.weak.images
        students = [self.student1, self.student2]
        if not cfg.joint_forward:
            outputs, losses, _ = self.learn_labeled(batch, self.students)
        mix = self.cutmix.plan(len(weak), batch.size, weak.device)
        images = mix(weak)
        if cfg.cutmix is not None:
            known = [self.label_weak(one, batch) for one in students]
        if cfg.joint_forward:
            outputs, losses, logits = self.learn_labeled(batch, self.students, images)
        else:
            logits = [self.forward_network(one, images).logits for one in students]
        if cfg.cutmix is None:
            known = [one.detach() for one in logits]
        labels = [self.hard_label(one, batch, mix) for one in known]
        losses['pseudo_label_entropy'] = self.mixed_label_entropy(labels[0], batch, mix)
        losses['agreement_students'] = pixel_agreement(*labels, labels[0] != 255)
        if cfg.cutmix is None and cfg.cps_on_labeled:
            own = [output.logits for output in outputs.values()]
            logits = [torch.cat(pair) for pair in zip(own, logits, strict=True)]
            said = [self.label_labeled(one, batch) for one in own]
            labels = [torch.cat(pair) for pair in zip(said, labels, strict=True)]
        losses['loss_cps'] = cfg.cps_weight * self.cross_loss(logits, labels)
        return losses

    def label_labeled(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the most probable classes (B, H, W) of labeled images. Compare :meth:`hard_label`."""
        _, label = self.most_probable(logits, batch.size)
        if self.cfg.ignore_padding:
            label = label.masked_fill(batch.labeled.label == 255, 255)
        return label
