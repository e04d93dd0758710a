"""Train a model with the arguments of MMSegmentation's train.py; also works with several processes on CPU."""

from __future__ import annotations

import argparse

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import Runner
from mmseg.registry import RUNNERS

from mmseg_semi.cli import (
    add_run_arguments,
    join_processes,
    load_config,
    one_sentence_errors,
    unknown_settings,
)
from mmseg_semi.engine.startup.lengths import check_config


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'config', help='config file, or package::path for a config that was installed'
    )
    parser.add_argument(
        '--resume',
        action='store_true',
        help='resume from the latest checkpoint in the work directory',
    )
    parser.add_argument(
        '--amp', action='store_true', help='train in automatic mixed precision (needs a GPU)'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by batch size / auto_scale_lr.base_batch_size of the config',
    )
    parser.add_argument(
        '--stages',
        nargs='+',
        metavar='NAME',
        help='stages to run of a config with stages (default: all unfinished stages)',
    )
    add_run_arguments(parser)
    return parser.parse_args(argv)


def training_config(args: argparse.Namespace) -> Config:
    """The config with the settings of the arguments.

    Raises:
        FileNotFoundError: there is no such config.
        ValueError: the config or the machine cannot do what an argument asks for.
    """
    cfg = load_config(args)
    cfg.resume = args.resume
    if args.amp:
        enable_amp(cfg)
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ValueError(
                f'--auto-scale-lr: {args.config} does not say for which batch size its learning rate is meant. '
                'Add auto_scale_lr=dict(enable=True, base_batch_size=...) to it.'
            )
        cfg.auto_scale_lr.enable = True
    if args.stages:
        if 'stages' not in cfg:
            raise ValueError(
                f'--stages {" ".join(args.stages)}: {args.config} trains once and has no stages. Leave '
                '--stages out.'
            )
        cfg.run_stages = args.stages
    return cfg


def enable_amp(cfg: Config) -> None:
    wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if wrapper not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ValueError(
            f'--amp: optim_wrapper.type is {wrapper!r} and only OptimWrapper can be switched. Leave --amp out.'
        )
    if get_device() == 'cpu':
        raise ValueError('--amp: mixed precision needs a GPU and there is none. Leave --amp out.')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    if wrapper == 'OptimWrapper':
        cfg.optim_wrapper.loss_scale = 'dynamic'


def main() -> None:
    args = parse_args()
    with one_sentence_errors():
        cfg = training_config(args)
        join_processes(cfg)
        with unknown_settings(cfg):
            if 'runner_type' in cfg:  # a method in several stages writes tracebacks to its log
                RUNNERS.build(cfg).train()
                return
            check_config(cfg)
            Runner.from_cfg(cfg).train()


if __name__ == '__main__':
    main()
