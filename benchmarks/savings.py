"""Measure a training step with frozen early stages, with channels last, with both, and a validation.

    python benchmarks/savings.py

Trains EfficientNet-Lite0 with DeepLabv3+ on random crops in one thread. Compares the CPU seconds of the
process. The settings alternate after each step, so that other processes have little influence. Prints a
Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_semi.engine import FreezeHook, MemoryFormatHook

CONFIG = Path(__file__).parents[1] / 'configs/_base_/models/deeplabv3plus_efficientnet-lite0.py'
#: Up to stride 4, and up to stride 8.
EARLY = ('conv_stem', 'bn1', 'blocks.0', 'blocks.1')
STAGES = {
    'frozen up to stride 4': EARLY,
    'frozen up to stride 8': (*EARLY, 'blocks.2'),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--crop', type=int, default=96, help='side of the crops in pixels (default: 96)'
    )
    parser.add_argument('--images', type=int, default=8, help='images per step (default: 8)')
    parser.add_argument(
        '--val-side',
        type=int,
        default=128,
        help='side of a validation image in pixels (default: 128)',
    )
    parser.add_argument('--repeats', type=int, default=8, help='steps of each setting (default: 8)')
    return parser.parse_args()


def build(frozen: tuple[str, ...], channels_last: bool, crop: int):
    """A network with applied hooks, its optimizer, and a function to call before each step."""
    torch.manual_seed(0)
    cfg = Config.fromfile(CONFIG).model
    cfg.backbone.init_cfg = None
    cfg.data_preprocessor.size = (crop, crop)
    model = MODELS.build(cfg).train()
    runner = SimpleNamespace(model=model)
    freeze = FreezeHook([f'backbone.timm_model.{name}' for name in frozen]) if frozen else None
    if freeze:
        freeze.before_train(runner)
    if channels_last:
        MemoryFormatHook().before_train(runner)
    wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-4))

    def step(data: dict) -> None:
        model.train()
        if freeze:
            freeze.before_train_iter(runner, 0)
        model.train_step(data, wrapper)

    return model, step


def batch(images: int, side: int) -> dict:
    """A collated batch of random pixels and labels."""
    size = (side, side)
    samples = []
    for _ in range(images):
        sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size))
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 7, (1, *size)))
        samples.append(sample)
    pixels = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in range(images)]
    return dict(inputs=pixels, data_samples=samples)


def cpu_seconds(function, *args) -> float:
    start = time.process_time()
    function(*args)
    return time.process_time() - start


def main() -> None:
    args = parse_args()
    init_default_scope('mmseg')
    torch.set_num_threads(1)
    kinds = {
        name + ', channels last' * last: build(frozen, last, args.crop)
        for name, frozen in {'plain': (), **STAGES}.items()
        for last in (False, True)
    }
    data, image = batch(args.images, args.crop), batch(1, args.val_side)

    def validate(model) -> None:
        model.eval()
        with torch.no_grad():
            model.val_step(image)

    steps, validations = ({name: [] for name in kinds} for _ in range(2))
    for repeat in range(args.repeats + 1):
        for name, (model, step) in kinds.items():
            step_seconds, val_seconds = cpu_seconds(step, data), cpu_seconds(validate, model)
            if repeat:  # the first allocates
                steps[name].append(step_seconds)
                validations[name].append(val_seconds)
    print(
        f'{args.images} images of {args.crop}x{args.crop} per step, validation images of '
        f'{args.val_side}x{args.val_side}, one by one; one thread, torch {torch.__version__}; medians of '
        f'{args.repeats}.\n'
    )
    print(
        '| | CPU ms, step | of plain | CPU ms, validation image | of a step |\n|---|---|---|---|---|'
    )
    plain = statistics.median(steps['plain'])
    for name in kinds:
        step, val = statistics.median(steps[name]), statistics.median(validations[name])
        print(
            f'| {name} | {step * 1e3:.0f} | {step / plain:.2f} | {val * 1e3:.0f} | {val / step:.2f} |'
        )


if __name__ == '__main__':
    main()
