"""Compare the time of scoring and pseudo-labeling with the common implementation of self-training.

The common implementation has a batch size of one, ten separate forward passes per pseudo-label, masks as
NumPy arrays, and one confusion matrix per pair of masks for a score. Both read the same files with the same
pipeline and network. Before the measurement, the benchmark checks that masks and scores are equal. Both run
alternately in one process, and the medians are compared.

    python benchmarks/self_training.py --check          # exit status 1 if a target is missed
    python benchmarks/self_training.py --device cuda --depth 50 --width 500 --height 375 --images 64
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from kernels import synchronize, usual_stability
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from PIL import Image
from step import network_config

from mmseg_semi.functional.agreement import stabilities
from mmseg_semi.self_training import labeling, selection
from mmseg_semi.self_training.images import ImagePool
from mmseg_semi.self_training.masks import encode_mask, read_mask, voc_colors
from mmseg_semi.self_training.prediction import Predictor, Stopwatch

METRIC_SIZE = (375, 500)  # of PASCAL VOC
SAME_PIXELS = 0.999  # a batch of eight rounds its sums differently from one image


class Work(NamedTuple):
    """The inputs of both implementations."""

    pool: ImagePool
    predictors: list[Predictor]
    folder: Path
    batch_size: int
    device: str


# --- Plain forms ---------------------------------------------------------------------------------


def one_by_one(work: Work):
    """Each image as the network wants it (1, 3, h, w), with its original size."""
    for _, samples in work.pool.load([[i] for i in range(len(work.pool))], 0):
        yield work.predictors[-1].prepare(samples), samples[0]['data_samples'].ori_shape[:2]


def network_pass(work: Work, predictor: Predictor, inputs: torch.Tensor) -> torch.Tensor:
    shape = tuple(inputs.shape[-2:])
    meta = dict(ori_shape=shape, img_shape=shape, pad_shape=shape)
    with predictor.in_network.running():
        return predictor._network.inference(inputs, [meta])


@torch.no_grad()
def usual_masks(work: Work, image: torch.Tensor) -> np.ndarray:
    logits = [network_pass(work, predictor, image) for predictor in work.predictors]
    return np.concatenate([x.argmax(dim=1).cpu().numpy() for x in logits])


def usual_scoring(work: Work) -> list[float]:
    classes = work.predictors[-1].num_classes
    return [
        float(usual_stability(torch.from_numpy(usual_masks(work, image)), classes))
        for image, _ in one_by_one(work)
    ]


@torch.no_grad()
def usual_labeling(work: Work) -> list[np.ndarray]:
    predictor, masks = work.predictors[-1], []
    palette = voc_colors(predictor.num_classes)
    resize = dict(mode='bilinear', align_corners=False)
    for i, (image, size) in enumerate(one_by_one(work)):
        total = image.new_zeros(1, predictor.num_classes, *size)
        for scale in labeling.SCALES:
            view = F.interpolate(image, tuple(int(n * scale) for n in image.shape[2:]), **resize)
            for mirrored in (False, True):
                logits = network_pass(work, predictor, view.flip(3) if mirrored else view)
                probs = logits.softmax(dim=1)
                probs = F.interpolate(probs.flip(3) if mirrored else probs, size, **resize)
                total += probs
        mask = total.argmax(dim=1)[0].cpu().numpy().astype(np.uint8)
        (work.folder / f'usual_{i}.png').write_bytes(encode_mask(mask, palette))
        masks.append(mask)
    return masks


# --- Ours ----------------------------------------------------------------------------------------


def our_scoring(work: Work) -> list[float]:
    scores = dict.fromkeys(range(len(work.pool)), 0.0)
    for positions, samples in work.pool.load(work.pool.plan(work.batch_size), 0):
        scores.update(zip(positions, selection._stability(work.predictors, samples), strict=True))
    return list(scores.values())


def our_labeling(work: Work) -> list[np.ndarray]:
    predictor = work.predictors[-1]
    paths = [str(work.folder / f'ours_{i}.png') for i in range(len(work.pool))]
    labeling._label(
        *(
            work.pool,
            predictor,
            paths,
            [False] * len(paths),
            labeling._Views(labeling.SCALES, True, 0.0, None),
        ),
        *(work.batch_size, 0, voc_colors(predictor.num_classes), logging.getLogger('unheard')),
    )
    return [read_mask(path) for path in paths]


# --- The metric alone ----------------------------------------------------------------------------


def masks_of(work: Work) -> torch.Tensor:
    """Masks (K, N, H, W) uint8 of all images, enlarged to METRIC_SIZE, only for the metric."""
    with torch.no_grad():
        masks = [torch.from_numpy(usual_masks(work, image)) for image, _ in one_by_one(work)]
    masks = F.interpolate(torch.stack(masks, dim=1).to(torch.uint8), METRIC_SIZE)
    return masks.contiguous()


def usual_metric(masks: np.ndarray, classes: int) -> list[float]:
    # The common implementation has int64 masks of one image at a time, the output of argmax.
    return [float(usual_stability(torch.from_numpy(image), classes)) for image in masks]


def our_metric(masks: torch.Tensor, classes: int, batch_size: int) -> list[float]:
    scores = []
    for batch in masks.split(batch_size, dim=1):
        scores += stabilities(batch, classes).tolist()
    return scores


# --- Measuring -----------------------------------------------------------------------------------


class Row(NamedTuple):
    """One comparison: median seconds of either form, and its shares of time outside of the network."""

    name: str
    usual: float
    ours: float
    usual_outside: float | None = None
    ours_outside: float | None = None
    target: float | None = None

    @property
    def gain(self) -> float:
        return self.usual / self.ours


def measure(
    name: str,
    usual: Callable[[], object],
    ours: Callable[[], object],
    repeats: int,
    device: str,
    watches: Sequence[Stopwatch] = (),
    target: float | None = None,
) -> Row:
    """Run both in turn."""
    seconds, outside = ([], []), ([], [])
    for _ in range(repeats):
        for form, function in enumerate((usual, ours)):
            before = sum(watch.seconds() for watch in watches)
            synchronize(device)
            start = time.perf_counter()
            function()
            synchronize(device)
            seconds[form].append(time.perf_counter() - start)
            inside = sum(watch.seconds() for watch in watches) - before
            outside[form].append(1 - inside / seconds[form][-1])
    shares = [statistics.median(x) if watches else None for x in outside]
    return Row(name, *map(statistics.median, seconds), *shares, target)


def assert_same_scores(expected: list[float], scores: list[float], tolerance: float) -> None:
    """Raise AssertionError unless both are the scores of the same masks."""
    np.testing.assert_allclose(scores, expected, atol=tolerance)


def assert_same_masks(expected: list[np.ndarray], masks: list[np.ndarray]) -> None:
    """Raise AssertionError if more than a few pixels, with nearly equal scores, differ."""
    same = np.mean([(a == b).mean() for a, b in zip(expected, masks, strict=True)])
    assert same >= SAME_PIXELS, f'only {same:.4%} of the pixels have the same label in both forms'


def prepare(options: argparse.Namespace, folder: Path) -> Work:
    """Write image files and checkpoints of untrained networks; load both."""
    generator = np.random.default_rng(0)
    (folder / 'images').mkdir()
    for i in range(options.images):
        small = generator.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((options.width, options.height), Image.BICUBIC)
        image.save(folder / 'images' / f'{i:04d}.jpg')
    init_default_scope('mmseg')
    network = network_config(options.depth, options.classes)
    # With large classifier weights, an untrained network is confident and predicts several classes.
    network.decode_head.init_cfg = dict(type='Normal', std=2.0, override=dict(name='conv_seg'))
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    cfg = Config(dict(model=network, test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    MMLogger.get_instance(
        'benchmark', log_level=logging.WARNING
    )  # otherwise each layer logs its weights
    predictors = []
    for k in range(options.checkpoints):
        torch.manual_seed(k)
        model = MODELS.build(cfg.model)
        model.init_weights()
        path = folder / f'{k}.pth'
        torch.save(dict(state_dict=model.state_dict()), path)
        predictors.append(Predictor(cfg, str(path), options.device))
    pool = ImagePool(cfg, dict(type='UnlabeledDataset', img_dir=str(folder / 'images')))
    return Work(pool, predictors, folder, options.batch, options.device)


def compare(options: argparse.Namespace, folder: Path) -> list[Row]:
    """All rows."""
    work = prepare(options, folder)
    watches = [predictor.in_network for predictor in work.predictors]
    masks = masks_of(work)
    of_images = masks.permute(1, 0, 2, 3).long().contiguous().numpy()
    metric = (
        lambda: usual_metric(of_images, options.classes),
        lambda: our_metric(masks, options.classes, options.batch),
    )
    assert_same_scores(metric[0](), metric[1](), 1e-9)
    # A single pixel can change the IoU of a small class.
    assert_same_scores(usual_scoring(work), our_scoring(work), 0.02)
    assert_same_masks(usual_labeling(work), our_labeling(work))
    target = dict(target=None) if options.device != 'cpu' else {}
    name = f'metric, masks of {METRIC_SIZE[1]}x{METRIC_SIZE[0]}'
    rows = [measure(name, *metric, 5 * options.repeats, 'cpu', target=3.0)]
    for name, forms, goal in (
        ('scoring', (usual_scoring, our_scoring), None),
        ('labeling', (usual_labeling, our_labeling), 1.1),
    ):
        usual, ours = (lambda form=form: form(work) for form in forms)
        settings = dict(target=goal) | target
        rows.append(
            measure(name, usual, ours, options.repeats, options.device, watches, **settings)
        )
    return rows


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n\n')[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        '--depth', type=int, default=18, choices=(18, 50, 101), help='of the ResNet'
    )
    parser.add_argument('--width', type=int, default=96, help='of the images')
    parser.add_argument('--height', type=int, default=72, help='of the images')
    parser.add_argument('--images', type=int, default=8)
    parser.add_argument('--batch', type=int, default=8, help='batch size of our implementation')
    parser.add_argument('--classes', type=int, default=21)
    parser.add_argument('--checkpoints', type=int, default=3, help='of a score')
    parser.add_argument('--device', default='cpu', help='cpu or cuda')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads')
    parser.add_argument('--repeats', type=int, default=3, help='runs of each implementation')
    parser.add_argument('--check', action='store_true', help='exit with 1 if a target is missed')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(options, Path(folder))
    print(
        f'{options.images} images of {options.width}x{options.height}, {options.classes} classes, DeepLabv3+ '
        f'R{options.depth}, {options.checkpoints} checkpoints, {options.device}, {options.threads} thread(s), '
        f'median of {options.repeats}, torch {torch.__version__}\n'
    )
    print(
        '| | usual images/s | ours images/s | speed-up | target | outside the network, usual | ours |'
    )
    print('|---|---|---|---|---|---|---|')
    for row in rows:
        rates = (f'{options.images / seconds:.4g}' for seconds in (row.usual, row.ours))
        shares = ('' if x is None else f'{x:.1%}' for x in (row.usual_outside, row.ours_outside))
        target = '' if row.target is None else f'≥ {row.target:g}×'
        print('|', ' | '.join([row.name, *rates, f'{row.gain:.2f}×', target, *shares]), '|')
    missed = [row.name for row in rows if row.target is not None and row.gain < row.target]
    if missed:
        print(f'\nBelow target: {", ".join(missed)}.')
    return 1 if missed and options.check else 0


if __name__ == '__main__':
    sys.exit(main())
