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
#: Curves by name, by the label of their axis.
Panel = Mapping[str, Mapping[str, Curve]]


def read_curves(work_dir: str | Path, *keys: str) -> dict[str, Curve]:
    """Read scalars over the iterations of a training.

    Args:
        work_dir: Work folder of a training or of one of its stages; see :func:`read_series` for resumed runs.
        *keys: Names of scalars, or patterns such as ``agreement_*``. A key also matches ``NETWORK/key``, the
            name of a metric if there are several networks.

    Returns:
        ``{name: (steps, values)}`` with increasing steps, in the order of the keys.

    Raises:
        FileNotFoundError: There is no record.
        ValueError: A key matches no scalar.
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
    """Draw panels of curves below each other, with a common axis of iterations.

    Args:
        path: Image file, with an ending that matplotlib writes (.png, .pdf, .svg).
        panels: Panels with one or two axes each; the second axis is on the right.
    """
    # Use Figure instead of pyplot: it needs no display and changes no global state.
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
            # Place the legend above the panel, so that it hides no curve.
            place = dict(loc='lower left', bbox_to_anchor=(0, 1), ncols=2, frameon=False)
            axes.legend(handles=lines, fontsize='small', **place)
    all_axes[-1].set_xlabel('iteration')
    figure.savefig(path, dpi=150)
