"""The one runner of many trainings, each in processes of its own, several at a time."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable
from typing import IO, Any

SECONDS_BETWEEN_LOOKS = 0.2


def launch(
    command: list[str], output: IO, environment: dict[str, str], lock: IO | None = None
) -> subprocess.Popen:
    """Start a process that reads nothing and prints to a file.

    Args:
        command: with its arguments.
        output: open file for all that it prints.
        environment: of the process.
        lock: open file that the process keeps open, and so locked, also when this one ends.
    """
    return subprocess.Popen(
        command,
        stdout=output,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env=environment,
        pass_fds=[] if lock is None else [lock.fileno()],
    )


def run_jobs(
    jobs: Iterable,
    at_a_time: int,
    start: Callable[[Any, int], None],
    end: Callable[[Any, int], None],
) -> None:
    """Run jobs in their order, several at a time; none is left running when this returns or raises.

    Args:
        jobs: each has ``process``, None before its start, and ``poll()``, its exit code or None while it runs.
        at_a_time: number of jobs that run at the same time.
        start: starts a job. Its second argument is the slot of the job, 0 to ``at_a_time`` - 1, which no other
            running job has.
        end: gets a job that has ended and its exit code.
    """
    waiting, running = list(jobs), {}
    try:
        while waiting or running:
            for slot in range(at_a_time):
                if waiting and slot not in running:
                    running[slot] = waiting.pop(0)
                    start(running[slot], slot)
            time.sleep(SECONDS_BETWEEN_LOOKS)
            for slot, job in list(running.items()):
                code = job.poll()
                if code is not None:
                    del running[slot]
                    end(job, code)
    finally:
        left = [job.process for job in running.values() if job.process is not None]
        for process in left:
            process.terminate()
        for process in left:
            process.wait()
