"""CPS: two networks, each of which learns the labels of the other (CVPR 2021)."""

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

    Two networks of different initializations learn the labeled images, and each learns the other's hard labels
    of the unlabeled ones, whatever their confidence. One optimizer updates both.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    class Settings(IndependentSegmentor.Settings):
        cps_weight: float = setting(
            1.5,
            'Factor of the cross pseudo supervision; with CutMix 1 (VOC) and 5 (Cityscapes), without it 1.5 '
            'and 6.',
            low=0,
            source='CPS code',
            reading='factor of the cross pseudo supervision',
        )
        cps_on_labeled: bool = setting(
            True,
            'Without CutMix, each network learns the labels of the other for the labeled images, too. What is '
            'void in their labels counts as padding. Eq. 6 of GPS has the unlabeled images alone.',
            source='CPS code',
            reading='labeled images learned from the other network, too, without CutMix',
        )

    cfg: Settings
    networks = built_networks = ('student1', 'student2')
    optimized = {'students': networks}
    updates = {'students': 'semi_loss'}

    def semi_loss(self, batch: Batch) -> dict[str, Tensor]:
        """The labeled losses, and the cross pseudo supervision of both networks."""
        cfg, weak = self.cfg, batch.weak.images
        students = [self.student1, self.student2]
        outputs, losses = self.learn_labeled(batch, self.students)
        mix = self.cutmix.plan(len(weak), batch.size, weak.device)
        images = mix(weak)
        if cfg.cutmix is not None:
            known = [self.label_weak(one, batch) for one in students]
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
        """Most probable classes (B, H, W) of the labeled images, as :meth:`hard_label` of unlabeled ones."""
        _, label = self.most_probable(logits, batch.size)
        if self.cfg.ignore_padding:
            label = label.masked_fill(batch.labeled.label == 255, 255)
        return label
