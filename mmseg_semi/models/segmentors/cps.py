"""CPS: two networks, each of which learns what the other one sees (CVPR 2021)."""

from __future__ import annotations

import torch
from mmseg.registry import MODELS
from torch import Tensor

from ...functional.agreement import pixel_agreement
from ...functional.pseudo_label import confidence_and_label
from .independent import IndependentSegmentor


@MODELS.register_module()
class CPS(IndependentSegmentor):
    """CPS, "Semi-Supervised Semantic Segmentation with Cross Pseudo Supervision".

    Two networks of different initialisations learn the labelled images, and each learns the other's
    hard labels of the unlabelled ones, whatever their confidence. One optimizer updates both.

    One step costs 12 forwards of an image pair without CutMix, 14 with an in-batch partner and 16 with pairs
    (a backward counts as two).

    Settings of ``semi_train_cfg``, besides those of
    :class:`~mmseg_semi.models.segmentors.independent.IndependentSegmentor`:

    - ``cps_weight`` (float, 1.5): Factor of the cross pseudo supervision; 1.5 on VOC, 6 on Cityscapes in the
      official code.
    - ``cps_on_labeled`` (bool, True): Without CutMix, the labelled images are learnt from the other network as
      well, as in the official code; False leaves them to their labels, as GPS's Eq. 6. What is void in their
      labels counts as padding.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    networks = built_networks = ('student1', 'student2')
    optimized = {'students': networks}
    train_defaults = {
        **IndependentSegmentor.train_defaults,
        'cps_weight': 1.5,
        'cps_on_labeled': True,
    }
    readings = {
        **IndependentSegmentor.readings,
        'cps_weight': 'factor of the cross pseudo supervision',
        'cps_on_labeled': 'labelled images learnt from the other network, too, without CutMix',
    }

    def loss(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> dict[str, Tensor]:
        """One iteration, up to the optimizer step."""
        self.check_branches(inputs)
        cfg, labeled = self.semi_train_cfg, inputs['labeled']
        students = [getattr(self, name) for name in self.students]
        outputs = [self.forward_network(one, labeled, len(labeled)) for one in students]
        losses = {}
        for name, output in zip(self.students, outputs, strict=True):
            losses.update(self.network_loss(name, output, data_samples['labeled']))
        if not self.started:
            return losses
        views = self.make_views(inputs['weak'], data_samples['weak'])
        if views.boxes is not None:
            sources = [self.predict_batches(one, views) for one in students]
        logits = [self.forward_network(one, views.images).logits for one in students]
        if views.boxes is None:
            sources = [[one.detach()] for one in logits]
        first, second = (self.hard_label(source, views) for source in sources)
        losses['pseudo_label_entropy'] = views.label_entropy(first, self.num_classes)
        losses['agreement_students'] = pixel_agreement(first, second, first != 255)
        if views.boxes is None and cfg['cps_on_labeled']:
            logits = [
                torch.cat([output.logits, one]) for output, one in zip(outputs, logits, strict=True)
            ]
            known = [self._label_labeled(o.logits, data_samples['labeled']) for o in outputs]
            first, second = torch.cat([known[0], first]), torch.cat([known[1], second])
        term = self.pseudo_loss(logits[0], second) + self.pseudo_loss(logits[1], first)
        losses['loss_cps'] = cfg['cps_weight'] * term
        return losses

    def _label_labeled(self, logits: Tensor, data_samples: list) -> Tensor:
        """What a network says of the labelled images (B, H, W)."""
        truth = torch.cat([sample.gt_sem_seg.data for sample in data_samples])
        _, label = confidence_and_label(logits, tuple(truth.shape[-2:]), self.align_corners)
        if self.semi_train_cfg['ignore_padding']:
            label = label.masked_fill(truth == 255, 255)
        return label
