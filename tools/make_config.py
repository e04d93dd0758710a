"""Make a semi-supervised config from your MMSegmentation config.

    python tools/make_config.py MY_CONFIG.py --unlabeled DIR [--method NAME] [--out FILE]

Writes a short config next to yours that inherits your network, labeled data, crop, schedule and evaluation,
and adds the images of DIR and the settings of the method. The default is UniMatch V2 for networks with
pretrained weights, and iMAS for networks from scratch. Prints each decision and its reason, builds the model to
check that the method can train it, and checks all data like tools/check_data.py. The exit code is 1 if there
is something to fix. Then:

    python tools/train.py THE_NEW_CONFIG.py
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmseg_semi.cli import load_config, one_sentence_errors
from mmseg_semi.datasets.data_check import check_data
from mmseg_semi.own_config import (
    FOR_PRETRAINED,
    FROM_SCRATCH,
    METHODS,
    Decision,
    check_model,
    check_samples,
    check_unlabeled,
    default_method,
    make_config,
    method_name,
)


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='your config: a file, or package::path such as mmseg::…')
    parser.add_argument(
        '--unlabeled',
        required=True,
        metavar='DIR',
        help='folder of images without masks; subfolders are searched',
    )
    parser.add_argument(
        '--img-suffix',
        nargs='+',
        metavar='SUFFIX',
        help='suffix(es) of these images (default: common image formats)',
    )
    parser.add_argument(
        '--method',
        metavar='NAME',
        help=f'{", ".join(METHODS)} (default: {FOR_PRETRAINED} if your network has pretrained weights, '
        f'otherwise {FROM_SCRATCH})',
    )
    parser.add_argument(
        '--batch-size',
        nargs=2,
        type=int,
        metavar=('LABELED', 'UNLABELED'),
        help='labeled and unlabeled images per GPU (default: the batch size of your config for both)',
    )
    parser.add_argument(
        '--out', metavar='FILE', help='the config to write (default: METHOD_NAME.py next to yours)'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace FILE if it exists')
    parser.add_argument(
        '--quick', action='store_true', help='check only the headers and ends of image files'
    )
    parser.add_argument('--workers', type=int, default=4, help='threads that read (default: 4)')
    options = parser.parse_args(arguments)
    if options.workers < 1:
        parser.error(f'--workers {options.workers} must be at least 1')
    if options.batch_size and min(options.batch_size) < 1:
        parser.error(f'--batch-size {options.batch_size} must be at least 1 each')
    options.launcher, options.local_rank, options.cfg_options = 'none', 0, None
    return options


def output_file(options: argparse.Namespace, method: str) -> Path:
    """Where the config goes.

    Raises:
        FileExistsError: There is such a file, and it shall not be replaced.
        ValueError: It is not a Python file, or the config that it would inherit.
    """
    name = options.config
    folder, stem = (
        (Path(), Path(name.partition('::')[2])) if '::' in name else (Path(name).parent, Path(name))
    )
    out = Path(options.out) if options.out else folder / f'{method}_{stem.stem}.py'
    if out.suffix != '.py':
        raise ValueError(f'--out {out} is not a config. Give a file that ends in .py.')
    if '::' not in name and out.resolve() == Path(name).resolve():
        raise ValueError(f'--out {out} is the config that it would inherit. Give another file.')
    if out.exists() and not options.overwrite:
        raise FileExistsError(
            f'{out} exists. Give --overwrite to replace it, or --out another file.'
        )
    return out


def read_config(options: argparse.Namespace) -> Config:
    """The user's config.

    Raises:
        ValueError: It is not Python.
    """
    try:
        return load_config(options, matching=False)
    except SyntaxError as error:
        raise ValueError(f'{options.config} is not a config: {error}.') from error


def write_checked(text: str, out: Path) -> tuple[Config, str | None]:
    """Write a config once the method can train its network; else nothing is left behind.

    Returns:
        tuple: The config, resolved, and why its network could not be tried, if it could not.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f'_{os.getpid()}_{out.name}')
    try:
        draft.write_text(text, encoding='utf-8')
        cfg = Config.fromfile(draft)
        init_default_scope('mmseg')
        untried = check_model(cfg)
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)
    return cfg, untried


def told(decisions: list[Decision]) -> str:
    """The decisions as two columns."""
    width = max(len(decision.topic) for decision in decisions) + 2
    return '\n'.join(
        textwrap.fill(
            decision.what + (f' ({decision.why})' if decision.why else ''),
            110,
            initial_indent=f'{decision.topic:{width}}',
            subsequent_indent=' ' * width,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for decision in decisions
    )


def main(arguments: list[str] | None = None) -> None:
    options = parse_args(arguments)
    sys.stdout.reconfigure(errors='backslashreplace')  # names of files need not be UTF-8
    with one_sentence_errors():
        method = None if options.method is None else method_name(options.method)
        cfg = read_config(options)
        method = method or default_method(cfg, options.config)
        out = output_file(options, method)
        number = check_unlabeled(options.unlabeled, options.img_suffix)
        made = make_config(
            cfg,
            options.config,
            out=out,
            method=method,
            unlabeled=options.unlabeled,
            num_unlabeled=number,
            suffixes=options.img_suffix,
            batch=options.batch_size and tuple(options.batch_size),
        )
        cfg, untried = write_checked(made.text, out)
        if untried:
            why = (
                f'the first iteration of a training will tell whether it can be trained: {untried}'
            )
            made.decisions.append(Decision('not tried', 'the network without weights', why))
        print(f'{told(made.decisions)}\n\nWrote {out}. Its data:\n', flush=True)
        report = check_data(cfg, options.workers, options.quick)
        print('\n'.join(report.lines()))
        if report.num_problems:
            sys.exit(f'{out} is written. Fix the data, or its settings, before you train.')
        check_samples(cfg)
        print(f'\nTrain with:  python tools/train.py {out}')


if __name__ == '__main__':
    main()
