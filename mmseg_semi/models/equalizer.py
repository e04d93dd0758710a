"""Entropy-based equalization of DeS4: sampling of the pixels that update the prototypes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from ..functional.parts import masked_average_pool
from ..functional.prototypes import mean_similarity, mean_turn
from ..functional.pseudo_label import class_counts
from ..functional.resizing import resize_nearest
from ..functional.sampling import RULES, STYLES, balanced_mask
from .features import at_least_float
from .heads import PrototypeClassifier
from .memory import OncePerStep, mean_over_ranks
from .settings import MethodSettings, setting

if TYPE_CHECKING:
    from .segmentors.networks import NetworkOutput


class EqualizerSettings(MethodSettings):
    """Settings of DeS4 for prototypes and sampling."""

    normalize: bool = setting(
        True,
        'Normalize features, their means and the prototypes to unit length when updating prototypes.',
        source='Eq. 12',
        reading='unit length in Eq. 12',
    )
    prototype_decay: float = setting(
        0.99, 'tau_2, weight of the old prototype.', low=0, high=1, source='Eq. 12'
    )
    prototype_init: Literal['first_batch', 'labeled_set'] = setting(
        'first_batch',
        "Initial prototype of a class: 'first_batch' is its mean over the first batch with this class, before "
        "the losses; 'labeled_set' is the mean over the centers of all labeled images, before training.",
        reading='initial prototypes',
    )
    sampling: Literal[STYLES] = setting(
        'multi_entropy',
        'Sampling of the pixels of a class: across zones of entropy, uniformly, or by confidence.',
        source='Table 4',
        reading='sampling of pixels (Table 4)',
    )
    class_ratio: Literal[RULES] = setting(
        'inverse',
        'Fraction of sampled pixels per class: n_min / n_c, which subsamples frequent classes, or literally '
        'n_c / n_min, which keeps every pixel.',
        source='Sec. 3.3',
        reading='fraction of sampled pixels per class (n_min / n_c, or n_c / n_min as printed)',
    )
    num_zones: int = setting(
        5,
        'k, number of zones of entropy.',
        low=1,
        source='Eq. 10',
        reading='zones of entropy, the last closed (Eq. 10)',
    )
    alpha: float = setting(
        0.1,
        'alpha. A larger value makes the sampling across zones more uniform.',
        above=0,
        source='Eq. 11',
        reading='of the zones of entropy (Eq. 11)',
    )


class Equalizer(nn.Module):
    """Update prototypes from features of labeled images, sampled evenly over classes and entropies (Eq. 9-12).

    Args:
        classifiers (dict[str, PrototypeClassifier]): Classifiers by network. Their prototypes follow the
            features of this network.
        cfg (EqualizerSettings): Settings of the method.
        align_corners (bool): ``align_corners`` of the networks.
    """

    def __init__(
        self,
        classifiers: dict[str, PrototypeClassifier],
        cfg: EqualizerSettings,
        align_corners: bool,
    ) -> None:
        super().__init__()
        self.cfg, self.align_corners = cfg, align_corners
        self.updates = nn.ModuleDict(
            {name: PrototypeUpdate(one, cfg) for name, one in classifiers.items()}
        )
        num_classes = len(next(iter(classifiers.values())).seen)
        # Pixels of each class in the labeled set, without void. ClassCountHook sets them.
        self.register_buffer('class_counts', torch.zeros(num_classes, dtype=torch.int64))
        # For the log: pseudo-labels, and samples by zone, since ClassDistributionHook last read them.
        zones = cfg.num_zones if cfg.sampling == 'multi_entropy' else 1
        for name, shape in {'pseudo_label_counts': (), 'sample_counts': (zones,)}.items():
            counts = torch.zeros(num_classes, *shape, dtype=torch.int64)
            self.register_buffer(name, counts, persistent=False)

    def start(self, name: str, features: Tensor, label: Tensor) -> None:
        """Initialize the prototypes of new classes from the labeled images of all ranks.

        Args:
            name (str): Name of the network.
            features (Tensor): (N, D, h, w), the labeled images first.
            label (Tensor): int64 (B, H, W) of the labeled images.
        """
        label = self.to_grid(label, features)
        means, counts = mean_over_ranks(*self.pool(features[: len(label)], label))
        self.updates[name].classifier.start(means, counts > 0, self.cfg.normalize)

    def start_all(self, batches: Iterable[tuple[Tensor, Tensor]]) -> int:
        """Set all prototypes to the mean features of the labeled images of all ranks.

        Args:
            batches (iterable): Features (B, D, h, w) and int64 labels (B, H, W) of this rank.

        Returns:
            int: Number of classes with a prototype.
        """
        classifiers = [update.classifier for update in self.updates.values()]
        shape = classifiers[0].vectors.shape
        total = self.class_counts.new_zeros(1, *shape, dtype=torch.float64)
        number = self.class_counts.new_zeros(1, shape[0])
        for features, label in batches:
            means, counts = self.pool(features, self.to_grid(label.long(), features))
            total = total + (means.double() * counts[..., None]).sum(dim=0)
            number = number + counts.sum(dim=0)
        means, counts = mean_over_ranks(total / number.clamp(min=1)[..., None], number)
        for classifier in classifiers:
            classifier.start(means.to(classifier.vectors), counts > 0, self.cfg.normalize)
        return int(classifiers[0].seen.sum())

    @torch.no_grad()
    def collect(self, outputs: dict[str, NetworkOutput], label: Tensor) -> dict[str, Tensor]:
        """Sample features of the labeled images. Their means update the prototypes after the step (Eq. 9-12).

        Args:
            outputs (dict[str, NetworkOutput]): Outputs by network, with ``tap=True``, the labeled images first.
            label (Tensor): int64 (B, H, W) of the labeled images.

        Returns:
            dict[str, Tensor]: Scalars for the log, of the last network. So are the counts of samples.
        """
        cfg, num = self.cfg, len(label)
        for name, update in self.updates.items():
            features = outputs[name].decoder[:num]
            small = self.to_grid(label, features)
            drawn, counts = balanced_mask(
                outputs[name].logits[:num],
                small,
                self.class_counts,
                style=cfg.sampling,
                rule=cfg.class_ratio,
                num_zones=cfg.num_zones,
                alpha=cfg.alpha,
            )
            update.collect(*self.pool(features, small.masked_fill(~drawn, 255)))
        self.sample_counts += counts
        share = counts.sum(dim=0) / counts.sum().clamp(min=1)
        return {
            'sampled_ratio': counts.sum() / (small != 255).sum().clamp(min=1),
            **{f'zone{i}_ratio': share[i] for i in range(len(share)) if len(share) > 1},
        }

    def count_labels(self, label: Tensor, real: Tensor) -> Tensor:
        """Count pseudo-labels (N, H, W) of valid pixels.

        Returns the distance of their class distribution to that of the ground truth.
        """
        counts = class_counts(label, len(self.class_counts), real)
        self.pseudo_label_counts += counts
        shares = [c / c.sum().clamp(min=1) for c in (counts, self.class_counts)]
        return (shares[0] - shares[1]).abs().sum() / 2

    @torch.no_grad()
    def pool(self, features: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean features (B, C, D) and pixel counts (B, C) of each class in each image.

        Features and labels have the same resolution.
        """
        features = at_least_float(features.detach())
        if self.cfg.normalize:
            features = nn.functional.normalize(features, dim=1)
        one_part = torch.zeros_like(label)
        num_classes = len(self.class_counts)
        means, counts = masked_average_pool(features, label, one_part, num_classes, 1)
        return means[:, :, 0], counts[:, :, 0]

    def to_grid(self, label: Tensor, features: Tensor) -> Tensor:
        """Resize labels (B, H, W) to the resolution of features (N, D, h, w) by nearest neighbor."""
        return resize_nearest(label, features.shape[-2:], self.align_corners)


