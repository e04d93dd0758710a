"""Common functions of the command-line tools: arguments, configs, and short errors."""

from __future__ import annotations

import argparse
import difflib
import inspect
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.dist import get_rank
from mmengine.logging import MMLogger
from mmengine.runner import Runner

from mmseg_semi.compat import config_path, init_distributed, renamed_config

#: Settings at the top level of a config that are not arguments of MMEngine's Runner.
OTHER_SETTINGS = (
    'activation_checkpointing',
    'auto_scale_lr',
    'custom_imports',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'run_stages',
    'runner_type',
    'stages',
    'tta_model',
    'tta_pipeline',
)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that mmseg's `train.py` and `test.py` have in common."""
    parser.add_argument(
        '--work-dir',
        help='folder for logs and results (default: work_dirs/NAME_OF_THE_CONFIG, with the partition)',
    )
    add_config_arguments(parser)


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every tool that reads a config and may run on several processes."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config, such as train_cfg.max_iters=100 or key="[a,b]"',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='launcher that started the processes (default: none, a single process)',
    )
    # torch.distributed.launch passes it; torchrun sets the environment variable.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for unlabeled images and their loading."""
    parser.add_argument(
        '--img-dir',
        metavar='DIR',
        help='folder of the images, if IMAGES is a list',
    )
    parser.add_argument(
        '--img-suffix',
        nargs='+',
        metavar='SUFFIX',
        help='suffix(es) of the images (default: .jpg .jpeg .png .bmp .tif .tiff .webp)',
    )
    parser.add_argument(
        '--batch-size',
        type=int,
        default=8,
        help='maximum images of equal size per forward pass; fewer for large images (default: 8)',
    )
    parser.add_argument(
        '--num-workers',
        type=int,
        default=2,
        help='processes per rank that load images (default: 2)',
    )


def images_config(args: argparse.Namespace) -> dict:
    """Return the config of the images from `IMAGES` and the arguments of `add_image_arguments`.

    Raises:
        FileNotFoundError: The folder or list does not exist.
        ValueError: A list has no --img-dir, or a folder has one.
    """
    config = dict(type='UnlabeledDataset', img_dir=args.images)
    if Path(args.images).is_dir() or ('://' in args.images and args.img_dir is None):
        if args.img_dir is not None:
            raise ValueError(
                f'--img-dir {args.img_dir} is not needed, since IMAGES is the folder {args.images}. Remove it.'
            )
    elif '://' not in args.images and not Path(args.images).is_file():
        raise FileNotFoundError(
            f'IMAGES {args.images} does not exist. Give a folder of images, or a list of ids with --img-dir.'
        )
    elif args.img_dir is None:
        raise ValueError(
            f'IMAGES {args.images} is a list. Give the folder of its images with --img-dir.'
        )
    else:
        config.update(ann_file=args.images, img_dir=args.img_dir)
    if args.img_suffix is not None:
        config['img_suffix'] = args.img_suffix
    return config


@contextmanager
def one_sentence_errors() -> Iterator[None]:
    """Exit with only the message if the user's input is missing or wrong.

    If a Runner has started a log file, the traceback is written to it. Further processes print theirs.
    """
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        for handler in MMLogger.get_current_instance().handlers:
            if isinstance(handler, logging.FileHandler):
                handler.stream.write(traceback.format_exc())
                handler.flush()
                print(f'The traceback is in {handler.baseFilename}.', file=sys.stderr)
        if get_rank() > 0:  # only the first process has a log file
            traceback.print_exc()
        sys.exit(f'error: {error}')


