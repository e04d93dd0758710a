"""UniMatch: one network, two strong views and perturbed features (CVPR 2023)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from mmseg.registry import MODELS
from torch import Tensor

from ...functional.perturbation import sample_channel_masks, scale_channels
from ..batch import Batch
from ..cutmix import CutMixPlan
from ..features import channel_widths, map_features
from ..gradients import without_gradients
from ..settings import setting
from .networks import NetworkOutput, evaluating
from .two_views import TwoViewSegmentor


class Passes(NamedTuple):
    """Outputs of the student for a batch, with small logits.

    Attributes:
        labeled (NetworkOutput): Output for the labeled images.
        weak (Tensor): (N, C, h, w), logits of the weak view for the pseudo-labels, without a graph.
        strong (list[Tensor]): (N, C, h, w), logits of each strong view.
        perturbed (Tensor): (N, C, h, w), logits of the perturbed features of the weak view.
        plans (list[CutMixPlan]): CutMix plan of each strong view.
    """

    labeled: NetworkOutput
    weak: Tensor
    strong: list[Tensor]
    perturbed: Tensor
    plans: list[CutMixPlan]


@MODELS.register_module()
class UniMatch(TwoViewSegmentor):
    """UniMatch, "Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation".

    One network labels the weak view of an image. Where it is confident, these pseudo-labels supervise two
    strong views and the weak view with dropped feature channels between encoder and decoder,

        L   = 1/2 L_x + 1/2 L_u,    L_u = lambda H(p_w, p_fp) + mu (H(p_w, p_s1) + H(p_w, p_s2)) / 2,

    where H is the cross-entropy summed over the confident pixels, divided by the number of pixels without
    padding.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    class Settings(TwoViewSegmentor.Settings):
        feature_weight: float = setting(
            0.5,
            'lambda, weight of the term of the perturbed features.',
            low=0,
            reading='lambda, weight of the perturbed features in L_u',
        )
        strong_weight: float = setting(
            0.5,
            'mu, weight of the mean of the strong views.',
            low=0,
            reading='mu, weight of the strong views in L_u',
        )
        dropout_ratio: float = setting(
            0.5, 'Fraction of channels dropped from each stage that the head reads.', low=0, below=1
        )
        label_mode: Literal['train', 'eval'] = setting(
            'train',
            "'train': label the weak view with the forward pass that is trained; set the dropout of the heads "
            "to 0, since it disturbs the pseudo-labels. 'eval': label it in eval mode, in a separate forward "
            'pass.',
            reading='mode of the network that labels',
        )

    cfg: Settings

    @property
    def labeling_in_train_mode(self) -> tuple[str, ...]:
        return self.networks if self.cfg.label_mode == 'train' else ()

    def images_of_a_forward(self, labeled: int, unlabeled: int) -> int:
        return (
            labeled + unlabeled
            if self.cfg.joint_forward
            else min(labeled + unlabeled, 2 * unlabeled)
        )

    def semi_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return L, with the views of the released code."""
        return self.losses_of(self.forward_batch(batch), batch)

    def forward_batch(self, batch: Batch) -> Passes:
        """Run the student on the labeled images and all views."""
        cfg, labeled, weak = self.cfg, batch.labeled.images, batch.weak.images
        strong, plans = self.mix_views(batch)
        weak_logits = None
        if cfg.label_mode == 'eval':
            with without_gradients(), evaluating(self.student):
                weak_logits = self.forward_network(self.student, weak).logits
        if cfg.joint_forward:
            output, views, perturbed = self.forward_perturbed(labeled, *strong, weak)
        else:
            output, views, perturbed = self.forward_perturbed(labeled, weak)
            views = [*self.forward_network(self.student, torch.cat(strong)).logits.chunk(2), *views]
        weak_logits = views[-1] if weak_logits is None else weak_logits
        return Passes(output, weak_logits.detach(), views[:2], perturbed, plans)

    def losses_of(self, passes: Passes, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of L and the scalars for the log."""
        label, confidence, log = self.make_labels(passes.weak, batch)
        return {
            **self.labeled_loss(passes.labeled, batch),
            **self.unlabeled_losses(passes, label, confidence),
            **log,
        }

    def unlabeled_losses(
        self, passes: Passes, label: Tensor, confidence: Tensor, tau: float | None = None
    ) -> dict[str, Tensor]:
        """Return the loss of all views on labels (N, H, W) of the weak view; see :meth:`view_loss`."""
        cfg = self.cfg
        feature_loss = self.view_loss(passes.perturbed, label, confidence, tau=tau)
        strong_loss = self.strong_loss(passes.strong, label, confidence, passes.plans, tau)
        return {
            'loss_feature': cfg.unlabeled_weight * cfg.feature_weight * feature_loss,
            'loss_strong': cfg.unlabeled_weight * cfg.strong_weight * strong_loss,
        }

    def forward_perturbed(
        self, labeled: Tensor, *views: Tensor
    ) -> tuple[NetworkOutput, list[Tensor], Tensor]:
        """Run the student on labeled images and views, and its decoder on perturbed features of the last view.

        The decoder runs once on all of them. A separate forward pass labels the last view if needed.

        Returns:
            tuple: The labeled output, the logits of the views, and the logits of the perturbed features.
        """
        num_last = len(views[-1])
        features = self.student.extract_feat(torch.cat([labeled, *views]))
        masks = sample_channel_masks(
            num_last, channel_widths(features), self.cfg.dropout_ratio, device=labeled.device
        )
        if self.cfg.label_mode == 'eval':
            views = views[:-1]
        sizes = [len(labeled), *map(len, views), num_last]

        def perturb(feature: Tensor, mask: Tensor) -> Tensor:
            last = scale_channels(feature[-num_last:], mask)
            return torch.cat([feature[: sum(sizes[:-1])], last])

        features = map_features(perturb, features, masks)
        output = self.forward_heads(self.student, features, len(labeled))
        first, *rest, perturbed = output.logits.split(sizes)
        return NetworkOutput(first, output.auxiliary), rest, perturbed
