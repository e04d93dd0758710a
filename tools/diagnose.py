"""Read the log of a training, and print why it does not learn, with evidence and remedy.

    python tools/diagnose.py work_dirs/NAME --baseline work_dirs/SUPERVISED

Each finding has a section in docs/troubleshooting.md. If there is a finding, the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys

from mmseg_semi.cli import one_sentence_errors
from mmseg_semi.comparison import diagnose


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'work_dir', help='work folder of a training, or folder of one of its stages'
    )
    parser.add_argument(
        '--baseline',
        metavar='WORK_DIR',
        help='work folder of a supervised training of the same network, to report the gain over it',
    )
    parser.add_argument('--metric', default='mIoU', help='metric of the validation (default: mIoU)')
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    with one_sentence_errors():
        symptoms = diagnose(args.work_dir, args.baseline, args.metric)
    for symptom in symptoms:
        print(f'{symptom.title}.')
        print(f'  Seen: {symptom.evidence}')
        print(f'  Try:  {symptom.remedy}')
        print(f'  See docs/troubleshooting.md#{symptom.anchor}\n')
    if symptoms:
        sys.exit(1)
    print(f'{args.work_dir} shows none of what docs/troubleshooting.md lists.')


if __name__ == '__main__':
    main()
