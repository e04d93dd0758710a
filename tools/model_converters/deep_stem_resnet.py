"""Rename the weights of a deep-stem ResNet (64-64-128) for the configs with the papers' network.

    python tools/model_converters/deep_stem_resnet.py SRC data/pretrained/resnet101_v1s.pth

SRC is an ImageNet checkpoint with the weight names of torchvision and a stem of `conv1.0` to `conv1.6` and
`bn1`, such as the encoders of U2PL and iMAS, or a PyTorch version of GluonCV's ResNet-v1s (docs/configs.md
lists sources). DST has the names of MMSegmentation, without the classifier.
"""

import argparse
import sys
from pathlib import Path

from mmseg_semi.models.checkpoints import read_weights, write_weights

WIDTHS = {'conv1.0.weight': 64, 'conv1.3.weight': 64, 'conv1.6.weight': 128}


class ConversionError(Exception):
    """What is wrong and what to do, in one sentence."""


def rename(weights):
    """The weights under MMSegmentation's names.

    Args:
        weights (dict[str, Tensor]): Under torchvision's names.

    Returns:
        dict[str, Tensor]: Without the classifier.

    Raises:
        ConversionError: The stem is not three convolutions of 64, 64 and 128 channels.
    """
    widths = [len(weights.get(name, ())) for name in WIDTHS]
    if widths != list(WIDTHS.values()):
        raise ConversionError(
            f'the stem has convolutions of {widths} channels at {", ".join(WIDTHS)}, not of 64, 64 and 128. '
            'Give the checkpoint of a deep-stem ResNet (v1s); for a v1c one no conversion is needed.'
        )
    renamed = {}
    for name, value in weights.items():
        if name.startswith('conv1.'):
            name = name.replace('conv1.', 'stem.', 1)
        elif name.startswith('bn1.'):
            name = name.replace('bn1.', 'stem.7.', 1)
        if not name.startswith('fc.'):
            renamed[name] = value
    return renamed


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('src', type=Path, help='the checkpoint to convert')
    parser.add_argument('dst', type=Path, help='the file to write')
    parser.add_argument('--overwrite', action='store_true', help='replace DST if it exists')
    args = parser.parse_args(argv)
    if not args.src.is_file():
        raise ConversionError(f'{args.src} does not exist. Give the downloaded checkpoint as SRC.')
    renamed = rename(read_weights(str(args.src)))
    write_weights(str(args.dst), renamed, args.overwrite)
    print(f'{args.dst}: {len(renamed)} tensors')


if __name__ == '__main__':
    try:
        main()
    except (ConversionError, OSError, ValueError) as error:
        sys.exit(f'{Path(__file__).name}: {error}')
