"""Curves of scalars in the log of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from .scalars import FILES, read_series

#: Steps and values of one curve.
Curve = tuple[list[int], list[float]]
#: By the label of an axis, the curves that are read on it, by their names.
Panel = Mapping[str, Mapping[str, Curve]]


def read_curves(work_dir: str | Path, *keys: str) -> dict[str, Curve]:
    """Read scalars over the iterations of a training.

    Args:
        work_dir: of the training, or of one stage of it; see :func:`read_series` for several starts.
        *keys: names of scalars, or patterns such as ``agreement_*``. A key also finds ``NETWORK/key``, which
            is how metrics of several networks are recorded.

    Returns:
        ``{name: (steps, values)}``, the steps rising; in the order of the keys.

    Raises:
        FileNotFoundError: nothing is recorded there.
        ValueError: a key finds no scalar.
    """
    series = read_series(work_dir)
    if not series:
        stages = sorted({file.parts[-4] for file in Path(work_dir).glob(f'*/{FILES}')})
        remedy = (
            f'Choose one of its stages: {", ".join(stages)}.'
            if stages
            else 'Give the work directory of a training.'
        )
        raise FileNotFoundError(f'{work_dir} has no record in {FILES}. {remedy}')
    found = {}
    for key in keys:
        names = [name for name in series if _matches(name, key)]
        if not names:
            raise ValueError(
                f'{work_dir} has no scalar {key} in {FILES}. Choose from {", ".join(sorted(series))}.'
            )
        found.update({name: (list(series[name]), list(series[name].values())) for name in names})
    return found


def _matches(name: str, key: str) -> bool:
    return fnmatchcase(name, key) or fnmatchcase(name, f'*/{key}')


def save_curves(path: str | Path, panels: Sequence[Panel]) -> None:
    """Draw panels of curves below each other, over the same iterations.

    Args:
        path: of the picture, with an ending that matplotlib writes (.png, .pdf, .svg).
        panels: each with one or two axes, of which the second stands on the right.
    """
    # Figure, not pyplot: no display, and no state of the process that draws.
    figure = Figure(figsize=(7, 2.4 * len(panels)), layout='constrained')
    all_axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for axes, panel in zip(all_axes, panels, strict=True):
        axes.grid(alpha=0.3)
        lines = []
        for side, (label, curves) in enumerate(panel.items()):
            on = axes.twinx() if side else axes
            on.set_ylabel(label)
            for name, (steps, values) in curves.items():
                color = matplotlib.colormaps['tab10'](len(lines) % 10)
                style = '--' if side else '-'
                lines += on.plot(steps, values, style, label=name, color=color, linewidth=1.2)
        if len(lines) > 1:
            # Above the panel, where it hides no line.
            place = dict(loc='lower left', bbox_to_anchor=(0, 1), ncols=2, frameon=False)
            axes.legend(handles=lines, fontsize='small', **place)
    all_axes[-1].set_xlabel('iteration')
    figure.savefig(path, dpi=150)
