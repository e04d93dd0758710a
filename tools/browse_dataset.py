"""Save pictures of the training batches: images, labels, views and valid masks.

    python tools/browse_dataset.py CONFIG [--output-dir DIR] [--num N] [--show] [--cfg-options ...]

The dataset, sampler and preprocessor are the same as in training, with the seed of the config (default: 0). The
pictures show the preprocessed batches without the normalization.
Works for semi-supervised configs and for stock supervised ones.
"""

import argparse
import itertools
import os.path as osp
import sys
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import MODELS

from mmseg_semi.cli import merge_options, read_config
from mmseg_semi.compat import swaps_channels
from mmseg_semi.visualization import as_pictures, colorize, overlay, save_panels

ROWS_PER_FILE = 8


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='training config')
    parser.add_argument('--output-dir', help='default: work_dirs/<config name>/browse')
    parser.add_argument('--num', type=int, default=8, help='samples to show (default: 8)')
    parser.add_argument('--show', action='store_true', help='open the pictures in a window as well')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='override settings, as key=value'
    )
    options = parser.parse_args(arguments)
    if options.num < 1:
        parser.error(f'--num {options.num} must be at least 1')
    return options


def build_loader(cfg: Config):
    """The training loader of the config, in this process and with a known seed."""
    seed = (cfg.get('randomness') or {}).get('seed')
    loader = cfg.get('train_dataloader')
    if loader is None:
        raise ValueError(f'{cfg.filename} has no train_dataloader. Give a training config.')
    loader = dict(loader, num_workers=0, persistent_workers=False, pin_memory=False)
    for key in ('prefetch_factor', 'multiprocessing_context', 'timeout'):
        loader.pop(key, None)
    return Runner.build_dataloader(loader, seed=0 if seed is None else seed)


def build_preprocessor(model: dict, branches: bool):
    """The preprocessor of the model config. Batches with branches get the one for branches."""
    config = model.get('data_preprocessor') or model.get('segmentor', {}).get('data_preprocessor')
    if config is None:
        raise ValueError(
            'model.data_preprocessor is not set. Set it, or the one of model.segmentor.'
        )
    if branches:
        config = dict(config, type='MultiBranchDataPreprocessor')
    return MODELS.build(config)


def void_label(model: dict) -> int:
    """The label that the decode head of a model config ignores."""
    head = model.get('segmentor', model).get('decode_head') or {}
    head = head[-1] if isinstance(head, (list, tuple)) else head
    return head.get('ignore_index', 255)


def pictures(images: torch.Tensor, preprocessor) -> np.ndarray:
    """Preprocessed images (n, C, H, W) as uint8 RGB (n, H, W, 3)."""
    if preprocessor._enable_normalize:
        images = images * preprocessor.std + preprocessor.mean
    # Other than three channels are still in the BGR order of mmcv's loader.
    return as_pictures(images.numpy(), images.size(1) != 3 or not swaps_channels(preprocessor))


def labeled_cells(images: np.ndarray, samples: list, palette, void: int) -> list:
    """Per sample: its path, its image, and its label laid over it."""
    cells = []
    for image, sample in zip(images, samples, strict=True):
        label = colorize(sample.gt_sem_seg.data[0].numpy(), palette, void)
        cells.append((sample.metainfo.get('img_path', ''), image, overlay(image, label)))
    return cells


def unlabeled_cells(images: dict, samples: dict) -> list:
    """For each sample, its path, views and valid mask."""
    cells = []
    for i, sample in enumerate(samples[next(iter(images))]):
        mask = sample.valid_mask.data[0].numpy().astype(np.uint8) * 255
        views = [view[i] for view in images.values()]
        cells.append((sample.metainfo.get('img_path', ''), *views, np.stack([mask] * 3, axis=-1)))
    return cells


def rows_of(cfg: Config) -> Iterator[tuple[list, list[str], list]]:
    """One row after the other: titles, image paths, pictures."""
    loader = build_loader(cfg)
    palette = (getattr(loader.dataset, 'metainfo', None) or {}).get('palette') or []
    void, preprocessor = void_label(cfg.model), None
    for batch in loader:
        branches = isinstance(batch['inputs'], Mapping)
        preprocessor = preprocessor or build_preprocessor(cfg.model, branches)
        batch = preprocessor(batch, training=True)
        if not branches:
            images = pictures(batch['inputs'], preprocessor)
            for path, *row in labeled_cells(images, batch['data_samples'], palette, void):
                yield ['image', 'label'], [path], row
            continue
        images = {name: pictures(x, preprocessor) for name, x in batch['inputs'].items()}
        samples = batch['data_samples']
        views = {name: x for name, x in images.items() if not name.startswith('labeled')}
        titles = ['labeled', 'label', *views, 'valid mask']
        for left, right in itertools.zip_longest(
            labeled_cells(images['labeled'], samples['labeled'], palette, void),
            unlabeled_cells(views, samples),
        ):
            left = left or ('', None, None)
            right = right or ('', *[None] * (len(views) + 1))
            yield titles, [p for p in (left[0], right[0]) if p], [*left[1:], *right[1:]]


def browse(options: argparse.Namespace) -> list[str]:
    """Write the pictures; return their paths."""
    if not osp.isfile(options.config):
        raise FileNotFoundError(f'{options.config} does not exist. Give the path of a config.')
    cfg = read_config(options.config)
    merge_options(cfg, options.cfg_options)
    init_default_scope(cfg.get('default_scope') or 'mmseg')
    name = osp.splitext(osp.basename(options.config))[0]
    folder = options.output_dir or osp.join(cfg.get('work_dir') or f'work_dirs/{name}', 'browse')
    # An infinite sampler never ends, and a finite one may have fewer samples than --num.
    rows = list(itertools.islice(rows_of(cfg), options.num))
    written = []
    for start in range(0, len(rows), ROWS_PER_FILE):
        page = rows[start : start + ROWS_PER_FILE]
        captions = [' | '.join(paths) for _, paths, _ in page]
        path = osp.join(folder, f'samples_{start:04d}.png')
        save_panels(path, [row for _, _, row in page], page[0][0], captions)
        print(f'{path}:', *captions, sep='\n  ')
        written.append(path)
    return written


def show(paths: list[str]) -> None:
    """Open the pictures, one window each, and wait until they are closed."""
    import matplotlib.pyplot as plt

    for path in paths:
        figure = plt.figure(path, layout='constrained')
        axes = figure.add_subplot()
        axes.imshow(plt.imread(path), interpolation='nearest')
        axes.axis('off')
    plt.show()


def main(arguments: list[str] | None = None) -> None:
    options = parse_args(arguments)
    try:
        written = browse(options)
    except (OSError, ValueError) as error:
        sys.exit(f'browse_dataset: {error}')
    if options.show:
        show(written)


if __name__ == '__main__':
    main()
