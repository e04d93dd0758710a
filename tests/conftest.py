"""What all tests share: one thread, a fixed seed, nothing left over from the test before."""

import gc
import multiprocessing
import os

# Before torch is imported, and inherited by the processes that tests start: pytest runs on every core as it is,
# and sums over threads are not reproducible.
os.environ.setdefault('OMP_NUM_THREADS', '1')
# Plots are written to files only.
os.environ.setdefault('MPLBACKEND', 'Agg')

import random
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import mmengine.config.config as mmengine_config
import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer

# yapf, which formats configs, writes a cache at its first import after an install, and a process that reads it
# meanwhile fails. Pytest loads this file before it starts its workers.
from yapf.yapflib import yapf_api

torch.set_num_threads(1)

# Files and folders whose tests start processes, train by way of the tools, or look at every config. They are
# marked slow as a whole; `pytest -m 'not slow'` leaves them to CI.
SLOW = (
    'benchmarks',
    'engine/runner/test_teacher_stage.py',
    'engine/startup/test_checkpoints.py',
    'engine/startup/test_ignore_index.py',
    'models/test_wrappers.py',
    'real_images',
    'survival',
    'test_configs.py',
    'test_own_data.py',
    'tools/test_benchmark_methods.py',
    'tools/test_draw_esl.py',
    'tools/test_evidence.py',
    'tools/test_export.py',
    'tools/test_plot_class_distribution.py',
    'tools/test_plot_log.py',
    'tools/test_pseudo_label.py',
    'tools/test_run_tools.py',
    'tools/test_select_reliable.py',
)


def pytest_collection_modifyitems(items):
    folder = Path(__file__).parent
    for item in items:
        place = item.path.relative_to(folder)
        # Ranks are new processes, which import everything again.
        ranks = 'run_on_ranks' in item.function.__code__.co_names
        if ranks or any(place.is_relative_to(slow) for slow in SLOW):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish():
    """Take what is imported out of the collections of garbage; each dataset of MMEngine asks for two."""
    gc.collect()
    gc.freeze()


def as_it_is(code, **kwargs):
    """In the place of yapf's layout, which takes longer than a tiny training, for each checkpoint and log."""
    return code, False


LAYOUT = yapf_api.FormatCode


def formatter(function):
    """Let MMEngine lay out configs with a function, which it imports late or early, as its version has it."""
    patch = mock.patch.object
    early = patch(mmengine_config, 'FormatCode', function, create=True)
    return patch(yapf_api, 'FormatCode', function), early


@pytest.fixture(scope='session', autouse=True)
def quick_runners():
    """Runners neither lay out their config nor ask the compilers for their versions."""
    late, early = formatter(as_it_is)
    with late, early, mock.patch('mmengine.runner.runner.collect_env', dict):
        yield


@pytest.fixture
def laid_out_configs():
    """For a test of the layout itself."""
    late, early = formatter(LAYOUT)
    with late, early:
        yield


@pytest.fixture(autouse=True)
def fixed_seed():
    """Every test draws the same numbers, alone or after others."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_leftovers():
    """Forget what Runners of the test registered globally, and end the workers of its loaders.

    Otherwise a worker that a later test forks inherits a loader that waits to be collected. The worker may
    collect it, too, and end within a lock that both processes share.
    """
    yield
    if multiprocessing.active_children():
        gc.collect()
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            handler.close()
    for manager in (MMLogger, MessageHub, Visualizer):
        manager._instance_dict.clear()


@pytest.fixture
def meta(monkeypatch):
    """The device whose tensors have no values: whatever reads one raises, and so does a mix of devices.

    Gradient checkpointing of an older torch asks for the module of each device and finds none for this one.
    """
    monkeypatch.setattr(torch, 'meta', SimpleNamespace(), raising=False)
    return torch.device('meta')
