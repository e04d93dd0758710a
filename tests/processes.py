"""Run the command line tools in processes of their own, without the seconds that each import takes.

A fork server imports the package once; each run is a fork of it that executes the tool's file as
``__main__``, so that it can be killed, resumed and joined with others like a real process, which it is.
"""

from __future__ import annotations

import os
import random
import runpy
import socket
import subprocess
import sys
import traceback
from multiprocessing import connection, forkserver, get_context
from pathlib import Path
from typing import NamedTuple

import mmseg
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / 'tools'
#: MMSegmentation's own tools, of the installed package.
STOCK_TOOLS = Path(mmseg.__file__).parent / '.mim' / 'tools'
#: One thread, so that sums have one order; our package and the helpers of the tests are importable.
ENVIRONMENT = {
    'OMP_NUM_THREADS': '1',
    'MKL_NUM_THREADS': '1',
    'CUDA_VISIBLE_DEVICES': '',
    'PYTHONPATH': os.pathsep.join(
        [str(ROOT), str(ROOT / 'tests'), os.environ.get('PYTHONPATH', '')]
    ),
}


class Result(NamedTuple):
    """Exit code (negative: killed by that signal) and all that was printed."""

    code: int
    output: str

    @property
    def last_line(self) -> str:
        """What a user sees at the end."""
        return [line for line in self.output.splitlines() if line.strip()][-1]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]


def run_tool(tool: Path, *args, cwd: Path, ranks: int = 1) -> Result:
    """Run ``tool`` with these arguments in ``cwd``; with several ranks, as torchrun would start them.

    When one rank dies the others are killed, and the result is that of the one that died first.
    """
    port, processes, logs = free_port(), [], []
    context = fork_server()
    for rank in range(ranks):
        log = Path(cwd) / f'output_{tool.stem}_{len(list(Path(cwd).glob("output_*")))}.txt'
        log.touch()
        environment = dict(ENVIRONMENT, LOCAL_RANK=str(rank))
        arguments = [str(arg) for arg in args]
        if ranks > 1:
            arguments += ['--launcher', 'pytorch']
            environment.update(
                RANK=str(rank),
                WORLD_SIZE=str(ranks),
                MASTER_ADDR='127.0.0.1',
                MASTER_PORT=str(port),
            )
        process = context.Process(
            target=_execute, args=(str(tool), arguments, str(cwd), str(log), environment)
        )
        process.start()
        processes.append(process)
        logs.append(log)
    waiting = dict(enumerate(processes))
    first = None
    while waiting:
        connection.wait([process.sentinel for process in waiting.values()])
        for rank, process in list(waiting.items()):
            if process.exitcode is not None:
                del waiting[rank]
                if process.exitcode and first is None:
                    first = rank
                    for other in waiting.values():
                        other.kill()
    rank = first or 0
    return Result(processes[rank].exitcode, logs[rank].read_text())


def run_script(script: Path, *args, cwd: Path) -> Result:
    """Run a shell script or, with this Python, a tool, as a user would: with all its imports."""
    starter = [sys.executable] if script.suffix == '.py' else []
    done = subprocess.run(
        [*starter, str(script), *map(str, args)],
        cwd=cwd,
        env={**os.environ, **ENVIRONMENT, 'PYTHON': sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Result(done.returncode, done.stdout)


def fork_server():
    context = get_context('forkserver')
    if forkserver._forkserver._forkserver_pid is None:
        before = {key: os.environ.get(key) for key in ENVIRONMENT}
        os.environ.update(ENVIRONMENT)
        context.set_forkserver_preload(['preloaded'])
        try:
            forkserver.ensure_running()
        finally:
            for key, value in before.items():
                if value is None:
                    del os.environ[key]
                else:
                    os.environ[key] = value
    return context


def _execute(tool: str, args: list[str], cwd: str, log: str, environment: dict) -> None:
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(environment)
    os.chdir(cwd)
    # A fork would draw what all others draw.
    random.seed()
    np.random.seed()
    torch.seed()
    sys.argv = [tool, *args]
    code = 0
    try:
        runpy.run_path(tool, run_name='__main__')
    except SystemExit as error:
        # As the interpreter does: a message is printed, and is a failure.
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if not isinstance(error.code, (int, type(None))):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of gloo or loggers must not keep a failed rank alive.
    os._exit(code)
