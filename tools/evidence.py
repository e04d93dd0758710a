"""Train a list of jobs, one process per core at the lowest priority, and write one row per finished run.

    git worktree add --detach ../pinned COMMIT
    PYTHONPATH=../pinned python ../pinned/tools/evidence.py PLAN.json --rows ROWS.jsonl --work-dir WORK_DIR

The runs use the code and configs of the tool's own checkout, which must have no uncommitted changes, so that
development can continue elsewhere. PLAN.json is a list of objects. A list stands for one run per value, and
several lists for all combinations, except in hooks and options:

    [{"method": ["suponly", "imas"], "dataset": "vocanimals", "network": "efficientnet-lite0",
      "partition": "tuning/classic_366", "val": "lists/tuning/val.txt", "seed": [0, 1, 2],
      "lr": [2e-4, 5e-4], "iters": 1200, "hooks": [{"type": "MemoryFormatHook"}],
      "options": {"optim_wrapper.optimizer.weight_decay": 0.05}}]

method, dataset and network are parts of the config's name (docs/configs.md); `config` names a file instead.
partition: of train_dataloader.dataset, or one list below data_root. val: list of the images
that are measured on. lr: of optim_wrapper.optimizer. iters, val_interval (default: iters, one validation
at the end). hooks: added to custom_hooks. options: other settings, as --cfg-options of train.py has them. Only
method or config is required.

ROWS.jsonl gets one JSON object per run: data set, partition, method, network, seed, hash of the settings,
commit, of each network last and best mIoU and the IoU of each class, steps, images seen, seconds. A job whose
hash, seed and commit have a row is not run again. If it is stopped, the same command starts the runs
without a row again. A run that fails is reported, the others continue, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import fcntl
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

import mmseg_semi
from mmseg_semi.cli import check_file, one_sentence_errors, read_config
from mmseg_semi.comparison import (
    drawn_seed_keys,
    find_config,
    iterations_of,
    read_class_ious,
    read_cost,
    read_scores,
    set_length,
    set_partition,
    settings_hash,
    trainings_of,
)
from mmseg_semi.comparison.configs import NAME, accumulation_of

ROOT = Path(__file__).resolve().parents[1]
PARTS = ('dataset', 'network', 'head', 'schedule', 'crop')
KEYS = (
    'method',
    'config',
    *PARTS,
    'partition',
    'val',
    'seed',
    'lr',
    'iters',
    'val_interval',
    'hooks',
    'options',
)
#: Keys whose value is a list, or an object, by itself.
WHOLE = ('hooks', 'options')
METRIC = 'mIoU'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('plan', type=Path, help='JSON file of the jobs')
    parser.add_argument('--rows', type=Path, required=True, help='JSONL file that grows')
    parser.add_argument('--work-dir', type=Path, required=True, help='folder of the runs')
    parser.add_argument(
        '--jobs', type=int, default=len(os.sched_getaffinity(0)), help='default: one per core'
    )
    parser.add_argument('--keep', action='store_true', help='keep the checkpoints of finished runs')
    args = parser.parse_args(argv)
    if args.jobs < 1:
        parser.error(f'--jobs {args.jobs} must be at least 1')
    return args


@dataclass
class Job:
    """One run: what the plan says, its resolved config and, while it runs, its process."""

    said: dict
    source: Path
    cfg: Config
    settings: str
    process: subprocess.Popen | None = None
    started: float = 0.0

    @property
    def seed(self) -> int:
        return self.cfg.randomness.seed

    @property
    def name(self) -> str:
        return f'{self.source.stem}_{self.settings}_seed{self.seed}'

    @property
    def key(self) -> tuple[str, int]:
        return self.settings, self.seed

    @property
    def folder(self) -> Path:
        return Path(self.cfg.work_dir)

    @property
    def output(self) -> Path:
        return self.folder.with_suffix('.txt')

    def start(self) -> None:
        """Start over: what a stopped run left is removed."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        file = self.folder.with_suffix('.py')
        self.cfg.dump(str(file))
        command = [sys.executable, str(ROOT / 'tools/train.py'), str(file), '--work-dir']
        threads = dict.fromkeys(('OMP_NUM_THREADS', 'MKL_NUM_THREADS'), '1')
        self.started = time.time()
        with self.output.open('w') as output:
            self.process = subprocess.Popen(
                ['nice', '-n', '19', *command, str(self.folder)],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **threads, 'PYTHONPATH': str(ROOT)},
            )

    def ended(self) -> tuple[int, float] | None:
        """Exit code and CPU seconds of the process; None while it runs."""
        pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        if pid == 0:
            return None
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return self.process.returncode, usage.ru_utime + usage.ru_stime

    def row(self, commit: str, cpu_seconds: float) -> dict:
        """What is known of the finished run.

        Raises:
            OSError, ValueError: The run has left no result.
        """
        *_, (stage, training) = trainings_of(self.cfg).items()
        iterations = iterations_of(training)
        folder = self.folder / stage
        ious = read_class_ious(folder, iterations)
        cost = read_cost(self.cfg, 1)
        named = NAME.fullmatch(self.source.name)
        parts = named.groupdict() if named else {}
        return {
            'dataset': parts.get('dataset'),
            'partition': self.said.get(
                'partition', self.cfg.train_dataloader.dataset.get('partition')
            ),
            'val': self.said.get('val'),
            'method': parts.get('method', self.source.stem),
            'network': parts.get('network'),
            'seed': self.seed,
            'lr': self.said.get('lr'),
            'settings': self.settings,
            'hooks': self.said.get('hooks', []),
            'options': self.said.get('options', {}),
            'commit': commit,
            'scores': {
                network: {**score._asdict(), 'class_iou': ious.get(network, {})}
                for network, score in read_scores(folder, METRIC, iterations).items()
            },
            'steps': cost.trainings[-1].steps,
            'labeled_seen': cost.labeled_seen,
            'unlabeled_seen': cost.unlabeled_seen,
            'seconds': round(time.time() - self.started, 1),
            'cpu_seconds': round(cpu_seconds, 1),
            'seconds_per_step': cost.seconds_per_iteration * accumulation_of(training),
        }


