"""Class prototypes in feature space: cosine classification, moving averages, clustering."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from ._common import check_same_shape, exact_float, no_autocast, unit


def cosine_logits(features: Tensor, prototypes: Tensor, temperature: float = 1.0) -> Tensor:
    """Cosine of every pixel's feature with every class prototype, over a temperature (DeS4, Eq. 1-3).

    DeS4 has no temperature. With temperature 1 and 21 classes no probability can exceed 0.27, so a smaller
    temperature is a setting of the method. The lengths are divided out after the product, which avoids a
    normalized copy of the features.

    Args:
        features: (N, D, h, w), any floating dtype.
        prototypes: (C, D); prototypes and features may have any length.
        temperature: Above 0.

    Returns:
        (N, C, h, w) in [-1, 1] / temperature up to rounding, float32 (float64 if either argument is). A zero
        vector has cosine 0 and finite gradients.

    Raises:
        ValueError: if the shapes do not fit or `temperature` is not positive.
    """
    if features.dim() != 4 or prototypes.dim() != 2 or features.shape[1] != prototypes.shape[1]:
        raise ValueError(
            f'features has shape {tuple(features.shape)} and prototypes {tuple(prototypes.shape)}, '
            'but they must be (N, D, h, w) and (C, D) with one D.'
        )
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise ValueError(f'temperature is {temperature}, but must be above 0.')
    with no_autocast(features.device):
        features, prototypes = exact_float(features), exact_float(prototypes)
        dtype = torch.promote_types(features.dtype, prototypes.dtype)
        size = features.shape[2:]
        features, prototypes = features.to(dtype).flatten(2), prototypes.to(dtype)
        # Ten times faster on the CPU than vector_norm; the square root of 0 has no finite gradient.
        length = features.square().sum(dim=1, keepdim=True)
        length = length.masked_fill(length == 0, 1).sqrt()
        product = unit(prototypes, dim=1).expand(len(features), -1, -1).bmm(features)
        return (product / (length * temperature)).unflatten(2, size)


@torch.no_grad()
def update_prototypes(
    prototypes: Tensor,
    means: Tensor,
    present: Tensor,
    decay: float,
    *,
    initialised: Tensor | None = None,
) -> Tensor:
    """Move the prototypes of classes in the batch towards its means (DeS4, Eq. 12; ESL, Eq. 12).

    new = decay · old + (1 - decay) · mean. A class or part that is not in the batch keeps its prototype. The
    first mean of a prototype replaces it.

    Lengths are not normalized; normalize the means or the result if a method requires it. Exclude rows with
    non-finite means by `present`.

    Args:
        prototypes: (C, D), or (C, K, D) with K parts per class.
        means: Same shape as `prototypes`; rows that are not present are ignored.
        present: (C,) or (C, K), True (or not 0) if the batch has a mean.
        decay: Weight of the old prototype, in [0, 1]; both papers use 0.99.
        initialised: Same shape as `present`, False if the prototype has no value yet. Default: all have one.

    Returns:
        The new prototypes in a new tensor, float32 (float64 for float64 prototypes), without a
        gradient. Nothing waits for the device.

    Raises:
        ValueError: if the shapes do not fit or `decay` lies outside [0, 1].
    """
    check_same_shape(means, prototypes, 'means', 'prototypes')
    for name, rows in (('present', present), ('initialised', initialised)):
        if rows is not None and rows.shape != prototypes.shape[:-1]:
            raise ValueError(
                f'{name} has shape {tuple(rows.shape)}, but prototypes of shape '
                f'{tuple(prototypes.shape)} need {tuple(prototypes.shape[:-1])}.'
            )
    if not 0 <= decay <= 1:
        raise ValueError(f'decay is {decay}, but must lie in [0, 1].')
    prototypes = exact_float(prototypes)
    means = means.to(prototypes.dtype)
    moved = decay * prototypes + (1 - decay) * means
    if initialised is not None:
        moved = torch.where(initialised.bool()[..., None], moved, means)
    return torch.where(present.bool()[..., None], moved, prototypes)


@torch.no_grad()
def mean_turn(before: Tensor, after: Tensor, known: Tensor) -> Tensor:
    """Mean angle between prototypes before and after an update, in degrees.

    Args:
        before: (C, D) prototypes, of any length.
        after: (C, D), the same prototypes later.
        known: (C,) bool, the classes to average.

    Returns:
        A scalar in [0, 180], float32 (float64 for float64 prototypes); 0 without a known class. Nothing waits
        for the device.

    Raises:
        ValueError: if the shapes do not fit.
    """
    check_same_shape(after, before, 'after', 'before')
    check_same_shape(known, before[:, 0], 'known', 'before[:, 0]')
    before, after = (unit(exact_float(vectors), dim=1) for vectors in (before, after))
    # Compute the angle from the chord: the arc cosine of a number near 1 is inaccurate for small angles.
    chord = torch.linalg.vector_norm(after - before, dim=1)
    angle = torch.rad2deg(2 * (chord / 2).clamp(max=1).asin())
    return angle.masked_fill(~known.bool(), 0).sum() / known.sum().clamp(min=1)


@torch.no_grad()
def mean_similarity(prototypes: Tensor, known: Tensor) -> Tensor:
    """Mean cosine of the prototypes of two different classes.

    Args:
        prototypes: (C, D), of any length.
        known: (C,) bool, the classes to average.

    Returns:
        A scalar in [-1, 1], float32 (float64 for float64 prototypes); 0 without two known classes. Nothing
        waits for the device.

    Raises:
        ValueError: if the shapes do not fit.
    """
    check_same_shape(known, prototypes[:, 0], 'known', 'prototypes[:, 0]')
    vectors = unit(exact_float(prototypes), dim=1)
    pairs = known.bool()[:, None] & known.bool()
    pairs = pairs.triu(diagonal=1)
    return (vectors @ vectors.t()).masked_fill(~pairs, 0).sum() / pairs.sum().clamp(min=1)


def cluster_centers(features: Tensor, num_clusters: int, *, seed: int = 0) -> Tensor:
    """Centers of k-means clusters, for the initial prototypes of a class's parts (ESL, text before Eq. 7).

    This is scikit-learn's Lloyd algorithm with k-means++ initialization. It uses Euclidean distances, while the
    assignment of parts uses cosines, so normalize the features if this matters.

    Args:
        features: (M, D) on any device; copied to the host.
        num_clusters: K, at least 1.
        seed: Seed of the initialization. Equal features in equal order give equal centers.

    Returns:
        (K', D) on the features' device, float32 (float64 for float64 features), where K' is K or, if smaller,
        the number of different vectors; (0, D) for M = 0.

    Raises:
        ValueError: if `features` is not a finite (M, D) tensor or `num_clusters` is below 1.
    """
    if features.dim() != 2 or not features.is_floating_point():
        raise ValueError(
            f'features is a {features.dtype} tensor of shape {tuple(features.shape)}, but must be '
            'floating point and (M, D).'
        )
    if num_clusters < 1:
        raise ValueError(f'num_clusters is {num_clusters}, but must be at least 1.')
    rows = exact_float(features.detach()).cpu().numpy()
    if not np.isfinite(rows).all():
        raise ValueError('features holds NaN or infinite values, which no cluster can hold.')
    if len(rows) <= num_clusters:
        centers = np.unique(rows, axis=0)
    else:
        # Import here: it takes a second, and most trainings do not need it.
        from sklearn.cluster import KMeans

        # Fewer different vectors than clusters are handled below, without a warning.
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', message='Number of distinct clusters')
            fitted = KMeans(num_clusters, n_init=1, random_state=seed).fit(rows)
        centers = fitted.cluster_centers_[np.unique(fitted.labels_)]
    return torch.from_numpy(np.ascontiguousarray(centers)).to(features.device)
