"""Check all data of a config before training, and print a report.

    python tools/check_data.py CONFIG [--quick] [--workers N] [--cfg-options ...]

Opens every image and mask of the training, validation and test sets once. For each set, prints the number of
images, their sizes and file types, and the share of each class and of void. Then prints problems: broken
files, files of a type that the loader does not expect, masks of a different size than their image or with
values that are not classes, images without a mask, and images with the same content in two sets. The exit
code is 1 if there is something to fix. Works for semi-supervised and for stock configs.
"""

import argparse
import sys

from mmengine.config import DictAction
from mmengine.registry import init_default_scope

from mmseg_semi.cli import load_config, one_sentence_errors
from mmseg_semi.datasets.data_check import check_data


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='any config with datasets')
    parser.add_argument(
        '--quick',
        action='store_true',
        help='read only the headers and ends of image files: no check of contents, and duplicates only by path',
    )
    parser.add_argument(
        '--workers', type=int, default=4, help='number of threads that read files (default: 4)'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='override settings, as key=value'
    )
    options = parser.parse_args(arguments)
    if options.workers < 1:
        parser.error(f'--workers {options.workers} must be at least 1')
    options.launcher, options.local_rank = 'none', 0
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse_args(arguments)
    sys.stdout.reconfigure(errors='backslashreplace')  # names of files need not be UTF-8
    with one_sentence_errors():
        cfg = load_config(options)
        init_default_scope(cfg.get('default_scope') or 'mmseg')
        report = check_data(cfg, options.workers, options.quick)
        print('\n'.join(report.lines()))
    if report.num_problems:
        sys.exit(1)


if __name__ == '__main__':
    main()
