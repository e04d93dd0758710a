"""Bar chart of the class distributions of pseudo-labels and labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from .scalars import read_scalars

LABELED, PSEUDO = 'labeled_share/', 'pseudo_label_share/'


def read_distributions(work_dir: str | Path) -> dict[int, dict[str, dict[str, float]]]:
    """Read the records of ``ClassDistributionHook`` of a training.

    Args:
        work_dir: Work folder of the training. If several runs recorded an iteration, the last one is used.

    Returns:
        ``{iteration: {'labeled': {class: share}, 'pseudo_labels': {class: share}}}``, shares in [0, 1]. Records
        before the first pseudo-label are omitted.

    Raises:
        ValueError: There is no record.
    """
    found = {}
    for record in read_scalars(work_dir):
        shares = {
            name: {key[len(start) :]: v for key, v in record.items() if key.startswith(start)}
            for name, start in (('labeled', LABELED), ('pseudo_labels', PSEUDO))
        }
        if any(shares['pseudo_labels'].values()):
            found[record['step']] = shares
    if not found:
        raise ValueError(
            f'{work_dir} has no record of pseudo-labels in */vis_data/scalars.json. Give the work directory of '
            'a training with ClassDistributionHook in its custom_hooks.'
        )
    return dict(sorted(found.items()))


def save_distribution(path: str | Path, series: Mapping[str, Mapping[str, float]]) -> None:
    """Draw the class shares of several sets of labels side by side (DeS4, Fig. 3).

    Classes are ordered by their share in the first set. The axis is logarithmic, since shares differ by a
    factor of 100. A class without pixels in a set has no bar.

    Args:
        path: Image file, with an ending that matplotlib writes (.png, .pdf, .svg).
        series: Share of each class, in [0, 1], by name of the set; all sets have the classes of the first one.

    Raises:
        ValueError: The sets have different classes.
    """
    first = next(iter(series.values()))
    for name, shares in series.items():
        if shares.keys() != first.keys():
            raise ValueError(
                f'{name} has other classes than {next(iter(series))}. Draw them apart.'
            )
    classes = sorted(first, key=first.get, reverse=True)
    # Use Figure instead of pyplot: it needs no display and changes no global state.
    figure = Figure(figsize=(max(5, 0.5 * len(classes) + 2), 4), layout='constrained')
    axes = figure.subplots()
    width = 0.8 / len(series)
    for index, (name, shares) in enumerate(series.items()):
        place = np.arange(len(classes)) + (index - (len(series) - 1) / 2) * width
        percent = np.array([100 * shares[c] for c in classes])
        axes.bar(place, percent, width, label=name, color=matplotlib.colormaps['tab10'](index))
    axes.set_yscale('log')
    axes.set_ylabel('share of pixels, %')
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha='right')
    axes.legend()
    figure.savefig(path, dpi=150)
