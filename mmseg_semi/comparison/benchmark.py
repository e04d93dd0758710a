"""The runs of a comparison of methods: their state, start, resume and results."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import torch
from mmengine.config import Config

from ..engine.runner.staged_runner import first_difference
from .configs import trainings_of
from .fairness import iterations_of
from .jobs import launch, run_jobs
from .report import Run
from .results import read_cost, read_scores


@dataclass
class Job:
    """A run of one method with one seed: its resolved config, its files and, while it runs, its process.

    Attributes:
        method (str): Label of the method.
        seed (int): Seed of the run.
        source (Path): Config file of the method.
        cfg (Config): Resolved config; ``work_dir`` is the folder of the run.
        nproc (int): Number of processes of the run.
        train (Path): Path of ``tools/train.py``, which runs it.
    """

    method: str
    seed: int
    source: Path
    cfg: Config
    nproc: int
    train: Path
    lock: IO | None = None
    process: subprocess.Popen | None = None
    devices: str | None = None
    started: float = 0.0
    state: dict = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f'{self.method}_seed{self.seed}'

    @property
    def folder(self) -> Path:
        return Path(self.cfg.work_dir)

    def file(self, suffix: str) -> Path:
        return self.folder.with_name(self.name + suffix)

    def settings(self) -> dict:
        """Return everything that the result depends on, in the JSON form of the state file."""
        found = {key: v for key, v in self.cfg.to_dict().items() if key != 'work_dir'}
        return json.loads(json.dumps({**found, 'nproc': self.nproc}, default=str))

    def read_state(self) -> None:
        """Read the state of an earlier call.

        Raises:
            ValueError: The run was started with other settings.
        """
        file = self.file('.json')
        if not file.is_file():
            return
        state = json.loads(file.read_text(encoding='utf-8'))
        settings = self.settings()
        if state['settings'] != settings:
            key, before, now = first_difference(state['settings'], settings)
            raise ValueError(
                f'{self.name} was run with {key}={before} and is now to be run with {now}. Take another '
                f'--work-dir, or remove {self.folder} and {file} to run it again.'
            )
        self.state = state

    def write_state(self, **state) -> None:
        self.state = {**self.state, **state, 'settings': self.settings()}
        aside = self.file('.json.partial')
        aside.write_text(json.dumps(self.state, indent=1), encoding='utf-8')
        aside.replace(self.file('.json'))

    @property
    def finished(self) -> bool:
        return bool(self.state.get('finished'))

    def take(self) -> None:
        """Lock this run against other benchmarks; its process inherits the lock, also if this process ends.

        Raises:
            ValueError: Another process has the lock.
        """
        self.lock = self.file('.lock').open('w')
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f'{self.name} in {self.folder.parent} is being trained by another process. Wait for it or end '
                'it, then run the same command again.'
            ) from None

    def command(self) -> list[str]:
        arguments = [str(self.train), str(self.file('.py')), '--work-dir', str(self.folder)]
        if (self.folder / 'last_checkpoint').is_file():
            arguments.append('--resume')
        if self.nproc == 1:
            return [sys.executable, *arguments]
        rendezvous = [
            '--rdzv-backend=c10d',
            '--rdzv-endpoint=127.0.0.1:0',
            '--local-addr=127.0.0.1',
        ]
        torchrun = ['-m', 'torch.distributed.run', f'--nproc-per-node={self.nproc}', *rendezvous]
        return [sys.executable, *torchrun, *arguments, '--launcher', 'pytorch']

    def start(self, at_a_time: int) -> None:
        self.write_state(jobs=at_a_time, error='')
        self.cfg.dump(str(self.file('.py')))
        self.started = time.time()
        environment = dict(os.environ)
        if self.devices is not None:
            environment['CUDA_VISIBLE_DEVICES'] = self.devices
        # Parallel runs share the cores instead of competing for all of them.
        threads = max(1, len(os.sched_getaffinity(0)) // (at_a_time * self.nproc))
        environment.setdefault('OMP_NUM_THREADS', str(threads))
        with self.file('.txt').open('a') as output:
            self.process = launch(self.command(), output, environment, self.lock)

    def poll(self) -> int | None:
        """Return the exit code of the process; None while it runs."""
        return self.process.poll()

    def end(self, code: int, metric: str) -> str:
        """Record how the run ended, and return one line about it."""
        took = f'{time.time() - self.started:.0f} s'
        if code == 0:
            try:
                scores = self.scores(metric)
                read_cost(self.cfg, self.nproc)
            except (OSError, ValueError) as error:
                self.write_state(error=str(error))
            else:
                self.write_state(finished=True)
                told = ', '.join(f'{network} {s.last:.2f}'.strip() for network, s in scores.items())
                return f'{self.name}: finished in {took}, {metric} {told}'
        else:
            lines = [line for line in self.output().splitlines() if re.search(r'\w', line)]
            self.write_state(error=f'{_ended(code)}: {_telling(lines)}')
            print('\n'.join(lines[-5:]), file=sys.stderr)
        return f'{self.name}: failed after {took}, {self.state["error"]} See {self.file(".txt")}.'

    def output(self) -> str:
        return self.file('.txt').read_text(encoding='utf-8', errors='replace')

    def scores(self, metric: str) -> dict:
        *_, (name, training) = trainings_of(self.cfg).items()
        return read_scores(self.folder / name, metric, iterations_of(training))

    def result(self, metric: str) -> Run:
        scores, cost = {}, None
        if self.finished:
            scores, cost = self.scores(metric), read_cost(self.cfg, self.nproc)
        return Run(
            self.method,
            self.seed,
            str(self.source.name),
            scores,
            cost,
            self.state.get('jobs', 1),
            self.nproc,
            self.state.get('error', ''),
        )


def _ended(code: int) -> str:
    return f'exit code {code}' if code > 0 else f'ended by {signal.Signals(-code).name}'


def _telling(lines: list[str]) -> str:
    """Return the most informative line of a failed run's output: the last error that is not torchrun's."""
    errors = [line for line in lines if re.search(r'(Error|error|Exception)\b.*:', line)]
    errors = [line for line in errors if 'ChildFailedError' not in line and 'elastic' not in line]
    return (errors or lines or ['it printed nothing.'])[-1].strip()


def run_all(jobs: list[Job], at_a_time: int, metric: str, report: Callable[[], object]) -> None:
    """Run the unfinished jobs, with a report after each; no job is left running at the end."""
    waiting = [job for job in jobs if not job.finished]
    at_a_time = min(at_a_time, len(waiting))
    devices = devices_of(at_a_time, waiting[0].nproc) if waiting else []

    def start(job: Job, slot: int) -> None:
        job.devices = devices[slot] if devices else None
        job.start(at_a_time)
        resumed = ' again' if '--resume' in job.command() else ''
        print(f'{job.name}: started{resumed}', flush=True)

    def end(job: Job, code: int) -> None:
        print(job.end(code, metric), flush=True)
        job.lock.close()
        report()

    run_jobs(waiting, at_a_time, start, end)


def devices_of(at_a_time: int, nproc: int) -> list[str]:
    """Return the GPUs of each parallel run; empty if there are not enough, so the runs share all devices."""
    named = os.environ.get('CUDA_VISIBLE_DEVICES')
    known = named.split(',') if named else [str(i) for i in range(torch.cuda.device_count())]
    if at_a_time == 1 or len(known) < at_a_time * nproc:
        return []
    return [','.join(known[i * nproc : (i + 1) * nproc]) for i in range(at_a_time)]
