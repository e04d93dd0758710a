"""Train with and without unlabeled images on real images, and show the difference.

Trains two small networks from scratch on the CPU: one on 4 labeled microscopy images of cell nuclei, and one by
iMAS on the same and 400 unlabeled images. A table compares them on 137 other images, and a picture shows their
predictions. The images are in examples/nuclei. Nothing is downloaded. An interrupted demo continues where it
stopped.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmseg.registry import DATASETS, MODELS
from tqdm import tqdm

import mmseg_semi
from mmseg_semi.functional.pseudo_label import confidence_and_label
from mmseg_semi.visualization import read_scalars
from mmseg_semi.visualization.panels import colorize, save_panels

TOOLS = Path(__file__).resolve().parent
DATA = TOOLS.parent / 'examples/nuclei'
#: The lists below DATA. Bright images are not among them, because none of the labeled images is bright.
PARTITION, VALIDATION = 'dark/l4_0', 'lists/dark/val.txt'
ITERATIONS = 1800
CONFIGS = {
    'supervised': 'mmseg_semi::suponly/suponly_deeplabv3plus_tiny_900iter_nuclei-96x96.py',
    'iMAS': 'mmseg_semi::imas/imas_deeplabv3plus_tiny_900iter_nuclei-96x96.py',
}
#: Row of the table -> run, and the metric that it is read from.
ROWS = {
    'supervised': ('supervised', 'mIoU'),
    'iMAS, student': ('iMAS', 'student/mIoU'),
    'iMAS, teacher': ('iMAS', 'teacher/mIoU'),
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--seeds',
        type=int,
        nargs='+',
        default=[0],
        help='seeds; each gives one pair of trainings (default: 0)',
    )
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/demo'), help='default: work_dirs/demo'
    )
    parser.add_argument(
        '--processes',
        type=int,
        default=2,
        help='trainings at the same time, one core each (default: 2)',
    )
    parser.add_argument('--images', type=int, default=5, help='images in the picture (default: 5)')
    parser.add_argument(
        '--max-iters',
        type=int,
        default=ITERATIONS,
        help=f'train for fewer iterations, as a quick check (default: {ITERATIONS})',
    )
    args = parser.parse_args(argv)
    if args.processes < 1 or args.images < 1:
        parser.error('--processes and --images must be at least 1')
    if args.max_iters <= 50:
        parser.error(f'--max-iters {args.max_iters} must be above 50, the length of the warm-up')
    return args


@dataclass
class Training:
    """One training in a new process."""

    method: str
    config: Path
    seed: int
    work_dir: Path
    max_iters: int
    options: list[str]
    process: subprocess.Popen | None = None

    @property
    def name(self) -> str:
        return f'{self.method}, seed {self.seed}'

    @property
    def checkpoint(self) -> Path:
        return self.work_dir / f'iter_{self.max_iters}.pth'

    @property
    def log(self) -> Path:
        return self.work_dir / 'output.txt'

    def start(self) -> None:
        self.work_dir.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, TOOLS / 'train.py', self.config, '--work-dir', self.work_dir]
        if (self.work_dir / 'last_checkpoint').exists():
            command.append('--resume')
        # Two trainings share the machine: one thread each is faster than both competing for all.
        environment = dict(os.environ, OMP_NUM_THREADS='1', MKL_NUM_THREADS='1')
        with self.log.open('w') as output:
            self.process = subprocess.Popen(
                [*map(str, command), '--cfg-options', *self.options],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
            )

    def scalars(self) -> list[dict]:
        """The log of the training, including earlier starts."""
        return read_scalars(self.work_dir)

    def iteration(self) -> int:
        return max((entry.get('step', 0) for entry in self.scalars()), default=0)

    def metric(self, key: str) -> float:
        """Last value of a validation metric."""
        return [entry[key] for entry in self.scalars() if key in entry][-1]


def plan(args: argparse.Namespace) -> list[Training]:
    """The trainings of the demo, those first that take longest."""
    args.work_dir.mkdir(parents=True, exist_ok=True)
    trainings = []
    for method in reversed(CONFIGS):
        cfg = Config.fromfile(mmseg_semi.compat.config_path(CONFIGS[method]))
        cfg.custom_hooks.append(dict(type='MemoryFormatHook'))  # faster on a CPU
        training_set, cfg.test_dataloader = cfg.train_dataloader.dataset, cfg.val_dataloader
        training_set.partition = PARTITION
        cfg.val_dataloader.dataset.ann_file = VALIDATION
        parts = [training_set[part] for part in ('labeled', 'unlabeled') if part in training_set]
        for dataset in (*(parts or [training_set]), cfg.val_dataloader.dataset):
            dataset.data_root = str(DATA)
        cfg.train_cfg = dict(cfg.train_cfg, max_iters=args.max_iters, val_interval=args.max_iters)
        cfg.default_hooks.logger.interval = 25
        config = args.work_dir / f'{method.lower()}.py'
        cfg.dump(config)
        for seed in args.seeds:
            options = [f'randomness.seed={seed}']
            name = f'{method.lower()}_seed{seed}_{args.max_iters}iter'
            work_dir = args.work_dir / name
            trainings.append(Training(method, config, seed, work_dir, args.max_iters, options))
    return trainings


def run(trainings: list[Training], processes: int) -> None:
    """Run the trainings, some at a time, with a progress bar for each.

    Raises:
        RuntimeError: A training failed; says where its output is.
    """
    waiting = [training for training in trainings if not training.checkpoint.exists()]
    for training in trainings:
        if training not in waiting:
            print(f'{training.name}: found {training.checkpoint}')
    bars = {
        training.name: tqdm(
            total=training.max_iters,
            desc=training.name,
            unit='it',
            position=i,
            # No progress bars if the output goes to a file.
            mininterval=0.5 if sys.stderr.isatty() else 30,
        )
        for i, training in enumerate(waiting)
    }
    running: list[Training] = []
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                running.append(waiting.pop(0))
                running[-1].start()
            time.sleep(1)
            for training in list(running):
                bar, code = bars[training.name], training.process.poll()
                done = training.iteration()
                if done > bar.n:
                    bar.update(done - bar.n)
                if code is None:
                    continue
                running.remove(training)
                if code != 0:
                    tail = training.log.read_text().strip().splitlines()[-1:]
                    raise RuntimeError(
                        f'{training.name} stopped with exit code {code}. See {training.log}, which ends in '
                        f'"{"".join(tail)}".'
                    )
    finally:
        for training in running:
            training.process.terminate()
        for bar in bars.values():
            bar.close()


def table(trainings: list[Training], seeds: list[int]) -> str:
    """Markdown: mIoU of each row and seed, and the gain over supervised training."""
    by_key = {(training.method, training.seed): training for training in trainings}
    values = {
        row: np.array([by_key[method, seed].metric(key) for seed in seeds])
        for row, (method, key) in ROWS.items()
    }
    columns = ['mIoU', 'gain']
    if len(seeds) > 1:
        columns += [f'seed {seed}' for seed in seeds]
    lines = ['| | ' + ' | '.join(columns) + ' |', '|---' * (len(columns) + 1) + '|']
    baseline = values['supervised'].mean()
    for row, numbers in values.items():
        cells = [f'{numbers.mean():.2f}', f'{numbers.mean() - baseline:+.2f}']
        if len(seeds) > 1:
            cells += [f'{number:.2f}' for number in numbers]
        lines.append(f'| {row} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def compare(truth: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compare two label maps (H, W) with the truth.

    Returns:
        uint8 RGB (H, W, 3): green where only the second one is correct, red where only the first one is, gray
        where both are wrong, and black where both are correct.
    """
    right, other = first == truth, second == truth
    colors = np.zeros((*truth.shape, 3), dtype=np.uint8)
    colors[other & ~right] = (60, 200, 60)
    colors[right & ~other] = (230, 60, 60)
    colors[~right & ~other] = (120, 120, 120)
    return colors


