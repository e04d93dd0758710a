"""Plot the training of GPS: weight of the feedback, loss on labeled images, agreement of pseudo-labels.

Reads the log of the joint training, WORK_DIR/joint/*/vis_data/scalars.json.
"""

from __future__ import annotations

import argparse
import sys

from mmseg_semi.visualization import read_curves, save_curves

#: Of each panel, what its axis says and which scalars it shows under which names.
PANELS = {
    'weight of the feedback': {'ramp_up_weight': 'w(e)'},
    'cross-entropy, labeled': {
        'labeled_ce_teacher': 'teacher',
        'labeled_ce_students': 'students (mean)',
        'epoch_ce_teacher': 'teacher, epoch',
        'epoch_ce_students': 'students, epoch',
    },
    'equal pseudo-labels': {
        'agreement_students': 'student 1 and student 2',
        'agreement_teacher_student1': 'teacher and student 1',
        'agreement_teacher_student2': 'teacher and student 2',
    },
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'work_dir',
        metavar='WORK_DIR',
        help='folder of the joint training, such as work_dirs/NAME/joint',
    )
    parser.add_argument('--out', default='gps.png', help='picture to write (default: %(default)s)')
    return parser.parse_args(argv)


def plot(args: argparse.Namespace) -> dict[str, tuple[list[int], list[float]]]:
    """Write the picture; return its curves by the names of their scalars."""
    found = read_curves(args.work_dir, *(name for names in PANELS.values() for name in names))
    panels = {
        label: {title: found[name] for name, title in names.items() if name in found}
        for label, names in PANELS.items()
    }
    save_curves(args.out, {label: curves for label, curves in panels.items() if curves})
    return found


def main() -> None:
    args = parse_args()
    try:
        found = plot(args)
    except (OSError, ValueError) as error:
        sys.exit(f'plot_gps: {error}')
    print(f'{args.out} shows, first and last:')
    for name, (steps, values) in found.items():
        print(f'  {name}: {values[0]:.3f} ({steps[0]}), {values[-1]:.3f} ({steps[-1]})')


if __name__ == '__main__':
    main()
