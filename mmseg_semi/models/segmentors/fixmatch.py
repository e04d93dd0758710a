"""FixMatch for segmentation: pseudo-labels of the weak view supervise the strong view (NeurIPS 2020)."""

from __future__ import annotations

from typing import Literal

from mmseg.registry import MODELS
from torch import Tensor

from ...functional.losses import confident_cross_entropy
from ..batch import Batch
from ..gradients import without_gradients
from ..settings import setting
from .base import SemiSegmentor
from .networks import check_forwards, evaluating


@MODELS.register_module()
class FixMatch(SemiSegmentor):
    """FixMatch, "Simplifying Semi-Supervised Learning with Consistency and Confidence" (NeurIPS 2020).

    The network predicts pseudo-labels from the weak view. Where their probability reaches ``tau``, they
    supervise the same pixels of the strong view by cross-entropy (Eq. 4). There is no teacher. For segmentation
    this follows the baseline of UniMatch (CVPR 2023, Sec. 3.1): the strong view has color jitter and blur, then
    CutMix of images, labels and masks.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    class Settings(SemiSegmentor.Settings):
        tau: float = setting(
            0.95,
            'Confidence threshold of pseudo-labels; 0 keeps all pixels (UniMatch on Cityscapes).',
            low=0,
            high=1,
            source='Eq. 4',
        )
        unlabeled_weight: float = setting(
            1.0, 'Weight of the unlabeled loss.', low=0, reading='weight of the unlabeled loss'
        )
        divisor: Literal['valid', 'confident', 'area'] = setting(
            'valid',
            'Divisor of the unlabeled loss: pixels without padding, confident pixels, or all pixels.',
            source='UniMatch code',
            reading='pixels that the unlabeled loss is divided by',
        )
        label_mode: Literal['train', 'eval'] = setting(
            'train',
            "'train': label the weak view in train mode, in the forward pass of the labeled images; set the "
            "dropout of the heads to 0, since it disturbs the pseudo-labels. 'eval': in eval mode, in a "
            'separate forward pass.',
            source='UniMatch code',
            reading='mode of the network that labels',
        )
        joint_forward: bool = setting(
            False,
            'Also put the strong view into the forward pass of the labeled images.',
            source='FixMatch code: True',
            reading='batch normalization over labeled and strong images together',
        )
        cutmix: dict | None = setting(
            {
                'type': 'AdaptiveCutMix',
                'adaptive': False,
                'prob': 0.5,
                'style': 'unimatch',
                'per_image': True,
            },
            'CutMix of strong views; None disables it.',
            source='UniMatch code',
            reading='probability and box of CutMix',
        )

    cfg: Settings
    unlabeled_branches = ('weak', 'strong')

    def check_segmentor(self, segmentor: dict) -> None:
        check_forwards(segmentor, self.cfg.joint_forward)

    @property
    def labeling_in_train_mode(self) -> tuple[str, ...]:
        return self.networks if self.cfg.label_mode == 'train' else ()

    def images_of_a_forward(self, labeled: int, unlabeled: int) -> int:
        if self.cfg.joint_forward:
            return labeled + unlabeled
        first = labeled + unlabeled if self.cfg.label_mode == 'train' else labeled
        return min(first, unlabeled)

    def semi_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the labeled loss and Eq. 4 on the strong views."""
        cfg, labeled, weak = self.cfg, batch.labeled.images, batch.weak.images
        mix = self.cutmix.plan(len(weak), batch.size, weak.device)
        views, own = [mix(batch.strong.images)], cfg.label_mode == 'train'
        if not own:
            with without_gradients(), evaluating(self.student):
                weak_logits = self.forward_network(self.student, weak).logits
        if cfg.joint_forward:
            views = [weak, *views] if own else views
            output, logits = self.forward_views(self.student, labeled, *views)
        else:
            output, logits = self.forward_views(self.student, labeled, *([weak] if own else []))
            logits = [*logits, self.forward_network(self.student, views[0]).logits]
        if own:
            weak_logits = logits[0].detach()
        confidence, label = self.most_probable(weak_logits, batch.size)
        mixed_label, mixed_confidence, valid = mix(label, confidence, batch.weak.valid)
        loss = confident_cross_entropy(
            logits[-1],
            mixed_label,
            mixed_confidence,
            cfg.tau,
            valid_mask=valid,
            divisor=cfg.divisor,
            align_corners=self.align_corners,
        )
        return {
            **self.labeled_loss(output, batch),
            'loss_unlabeled': cfg.unlabeled_weight * loss.mean(),
            **self.label_log(label, batch.weak, confidence),
            **mix.log,
        }
