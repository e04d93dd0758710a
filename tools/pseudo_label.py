"""Write the predictions of a trained network for a folder or list of images, as palette PNG files.

After an interruption, run it again with the same arguments to continue. On several processes:
`torchrun --nproc-per-node=N tools/pseudo_label.py ... --launcher pytorch`.
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
from mmseg_semi.self_training import pseudo_label
from mmseg_semi.self_training.labeling import SCALES


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'config',
        help='config file that the network was trained with, or package::path for one that was installed',
    )
    parser.add_argument('checkpoint', help='checkpoint file or address')
    parser.add_argument(
        'images',
        help='folder of images, searched with its subfolders, or a list of ids (see --img-dir)',
    )
    parser.add_argument(
        'out', help='new folder; gets one PNG per image, its class indices, and pseudo_labels.json'
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation as in ST++: sum the softmax maps of five scales, with and '
        'without a horizontal flip (default: one plain prediction)',
    )
    parser.add_argument(
        '--scales',
        nargs='+',
        type=float,
        metavar='S',
        help=f'with --tta: factors of the size (default: {" ".join(map(str, SCALES))})',
    )
    parser.add_argument(
        '--soft',
        type=int,
        metavar='K',
        help='also write NAME.soft, the K most probable classes of every pixel and their probabilities '
        '(docs/st.md, "Soft labels")',
    )
    add_image_arguments(parser)
    add_config_arguments(parser)
    args = parser.parse_args(argv)
    if args.scales is not None and not args.tta:
        parser.error('--scales needs --tta. Add --tta.')
    return args


def main() -> None:
    args = parse_args()
    with one_sentence_errors():
        check_file(args.checkpoint, 'checkpoint', '.pth')
        cfg = load_config(args)
        images = images_config(args)
        set_up_processes(cfg)
        pseudo_label(
            cfg,
            args.checkpoint,
            images,
            args.out,
            scales=(args.scales or SCALES) if args.tta else (1.0,),
            flip=args.tta,
            soft=args.soft,
            batch_size=args.batch_size,
            num_workers=args.num_workers,
        )


if __name__ == '__main__':
    main()
