"""Print tables of the rows that tools/evidence.py stored: each seed, mean and deviation, gain.

    python tools/evidence_table.py docs/results/reported.jsonl --dataset nuclei --partition 'l8_{seed}'

A table has the rows with the same data set, partition, network, steps and validation images. In brackets: the
difference to the baseline with the same seed and learning rate. "gain" is the mean of these differences, and
"mean" has the sample standard deviation. All values are those of the last checkpoint, in percent.

If trainings of several commits have the same method, settings and seed, each commit has its own line, since
its code or config may differ.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmseg_semi.cli import check_file, one_sentence_errors
from mmseg_semi.comparison.evidence import read_rows
from mmseg_semi.comparison.evidence_table import markdown, select, tables


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('rows', type=Path, help='JSONL file of the rows')
    parser.add_argument('--dataset', help='data set, such as nuclei (default: all)')
    parser.add_argument(
        '--partition',
        help="partition; '{seed}' in it stands for the seed of the row, such as 'l8_{seed}' (default: all)",
    )
    parser.add_argument('--network', help='network, such as tiny (default: all)')
    parser.add_argument('--steps', type=int, help='steps of the training (default: all)')
    parser.add_argument(
        '--methods', nargs='+', help='methods (default: all); the baseline is always shown'
    )
    parser.add_argument(
        '--baseline', default='suponly', help='baseline of the gain (default: suponly)'
    )
    parser.add_argument(
        '--iou', metavar='CLASS', help='show the IoU of this class instead of the mIoU'
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence_errors():
        check_file(str(args.rows), 'file of rows', '.jsonl')
        wanted = {key: getattr(args, key) for key in ('dataset', 'partition', 'network', 'steps')}
        rows = select(read_rows(args.rows), **wanted)
        for method in [args.baseline, *(args.methods or ())]:
            select(rows, method=method)
        if args.methods:
            rows = [row for row in rows if row['method'] in (args.baseline, *args.methods)]
        shown = tables(rows, args.partition, args.iou)
        print('\n\n'.join(markdown(table, args.baseline) for table in shown))


if __name__ == '__main__':
    main()
