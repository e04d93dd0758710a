"""Base of UniMatch and UniMatch V2: the weak view labels two strong views with CutMix."""

from __future__ import annotations

from torch import Tensor

from ...functional.losses import confident_cross_entropy
from ..batch import Batch
from ..cutmix import CutMixPlan
from ..settings import setting
from .base import SemiSegmentor
from .networks import check_forwards


class TwoViewSegmentor(SemiSegmentor):
    """Base of the methods with a weak and two strong views.

    Args: see :class:`SemiSegmentor`.
    """

    class Settings(SemiSegmentor.Settings):
        tau: float = setting(
            0.95,
            'Confidence threshold of pseudo-labels; Cityscapes: 0.',
            low=0,
            high=1,
            source='UniMatch code, configs/pascal.yaml',
        )
        labeled_weight: float = setting(
            0.5, 'Weight of the labeled loss.', low=0, reading='weight of the labeled loss'
        )
        unlabeled_weight: float = setting(
            0.5, 'Weight of the unlabeled losses.', low=0, reading='weight of the unlabeled losses'
        )
        joint_forward: bool = setting(
            False,
            'Run labeled images and all views in one forward pass. False: strong views separately.',
            source='UniMatch code: False',
            reading='batch normalization over labeled and strong images together',
        )
        cutmix: dict | None = setting(
            {
                'type': 'AdaptiveCutMix',
                'adaptive': False,
                'per_image': True,
                'prob': 0.5,
                'style': 'unimatch',
            },
            'CutMix of both strong views, with independent boxes; None disables it.',
            source='UniMatch code',
            reading='probability and box of CutMix',
        )

    cfg: Settings
    unlabeled_branches = ('weak', 'strong', 'strong2')

    def check_segmentor(self, segmentor: dict) -> None:
        check_forwards(segmentor, self.cfg.joint_forward)

    def mix_views(self, batch: Batch) -> tuple[list[Tensor], list[CutMixPlan]]:
        """Apply CutMix to both strong views with independent plans. Returns the views and their plans.

        In the first view, boxes come from the next image of the batch, in the second from the previous one.
        """
        views = [batch.strong.images, batch.strong2.images]
        first, second = (self.cutmix.plan(len(one), batch.size, one.device) for one in views)
        plans = [first, second.reverse()]
        return [mix(view) for mix, view in zip(plans, views, strict=True)], plans

    def make_labels(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return labels from small logits (N, C, h, w) of the weak views.

        Returns:
            tuple: int64 labels (N, H, W), 255 for ignored pixels; float32 confidences (N, H, W); scalars for
            the log.
        """
        confidence, label = self.most_probable(logits, batch.size)
        log = self.label_log(label, batch.weak, confidence)
        return label.masked_fill(~batch.weak.valid, 255), confidence, log

    def view_loss(
        self,
        logits: Tensor,
        label: Tensor,
        confidence: Tensor,
        mix: CutMixPlan | None = None,
        tau: float | None = None,
    ) -> Tensor:
        """Return the cross-entropy of the labels over the confident pixels, after mixing labels like the view.

        Confident pixels have a confidence of at least ``tau``. Default: the setting.
        """
        if mix is not None:
            label, confidence = mix(label, confidence)
        return confident_cross_entropy(
            logits,
            label,
            confidence,
            self.cfg.tau if tau is None else tau,
            divisor='valid',
            align_corners=self.align_corners,
        )

    def strong_loss(
        self,
        logits: list[Tensor],
        label: Tensor,
        confidence: Tensor,
        plans: list[CutMixPlan],
        tau: float | None = None,
    ) -> Tensor:
        """Return the mean of the losses of the two strong views."""
        first, second = (
            self.view_loss(one, label, confidence, mix, tau)
            for one, mix in zip(logits, plans, strict=True)
        )
        return (first + second) / 2
