"""Rename the weights of a network of timm for MMSegmentation's TIMMBackbone.

    python tools/model_converters/timm_backbone.py vit_small_patch16_dinov3 \\
        data/pretrained/vit_small_patch16_dinov3.pth --src dinov3_vits16_pretrain_lvd1689m-08c60483.pth

--src has the weight names of timm (a .safetensors or .pth file from huggingface.co/timm) or names that timm
converts, such as those of facebookresearch/dinov3. Without --src, timm downloads the weights of MODEL. DST
has the names of TIMMBackbone, so that `backbone.init_cfg=dict(type='Pretrained', checkpoint=DST)` loads it.
The classifier is left out. TIMMBackbone has no final normalization of vision transformers. DST keeps it as
`timm_model.model.norm.` for TokenNorm.
"""

import argparse
import contextlib
import io
import sys
from pathlib import Path

from mmseg_semi.models.backbones.timm_backbone import check_network
from mmseg_semi.models.checkpoints import check_new, read_weights, write_weights

#: The final normalization of a vision transformer.
FINAL_NORM = {'model.norm.weight', 'model.norm.bias'}


class ConversionError(Exception):
    """What is wrong and what to do, in one sentence."""


def backbone_weights(model, weights):
    """The weights under TIMMBackbone's names.

    Args:
        model (str): Name of timm's network.
        weights (dict[str, Tensor]): Of the network with or without its classifier, under the names of timm or
            of its authors.

    Returns:
        dict[str, Tensor]: Of all layers of the encoder, and of a vision transformer's final normalization.

    Raises:
        ConversionError: A weight of the encoder is missing or has another shape.
    """
    import timm

    whole = timm.create_model(model, pretrained=False, num_classes=0)
    _check_bias(weights, whole, model)
    weights = _timm_names(weights, whole, model)
    wanted = timm.create_model(model, pretrained=False, features_only=True).state_dict()
    known = set(wanted)
    if all(name.startswith('model.') for name in wanted):
        known |= FINAL_NORM
    found = {}
    for name, value in weights.items():
        # The name is unchanged, has the prefix of a transformer's wrapper, or belongs to a stage that timm
        # renames.
        for own in (name, f'model.{name}', name.replace('.', '_', 1)):
            if own in known:
                found[own] = value.clone()
    missing = [name for name in wanted if name not in found and not name.endswith('_tracked')]
    if missing:
        raise ConversionError(
            f'the file lacks {len(missing)} of the {len(wanted)} tensors of {model}, such as {missing[0]}; its '
            f'own begin with {next(iter(weights), "nothing")}. Give the file of {model} that timm or its '
            'authors publish.'
        )
    for name, value in wanted.items():
        if name in found and found[name].shape != value.shape:
            raise ConversionError(
                f'{name} has shape {tuple(found[name].shape)} in the file and {tuple(value.shape)} in {model}. '
                f'Give the file of {model}.'
            )
    return {f'timm_model.{name}': value for name, value in found.items()}


def _timm_names(weights, whole, model):
    """The weights with the names of timm, converted by timm itself."""
    convert = getattr(sys.modules[type(whole).__module__], 'checkpoint_filter_fn', None)
    if convert is None:
        return weights
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # timm prints what it leaves out
            return convert(weights, whole)
    except KeyError as error:
        raise ConversionError(
            f'the file has {error.args[0]}, which {model} does not have. Give the file of {model}.'
        ) from None


def _check_bias(weights, whole, model):
    """Refuse biases of queries, keys and values that timm drops for a network without them."""
    names = whole.state_dict()
    for name, value in weights.items():
        mask = weights.get(f'{name}_mask')
        ours = name.replace('qkv.bias', 'q_bias')
        if name.endswith('qkv.bias') and ours not in names and name not in names:
            used = value if mask is None else value[mask.nan_to_num() == 1]
            if used.any():
                raise ConversionError(
                    f'{name} is not 0 and {model} has no such bias. Give {model}_qkvb as MODEL.'
                )


def read(src):
    """The weights in a file: of safetensors, or of PyTorch, as a state dict or inside a checkpoint."""
    if src.suffix == '.safetensors':
        from safetensors.torch import load_file

        return load_file(src)
    return read_weights(str(src))


def download(model):
    """The weights that timm has for a network, from wherever it has them."""
    import timm

    try:
        return timm.create_model(model, pretrained=True).state_dict()
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ConversionError(
            f'timm could not download the weights of {model} ({reason}). Download the file and give it as '
            '--src.'
        ) from None


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('model', help="name of timm's network, such as vit_base_patch16_dinov3")
    parser.add_argument('dst', type=Path, help='the file to write')
    parser.add_argument('--overwrite', action='store_true', help='replace DST if it exists')
    parser.add_argument('--src', type=Path, help="file of weights (default: timm's download)")
    args = parser.parse_args(argv)
    check_network(args.model)
    check_new(str(args.dst), args.overwrite)
    if args.src is None:
        weights = download(args.model)
    elif args.src.is_file():
        weights = read(args.src)
    else:
        raise ConversionError(f'{args.src} does not exist. Give the file of weights as --src.')
    renamed = backbone_weights(args.model, weights)
    write_weights(str(args.dst), renamed, args.overwrite)
    print(f'{args.dst}: {len(renamed)} tensors')


if __name__ == '__main__':
    try:
        main()
    except (ConversionError, ImportError, OSError, ValueError) as error:
        sys.exit(f'{Path(__file__).name}: {error}')