@contextmanager
def unknown_settings(cfg: Config) -> Iterator[None]:
    """Turn Python's TypeError for an unknown setting of a config into one that names it in the config.

    Raises:
        ValueError: A class that the config builds does not have a setting of the config.
    """
    try:
        yield
    except TypeError as error:
        found = re.search(
            r"(\w+)(\.__init__)?\(\) got an unexpected keyword argument '(\w+)'", str(error)
        )
        settings = dict(_settings(cfg))
        paths = [path for path in settings if found and path.rpartition('.')[2] == found[3]]
        if not paths:
            raise  # the fault is not in the config
        place = min(paths, key=len)
        above, _, name = place.rpartition('.')
        # It may belong further below (model.segmentor.backbone), or be a misspelled neighbor.
        below = [path for path in paths if path.startswith(f'{above}.') and path != place]
        neighbors = [path.rpartition('.') for path in settings if path != place]
        names = [last for parent, _, last in neighbors if parent == above]
        close = [f'{above}.{near}' for near in difflib.get_close_matches(name, names, n=1)]
        right = [*below, *close]
        remedy = f'Did you mean {right[0]}?' if right else 'Remove it, or correct its name.'
        values = {p: '{...}' if isinstance(v, dict) else repr(v) for p, v in settings.items()}
        wrong = ' or '.join(f'{path}={values[path]}' for path in paths if path not in below)
        raise ValueError(f'{wrong}: {found[1]} has no setting {name}. {remedy}') from error


def load_config(args: argparse.Namespace, matching: bool = True) -> Config:
    """Load the config for the arguments of `add_run_arguments` or `add_config_arguments`.

    Args:
        args (argparse.Namespace): Arguments with `config`, a path or `package::path/below/its/configs.py`.
        matching (bool): Whether its runs match loaded checkpoints to the model, see `match_checkpoints`.

    Returns:
        Config: The config with `launcher` and `work_dir`, and with merged overrides.

    Raises:
        FileNotFoundError: The config or one of its bases does not exist.
        ValueError: MMEngine does not support the reference to a base, or an override has an unknown name.
    """
    # MMEngine wraps a model for the GPU of LOCAL_RANK, which OpenMPI calls otherwise.
    local_rank = args.local_rank
    if args.launcher == 'mpi':
        local_rank = os.environ.get('OMPI_COMM_WORLD_LOCAL_RANK', local_rank)
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
    path = str(config_path(args.config)) if '::' in args.config else args.config
    check_file(path, 'config', '.py')
    cfg = read_config(path)
    cfg.launcher = args.launcher
    merge_options(cfg, args.cfg_options)
    if getattr(args, 'work_dir', None) is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(
            Path('work_dirs', '_'.join(filter(None, (Path(path).stem, _partition(cfg)))))
        )
    check_loaders(cfg)
    if matching:
        match_checkpoints(cfg)
    return cfg


def merge_options(cfg: Config, options: dict | None, given_as: str = '--cfg-options') -> None:
    """Merge `--cfg-options`, or options that are given in another way, into a config.

    It warns about variables of the config, such as `crop_size`, whose old values other settings contain.

    Raises:
        ValueError: The first part of a key is neither in the config nor a setting of the Runner. MMEngine would
            add it, and it would have no effect.
    """
    options = options or {}
    read = {*inspect.signature(Runner.__init__).parameters, *OTHER_SETTINGS}
    known = {*cfg, *read}
    for key, value in options.items():
        name = key.partition('.')[0]
        if name in read:
            continue
        if name in known:
            print(
                f'warning: {given_as} {key}={value!r} only changes a variable of the config. The settings '
                f'that use {name} keep its old value. Change those settings.',
                file=sys.stderr,
            )
            continue
        paths = [path for path, _ in _settings(cfg) if path.endswith(f'.{key}')]
        close = difflib.get_close_matches(name, known, n=1)
        near = min(paths, key=len) if paths else close and f'{close[0]}{key[len(name) :]}'
        remedy = f'Did you mean {near}?' if near else 'Give a key of the config.'
        raise ValueError(
            f'{given_as} {key}={value!r} has no effect, since neither the config nor the Runner has a '
            f'setting {name}. {remedy}'
        )
    cfg.merge_from_dict(options)


