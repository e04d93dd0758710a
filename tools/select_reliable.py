"""Rank images by the stability of their masks over checkpoints of one training, and split the list (ST++).

After an interruption, run it again with the same arguments to continue. On several processes:
`torchrun --nproc-per-node=N tools/select_reliable.py ... --launcher pytorch`.
"""

from __future__ import annotations

import argparse

from mmseg_semi.cli import (
    add_config_arguments,
    add_image_arguments,
    check_file,
    images_config,
    load_config,
    one_sentence_errors,
)
from mmseg_semi.compat import set_up_processes
from mmseg_semi.self_training import report_truth, select_reliable


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'config', help='config file of the training, or package::path for one that was installed'
    )
    parser.add_argument(
        'images',
        help='folder of images, searched with its subfolders, or a list of ids (see --img-dir)',
    )
    parser.add_argument(
        'out',
        help='new folder; gets scores.csv, reliable.txt, unreliable.txt, scores.png, examples.png and '
        'selection.json',
    )
    parser.add_argument(
        '--checkpoints',
        nargs='+',
        required=True,
        metavar='FILE',
        help='two or more checkpoints of the training, in the order of training',
    )
    parser.add_argument(
        '--ratio', type=float, default=0.5, help='share of reliable images (default: 0.5)'
    )
    parser.add_argument(
        '--truth',
        metavar='DIR',
        help='folder of ground-truth masks, to write the mIoU of both halves to truth.json; images in a '
        'finished OUT are not scored again',
    )
    parser.add_argument(
        '--truth-suffix',
        default='.png',
        metavar='SUFFIX',
        help='with --truth: suffix of the ground-truth masks, instead of --img-suffix (default: .png)',
    )
    add_image_arguments(parser)
    add_config_arguments(parser)
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    with one_sentence_errors():
        for path in args.checkpoints:
            check_file(path, 'checkpoint', '.pth')
        cfg = load_config(args)
        images = images_config(args)
        set_up_processes(cfg)
        loading = dict(batch_size=args.batch_size, num_workers=args.num_workers)
        select_reliable(cfg, args.checkpoints, images, args.out, ratio=args.ratio, **loading)
        if args.truth is not None:
            report_truth(
                cfg,
                args.checkpoints[-1],
                images,
                args.out,
                args.truth,
                truth_suffix=args.truth_suffix,
                **loading,
            )


if __name__ == '__main__':
    main()
