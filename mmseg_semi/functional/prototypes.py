"""Classes as directions in feature space: classifying by cosine, and following the data slowly."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from ._common import check_same_shape, exact_float, no_autocast, unit


def cosine_logits(features: Tensor, prototypes: Tensor, temperature: float = 1.0) -> Tensor:
    """Cosine of every pixel's feature with every class's prototype, over a temperature (DeS4, Eq. 1-3).

    DeS4 prints no temperature. With 1 and 21 classes no probability can exceed 0.27, so a smaller one
    is a setting of the method. The lengths are divided out after the product, which spares a
    normalized copy of the features.

    Args:
        features: (N, D, h, w), any floating dtype.
        prototypes: (C, D); neither they nor the features need unit length.
        temperature: above 0.

    Returns:
        (N, C, h, w) in [-1, 1] / temperature up to rounding, float32 (float64 if either argument
        is). A zero vector has cosine 0 with everything, and finite gradients.

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
    """Move the prototypes that the batch shows towards its means (DeS4, Eq. 12; ESL, Eq. 12).

    new = decay · old + (1 - decay) · mean. A class or part that the batch does not show keeps its
    prototype: averaging with 0 would shrink it until the next mean outweighs it. The first mean
    of a prototype replaces it.

    Lengths are left as they come out; normalize the means or the result where a method says so. Rows
    whose means are not finite must be left out of `present`.

    Args:
        prototypes: (C, D), or (C, K, D) with K parts per class.
        means: like `prototypes`; rows that are not present are not read and may hold anything.
        present: (C,) or (C, K), true (or not 0) where the batch has a mean.
        decay: weight of the old prototype, in [0, 1]; both papers use 0.99.
        initialised: like `present`, false where the prototype has no value yet; by default all have.

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
    """How far prototypes have turned, in degrees, on average over classes.

    Args:
        before: (C, D) prototypes, of any length.
        after: (C, D), the same later.
        known: (C,) bool, the classes that count.

    Returns:
        A scalar in [0, 180], float32 (float64 for float64 prototypes); 0 without a known class. Nothing waits
        for the device.

    Raises:
        ValueError: if the shapes do not fit.
    """
    check_same_shape(after, before, 'after', 'before')
    check_same_shape(known, before[:, 0], 'known', 'before[:, 0]')
    before, after = (unit(exact_float(vectors), dim=1) for vectors in (before, after))
    # From the chord: the arc cosine of a number near 1 has no digits left for a small angle.
    chord = torch.linalg.vector_norm(after - before, dim=1)
    angle = torch.rad2deg(2 * (chord / 2).clamp(max=1).asin())
    return angle.masked_fill(~known.bool(), 0).sum() / known.sum().clamp(min=1)


@torch.no_grad()
def mean_similarity(prototypes: Tensor, known: Tensor) -> Tensor:
    """Mean cosine of the prototypes of two different classes.

    Args:
        prototypes: (C, D), of any length.
        known: (C,) bool, the classes that count.

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
    """Centers of k-means clusters, the first prototypes of a class's parts (ESL, text before Eq. 7).

    Lloyd's algorithm from k-means++ starts, scikit-learn's. It works with Euclidean distances and the
    assignment of parts with cosines, so features should have unit length where that matters.

    Args:
        features: (M, D) on any device; moved to the host.
        num_clusters: K, at least 1.
        seed: of the starts; the same features in the same order give the same centers.

    Returns:
        (K', D) of the features' device, float32 (float64 for float64 features), where K' is K or, if that
        is less, the number of different vectors; none for M = 0.

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
        # A second to import, and most trainings never need it.
        from sklearn.cluster import KMeans

        # Fewer different vectors than clusters are no reason to warn: they are counted below.
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', message='Number of distinct clusters')
            fitted = KMeans(num_clusters, n_init=1, random_state=seed).fit(rows)
        centers = fitted.cluster_centers_[np.unique(fitted.labels_)]
    return torch.from_numpy(np.ascontiguousarray(centers)).to(features.device)
