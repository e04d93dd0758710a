"""CorrMatch: label propagation by correlation maps and an adaptive threshold (CVPR 2024)."""

from __future__ import annotations

import torch
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...functional.correlation import propagate_labels
from ...functional.losses import cross_entropy, soft_cross_entropy
from ...functional.pseudo_label import confident_ratio
from ..batch import Batch
from ..correlator import AdaptiveThreshold, Correlator
from ..features import append_dropped
from ..settings import setting
from .base import SemiSegmentor
from .networks import check_forwards


@MODELS.register_module()
class CorrMatch(SemiSegmentor):
    """CorrMatch, "Label Propagation via Correlation Matching for Semi-Supervised Semantic Segmentation".

    One network predicts pseudo-labels from the weak view. A correlation map of its features spreads them over
    regions, and the network is trained on them with the strong view. A further loss supervises the logits that
    the correlation map propagates. docs/corrmatch.md lists each term.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    class Settings(SemiSegmentor.Settings, Correlator.Settings):
        labeled_weight: float = setting(0.25, 'Weight of the labeled loss.', low=0, source='code')
        labeled_correlation_weight: float = setting(
            0.25, 'Weight of the loss on propagated logits of labeled images.', low=0, source='code'
        )
        unlabeled_weight: float = setting(
            0.5, 'Weight of the sum of the four unlabeled terms.', low=0, source='code'
        )
        hard_weight: float = setting(
            0.25, 'Weight of the loss on propagated pseudo-labels.', low=0, source='code'
        )
        soft_weight: float = setting(
            0.25, 'Weight of the loss on soft pseudo-labels.', low=0, source='code'
        )
        feature_weight: float = setting(
            0.25, 'Weight of the loss with dropped feature channels.', low=0, source='code'
        )
        correlation_weight: float = setting(
            0.25,
            'Weight of the loss on propagated logits, mean of both views.',
            low=0,
            source='code',
        )
        dropout_ratio: float = setting(
            0.5, 'Fraction of feature channels that are dropped.', low=0, below=1, source='code'
        )
        cutmix: dict | None = setting(
            dict(type='AdaptiveCutMix', adaptive=False, per_image=True, prob=0.5, style='unimatch'),
            'CutMix of the strong view; None disables it.',
            source='code',
        )

    cfg: Settings
    unlabeled_branches = ('weak', 'strong')
    training_only = ('decode_head.correlator.',)

    def __init__(self, segmentor: dict, **kwargs) -> None:
        super().__init__(segmentor, **kwargs)
        self.threshold = AdaptiveThreshold(self.num_classes, self.cfg)

    @property
    def labeling_in_train_mode(self) -> tuple[str, ...]:
        return self.networks

    @property
    def several_forwards(self) -> bool:
        return True

    def check_segmentor(self, segmentor: dict) -> None:
        check_forwards(segmentor, joint_forward=False)

    def add_training_modules(self, network: nn.Module) -> None:
        network.decode_head.correlator = Correlator(network.decode_head, self.cfg)

    def images_of_a_forward(self, labeled: int, unlabeled: int) -> int:
        return unlabeled  # the forward pass of the strong views

    def labeled_only_loss(self, batch: Batch, update: str) -> dict[str, Tensor]:
        features = self.student.extract_feat(batch.labeled.images)
        output = self.forward_heads(self.student, features, len(batch.labeled))
        propagated, _ = self.student.decode_head.correlator(features, output.logits)
        return self.all_labeled_losses(output, propagated, batch)

    def all_labeled_losses(self, output, propagated: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of the heads and of the propagated logits (B, C, h, w) on labeled images."""
        loss = cross_entropy(propagated, batch.labeled.label, align_corners=self.align_corners)
        weighted = self.cfg.labeled_correlation_weight * loss
        return {**self.labeled_loss(output, batch), 'loss_labeled_correlation': weighted}

    def semi_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return all terms of docs/corrmatch.md."""
        cfg, weak, number = self.cfg, batch.weak, len(batch.weak)
        correlate, tau = self.student.decode_head.correlator, self.threshold.value.clone()
        mix = self.cutmix.plan(number, batch.size, weak.images.device)
        features = self.student.extract_feat(torch.cat([batch.labeled.images, weak.images]))
        perturbed = append_dropped(features, number, cfg.dropout_ratio)
        output = self.forward_heads(self.student, perturbed, len(batch.labeled))
        sizes = [len(batch.labeled), number, number]
        first, weak_logits, feature_logits = output.logits.split(sizes)
        propagated, correlation = correlate(features, output.logits[:-number])
        labeled_corr, weak_corr = propagated.split(sizes[:2])
        strong_features = self.student.extract_feat(mix(batch.strong.images))
        strong_logits = self.forward_heads(self.student, strong_features).logits
        strong_corr, _ = correlate(strong_features, strong_logits)

        weak_logits = weak_logits.detach()
        confidence, label = self.most_probable(weak_logits, batch.size)
        sure = (confidence >= tau) & weak.valid
        self.threshold.observe(label, confidence, weak.valid)
        mixed_label, mixed_sure, valid = mix(label, sure, weak.valid)
        image = torch.arange(number, device=tau.device)[:, None, None].expand_as(label)
        own = mix(image) == image  # a region ends where another image is pasted
        rows = correlate.sample_rows(correlation[-number:], features)
        where = (rows, own & valid, tau, self.num_classes, cfg.region_threshold)
        target, counted = propagate_labels(mixed_label, mixed_sure, *where, self.align_corners)
        upsampled = resize(weak_logits.float(), batch.size, None, 'bilinear', self.align_corners)
        probs = mix(upsampled.softmax(dim=1))
        soft = soft_cross_entropy(
            strong_logits, probs, valid_mask=mixed_sure, align_corners=self.align_corners
        ).sum() * (batch.size[0] * batch.size[1] / valid.sum().clamp(min=1))
        spread, plain = (target, counted, valid), (label, sure, weak.valid)
        both = self.view_loss(strong_corr, *spread) + self.view_loss(weak_corr, *plain)
        terms = {
            'hard': self.view_loss(strong_logits, *spread),
            'soft': soft,
            'feature': self.view_loss(feature_logits, *plain),
            'correlation': both / 2,
        }
        weights = {name: cfg.unlabeled_weight * getattr(cfg, f'{name}_weight') for name in terms}
        return {
            **self.all_labeled_losses(output._replace(logits=first), labeled_corr, batch),
            **{f'loss_{name}': weights[name] * term for name, term in terms.items()},
            **self.label_log(label, weak),
            'confident_ratio': confident_ratio(confidence, tau, weak.valid).mean(),
            'propagated_ratio': (counted & ~mixed_sure).sum() / valid.sum().clamp(min=1),
            **mix.log,
        }

    def view_loss(self, logits: Tensor, label: Tensor, counted: Tensor, valid: Tensor) -> Tensor:
        """Return the cross-entropy of the counted pixels, divided by the number of valid pixels."""
        kept = label.masked_fill(~counted, 255)
        sums = cross_entropy(logits, kept, align_corners=self.align_corners, reduction='image_sum')
        return sums.sum() / valid.sum().clamp(min=1)