def commit_of(root: Path) -> str:
    """The commit of a checkout.

    Raises:
        ValueError: It has uncommitted changes, or the package is imported from elsewhere.
    """
    package = Path(mmseg_semi.__file__).resolve().parents[1]
    if package != root:
        raise ValueError(
            f'mmseg_semi is imported from {package}, not from {root}. Set PYTHONPATH={root}.'
        )

    def git(*arguments: str) -> str:
        command = ['git', '-C', str(root), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    changed = git('status', '--porcelain', '--untracked-files=no')
    if changed:
        raise ValueError(
            f'{root} has uncommitted changes ({changed.splitlines()[0].strip()}): commit them, or run from a '
            'checkout of a commit (git worktree add --detach).'
        )
    return git('rev-parse', 'HEAD')


def plan(path: Path, work_dir: Path) -> list[Job]:
    """The jobs of a plan, in its order.

    Raises:
        ValueError: The plan is not a list of objects, a key is unknown, a config does not fit, or two jobs are
        the same.
    """
    try:
        entries = json.loads(path.read_text(encoding='utf-8'))
    except json.JSONDecodeError as error:
        raise ValueError(f'{path} is not JSON ({error}). Correct it.') from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(
            f'{path} must hold a list of objects, [{{"method": "suponly", ...}}, ...].'
        )
    jobs = {}
    for entry in entries:
        unknown = sorted(set(entry) - set(KEYS))
        if unknown or not {'method', 'config'} & set(entry):
            wrong = f'has the unknown key {unknown[0]!r}' if unknown else 'has no method or config'
            raise ValueError(f'An entry of {path} {wrong}: the keys are {", ".join(KEYS)}.')
        values = [
            value if isinstance(value, list) and key not in WHOLE else [value]
            for key, value in entry.items()
        ]
        for combination in itertools.product(*values):
            job = resolve(dict(zip(entry, combination, strict=True)), work_dir)
            if job.key in jobs:
                raise ValueError(f'{path} lists {job.name} more than once. Remove the duplicate.')
            jobs[job.key] = job
    return list(jobs.values())


def resolve(said: dict, work_dir: Path) -> Job:
    """The job of one combination of the plan's values."""
    if 'config' in said:
        source = ROOT / said['config']
        check_file(str(source), 'config', '.py')
    else:
        parts = {part: said.get(part) for part in PARTS}
        source = find_config(said['method'], ROOT / 'configs', **parts)
    cfg = read_config(source, format_python_code=False)
    if 'partition' in said:
        set_partition(cfg, said['partition'])
    changes = dict.fromkeys(['randomness.seed', *drawn_seed_keys(cfg)], said.get('seed', 0))
    if 'val' in said:
        changes['val_dataloader.dataset.ann_file'] = said['val']
    if 'lr' in said:
        changes['optim_wrapper.optimizer.lr'] = said['lr']
    if 'iters' in said:
        changes['train_cfg.max_iters'] = said['iters']
    cfg.merge_from_dict({**changes, **said.get('options', {})})
    set_length(cfg, 1)
    cfg.train_cfg.val_interval = said.get('val_interval', iterations_of(cfg))
    several = isinstance(cfg.val_evaluator, (list, tuple))
    for evaluator in cfg.val_evaluator if several else [cfg.val_evaluator]:
        if evaluator.type == 'IoUMetric':
            evaluator.type = 'ClassIoUMetric'
    hooks = [dict(type='CostHook'), *said.get('hooks', [])]
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), *hooks]
    job = Job(said, source, cfg, settings_hash(cfg))
    cfg.work_dir = str(work_dir.resolve() / job.name)
    return job


