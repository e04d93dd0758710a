"""Measure the size of stored soft labels, and their distance to the probabilities of the network.

For each number of stored classes per pixel, it prints the file size, the time to read the file, the
probability of the stored classes, and the total variation distance 1/2 Σ |p - q| between the probabilities p
and the stored probabilities q. It is 0 for equal distributions and at most 1. Twice this distance is the
distance between the gradients of the cross-entropy with respect to the logits. The first row is for the mask,
a one-hot label.

    python benchmarks/soft_labels.py CONFIG CHECKPOINT IMAGES --tta
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.device import get_device
from PIL import Image
from torch import Tensor

from mmseg_semi.cli import (
    add_config_arguments,
    add_image_arguments,
    images_config,
    load_config,
    one_sentence_errors,
)
from mmseg_semi.datasets.soft_labels import encode_soft_label
from mmseg_semi.functional.top_k import compress_probs, expand_probs
from mmseg_semi.self_training.images import ImagePool
from mmseg_semi.self_training.labeling import SCALES
from mmseg_semi.self_training.masks import encode_mask, voc_colors
from mmseg_semi.self_training.prediction import Predictor


class Figures(NamedTuple):
    """Of one image.

    Attributes:
        bytes (int): Of the file.
        milliseconds (float): To decode it.
        kept (float): Mean share of the probability that the stored classes have.
        distance (float): Mean total variation distance to the network's probabilities.
        largest (float): The largest of a pixel.
    """

    bytes: int
    milliseconds: float
    kept: float
    distance: float
    largest: float


def figures(probs: Tensor, k: int | None) -> Figures:
    """Store the probabilities (1, C, H, W) of an image with k classes per pixel; None is the mask alone."""
    num_classes = probs.shape[1]
    if k is None:
        label = probs.argmax(dim=1)
        content = encode_mask(label[0].to(torch.uint8).cpu().numpy(), voc_colors(num_classes))
        target = F.one_hot(label, num_classes).permute(0, 3, 1, 2).float()
        kept = probs.amax(dim=1)
    else:
        stored = compress_probs(probs, k)
        content = encode_soft_label(stored[0].cpu().numpy())
        target = expand_probs(stored, num_classes)
        kept = probs.topk(k, dim=1).values.sum(dim=1)
    start = time.perf_counter()
    np.array(Image.open(io.BytesIO(content)))
    milliseconds = 1000 * (time.perf_counter() - start)
    distance = (probs - target).abs().sum(dim=1) / 2
    return Figures(
        len(content),
        milliseconds,
        *(float(x) for x in (kept.mean(), distance.mean(), distance.max())),
    )


def measure(
    predictor: Predictor, pool: ImagePool, kinds: Sequence[int | None], tta: bool, most: int
):
    """Figures of every kind for each of at most ``most`` images, spread over the list; and their pixels."""
    found: dict[int | None, list[Figures]] = {k: [] for k in kinds}
    pixels = []
    step = max(1, -(-len(pool) // most))
    for _, samples in pool.load([[i] for i in range(0, len(pool), step)], 0):
        size = samples[0]['data_samples'].ori_shape[:2]
        views = (SCALES, True) if tta else ((1.0,), False)
        probs = predictor.probs(predictor.prepare(samples), size, *views)
        pixels.append(size[0] * size[1])
        for k in kinds:
            found[k].append(figures(probs, k))
    return found, pixels


def table(found: dict[int | None, list[Figures]]) -> str:
    """Markdown, one line per kind."""
    lines = [
        '| classes per pixel | KiB per image | decoding, ms | probability kept | distance, mean | largest |',
        '|---|---|---|---|---|---|',
    ]
    for k, of_images in found.items():
        columns = list(zip(*of_images, strict=True))
        mean = [statistics.fmean(column) for column in columns]
        name = 'mask alone' if k is None else k
        lines.append(
            f'| {name} | {mean[0] / 1024:.1f} | {statistics.median(columns[1]):.2f} | {mean[2]:.4f} | '
            f'{mean[3]:.4f} | {max(columns[4]):.3f} |'
        )
    return '\n'.join(lines)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('config', help='config file of the network, as for tools/pseudo_label.py')
    parser.add_argument('checkpoint', help='checkpoint file or address')
    parser.add_argument('images', help='folder of images, or a list of ids (see --img-dir)')
    parser.add_argument('--k', nargs='+', type=int, default=[1, 2, 3, 4], metavar='K')
    parser.add_argument(
        '--tta', action='store_true', help='five scales, with and without a horizontal flip'
    )
    parser.add_argument(
        '--most', type=int, default=64, help='maximum number of images (default: 64)'
    )
    add_image_arguments(parser)
    add_config_arguments(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence_errors():
        cfg = load_config(args)
        predictor = Predictor(cfg, args.checkpoint, get_device())
        pool = ImagePool(cfg, images_config(args))
        kinds = [None, *(k for k in args.k if k <= predictor.num_classes)]
        found, pixels = measure(predictor, pool, kinds, args.tta, args.most)
    print(
        f'{len(pixels)} images of {statistics.fmean(pixels):.0f} pixels on average, {predictor.num_classes} '
        f'classes, {get_device()}, {torch.get_num_threads()} thread(s)\n'
    )
    print(table(found))


if __name__ == '__main__':
    main()
