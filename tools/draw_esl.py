"""Plot predictions of ESL's teacher on test images: entropy, dominant classes, parts and features.

    python tools/draw_esl.py CONFIG CHECKPOINT [--output-dir DIR] [--num N] [--embedding tsne|pca] ...

labels.png shows for each image the ground truth, the prediction of the teacher, the entropy of its
probabilities (as a share of the maximum), the number of dominant classes (white: one, orange: two, red:
more), and the parts of the classes as shades of the class color. features.png shows the projected features of
confident pixels in two dimensions, colored by class, with one marker for each part.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmseg.registry import DATASETS, MODELS
from torch import Tensor
from torch.utils.data import ConcatDataset

import mmseg_semi  # noqa: F401  registers the package's modules
from mmseg_semi.cli import check_file, merge_options, read_config
from mmseg_semi.datasets.walk import loader_configs
from mmseg_semi.functional.contrast import sample_anchors
from mmseg_semi.functional.resizing import resize_nearest
from mmseg_semi.functional.sampling import entropy
from mmseg_semi.models import ESL
from mmseg_semi.visualization import (
    EMBEDDINGS,
    color_counts,
    color_parts,
    colorize,
    embed,
    heatmap,
    save_panels,
    save_scatter,
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file of the training')
    parser.add_argument('checkpoint', help='checkpoint file of the training')
    parser.add_argument(
        '--output-dir', type=Path, help='default: work_dirs/NAME_OF_THE_CONFIG/drawn'
    )
    parser.add_argument('--num', type=int, default=5, help='images to draw (default: 5)')
    parser.add_argument(
        '--embedding',
        choices=EMBEDDINGS,
        default='tsne',
        help='embedding of the features (default: tsne)',
    )
    parser.add_argument(
        '--per-class', type=int, default=100, help='maximum features per class (default: 100)'
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='seed of the sampling and the embedding (default: 0)'
    )
    parser.add_argument('--device', default='cpu', help='cpu or cuda')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='override settings, as key=value'
    )
    args = parser.parse_args(argv)
    if args.num < 1 or args.per_class < 1:
        parser.error('--num and --per-class must be at least 1')
    return args


def load(args: argparse.Namespace) -> tuple[ESL, Config]:
    """The trained method and its config."""
    check_file(args.config, 'config', '.py')
    check_file(args.checkpoint, 'checkpoint', '.pth')
    cfg = read_config(args.config)
    merge_options(cfg, args.cfg_options)
    init_default_scope('mmseg')
    model = MODELS.build(cfg.model)
    if not isinstance(model, ESL):
        raise ValueError(
            f'{args.config} trains a {type(model).__name__}. Give a config and a checkpoint of ESL.'
        )
    load_checkpoint(model, args.checkpoint, map_location='cpu')
    if model.contrasts and not model.contrast.prototypes.ready:
        raise ValueError(
            f'{args.checkpoint} has no prototypes, so there are no parts to draw. Give a checkpoint that the '
            'training of ESL itself saved, after unlabeled_start.'
        )
    return model.to(args.device).eval(), cfg


class Drawing:
    """Rows of pictures and features, gathered image by image."""

    def __init__(self, model: ESL, metainfo: dict, per_class: int) -> None:
        self.model, self.palette, self.per_class = model, metainfo['palette'], per_class
        self.rows, self.captions = [], []
        self.features: list[tuple[Tensor, Tensor, Tensor]] = []

    @torch.no_grad()
    def add(self, sample: dict) -> None:
        """Look at one test image."""
        model = self.model
        data = {'inputs': [sample['inputs']], 'data_samples': [sample['data_samples']]}
        image = model.data_preprocessor(data, False)['inputs']
        output = model.forward_network(model.teacher, image, tap=model.contrasts)
        size = tuple(image.shape[-2:])
        logits = torch.nn.functional.interpolate(
            output.logits.float(), size, mode='bilinear', align_corners=model.align_corners
        )
        probs = logits.softmax(dim=1)
        confidence, label = probs.max(dim=1)
        number = model.soft_label(probs).count_nonzero(dim=1)[0]
        share = entropy(probs)[0] / math.log(model.num_classes)
        truth = data['data_samples'][0].gt_sem_seg.data[0]
        row = [
            sample['inputs'].flip(0).permute(1, 2, 0).numpy(),
            colorize(truth.numpy(), self.palette)
            if tuple(truth.shape) == size
            else None,  # test pipelines resize images and not their labels
            colorize(label[0].cpu().numpy(), self.palette),
            heatmap(share.cpu().numpy()),
            color_counts(number.cpu().numpy()),
        ]
        if model.contrasts:
            row.append(self._parts(output, confidence, label))
        self.rows.append(row)
        few = [(number == 1).float().mean(), (number == 2).float().mean()]
        self.captions.append(
            f'mean entropy {share.mean():.2f}; one dominant class {few[0]:.0%}, two {few[1]:.0%}, more '
            f'{1 - few[0] - few[1]:.0%}'
        )

    def _parts(self, output, confidence: Tensor, label: Tensor) -> np.ndarray:
        """The picture of the parts; features of confident pixels are kept aside."""
        model = self.model
        encoded = model.contrast.stage_of(output.encoder)
        num_parts = model.cfg.num_parts
        parts = model.contrast.prototypes.assign(encoded, label, model.align_corners)
        projected = model.teacher.decode_head.projector(output.decoder)
        grid = projected.shape[-2:]
        small, sure, part = (
            resize_nearest(maps, grid, model.align_corners).flatten()
            for maps in (label, confidence > model.cfg.anchor_threshold, parts)
        )
        chosen = sample_anchors(
            small.masked_fill(~sure, 255), model.num_classes, ratio=1.0, limit=self.per_class
        ).index
        chosen = chosen[chosen >= 0]
        vectors = projected[0].flatten(1).t()[chosen]
        self.features.append(tuple(x.cpu() for x in (vectors.float(), small[chosen], part[chosen])))
        return color_parts(label[0].cpu().numpy(), parts[0].cpu().numpy(), self.palette, num_parts)

    def anchors(self) -> tuple[np.ndarray, ...]:
        """Features, classes and parts, at most ``per_class`` of a class over all images."""
        vectors, label, part = (torch.cat(column) for column in zip(*self.features, strict=True))
        limited = sample_anchors(label, self.model.num_classes, ratio=1.0, limit=self.per_class)
        return tuple(x[limited.index].numpy() for x in (vectors, label, part))


def draw(args: argparse.Namespace) -> list[str]:
    """Write the pictures; return their paths."""
    model, cfg = load(args)
    torch.manual_seed(args.seed)
    sets = [DATASETS.build(loader['dataset']) for _, loader in loader_configs(cfg, 'test')]
    dataset, meta = ConcatDataset(sets), sets[0].metainfo
    drawing = Drawing(model, meta, args.per_class)
    for index in range(min(args.num, len(dataset))):
        drawing.add(dataset[index])
    folder = args.output_dir or Path('work_dirs') / Path(args.config).stem / 'drawn'
    titles = ['image', 'truth', 'teacher', 'entropy', 'dominant classes', 'parts']
    written = [str(folder / 'labels.png')]
    save_panels(written[0], drawing.rows, titles[: len(drawing.rows[0])], captions=drawing.captions)
    if model.contrasts:
        vectors, label, part = drawing.anchors()
        points = embed(vectors, args.embedding, args.seed)
        written.append(str(folder / 'features.png'))
        title = f'{len(points)} projected features, {args.embedding}'
        save_scatter(
            written[1],
            points,
            label,
            part,
            meta['palette'],
            meta['classes'],
            title,
        )
    return written


def main() -> None:
    args = parse_args()
    try:
        for path in draw(args):
            print(path)
    except (OSError, ValueError) as error:
        sys.exit(f'draw_esl: {error}')


if __name__ == '__main__':
    main()
