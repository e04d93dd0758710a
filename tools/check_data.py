"""Check all data of a config before it is trained, and print what was found.

    python tools/check_data.py CONFIG [--quick] [--workers N] [--cfg-options ...]

Opens every image and mask of the training, validation and test sets once. Prints for each set its images,
sizes, kinds of files, and the share of each class and of void; then what would stop or harm a training: files
that are broken or of another kind than the loader expects, masks of another size or with values beyond
the classes, images without a mask, and images that are in two sets, by content and not by name. Ends with
exit status 1 if there is something to fix. Works for semi-supervised and for stock configs.
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
        help='read only headers and ends of images: no check of content, duplicates by path only',
    )
    parser.add_argument('--workers', type=int, default=4, help='threads that read (default: 4)')
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
