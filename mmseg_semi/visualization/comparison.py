"""Compare methods in a plot with error bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure


class Estimate(NamedTuple):
    """Results of a method, one value per seed."""

    last: Sequence[float]
    best: Sequence[float]


def save_comparison(
    path: str | Path,
    estimates: Mapping[str, Estimate],
    xlabel: str,
    baseline: str | None = None,
) -> None:
    """Draw the last values of each method, their mean and standard deviation, and the mean of its best values.

    Args:
        path: Image file, with an ending that matplotlib writes (.png, .pdf, .svg).
        estimates: Results by row name, from top to bottom; each needs at least one value.
        xlabel: Label of the axis.
        baseline: Row whose mean is marked by a line.

    Raises:
        ValueError: There is no row.
    """
    if not estimates:
        raise ValueError(f'{path} has nothing to show: no run is finished.')
    # Use Figure instead of pyplot: it needs no display and changes no global state.
    figure = Figure(figsize=(7, 1.2 + 0.35 * len(estimates)), layout='constrained')
    axes = figure.subplots()
    places = np.arange(len(estimates))
    means = [np.mean(e.last) for e in estimates.values()]
    spreads = [np.std(e.last, ddof=1) if len(e.last) > 1 else 0.0 for e in estimates.values()]
    if baseline in estimates:
        axes.axvline(np.mean(estimates[baseline].last), color='0.7', linewidth=1, zorder=0)
    for place, estimate in zip(places, estimates.values(), strict=True):
        axes.plot(estimate.last, np.full(len(estimate.last), place), '.', color='0.6', zorder=1)
    axes.errorbar(means, places, xerr=spreads, fmt='o', capsize=3, label='last, mean and std')
    best = [np.mean(e.best) for e in estimates.values()]
    axes.plot(best, places, 'd', markerfacecolor='none', label='best, mean')
    axes.set_yticks(places, list(estimates))
    axes.invert_yaxis()
    axes.set_xlabel(xlabel)
    axes.grid(axis='x', alpha=0.3)
    axes.legend(loc='best', fontsize='small')
    figure.savefig(path, dpi=150)
