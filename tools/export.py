"""Export one network of a trained method as a plain MMSegmentation config and checkpoint."""

from __future__ import annotations

import argparse
import copy
import os.path as osp
import sys

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.utils import mkdir_or_exist
from mmseg.registry import MODELS

import mmseg_semi  # noqa: F401  registers the package's modules
from mmseg_semi.cli import merge_options, read_config
from mmseg_semi.datasets.meanings import check_checkpoint
from mmseg_semi.engine.export import own_parts, plain_config, plain_values
from mmseg_semi.models.checkpoints import read_checkpoint
from mmseg_semi.models.matching import (
    check_weights,
    network_weights,
    networks_in,
    own_state_dict,
    predicting_network,
    same_networks,
    told_network,
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of the training')
    parser.add_argument('checkpoint', help='checkpoint file of the training')
    parser.add_argument('out_dir', help='folder to write config.py and NETWORK.pth to')
    parser.add_argument(
        '--network', help='network to export, e.g. student (default: the one that predicts)'
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace files that an earlier export wrote'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='override settings, as key=value'
    )
    return parser.parse_args(argv)


def choose_network(args: argparse.Namespace, cfg: Config, checkpoint: dict) -> str | None:
    """Name of the network to take of the checkpoint; None of a plain one.

    Raises:
        ValueError: There is none to choose, or none of that name.
    """
    names = networks_in(own_state_dict(checkpoint))
    if not names and 'segmentor' not in cfg.model:
        if args.network is not None:
            raise ValueError(
                f'--network {args.network} does not work with {args.config}, whose model is a plain '
                f'{cfg.model.type}. Remove --network.'
            )
        return None
    method = MODELS.get(cfg.model.type)
    network = args.network
    own = 'segmentor' in cfg.model and (not names or same_networks(method.networks, names))
    if network is None and own:
        network = cfg.model.get('semi_test_cfg', {}).get('predict_on', method.default_predictor)
    if network is None:
        network = predicting_network(checkpoint)
        print(told_network(checkpoint, network, 'the export'))
    return network


def export(args: argparse.Namespace) -> tuple[str, str, list[str]]:
    """Write the files; return their paths and the parts of the config that still need this package."""
    for path in (args.config, args.checkpoint):
        if not osp.isfile(path):
            raise FileNotFoundError(f'{path} does not exist. Give the path of a file.')
    cfg = read_config(args.config)
    merge_options(cfg, args.cfg_options)
    checkpoint = read_checkpoint(args.checkpoint)
    check_checkpoint(checkpoint, args.checkpoint, cfg)
    meta = checkpoint.get('meta') or {}
    weights, network = network_weights(checkpoint, choose_network(args, cfg, checkpoint))
    config_path = osp.join(args.out_dir, 'config.py')
    weights_path = osp.join(args.out_dir, f'{network or "model"}.pth')
    for path in (config_path, weights_path):
        if not osp.exists(path):
            continue
        for read in (args.config, args.checkpoint):
            if osp.samefile(path, read):
                raise FileExistsError(
                    f'{path} is {read}, which the export reads. Give another folder as OUT_DIR.'
                )
        if not args.overwrite:
            raise FileExistsError(f'{path} exists already. Add --overwrite to replace it.')
    plain = plain_config(cfg, meta.get('dataset_meta') or {})
    init_default_scope('mmseg')
    try:
        check_weights(MODELS.build(copy.deepcopy(plain.model)), weights, network or 'network')
    except ValueError as error:
        raise ValueError(f'{args.checkpoint} does not fit {args.config}: {error}') from None
    mkdir_or_exist(args.out_dir)
    plain.dump(config_path)
    kept = {key: meta[key] for key in ('dataset_meta', 'epoch', 'iter', 'seed') if key in meta}
    # Only plain types, so that torch.load(weights_only=True) works.
    weights = {key: value.detach() for key, value in weights.items()}
    torch.save({'state_dict': weights, 'meta': plain_values(kept)}, weights_path)
    return config_path, weights_path, own_parts(plain)


def main() -> None:
    args = parse_args()
    try:
        config_path, weights_path, own = export(args)
    except (OSError, ValueError) as error:
        sys.exit(f'export: {error}')
    needs = 'they need no mmseg_semi'
    if own:
        needs = f'the config has {", ".join(own)}, so that they import mmseg_semi'
    print(
        f'{config_path} and {weights_path} are for the tools of MMSegmentation: {needs}. Try\n'
        f'  MMSegInferencer(model={config_path!r}, weights={weights_path!r})'
    )


if __name__ == '__main__':
    main()
