"""What all tests share: one thread, a fixed seed, nothing left over from the test before."""

import os

# Before torch is imported, and inherited by the processes that tests start: pytest runs on every core as it is,
# and sums over threads are not reproducible.
os.environ.setdefault('OMP_NUM_THREADS', '1')
# Plots are written to files only.
os.environ.setdefault('MPLBACKEND', 'Agg')

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer

# yapf, which formats configs, writes a cache at its first import after an install, and a process that reads it
# meanwhile fails. Pytest loads this file before it starts its workers.
from yapf.yapflib import yapf_api  # noqa: F401

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seed():
    """Every test draws the same numbers, alone or after others."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_leftovers():
    """Forget what Runners of the test registered globally under the name of their experiment."""
    yield
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
