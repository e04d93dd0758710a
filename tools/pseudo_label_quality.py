"""Compare pseudo-labels with ground truth: class distribution, precision and recall.

Prints one table for each network of the checkpoint. For the pixels whose confidence reaches a threshold, it has
their share of all pixels, their precision, and the share, precision and recall of each class. It helps to find
why a training is better or worse than supervised: a threshold that keeps only the background, a teacher that is
worse than its student, or, with --batch-norm, running statistics that do not fit these images.

    python tools/pseudo_label_quality.py CONFIG CHECKPOINT unlabeled.txt --img-dir data/img --truth data/ann
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mmengine.dist import is_main_process
from mmseg.utils import register_all_modules

from mmseg_semi.cli import (
    add_config_arguments,
    add_image_arguments,
    check_file,
    images_config,
    load_config,
    one_sentence_errors,
)
from mmseg_semi.compat import set_up_processes
from mmseg_semi.self_training import measure_quality, network_names, quality_table
from mmseg_semi.self_training.quality import THRESHOLDS


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'config', help='config file of the training, or package::path for one that was installed'
    )
    parser.add_argument('checkpoint', help='checkpoint file or address')
    parser.add_argument(
        'images',
        help='folder of images, searched with its subfolders, or a list of ids (see --img-dir)',
    )
    parser.add_argument(
        '--truth', required=True, metavar='DIR', help='folder of the ground-truth masks'
    )
    parser.add_argument(
        '--truth-suffix',
        default='.png',
        metavar='SUFFIX',
        help='suffix of the ground-truth masks, instead of --img-suffix (default: .png)',
    )
    parser.add_argument(
        '--networks',
        nargs='+',
        metavar='NAME',
        help='names of networks, such as teacher student (default: all)',
    )
    parser.add_argument(
        '--thresholds',
        nargs='+',
        type=float,
        default=THRESHOLDS,
        metavar='T',
        help=f'ascending confidences (default: {" ".join(map(str, THRESHOLDS))})',
    )
    parser.add_argument(
        '--batch-norm',
        choices=['saved', 'measured', 'both'],
        default='saved',
        help='statistics of the checkpoint (saved), or measured on these images first (default: saved)',
    )
    parser.add_argument('--out', type=Path, metavar='FILE', help='also write the numbers as JSON')
    add_image_arguments(parser)
    add_config_arguments(parser)
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    with one_sentence_errors():
        if args.out is not None and args.out.exists():
            raise FileExistsError(f'--out {args.out} exists. Name a new file.')
        if args.out is not None and is_main_process():
            args.out.parent.mkdir(parents=True, exist_ok=True)
        check_file(args.checkpoint, 'checkpoint', '.pth')
        cfg = load_config(args)
        images = images_config(args)
        set_up_processes(cfg)
        register_all_modules(init_default_scope=True)
        reports = {}
        for name in args.networks or network_names(cfg):
            for measured in {'saved': [False], 'measured': [True]}.get(
                args.batch_norm, [False, True]
            ):
                report = measure_quality(
                    cfg,
                    args.checkpoint,
                    images,
                    args.truth,
                    network=name,
                    thresholds=args.thresholds,
                    measure_batch_norm=measured,
                    truth_suffix=args.truth_suffix,
                    batch_size=args.batch_size,
                    num_workers=args.num_workers,
                )
                title = (name or 'network') + (', measured batch norm' if measured else '')
                reports[title] = report
                if is_main_process():
                    print(f'\n{title}\n\n{quality_table(report)}')
        if args.out is not None and is_main_process():
            args.out.write_text(json.dumps(reports, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
