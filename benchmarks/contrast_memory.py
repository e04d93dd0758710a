"""Measure the peak memory of ESL's contrastive loss without the network: parts, anchors, InfoNCE, gradients.

The inputs are random tensors of real sizes: encoder features with 2048 channels at stride 8, and decoder
features with 256 and projected features with 512 channels at stride 4. The benchmark measures the pass over
the teacher's features, and the forward and backward pass of the loss up to the output of the projector.
docs/esl.md estimates it for B = 16.

    python benchmarks/contrast_memory.py                            # B = 4 on the CPU
    python benchmarks/contrast_memory.py --batch 16 --device cuda --check
"""

from __future__ import annotations

import argparse

import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from step import peak_memory
from torch import Tensor

LIMIT = 1500  # MB at B = 16


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n\n')[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('--batch', type=int, default=4, help='labeled and unlabeled images')
    parser.add_argument('--size', type=int, default=513, help='height and width of the crops')
    parser.add_argument('--classes', type=int, default=21)
    parser.add_argument('--parts', type=int, default=5, help='K, parts of a class')
    parser.add_argument('--queue', type=int, default=200, help='q, features of a part')
    parser.add_argument('--device', default='cpu', help='cpu or cuda')
    parser.add_argument('--check', action='store_true', help=f'fail above {LIMIT} MB')
    return parser.parse_args()


def build_model(args: argparse.Namespace) -> torch.nn.Module:
    """ESL over a decode head of 256 channels, with a full bank."""
    norm_cfg = {'type': 'BN', 'requires_grad': True}
    segmentor = {
        'type': 'EncoderDecoder',
        'data_preprocessor': {'type': 'SegDataPreProcessor'},
        'backbone': {
            'type': 'ResNetV1c',
            'depth': 18,
            'base_channels': 4,
            'stem_channels': 8,
            'norm_cfg': norm_cfg,
        },
        'decode_head': {
            'type': 'FCNHead',
            'in_channels': 32,
            'channels': 256,
            'num_convs': 1,
            'concat_input': False,
            'num_classes': args.classes,
            'norm_cfg': norm_cfg,
            'align_corners': True,
        },
    }
    model = MODELS.build(
        {
            'type': 'ESL',
            'segmentor': segmentor,
            'semi_train_cfg': {
                'num_parts': args.parts,
                'queue_size': args.queue,
                'segmentation_head': None,
                'encoder_index': -1,
                'encoder_channels': 2048,
            },
        }
    )
    model.contrast.bank.rows[:-1].normal_()
    model.contrast.bank.fill.fill_(args.queue)
    model.contrast.prototypes.vectors.normal_()
    model.contrast.prototypes.valid.fill_(True)
    return model.to(args.device).train()


class Bench:
    """The two phases of the contrast on made-up outputs of a network."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.args = args
        self.model = build_model(args)
        stride4, stride8 = ((args.size - 1) // stride + 1 for stride in (4, 8))
        # Regions, as in a real label map.
        coarse = torch.randint(0, args.classes, (args.batch, 1, 8, 8)).float()
        label = torch.nn.functional.interpolate(coarse, (stride4, stride4))[:, 0].long()
        self.label = label.to(args.device)
        self.encoded = self._random(2048, stride8).relu_()
        self.decoded = self._random(256, stride4)
        self.projected = self._random(512, stride4).relu_().requires_grad_()

    def _random(self, channels: int, side: int) -> Tensor:
        shape = (self.args.batch, channels, side, side)
        return torch.randn(shape, device=self.args.device)

    def remember(self) -> Tensor:
        projector = self.model.teacher.decode_head.projector
        return self.model.contrast.remember(self.encoded, self.decoded, self.label, projector)

    def contrast(self) -> None:
        losses = self.model.contrast.loss(self.projected, self.label, self.parts)
        torch.autograd.grad(losses['loss_contrast'], self.projected)


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    init_default_scope('mmseg')
    bench = Bench(args)
    bench.parts = bench.remember()
    bank = sum(b.numel() * b.element_size() for b in bench.model.contrast.bank.buffers()) / 1e6
    rows = {
        'assigning and storing parts': peak_memory(bench, bench.remember),
        'anchors, InfoNCE and its backward': peak_memory(bench, bench.contrast),
    }
    most = bank + 2**20 / 1e6 * max(rows.values())
    print(
        f'ESL, {args.batch} images of {args.size}x{args.size}, {args.classes} classes, K = {args.parts}, '
        f'q = {args.queue}, {args.device}, torch {torch.__version__}\n'
    )
    print('| | MB |\n|---|---|')
    print(f'| bank | {bank:.0f} |')
    for name, mebibytes in rows.items():
        print(f'| {name} | {mebibytes * 2**20 / 1e6:.0f} |')
    print(f'| bank and the larger of the two | {most:.0f} |')
    print(
        f'\nof which the gradient at the projector: '
        f'{bench.projected.numel() * bench.projected.element_size() / 1e6:.0f} MB'
    )
    if args.check and most > LIMIT:
        raise SystemExit(1)


if __name__ == '__main__':
    main()
