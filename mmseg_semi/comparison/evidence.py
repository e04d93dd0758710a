"""The runs of an evidence plan: how they are started, and which results are stored."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from .configs import NAME, accumulation_of, trainings_of
from .fairness import iterations_of
from .jobs import launch, run_jobs
from .results import read_class_ious, read_cost, read_scores, read_validations

METRIC = 'mIoU'


@dataclass
class Job:
    """One run: its entry in the plan, its resolved config and, while it runs, its process.

    Attributes:
        said (dict): Entry in the plan.
        source (Path): Config file.
        cfg (Config): Resolved config; ``work_dir`` is the folder of the run.
        settings (str): Hash of the settings.
        root (Path): Checkout whose ``tools/train.py`` runs it.
        cpu_seconds (float): CPU time of the ended process, in seconds.
    """

    said: dict
    source: Path
    cfg: Config
    settings: str
    root: Path
    process: subprocess.Popen | None = None
    started: float = 0.0
    cpu_seconds: float = 0.0

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
        """Start from scratch; files of an interrupted run are removed."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        file = self.folder.with_suffix('.py')
        self.cfg.dump(str(file))
        train = [sys.executable, str(self.root / 'tools/train.py'), str(file)]
        command = ['nice', '-n', '19', *train, '--work-dir', str(self.folder)]
        threads = dict.fromkeys(('OMP_NUM_THREADS', 'MKL_NUM_THREADS'), '1')
        environment = {**os.environ, **threads, 'PYTHONPATH': str(self.root)}
        self.started = time.time()
        with self.output.open('w') as output:
            self.process = launch(command, output, environment)

    def poll(self) -> int | None:
        """Return the exit code of the process; None while it runs."""
        pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        if pid == 0:
            return None
        self.cpu_seconds = usage.ru_utime + usage.ru_stime
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return self.process.returncode

    def row(self, commit: str) -> dict:
        """Return the results of the finished run.

        Raises:
            OSError, ValueError: The run has left no result.
        """
        *_, (stage, training) = trainings_of(self.cfg).items()
        iterations = iterations_of(training)
        folder = self.folder / stage
        ious = read_class_ious(folder, iterations)
        curves = read_validations(folder, METRIC)
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
                network: {
                    **score._asdict(),
                    'curve': curves[network],
                    'class_iou': ious.get(network, {}),
                }
                for network, score in read_scores(folder, METRIC, iterations).items()
            },
            'steps': cost.trainings[-1].steps,
            'labeled_seen': cost.labeled_seen,
            'unlabeled_seen': cost.unlabeled_seen,
            'seconds': round(time.time() - self.started, 1),
            'cpu_seconds': round(self.cpu_seconds, 1),
            'seconds_per_step': cost.seconds_per_iteration * accumulation_of(training),
        }


def read_rows(file: Path) -> list[dict]:
    """Return the rows of the finished runs.

    Raises:
        ValueError: A line is not a row.
    """
    rows = []
    for number, line in enumerate(file.read_text(encoding='utf-8').splitlines(), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f'Line {number} of {file} is not JSON ({error}). Remove it; evidence.py starts its run again.'
            ) from None
        if not isinstance(row, dict) or 'scores' not in row:
            raise ValueError(
                f'Line {number} of {file} is not a row of a run: it has no scores. Give the file that '
                'evidence.py wrote with --rows.'
            )
        rows.append(row)
    return rows


def finished(rows: Path, commit: str) -> set[tuple[str, int]]:
    """Return settings and seeds of the stored rows of a commit."""
    if not rows.is_file():
        return set()
    return {(row['settings'], row['seed']) for row in read_rows(rows) if row['commit'] == commit}


def append(rows: Path, row: dict) -> None:
    """Append a line and flush it to disk; several processes may append at the same time."""
    rows.parent.mkdir(parents=True, exist_ok=True)
    with rows.open('a', encoding='utf-8') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(row, sort_keys=False) + '\n')
        file.flush()
        os.fsync(file.fileno())


def run_all(jobs: list[Job], at_a_time: int, commit: str, rows: Path, keep: bool) -> list[Job]:
    """Run the jobs and return those that failed. No job is left running at the end.

    Args:
        jobs: Jobs to run.
        at_a_time: Number of jobs that run at the same time.
        commit: Commit of the checkout.
        rows: File that receives a row of each finished job.
        keep: Whether to keep the checkpoints of finished jobs.
    """
    failed = []

    def start(job: Job, slot: int) -> None:
        job.start()
        print(f'{job.name}: started', flush=True)

    def end(job: Job, code: int) -> None:
        if not _finish(job, code, commit, rows, keep):
            failed.append(job)

    run_jobs(jobs, at_a_time, start, end)
    return failed


def _finish(job: Job, code: int, commit: str, rows: Path, keep: bool) -> bool:
    try:
        if code != 0:
            raise ValueError(f'exit code {code}')
        row = job.row(commit)
    except (OSError, ValueError) as error:
        print(f'{job.name}: failed, {error}. See {job.output}.', flush=True)
        return False
    append(rows, row)
    told = ', '.join(f'{net} {s["last"]:.2f}'.strip() for net, s in row['scores'].items())
    print(f'{job.name}: {METRIC} {told} in {row["seconds"]:.0f} s', flush=True)
    if not keep:
        for file in job.folder.rglob('*.pth'):
            file.unlink()
    return True