class PrototypeUpdate(OncePerStep):
    """Update a classifier's prototypes by the features of a whole optimizer step (DeS4, Eq. 12).

    This is a submodule of the method and not of the classifier, since the classifier is exported.

    Args:
        classifier (PrototypeClassifier): Classifier whose prototypes are updated.
        cfg (EqualizerSettings): Decay, and whether means and prototypes are normalized.
    """

    def __init__(self, classifier: PrototypeClassifier, cfg: EqualizerSettings) -> None:
        super().__init__(*classifier.vectors.shape)
        # In a tuple, since as a submodule it would be registered twice in the method.
        self._classifier = (classifier,)
        self.cfg = cfg

    @property
    def classifier(self) -> PrototypeClassifier:
        """Classifier whose prototypes are updated."""
        return self._classifier[0]

    @torch.no_grad()
    def follow(self, means: Tensor, counts: Tensor) -> dict[str, Tensor]:
        classifier = self.classifier
        before = classifier.vectors.clone()
        classifier.follow(means, counts > 0, self.cfg.prototype_decay, self.cfg.normalize)
        return {
            'prototype_drift': mean_turn(before, classifier.vectors, classifier.seen),
            'prototype_similarity': mean_similarity(classifier.vectors, classifier.seen),
            'prototype_ratio': classifier.seen.float().mean(),
        }
