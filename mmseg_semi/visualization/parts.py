"""Images of soft labels and of class parts, and scatter plots of features."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from .panels import colorize

EMBEDDINGS = ('tsne', 'pca')
MARKERS = 'osD^vP*X<>'


def color_counts(counts: np.ndarray, colors: Sequence[Sequence[int]] | None = None) -> np.ndarray:
    """Color a map of small numbers: one, two, and three or more.

    Args:
        counts: Integer (H, W), at least 1.
        colors: RGB of one, two and more. Default: white, orange, red.

    Returns:
        uint8 RGB (H, W, 3).
    """
    colors = colors or ((245, 245, 245), (250, 170, 60), (200, 30, 40))
    return colorize(np.clip(np.asarray(counts), 1, len(colors)) - 1, colors)


def color_parts(
    label: np.ndarray, part: np.ndarray, palette: Sequence[Sequence[int]], num_parts: int
) -> np.ndarray:
    """Color each part of a class with a shade of the class's color.

    Args:
        label: Integer (H, W) class indices; values outside the palette are drawn as void.
        part: Integer (H, W) in [0, num_parts); other values are drawn as void.
        palette: RGB per class, 0..255.
        num_parts: K.

    Returns:
        uint8 RGB (H, W, 3).
    """
    label, part = np.asarray(label, dtype=np.int64), np.asarray(part, dtype=np.int64)
    base = np.asarray(palette, dtype=np.float64)
    # Shades go from half the color to halfway to white, so that black has shades too.
    steps = np.linspace(-0.5, 0.5, num_parts) if num_parts > 1 else np.zeros(1)
    shades = np.stack([base + step * (255 - base if step > 0 else base) for step in steps], axis=1)
    known = (label >= 0) & (label < len(base)) & (part >= 0) & (part < num_parts)
    return colorize(np.where(known, label * num_parts + part, -1), shades.round().reshape(-1, 3))


def embed(features: np.ndarray, method: str = 'tsne', seed: int = 0) -> np.ndarray:
    """Embed features (M, D) of unit length in two dimensions by scikit-learn's t-SNE or PCA: (M, 2).

    Raises:
        ValueError: ``method`` is unknown, or there are too few features.
    """
    if method not in EMBEDDINGS:
        raise ValueError(f'method={method!r} is unknown. Choose one of {EMBEDDINGS}.')
    if len(features) < 5:
        raise ValueError(f'{len(features)} features are too few to be placed. Give at least 5.')
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    features = features / np.where(lengths == 0, 1, lengths)
    # Import here: it takes seconds and is only needed in this function.
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if method == 'pca':
        return PCA(2, random_state=seed).fit_transform(features)
    perplexity = min(30.0, (len(features) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init='pca', random_state=seed).fit_transform(features)


def save_scatter(
    path: str,
    points: np.ndarray,
    label: np.ndarray,
    part: np.ndarray,
    palette: Sequence[Sequence[int]],
    classes: Sequence[str],
    title: str = '',
) -> None:
    """Draw points in their class's color with one marker per part; missing folders are created.

    Args:
        path: Image file; its ending sets the format.
        points: (M, 2).
        label, part: Integers (M,).
        palette: RGB per class, 0..255.
        classes: Class names.
        title: Title of the plot.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for c in np.unique(label):
        for k in np.unique(part[label == c]):
            here = (label == c) & (part == k)
            axes.scatter(
                *points[here].T,
                s=14,
                color=np.asarray(palette[c]) / 255,
                marker=MARKERS[k % len(MARKERS)],
                edgecolors='black',
                linewidths=0.2,
                label=f'{classes[c]}, part {k}',
            )
    axes.set(title=title, xticks=[], yticks=[])
    figure.legend(loc='outside right upper', fontsize='x-small', ncols=1 + len(classes) // 10)
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    figure.savefig(path, dpi=150)
