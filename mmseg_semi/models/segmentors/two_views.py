"""What UniMatch and UniMatch V2 share: two strong views, each cut and pasted, learn the weak view's labels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...functional.losses import confident_cross_entropy
from ...functional.mixing import paste
from ...functional.pseudo_label import confidence_and_label, confident_ratio, label_entropy
from ..mixers import CutMixPlan
from .base import SemiSegmentor, check_forwards, check_ranges


class PseudoLabels(NamedTuple):
    """What a network says of the weak views.

    Attributes:
        label (Tensor): int64 (N, H, W), 255 is left out.
        confidence (Tensor): (N, H, W) in [1 / C, 1].
        diagnostics (dict[str, Tensor]): Scalars for the log.
    """

    label: Tensor
    confidence: Tensor
    diagnostics: dict[str, Tensor]


class TwoViewSegmentor(SemiSegmentor):
    """Base of the methods with a weak and two strong views; they implement :meth:`loss`.

    Args: see :class:`SemiSegmentor`.
    """

    unlabeled_branches = ('weak', 'strong', 'strong2')
    #: Settings that all of these methods have.
    train_defaults = {
        'tau': 0.95,
        'labeled_weight': 0.5,
        'unlabeled_weight': 0.5,
        'unlabeled_start': 0,
        'ignore_padding': True,
        'joint_forward': False,
        'cutmix': {'adaptive': False, 'per_image': True, 'prob': 0.5, 'style': 'unimatch'},
    }
    readings = {
        'labeled_weight': 'factor of the labelled loss',
        'unlabeled_weight': 'factor of the unlabelled losses',
        'joint_forward': 'batch normalisation over labelled and strong images together',
        'ignore_padding': 'padding neither learnt nor counted',
        'cutmix': 'probability and box of CutMix',
    }

    def __init__(self, segmentor: dict, **kwargs) -> None:
        super().__init__(segmentor, **kwargs)
        cfg = self.semi_train_cfg
        check_ranges(cfg, {'tau': (0, 1), 'unlabeled_start': (0, None)})
        check_ranges(cfg, {key: (0, None) for key in cfg if key.endswith('_weight')})
        check_forwards(segmentor, cfg['joint_forward'])
        self.cutmix = self.build_cutmix()

    @property
    def started(self) -> bool:
        """Whether the unlabelled images enter the loss by now."""
        return self.clock.step >= self.semi_train_cfg['unlabeled_start']

    def mix_views(self, inputs: dict[str, Tensor]) -> tuple[list[Tensor], list[CutMixPlan | None]]:
        """Cut and paste both strong views, each by a draw of its own; returns them with their draws.

        The first view gets boxes of the image that follows in the batch, the second of the one before.
        """
        views = [inputs['strong'], inputs['strong2']]
        if self.cutmix is None:
            return views, [None, None]
        plans = [self.cutmix.sample(x.new_zeros(len(x)), tuple(x.shape[-2:])) for x in views]
        plans[1] = plans[1]._replace(partner=plans[1].partner.argsort())
        return [_mix(view, plan) for view, plan in zip(views, plans, strict=True)], plans

    @torch.no_grad()
    def make_labels(self, logits: Tensor, data_samples: list) -> PseudoLabels:
        """Turn small logits (N, C, h, w) of the weak views into labels, void at padding."""
        cfg = self.semi_train_cfg
        real = torch.cat([sample.valid_mask.data for sample in data_samples]).bool()
        valid = real if cfg['ignore_padding'] else torch.ones_like(real)
        confidence, label = confidence_and_label(logits, valid.shape[-2:], self.align_corners)
        diagnostics = {
            'confident_ratio': confident_ratio(confidence, cfg['tau'], valid).mean(),
            'pseudo_label_entropy': label_entropy(label, self.num_classes, real),
        }
        return PseudoLabels(label.masked_fill(~valid, 255), confidence, diagnostics)

    def view_loss(
        self, logits: Tensor, labels: PseudoLabels, plan: CutMixPlan | None = None
    ) -> Tensor:
        """Cross-entropy of the labels, mixed as the view was, over the pixels that are not padding."""
        return confident_cross_entropy(
            logits,
            _mix(labels.label, plan),
            _mix(labels.confidence, plan),
            self.semi_train_cfg['tau'],
            divisor='valid',
            align_corners=self.align_corners,
        )

    def strong_loss(
        self, logits: list[Tensor], labels: PseudoLabels, plans: list[CutMixPlan | None]
    ) -> Tensor:
        """Mean of the two strong views' losses."""
        first, second = (
            self.view_loss(x, labels, plan) for x, plan in zip(logits, plans, strict=True)
        )
        return (first + second) / 2


def _mix(tensor: Tensor, plan: CutMixPlan | None) -> Tensor:
    """Paste the partners' boxes into images or maps, as drawn."""
    return tensor if plan is None else paste(tensor, tensor[plan.partner], plan.boxes)
