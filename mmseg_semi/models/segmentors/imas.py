"""iMAS: instance-specific and model-adaptive supervision (CVPR 2023)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmseg.registry import MODELS
from torch import Tensor

from ...functional.agreement import hardness, pixel_agreement
from ...functional.losses import confident_cross_entropy
from ...functional.pseudo_label import confidence_and_label, confident_ratio, label_entropy
from ..gradients import without_gradients
from ..mixers import build_mixer
from .base import check_forwards, evaluating
from .mean_teacher import MeanTeacherSegmentor


class Targets(NamedTuple):
    """What the two networks make of an unlabelled batch: the student's views and what it should say there.

    Attributes:
        hardness (Tensor): (N,) in [0, 1].
        views (list[Tensor]): Images (N, 3, H, W) for the student, those without a loss first.
        labels (list[Tensor]): int64 (N, H, W), one for each of the last views; 255 is left out.
        confidences (list[Tensor]): (N, H, W), likewise.
        weights (list[Tensor]): Scalars, likewise: the share of the view's term in the loss.
        diagnostics (dict[str, Tensor]): Scalars for the log.
    """

    hardness: Tensor
    views: list[Tensor]
    labels: list[Tensor]
    confidences: list[Tensor]
    weights: list[Tensor]
    diagnostics: dict[str, Tensor]


@MODELS.register_module()
class IMAS(MeanTeacherSegmentor):
    """iMAS, "Instance-specific and Model-adaptive Supervision for Semi-supervised Semantic Segmentation".

    Student and teacher both label the weak view; how little they agree, weighted by how confident they
    are, is the *hardness* of an image (Eq. 4-6). The harder it is, the closer its intensity view is kept
    to the weak one (Eq. 7), the less likely its batch is cut and pasted (Eq. 8-9), and the less its loss
    weighs (Eq. 10). Where the paper's formulas and text contradict each other, the text and the official
    code rule.

    One step costs two forwards without gradients and one joint forward and backward of the student on the
    labelled images and two views of the unlabelled ones.

    Settings of ``semi_train_cfg``:

    - ``tau`` (float, 0.95): Confidence from which a pixel of the teacher counts.
    - ``unlabeled_weight`` (float, 3.0): Factor of the unlabelled loss.
    - ``unlabeled_start`` (int, 0): Optimizer steps of labeled training before the unlabelled images enter.
    - ``ignore_background`` (bool, False): True leaves class 0 out of the IoU of Eq. 6, as the official
      configs do; the paper sums over all classes.
    - ``ignore_padding`` (bool, True): Padding is neither labelled nor counted in the hardness; the
      divisors of Eq. 10 stay. The official code learns from padding.
    - ``untriggered`` ('official' | 'literal'): Where CutMix is not triggered the loss is the intensity term
      alone, or Eq. 10 to the letter, where the weak view takes the place of the mixed one.
    - ``joint_forward`` (bool, True): One forward of the student for labelled images and views, so that
      batch normalisation sees all; False: one each.
    - ``weak_in_joint_forward`` (bool, False): Also pass the weak view, for the statistics of batch
      normalisation only, as the official code does.
    - ``adaptive_loss`` (bool, True): Weigh each image by 1 - hardness.
    - ``intensity`` (dict | None): Config of the intensity mixing. None is the ablation's "adaptive CutMix
      only": the CutMix term alone with weight 1, the weak view's where CutMix is not triggered.
    - ``cutmix`` (dict | None): Config of the CutMix. None is "adaptive intensity only": the intensity term
      alone with weight 1. With both None the weak view's term is left.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    unlabeled_branches = ('weak', 'strong')
    train_defaults = {
        'tau': 0.95,
        'unlabeled_weight': 3.0,
        'unlabeled_start': 0,
        'ignore_background': False,
        'ignore_padding': True,
        'untriggered': 'official',
        'joint_forward': True,
        'weak_in_joint_forward': False,
        'adaptive_loss': True,
        'intensity': {'type': 'IntensityMix'},
        'cutmix': {'type': 'AdaptiveCutMix'},
    }
    readings = {
        'adaptive_loss': 'weights of Eq. 10 (1 - hardness), not of Algorithm 1',
        'ignore_background': 'class 0 left out of Eq. 6',
        'untriggered': 'Eq. 10 where CutMix is not triggered',
        'ignore_padding': 'padding not learnt from',
        'weak_in_joint_forward': 'weak view in the statistics of batch normalisation',
    }

    def __init__(self, segmentor: dict, **kwargs) -> None:
        super().__init__(segmentor, **kwargs)
        cfg = self.semi_train_cfg
        if not 0 <= cfg['tau'] <= 1:
            raise ValueError(
                f'semi_train_cfg.tau={cfg["tau"]} is no confidence: give a number in [0, 1].'
            )
        for key in ('unlabeled_weight', 'unlabeled_start'):
            if cfg[key] < 0:
                raise ValueError(
                    f'semi_train_cfg.{key}={cfg[key]} is negative: give a number of at least 0.'
                )
        if cfg['untriggered'] not in ('official', 'literal'):
            raise ValueError(
                f"semi_train_cfg.untriggered='{cfg['untriggered']}' is unknown: "
                "choose 'official' or 'literal'."
            )
        check_forwards(segmentor, cfg['joint_forward'])
        self.intensity = build_mixer('IntensityMix', cfg['intensity'])
        self.cutmix = build_mixer('AdaptiveCutMix', cfg['cutmix'])
        if self.intensity is None:
            self.unlabeled_branches = ('weak',)

    def loss(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> dict[str, Tensor]:
        """Algorithm 1 of the paper, up to the optimizer step."""
        self.check_branches(inputs)
        labeled = inputs['labeled']
        if self.clock.step < self.semi_train_cfg['unlabeled_start']:
            output, _ = self.forward_views(self.student, labeled)
            return self.labeled_loss(self.student, output, data_samples['labeled'])
        targets = self.make_targets(inputs, data_samples)
        output, logits = self.forward_views(
            self.student, labeled, *targets.views, joint=self.semi_train_cfg['joint_forward']
        )
        return {
            **self.labeled_loss(self.student, output, data_samples['labeled']),
            'loss_unlabeled': self.unlabeled_loss(logits[-len(targets.labels) :], targets),
            **targets.diagnostics,
        }

    @without_gradients()
    def make_targets(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> Targets:
        """Label the weak view, measure its hardness and make the student's views (Eq. 4-9)."""
        cfg, weak = self.semi_train_cfg, inputs['weak']
        size, corners = tuple(weak.shape[-2:]), self.align_corners
        with evaluating(self.student):
            logits_s = self.forward_network(self.student, weak).logits
        logits_t = self.forward_network(self.teacher, weak).logits
        confidence_s, label_s = confidence_and_label(logits_s, size, corners)
        confidence, label = confidence_and_label(logits_t, size, corners)
        real = torch.cat([sample.valid_mask.data for sample in data_samples['weak']]).bool()
        valid = real if cfg['ignore_padding'] else None
        agreement = pixel_agreement(label_s, label, valid)
        gamma = hardness(
            label_s,
            confidence_s,
            label,
            confidence,
            tau=cfg['tau'],
            num_classes=self.num_classes,
            ignore_background=cfg['ignore_background'],
            valid_mask=valid,
        )
        diagnostics = {
            'hardness': gamma.mean(),
            'hardness_std': gamma.std(correction=0),
            'confident_ratio': confident_ratio(confidence, cfg['tau'], valid).mean(),
            'teacher_student_agreement': agreement,
            'pseudo_label_entropy': label_entropy(label, self.num_classes, real),
        }
        if valid is not None:
            label = label.masked_fill(~valid, 255)

        terms = []  # view, label, confidence
        if self.intensity is not None:
            mixed = self.intensity({'strong': inputs['strong'], 'weak': weak, 'hardness': gamma})
            terms.append((mixed['strong'], label, confidence))
        if self.cutmix is not None:
            mixed = self.cutmix(
                {'img': weak, 'label': label, 'confidence': confidence, 'hardness': gamma}
            )
            # An untriggered batch has empty boxes: its mixed view is the weak one.
            terms.append((mixed['img'], mixed['label'], mixed['confidence']))
            diagnostics['cutmix_rate'] = mixed['triggered'].to(gamma.dtype)
        if not terms:
            terms.append((weak, label, confidence))
        views, labels, confidences = map(list, zip(*terms, strict=True))
        one = gamma.new_ones(())
        weights = [one]
        if len(terms) == 2:
            official = cfg['untriggered'] == 'official'
            share = 0.5 * (diagnostics['cutmix_rate'] if official else one)
            weights = [1 - share, share]
        if cfg['weak_in_joint_forward']:
            views.insert(0, weak)
        return Targets(gamma, views, labels, confidences, weights, diagnostics)

    def unlabeled_loss(self, logits: list[Tensor], targets: Targets) -> Tensor:
        """Eq. 10, weighted: mean over images of (1 - hardness) times the weighted sum of the views' terms."""
        cfg = self.semi_train_cfg
        terms = [
            weight
            * confident_cross_entropy(
                view, label, confidence, cfg['tau'], align_corners=self.align_corners
            )
            for view, label, confidence, weight in zip(
                logits, targets.labels, targets.confidences, targets.weights, strict=True
            )
        ]
        per_image = sum(terms)
        if cfg['adaptive_loss']:
            per_image = (1 - targets.hardness) * per_image
        return cfg['unlabeled_weight'] * per_image.mean()
