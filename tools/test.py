"""Test a model with the arguments of MMSegmentation's test.py; also works with several processes on CPU."""

from __future__ import annotations

import argparse
import os.path as osp
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from mmseg_semi.cli import (
    add_run_arguments,
    check_file,
    join_processes,
    load_config,
    one_sentence_errors,
    unknown_settings,
)
from mmseg_semi.datasets.walk import sample_infos, stage_leaves
from mmseg_semi.engine import StartupCheckHook


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'config', help='config file, or package::path for a config that was installed'
    )
    parser.add_argument('checkpoint', help='checkpoint file or address')
    parser.add_argument('--out', help='folder to write the predicted label maps to, as PNG files')
    parser.add_argument('--show', action='store_true', help='show each prediction in a window')
    parser.add_argument('--show-dir', help='folder to write pictures of the predictions to')
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        help='seconds that --show shows each prediction (default: 2)',
    )
    parser.add_argument(
        '--tta', action='store_true', help="test-time augmentation: the config's tta_pipeline"
    )
    add_run_arguments(parser)
    return parser.parse_args(argv)


def testing_config(args: argparse.Namespace) -> Config:
    """The config with the settings of the arguments.

    Raises:
        FileNotFoundError: there is no such config or checkpoint.
        ValueError: the config lacks what an argument asks for.
    """
    check_file(args.checkpoint, 'checkpoint', '.pth')
    cfg = load_config(args)
    cfg.load_from, cfg.resume = args.checkpoint, False
    if args.show or args.show_dir is not None:
        show_predictions(cfg, args)
    if args.tta:
        for key in ('tta_pipeline', 'tta_model'):
            if key not in cfg:
                raise ValueError(f'--tta: {args.config} has no {key}. Leave --tta out, or add one.')
        for leaf in stage_leaves(cfg, 'test'):
            leaf.dataset.pipeline = cfg.tta_pipeline
        # MMEngine's Runner would give the TTA model the data_preprocessor at the top level of the config, which
        # has the wrong normalization if a config changes only that of the model.
        if any('data_preprocessor' in part for part in (cfg.model, cfg.model.get('segmentor', {}))):
            cfg.pop('data_preprocessor', None)
        cfg.tta_model.module = cfg.model
        cfg.model = cfg.tta_model
    if args.out is not None:
        evaluators = cfg.test_evaluator
        for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
            evaluator.update(output_dir=args.out, keep_results=True)
    return cfg


def show_predictions(cfg: Config, args: argparse.Namespace) -> None:
    hook = cfg.default_hooks.get('visualization')
    if hook is None or 'visualizer' not in cfg:
        raise ValueError(
            f'--show and --show-dir: {args.config} has no visualizer or no default_hooks.visualization. Add '
            "visualization=dict(type='SegVisualizationHook') there."
        )
    hook.draw = True
    hook.setdefault('interval', 1)  # the upstream default draws only every 50th image
    if args.show:
        hook.update(show=True, wait_time=args.wait_time)
    if args.show_dir is not None:
        cfg.visualizer.save_dir = args.show_dir


def check_out(runner: Runner, out: str) -> None:
    """Raise ValueError if predictions in --out would replace images, masks, or one another."""
    loop = runner.test_loop
    # Each of several sets has a folder with its name. A loop of MMEngine has one set.
    datasets = [(part.name, part.loader.dataset) for part in getattr(loop, 'sets', ())]
    for name, dataset in datasets or [('', loop.dataloader.dataset)]:
        target = osp.realpath(osp.join(out, name))
        known: dict[str, str] = {}
        for info in sample_infos(dataset):
            for path in filter(None, map(info.get, ('img_path', 'seg_map_path'))):
                if osp.dirname(osp.realpath(path)) == target:
                    raise ValueError(
                        f'--out {out}: {path} is in the folder of the predictions, which could replace it. '
                        'Give another folder.'
                    )
            path = info.get('img_path')
            other = path and known.setdefault(Path(path).stem, path)
            if other != path:
                raise ValueError(
                    f'--out: {other} and {path} would both become {Path(path).stem}.png, because '
                    'MMSegmentation writes no subfolders. Test them apart, or write label maps with '
                    'tools/pseudo_label.py, which keeps subfolders.'
                )


def main() -> None:
    args = parse_args()
    with one_sentence_errors():
        cfg = testing_config(args)
        join_processes(cfg)
        with unknown_settings(cfg):
            runner = Runner.from_cfg(cfg)
            if not any(isinstance(hook, StartupCheckHook) for hook in runner.hooks):
                # It compares the classes of checkpoint and test set.
                runner.register_hook(StartupCheckHook())
            if args.out is not None:
                check_out(runner, args.out)
            runner.test()


if __name__ == '__main__':
    main()
