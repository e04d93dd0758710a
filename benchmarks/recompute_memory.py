"""Measure the peak memory and time of a step of CPS and GPS with and without ``semi_train_cfg.recompute``.

The peak does not include weights and momentum. It includes activations, gradients and temporary tensors.
Recomputation repeats each forward pass that has gradients: 4 forward passes of an image pair in addition to
the 14 of CPS, and 6 in addition to the 23 of GPS.

    python benchmarks/recompute_memory.py                       # R50 at 257 px, 2+2 images, on the CPU
    python benchmarks/recompute_memory.py --size 513 --labeled 8 --unlabeled 8 --device cuda
"""

from __future__ import annotations

import argparse
import copy

import torch
from mmengine.registry import init_default_scope
from step import Bench, make_batch, peak_memory


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n\n')[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('--methods', nargs='+', default=['CPS', 'GPS'], choices=('CPS', 'GPS'))
    parser.add_argument(
        '--depth', type=int, default=50, choices=(18, 50, 101), help='depth of the ResNet'
    )
    parser.add_argument('--size', type=int, default=257, help='height and width of the crops')
    parser.add_argument('--labeled', type=int, default=2, help='labeled images in the batch')
    parser.add_argument('--unlabeled', type=int, default=2, help='unlabeled images in the batch')
    parser.add_argument('--classes', type=int, default=21)
    parser.add_argument(
        '--no-cutmix', action='store_true', help='label the images that are learned'
    )
    parser.add_argument('--device', default='cpu', help='cpu or cuda')
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast')
    return parser.parse_args(argv)


def measure(args: argparse.Namespace, method: str) -> dict[bool, tuple[float, float]]:
    """MiB and seconds of a step without and with recomputing."""
    args = copy.copy(args)
    args.method = method
    bench = Bench(args)
    batch = bench.batch
    # The first step allocates the momentum.
    small = copy.copy(args)
    small.size = 33
    bench.batch = make_batch(small)
    bench.step()
    bench.batch = batch
    found = {}
    for recompute in (False, True):
        settings = bench.model.cfg.as_dict()
        bench.model.cfg = type(bench.model.cfg)({**settings, 'recompute': recompute})
        seconds = bench.time(bench.step)
        bench.model.zero_grad()
        found[recompute] = (peak_memory(bench, bench.step), seconds)
        bench.model.zero_grad()
    return found


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    torch.set_num_threads(1)
    init_default_scope('mmseg')
    print(
        f'DeepLabv3+ R{args.depth}, {args.labeled}+{args.unlabeled} images of {args.size}x{args.size}, '
        f'{"no CutMix, " if args.no_cutmix else ""}{args.device}, torch {torch.__version__}'
        f'{", bfloat16" if args.amp else ""}\n'
    )
    print('| | MiB | recomputed, MiB | share | seconds | recomputed, seconds |')
    print('|---|---|---|---|---|---|')
    for method in args.methods:
        (kept, seconds), (less, longer) = measure(args, method).values()
        print(
            f'| {method} | {kept:.0f} | {less:.0f} | {less / kept:.2f} | {seconds:.1f} | {longer:.1f} |',
            flush=True,
        )


if __name__ == '__main__':
    main()