@torch.no_grad()
def draw(supervised: Training, semi: Training, num_images: int, path: Path) -> None:
    """Write a picture of validation images and the predictions of both trainings."""
    init_default_scope('mmseg')
    models = []
    for training in (semi, supervised):
        cfg = Config.fromfile(training.config)
        model = MODELS.build(cfg.model)
        load_checkpoint(model, str(training.checkpoint), map_location='cpu')
        models.append(model.eval())
    imas, plain = models
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    palette = dataset.metainfo['palette']
    rows, captions = [], []
    for index in range(min(num_images, len(dataset))):
        sample = dataset[index]
        batch = plain.data_preprocessor(
            {'inputs': [sample['inputs']], 'data_samples': [sample['data_samples']]}, False
        )
        size = tuple(sample['inputs'].shape[-2:])
        truth = sample['data_samples'].gt_sem_seg.data[0].numpy()
        first, second = (
            confidence_and_label(network._forward(batch['inputs']), size)[1][0].numpy()
            for network in (plain, imas.teacher)
        )
        rows.append(
            [
                sample['inputs'].flip(0).permute(1, 2, 0).numpy(),
                *(colorize(label, palette) for label in (truth, first, second)),
                compare(truth, first, second),
            ]
        )
        shares = [100 * (label == truth).mean() for label in (first, second)]
        captions.append('correct pixels: supervised {:.1f} %, iMAS {:.1f} %'.format(*shares))
    titles = ['image', 'truth', 'supervised', 'iMAS', 'iMAS better, worse']
    save_panels(str(path), rows, titles, captions)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if not (DATA / VALIDATION).is_file():
        sys.exit(
            f'demo: {DATA / VALIDATION} does not exist. Run the demo in a clone of the repository.'
        )
    start = time.time()
    trainings = plan(args)
    print(
        f'{len(trainings)} trainings, {args.processes} at a time; their logs are in {args.work_dir}'
    )
    try:
        run(trainings, args.processes)
    except RuntimeError as error:
        sys.exit(f'demo: {error}')
    lines = table(trainings, args.seeds)
    (args.work_dir / 'table.md').write_text(lines + '\n')
    picture = args.work_dir / 'predictions.png'
    by_method = {training.method: training for training in reversed(trainings)}
    draw(by_method['supervised'], by_method['iMAS'], args.images, picture)
    print(f'\n{lines}\n\nPicture: {picture}\nTime: {(time.time() - start) / 60:.1f} minutes')


if __name__ == '__main__':
    main()
