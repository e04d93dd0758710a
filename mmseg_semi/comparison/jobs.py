"""Run many trainings in their own processes, several at a time."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable
from typing import IO, Any

SECONDS_BETWEEN_LOOKS = 0.2


def launch(
    command: list[str], output: IO, environment: dict[str, str], lock: IO | None = None
) -> subprocess.Popen:
    """Start a process without input whose output goes to a file.

    Args:
        command: Command with its arguments.
        output: Open file for all output.
        environment: Environment of the process.
        lock: Open file that the process keeps open, and so locked, also after this process ends.
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
    """Run jobs in order, several at a time; no job is left running when this returns or raises.

    Args:
        jobs: Jobs with ``process``, None before the start, and ``poll()``, the exit code or None while running.
        at_a_time: Number of jobs that run at the same time.
        start: Starts a job. Its second argument is the slot of the job, 0 to ``at_a_time`` - 1, unique among
            running jobs.
        end: Receives an ended job and its exit code.
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
