"""Plot the logged scalars of trainings over the iterations.

    python tools/plot_log.py work_dirs/IMAS --keys hardness
    python tools/plot_log.py work_dirs/GPS --stage joint --keys loss_fps mIoU
    python tools/plot_log.py work_dirs/FIRST work_dirs/SECOND --keys loss --keys mIoU --out two.svg
    python tools/plot_log.py work_dirs/ESL

Each --keys is a panel. Losses have the left axis, and other scalars the right axis. Without --keys, the tool
lists the names of all scalars. It reads WORK_DIR/*/vis_data/scalars.json. A resumed training is one curve.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmseg_semi.cli import one_sentence_errors
from mmseg_semi.visualization import read_curves, save_curves
from mmseg_semi.visualization.curves import Curve, Panel


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'work_dirs', nargs='+', metavar='WORK_DIR', help='work folder of a training'
    )
    parser.add_argument(
        '--keys',
        nargs='+',
        action='append',
        metavar='KEY',
        help='scalars of a panel, such as loss mIoU "agreement_*"; mIoU selects all networks, '
        'and teacher/mIoU one; repeat the argument for more panels',
    )
    parser.add_argument(
        '--stage', help='stage to plot of a training in stages, such as teacher or joint'
    )
    parser.add_argument('--out', default='log.png', help='picture to write (default: %(default)s)')
    return parser.parse_args(argv)


def run_names(work_dirs: list[str]) -> list[str]:
    """Names of the folders, or their paths if two names are equal."""
    names = [Path(work_dir).resolve().name for work_dir in work_dirs]
    return names if len(set(names)) == len(names) else work_dirs


def panel_of(runs: dict[str, Path], keys: list[str]) -> Panel:
    """Curves of all runs by axis: of losses, and of anything else."""
    axes: dict[str, tuple[list[str], dict[str, Curve]]] = {}
    for run, folder in runs.items():
        found = read_curves(folder, *keys)
        for name, curve in found.items():
            names, curves = axes.setdefault('loss' if 'loss' in name else 'other', ([], {}))
            names += [name] if name not in names else []
            parts = [run] * (len(runs) > 1) + [name] * (len(found) > 1)
            curves[': '.join(parts) or name] = curve
    # If there are many names, only the legend shows them.
    order = [axes[kind] for kind in ('loss', 'other') if kind in axes]
    return {', '.join(names) if len(names) < 4 else ', '.join(keys): c for names, c in order}


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence_errors():
        runs = {
            name: Path(work_dir, args.stage or '')
            for name, work_dir in zip(run_names(args.work_dirs), args.work_dirs, strict=True)
        }
        if args.keys is None:
            for run, folder in runs.items():
                print(f'{run}: {", ".join(sorted(read_curves(folder, "*")))}')
            return
        panels = [panel_of(runs, keys) for keys in args.keys]
        save_curves(args.out, panels)
    print(f'{args.out} shows, first and last:')
    for panel in panels:
        for curves in panel.values():
            for name, (steps, values) in curves.items():
                print(f'  {name}: {values[0]:.4g} ({steps[0]}), {values[-1]:.4g} ({steps[-1]})')


if __name__ == '__main__':
    main()
