"""UniMatch V2: an EMA teacher, two strong views with complementary channels (TPAMI 2025)."""

from __future__ import annotations

import torch
from mmseg.registry import MODELS
from torch import Tensor

from ...functional.perturbation import sample_complementary_masks, scale_channels
from ..alignment import AdjustmentSettings, DistributionAlignment, LogitAdjustment
from ..batch import Batch
from ..features import channel_widths, map_features
from ..gradients import without_gradients
from ..settings import setting
from .mean_teacher import MeanTeacherSegmentor
from .networks import NetworkOutput, class_weights
from .two_views import TwoViewSegmentor


@MODELS.register_module()
class UniMatchV2(TwoViewSegmentor, MeanTeacherSegmentor):
    """UniMatch V2, "UniMatch V2: Pushing the Limit of Semi-Supervised Semantic Segmentation".

    The EMA teacher labels the weak view of an image. Where it is confident, the student is trained on these
    pseudo-labels with two strong views. For half of the images, the two views lose complementary channels
    between encoder and decoder: with M ~ Bernoulli(1/2) per channel, their features are multiplied by 2 M and 2
    (1 - M),

        L = 1/2 L_x + 1/2 (H(p_w, p_s1) + H(p_w, p_s2)) / 2,

    where H is the cross-entropy summed over the confident pixels, divided by the number of pixels without
    padding.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    class Settings(TwoViewSegmentor.Settings, AdjustmentSettings):
        dropout_prob: float = setting(
            0.5,
            'Fraction of images whose views lose complementary channels, in every stage that the head may '
            'read; 0 disables it.',
            low=0,
            high=1,
            reading='fraction of images with complementary dropout',
        )
        align_distribution: bool = setting(
            False,
            "Distribution alignment: scale the teacher's probabilities to the class shares of the labeled "
            'pixels.',
            source='ReMixMatch, Sec. 3.1',
        )

        def check(self) -> None:
            super().check()
            if self.align_distribution and self.adjust_logits:
                raise ValueError(
                    'semi_train_cfg has align_distribution=True and adjust_logits=True, but aligned '
                    'pseudo-labels have the class shares of the labeled images. Set one of them to False.'
                )

    cfg: Settings

    def __init__(self, segmentor: dict, **kwargs) -> None:
        super().__init__(segmentor, **kwargs)
        self.alignment = None
        if self.cfg.align_distribution:
            self.alignment = DistributionAlignment(self.num_classes)
        self.adjustment = None
        if self.cfg.adjust_logits:
            self.adjustment = LogitAdjustment(self.num_classes, class_weights(self.student))

    def images_of_a_forward(self, labeled: int, unlabeled: int) -> int:
        return labeled + 2 * unlabeled if self.cfg.joint_forward else min(labeled, 2 * unlabeled)

    def semi_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return L, with the views of the released code."""
        cfg, labeled = self.cfg, batch.labeled.images
        with without_gradients():
            weak_logits = self.forward_network(self.teacher, batch.weak.images).logits
        label, confidence, log = self.make_labels(weak_logits, batch)
        strong, plans = self.mix_views(batch)
        if cfg.joint_forward:
            output, logits = self.forward_complementary(labeled, *strong)
        else:
            _, logits = self.forward_complementary(labeled[:0], *strong)
            output = self.forward_network(self.student, labeled, len(labeled))
        if self.adjustment is not None:
            logits = self.adjustment(logits, label, confidence >= cfg.tau, batch.labeled.label)
        strong_loss = self.strong_loss(logits, label, confidence, plans)
        return {
            **self.labeled_loss(output, batch),
            'loss_strong': cfg.unlabeled_weight * strong_loss,
            **log,
        }

    def make_labels(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Same as in the base class, with distribution alignment of the logits if the setting is True."""
        if self.alignment is not None:
            logits = self.alignment(logits, batch.weak.real, batch.labeled.label)
        return super().make_labels(logits, batch)

    def forward_complementary(
        self, labeled: Tensor, first: Tensor, second: Tensor
    ) -> tuple[NetworkOutput, list[Tensor]]:
        """Run the student on labeled images (possibly none) and two views in one forward pass.

        The features of the views lose complementary channels before the decoder.

        Returns:
            tuple: The labeled output, and the logits of each view.
        """
        num_labeled = len(labeled)
        features = self.student.extract_feat(torch.cat([labeled, first, second]))
        masks = sample_complementary_masks(
            len(first), channel_widths(features), self.cfg.dropout_prob, device=first.device
        )

        def drop(feature: Tensor, mask: Tensor) -> Tensor:
            return torch.cat([feature[:num_labeled], scale_channels(feature[num_labeled:], mask)])

        output = self.forward_heads(self.student, map_features(drop, features, masks), num_labeled)
        own, *views = output.logits.split([num_labeled, len(first), len(second)])
        return NetworkOutput(own, output.auxiliary), views
