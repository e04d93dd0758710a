"""CorrMatch: labels propagated by correlation maps, and a threshold that adapts (CVPR 2024)."""

from __future__ import annotations

import torch
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...functional.correlation import class_maxima, propagate_labels
from ...functional.losses import cross_entropy, soft_cross_entropy
from ...functional.perturbation import sample_channel_masks, scale_channels
from ...functional.pseudo_label import confident_ratio
from ..batch import Batch
from ..correlator import AdaptiveThreshold, Correlator
from ..features import channel_widths, map_features
from ..settings import setting
from .base import SemiSegmentor
from .networks import check_forwards


@MODELS.register_module()
class CorrMatch(SemiSegmentor):
    """CorrMatch, "Label Propagation via Correlation Matching for Semi-Supervised Semantic Segmentation".

    One network labels the weak view. A correlation map of its features spreads these labels over regions, and
    the strong view learns them; the logits that the map propagates are supervised besides. docs/corrmatch.md
    states each term.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    class Settings(SemiSegmentor.Settings):
        labeled_weight: float = setting(0.25, 'Factor of the labeled loss.', low=0, source='code')
        labeled_correlation_weight: float = setting(
            0.25, 'Factor of the propagated logits of labeled images.', low=0, source='code'
        )
        unlabeled_weight: float = setting(
            0.5, 'Factor of the unlabeled losses.', low=0, source='code'
        )
        hard_weight: float = setting(
            0.25, "Factor of the strong view's propagated labels.", low=0, source='code'
        )
        soft_weight: float = setting(
            0.25, "Factor of the weak view's probabilities.", low=0, source='code'
        )
        feature_weight: float = setting(
            0.25, "Factor of the perturbed features' term.", low=0, source='code'
        )
        correlation_weight: float = setting(
            0.25, 'Factor of the propagated logits of both views.', low=0, source='code'
        )
        dropout_ratio: float = setting(
            0.5, 'Share of channels dropped from the features.', low=0, below=1, source='code'
        )
        tau_start: float = setting(
            0.85, 'Threshold of confidence before the first step.', low=0, high=1, source='code'
        )
        tau_decay: float = setting(
            0.999, 'Weight of the old threshold in the new one.', low=0, high=1, source='code'
        )
        num_regions: int = setting(
            128, 'Pixels of an image whose regions are labeled.', low=0, source='code'
        )
        region_threshold: float = setting(
            0.5,
            'Scaled correlation that a pixel of a region exceeds.',
            low=0,
            below=1,
            source='code',
        )
        channels: int = setting(256, 'Channels that are correlated.', low=1, source='code')
        projector_dropout: float = setting(
            0.1, 'Share of these channels dropped.', low=0, below=1, source='code'
        )
        cutmix: dict | None = setting(
            {
                'type': 'AdaptiveCutMix',
                'adaptive': False,
                'per_image': True,
                'prob': 0.5,
                'style': 'unimatch',
            },
            'CutMix of the strong view; None leaves it out.',
            source='code',
        )

    cfg: Settings
    unlabeled_branches = ('weak', 'strong')
    training_only = ('decode_head.correlator.',)

    def __init__(self, segmentor: dict, **kwargs) -> None:
        super().__init__(segmentor, **kwargs)
        self.threshold = AdaptiveThreshold(self.num_classes, self.cfg.tau_start, self.cfg.tau_decay)

    @property
    def labeling_in_train_mode(self) -> tuple[str, ...]:
        return self.networks

    def check_segmentor(self, segmentor: dict) -> None:
        check_forwards(segmentor, joint_forward=False)

    def add_training_modules(self, network: nn.Module) -> None:
        head, cfg = network.decode_head, self.cfg
        head.correlator = Correlator(head, cfg.channels, cfg.projector_dropout)

    def images_of_a_forward(self, labeled: int, unlabeled: int) -> int:
        return min(labeled + unlabeled, unlabeled)

    def labeled_only_loss(self, batch: Batch, update: str) -> dict[str, Tensor]:
        features = self.student.extract_feat(batch.labeled.images)
        output = self.forward_heads(self.student, features, len(batch.labeled))
        propagated, _ = self.student.decode_head.correlator(features, output.logits)
        return self.all_labeled_losses(output, propagated, batch)

    def all_labeled_losses(self, output, propagated: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The losses of the heads and of the propagated logits (B, C, h, w), on the labeled images."""
        loss = cross_entropy(propagated, batch.labeled.label, align_corners=self.align_corners)
        weighted = self.cfg.labeled_correlation_weight * loss
        return {**self.labeled_loss(output, batch), 'loss_labeled_correlation': weighted}

    def semi_loss(self, batch: Batch) -> dict[str, Tensor]:
        """All terms of docs/corrmatch.md."""
        cfg, weak, number = self.cfg, batch.weak, len(batch.weak)
        correlate, tau = self.student.decode_head.correlator, self.threshold.value.clone()
        mix = self.cutmix.plan(number, batch.size, weak.images.device)
        features = self.student.extract_feat(torch.cat([batch.labeled.images, weak.images]))
        masks = sample_channel_masks(
            number, channel_widths(features), cfg.dropout_ratio, device=tau.device
        )
        perturbed = map_features(
            lambda one, mask: torch.cat([one, scale_channels(one[-number:], mask)]), features, masks
        )
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
        maxima = class_maxima(label, confidence, self.num_classes, weak.valid)
        self.threshold.collect(maxima[None, :, None], (maxima > 0)[None].long())
        mixed_label, mixed_sure, valid = mix(label, sure, weak.valid)
        image = torch.arange(number, device=tau.device)[:, None, None].expand_as(label)
        own = mix(image) == image  # a region ends where another image is pasted
        grid = features[correlate.index].shape[-2:]
        places = torch.randint(grid.numel(), (cfg.num_regions,)).to(tau.device, non_blocking=True)
        rows = correlation[-number:].detach()[:, places].unflatten(2, grid)
        target, counted = propagate_labels(
            mixed_label,
            mixed_sure,
            rows,
            own & valid,
            tau,
            self.num_classes,
            cfg.region_threshold,
            self.align_corners,
        )
        upsampled = resize(weak_logits.float(), batch.size, None, 'bilinear', self.align_corners)
        probs = mix(upsampled.softmax(dim=1))
        soft = soft_cross_entropy(
            strong_logits, probs, valid_mask=mixed_sure, align_corners=self.align_corners
        ).sum() * (batch.size[0] * batch.size[1] / valid.sum().clamp(min=1))
        corr_loss = (
            self.view_loss(strong_corr, target, counted, valid)
            + self.view_loss(weak_corr, label, sure, weak.valid)
        ) / 2
        terms = {
            'hard': self.view_loss(strong_logits, target, counted, valid),
            'soft': soft,
            'feature': self.view_loss(feature_logits, label, sure, weak.valid),
            'correlation': corr_loss,
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
        """Cross-entropy of the pixels that count over the number of valid ones."""
        kept = label.masked_fill(~counted, 255)
        sums = cross_entropy(logits, kept, align_corners=self.align_corners, reduction='image_sum')
        return sums.sum() / valid.sum().clamp(min=1)
