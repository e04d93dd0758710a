"""Compare the CPU time of a training step of every method between two checkouts.

    python benchmarks/step_versions.py OLD NEW

OLD and NEW are checkouts of the repository. Each method runs in two processes, one with the package of each
checkout, with the settings and tiny networks of same_steps.py next to this file. The processes alternate
after a few steps, so that other load on the machine slows both. The CPU time of the process is measured.
Because the networks are tiny, a change of the Python code around them has a visible effect.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

METHODS = (
    'fixmatch',
    'unimatch',
    'unimatch_v2',
    'prevmatch',
    'corrmatch',
    'mean_teacher',
    'cutmix_seg',
    'imas',
    'esl',
    'u2pl',
    'des4',
    'cps',
    'gps',
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('old', metavar='OLD', type=Path, help='checkout to compare with')
    parser.add_argument('new', metavar='NEW', type=Path, help='checkout that is compared')
    parser.add_argument('--cases', nargs='+', default=METHODS, help='names in same_steps.py')
    parser.add_argument('--pairs', type=int, default=15, help='measurements of each, at least 5')
    parser.add_argument('--steps', type=int, default=8, help='steps per measurement')
    args = parser.parse_args()
    for name in ('old', 'new'):
        folder = getattr(args, name)
        if not (folder / 'mmseg_semi').is_dir():
            parser.error(f'{folder} has no folder mmseg_semi. Name a checkout of the repository.')
    if args.pairs < 5:
        parser.error(f'--pairs must be at least 5, got {args.pairs}.')
    return args


def serve(name: str, steps: int) -> None:
    """Answer each line of the input by the CPU seconds of some steps, in the process of one checkout."""
    import same_steps
    import torch
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import init_default_scope

    torch.set_num_threads(1)
    init_default_scope('mmseg')
    case = same_steps.CASES[name]
    model = same_steps.build(case, 'BN', float64=False)
    wrapper = build_optim_wrapper(
        model,
        {
            'constructor': 'NetworkOptimWrapperConstructor',
            'optimizer': {'type': 'SGD', 'lr': 1e-3},
        },
    )
    batch = same_steps.batch(0, case.unlabeled)
    for _ in sys.stdin:
        start = time.process_time()
        for _ in range(steps):
            model.train_step(batch, wrapper)
            same_steps.after_step(model)
        print(f'seconds {time.process_time() - start}', flush=True)


class Contestant:
    """A process with the package of one checkout."""

    def __init__(self, checkout: Path, name: str, steps: int) -> None:
        paths = [str(checkout.resolve()), str(Path(__file__).resolve().parent)]
        self.process = subprocess.Popen(
            [sys.executable, __file__, '--serve', name, str(steps)],
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths), 'OMP_NUM_THREADS': '1'},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def measure(self) -> float:
        self.process.stdin.write('\n')
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith('seconds '):
                return float(line.split()[1])
        raise SystemExit(
            f'{" ".join(self.process.args)} ended. Run it with PYTHONPATH at the checkout.'
        )

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    args = parse_args()
    print('| case | old, ms | new, ms | new / old, median | quartiles |')
    print('|---|---|---|---|---|')
    for name in args.cases:
        old, new = (Contestant(folder, name, args.steps) for folder in (args.old, args.new))
        for contestant in (old, new):
            contestant.measure()
        pairs = [(old.measure(), new.measure()) for _ in range(args.pairs)]
        old.end()
        new.end()
        ratios = [b / a for a, b in pairs]
        low, _, high = statistics.quantiles(ratios, n=4)
        medians = [statistics.median(side) / args.steps * 1e3 for side in zip(*pairs, strict=True)]
        print(
            f'| {name} | {medians[0]:.1f} | {medians[1]:.1f} | {statistics.median(ratios):.3f} | '
            f'{low:.3f} - {high:.3f} |',
            flush=True,
        )


if __name__ == '__main__':
    if sys.argv[1:2] == ['--serve']:
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        main()