def _settings(value, above: str = '') -> Iterator[tuple[str, object]]:
    """Yield dotted key and value of all settings below the top level of a config."""
    for key, inner in enumerate(value) if isinstance(value, (list, tuple)) else value.items():
        if above:
            yield f'{above}.{key}', inner
        if isinstance(inner, (dict, list, tuple)):
            yield from _settings(inner, f'{above}.{key}' if above else key)


def check_loaders(cfg: Config) -> None:
    """Raise ValueError if a config has a list of loaders for a loop of MMEngine, which needs one."""
    for stage in ('val', 'test'):
        loop = (cfg.get(f'{stage}_cfg') or {}).get('type')
        own = f'TeacherStudent{stage.capitalize()}Loop'
        if isinstance(cfg.get(f'{stage}_dataloader'), (list, tuple)) and loop != own:
            raise ValueError(
                f'{stage}_dataloader is a list, but {stage}_cfg.type={loop!r} needs one loader. Set '
                f"{stage}_cfg=dict(type='{own}'), which evaluates each dataset of a list for any model."
            )


def read_config(path: str | Path, **options) -> Config:
    """Same as MMEngine's ``Config.fromfile``, but rejects bases of the form ``'mmseg_semi::...'``.

    MMEngine would give the content of such a base a scope that no registry has. If this package is not
    imported, as in the stock tools, MMEngine does not find the base at all.

    Args:
        path (str | Path): Path of a config file.
        **options: Arguments of ``Config.fromfile``.

    Raises:
        ValueError: A base has this form.
    """
    cfg = Config.fromfile(path, **options)
    if _has_scope(cfg.to_dict()):
        raise ValueError(
            f"{path}, or a base of it, has a plain 'mmseg_semi::...' in _base_, which MMEngine only reads for "
            "OpenMMLab's packages. Write _base_ = __import__('mmseg_semi').bases('mmseg_semi::...')."
        )
    return cfg


def _has_scope(value) -> bool:
    if isinstance(value, dict):
        return value.get('_scope_') == 'mmseg_semi' or any(map(_has_scope, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_has_scope, value))


def _partition(cfg: Config) -> str:
    """Return the part of a work folder's name that differs between partitions."""
    dataset = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    return (dataset.get('partition') or '').replace('/', '-')


def match_checkpoints(cfg: Config) -> None:
    """Let the runs of a config, also of plain MMSegmentation, match loaded checkpoints to their model."""
    hooks = cfg.get('custom_hooks') or []
    if not any(hook['type'] in ('StartupCheckHook', 'MatchCheckpointHook') for hook in hooks):
        cfg.custom_hooks = [*hooks, dict(type='MatchCheckpointHook')]


def check_file(path: str, what: str, suffix: str) -> None:
    """Raise FileNotFoundError with a suggestion unless `path` is a file or a URL."""
    if '://' in path or Path(path).is_file():
        return
    moved = renamed_config(path) if suffix == '.py' else None
    if moved:
        config, options = moved
        command = f'configs/{config}{f" --cfg-options {options}" if options else ""}'
        raise FileNotFoundError(f'The config {path} was renamed. Give {command} instead.')
    known = [str(file) for file in Path(path).parent.glob(f'*{suffix}')]
    if not known:
        known = (
            [str(file) for file in Path('configs').rglob(f'*{suffix}')] if suffix == '.py' else []
        )
    close = difflib.get_close_matches(path, known, n=1, cutoff=0.0)
    remedy = f'Did you mean {close[0]}?' if close else f'Give the path of a {suffix} file.'
    raise FileNotFoundError(f'The {what} {path} does not exist. {remedy}')


def join_processes(cfg: Config) -> None:
    """Prepare several processes without a GPU, before the Runner is built."""
    if cfg.launcher == 'none' or get_device() != 'cpu':
        return
    dist_cfg = cfg.get('env_cfg', {}).get('dist_cfg', {})
    init_distributed(cfg.launcher, timeout=dist_cfg.get('timeout'))
    if cfg.get('model_wrapper_cfg') is None:  # the default wrapper needs a GPU
        cfg.model_wrapper_cfg = dict(
            type='SemiDistributedDataParallel',
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
