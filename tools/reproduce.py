"""Find a published result, print the command that reproduces it, and compare it with your measured result.

    python tools/reproduce.py iMAS VOC classic 183
    python tools/reproduce.py GPS Cityscapes 372 R50 --work-dir work_dirs/mine
    python tools/reproduce.py --table

The words select method, data set, partition, network, reading or paper, in any order. All published results
are in configs/published.csv. After the training, the same call also prints your results: at the last
validation, and at the best one, which most papers report.
"""

from __future__ import annotations

import argparse

from mmengine.registry import init_default_scope

from mmseg_semi.cli import one_sentence_errors
from mmseg_semi.comparison.published import (
    Published,
    find_published,
    published_table,
    read_published,
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('words', nargs='*', metavar='WORD', help='such as iMAS VOC classic 183')
    parser.add_argument(
        '--work-dir', help='work folder of the run (default: that of the printed command)'
    )
    parser.add_argument('--most', type=int, default=6, help='maximum results to print (default: 6)')
    parser.add_argument(
        '--table', action='store_true', help='print all figures as a Markdown table'
    )
    args = parser.parse_args(argv)
    if args.most < 1:
        parser.error(f'--most {args.most} must be at least 1')
    if bool(args.words) == args.table:
        parser.error('give words such as iMAS VOC classic 183, or --table')
    return args


def told(row: Published, work_dir: str | None) -> str:
    """A published result, its command and the measured result."""
    reading = f' ({row.reading})' if row.reading else ''
    lines = [
        f'{row.method}, {row.dataset} {row.partition}, {row.network}: {row.metric} {row.figure:g}, {row.source}'
        f'{reading}, {row.epochs} epochs',
        f'  {row.command}',
    ]
    try:
        step, scores = row.measured(work_dir)
    except (OSError, ValueError):
        lines.append('  not measured yet')
    else:
        for network, score in scores.items():
            lines.append(
                f'  measured{f", {network}" if network else ""}: {score.last:.2f} at {step}, best '
                f'{score.best:.2f} at {score.best_iteration}; published {row.figure:g}'
            )
    return '\n'.join(lines)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    init_default_scope('mmseg')
    with one_sentence_errors():
        rows = read_published()
        if args.table:
            print(published_table(rows))
            return
        found = find_published(args.words, rows)
        if not found:
            methods = sorted({row.method for row in rows if ':' not in row.method})
            raise ValueError(
                f'No published figure has all of {" ".join(args.words)}. Leave words out. Methods are '
                f'{", ".join(methods)}; data sets VOC and Cityscapes.'
            )
        if args.work_dir and len(found) > 1:
            raise ValueError(
                f'--work-dir names one run and {len(found)} figures have all of {" ".join(args.words)}. Give '
                'more words.'
            )
        for row in found[: args.most]:
            print(told(row, args.work_dir))
        if len(found) > args.most:
            print(f'... and {len(found) - args.most} more. Give more words, or --most.')


if __name__ == '__main__':
    main()
