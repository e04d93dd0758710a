"""Curves of scalars in the log of a training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from .scalars import read_scalars

#: Steps and values of one curve.
Curve = tuple[list[int], list[float]]


def read_curves(work_dir: str | Path, *names: str) -> dict[str, Curve]:
    """Read scalars over the iterations of a training.

    Args:
        work_dir: of the training; of an iteration that several of its runs have recorded, the last one counts.
        *names: of the scalars; those that the log does not have are left out.

    Returns:
        ``{name: (steps, values)}``, the steps rising.

    Raises:
        ValueError: the log has none of them.
    """
    found: dict[str, dict[int, float]] = {}
    for record in read_scalars(work_dir):
        for name in names:
            if name in record and 'step' in record:
                found.setdefault(name, {})[record['step']] = record[name]
    if not found:
        raise ValueError(
            f'{work_dir} has no record of {" or ".join(names)} in */vis_data/scalars.json. Give the work '
            'directory of a training that logs them (of a staged one, the folder of its stage).'
        )
    return {
        name: tuple(map(list, zip(*sorted(found[name].items()), strict=True)))
        for name in names
        if name in found
    }


def save_curves(path: str | Path, panels: Mapping[str, Mapping[str, Curve]]) -> None:
    """Draw panels of curves below each other, over the same iterations.

    Args:
        path: of the picture, with an ending that matplotlib writes (.png, .pdf, .svg).
        panels: curves by their names, by the label of the panel's axis.
    """
    # Figure, not pyplot: no display, and no state of the process that draws.
    figure = Figure(figsize=(7, 2.4 * len(panels)), layout='constrained')
    all_axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for axes, (label, curves) in zip(all_axes, panels.items(), strict=True):
        for index, (name, (steps, values)) in enumerate(curves.items()):
            color = matplotlib.colormaps['tab10'](index)
            axes.plot(steps, values, label=name, color=color, linewidth=1.2)
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        if len(curves) > 1:
            axes.legend(fontsize='small')
    all_axes[-1].set_xlabel('iteration')
    figure.savefig(path, dpi=150)
