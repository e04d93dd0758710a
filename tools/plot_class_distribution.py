"""Plot the class distribution of a training's pseudo-labels against that of its labels (DeS4, Fig. 3).

Reads the records of ClassDistributionHook in WORK_DIR/*/vis_data/scalars.json. Each class has one bar per
training.
"""

from __future__ import annotations

import argparse
import sys

from mmseg_semi.visualization import read_distributions, save_distribution


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'work_dirs', nargs='+', metavar='WORK_DIR', help='work folder of a training'
    )
    parser.add_argument(
        '--iteration', type=int, help='draw the record of this iteration (default: the last one)'
    )
    parser.add_argument(
        '--out', default='class_distribution.png', help='picture to write (default: %(default)s)'
    )
    return parser.parse_args(argv)


def plot(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Write the picture and return its values."""
    series = {}
    for work_dir in args.work_dirs:
        records = read_distributions(work_dir)
        iteration = max(records) if args.iteration is None else args.iteration
        if iteration not in records:
            known = ', '.join(map(str, records))
            raise ValueError(
                f'{work_dir} has no record of iteration {iteration}. Choose one of {known}.'
            )
        series.setdefault('labels', records[iteration]['labeled'])
        name = f'pseudo-labels, iteration {iteration}'
        if len(args.work_dirs) > 1:
            name = f'{work_dir}: {name}'
            if records[iteration]['labeled'] != series['labels']:
                series[f'{work_dir}: labels'] = records[iteration]['labeled']
        series[name] = records[iteration]['pseudo_labels']
    save_distribution(args.out, series)
    return series


def main() -> None:
    args = parse_args()
    try:
        series = plot(args)
    except (OSError, ValueError) as error:
        sys.exit(f'plot_class_distribution: {error}')
    print(f'{args.out} shows, in percent of the pixels:')
    for name in next(iter(series.values())):
        print(f'  {name}: ' + ', '.join(f'{100 * s[name]:.2f} ({k})' for k, s in series.items()))


if __name__ == '__main__':
    main()