def finished(rows: Path, commit: str) -> set[tuple[str, int]]:
    """Settings and seeds of the rows of a commit."""
    if not rows.is_file():
        return set()
    found = []
    for number, line in enumerate(rows.read_text(encoding='utf-8').splitlines(), 1):
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(
                f'Line {number} of {rows} is not JSON ({error}). Remove it; its run is started again.'
            ) from None
    return {(row['settings'], row['seed']) for row in found if row['commit'] == commit}


def append(rows: Path, row: dict) -> None:
    """Add a line that is on the disk when this returns; several processes may do so at a time."""
    rows.parent.mkdir(parents=True, exist_ok=True)
    with rows.open('a', encoding='utf-8') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(row, sort_keys=False) + '\n')
        file.flush()
        os.fsync(file.fileno())


def run(jobs: list[Job], args: argparse.Namespace, commit: str) -> list[Job]:
    """Run the jobs; returns those that failed. None is left running at the end."""
    waiting, running, failed = list(jobs), [], []
    try:
        while waiting or running:
            while waiting and len(running) < args.jobs:
                running.append(waiting.pop(0))
                running[-1].start()
                print(f'{running[-1].name}: started', flush=True)
            time.sleep(0.2)
            for job in list(running):
                end = job.ended()
                if end is None:
                    continue
                running.remove(job)
                if not _finish(job, *end, args, commit):
                    failed.append(job)
    finally:
        for job in running:
            job.process.terminate()
        for job in running:
            job.process.wait()
    return failed


def _finish(job: Job, code: int, cpu_seconds: float, args, commit: str) -> bool:
    try:
        if code != 0:
            raise ValueError(f'exit code {code}')
        row = job.row(commit, cpu_seconds)
    except (OSError, ValueError) as error:
        print(f'{job.name}: failed, {error}. See {job.output}.', flush=True)
        return False
    append(args.rows, row)
    told = ', '.join(f'{net} {s["last"]:.2f}'.strip() for net, s in row['scores'].items())
    print(f'{job.name}: {METRIC} {told} in {row["seconds"]:.0f} s', flush=True)
    if not args.keep:
        for file in job.folder.rglob('*.pth'):
            file.unlink()
    return True


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    # So that what is running is ended as by Ctrl-C.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with one_sentence_errors():
        check_file(str(args.plan), 'plan', '.json')
        commit = commit_of(ROOT)
        init_default_scope('mmseg')
        jobs = plan(args.plan, args.work_dir)
        done = finished(args.rows, commit)
        args.work_dir.mkdir(parents=True, exist_ok=True)
        with (args.work_dir / '.lock').open('w') as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f'Another process runs jobs in {args.work_dir}. Wait for it, or give another --work-dir.'
                ) from None
            todo = [job for job in jobs if job.key not in done]
            print(f'{len(jobs)} jobs, {len(jobs) - len(todo)} of them finished before', flush=True)
            failed = run(todo, args, commit)
    if failed:
        sys.exit(f'error: {len(failed)} of {len(jobs)} runs failed.')


if __name__ == '__main__':
    main()
