"""Record the cost of a training: time per iteration and memory."""

from __future__ import annotations

import json
import os.path as osp
import re
import resource
import statistics
import sys
from pathlib import Path

import torch
from mmengine.dist import all_gather_object, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmseg.registry import HOOKS

from ...self_training.output import write_bytes

COSTS = 'costs.json'
_PEAK = 'cost_hook/peak_memory'
_STATUS = Path('/proc/self/status')
_BYTES = sys.platform == 'darwin'  # ru_maxrss is in bytes there, elsewhere in KiB
_FIRST = 10  # excluded warm-up iterations, at most a tenth of all


@HOOKS.register_module()
class CostHook(Hook):
    """Write ``WORK_DIR/costs.json`` at the end of a training, even if it was killed and resumed.

    The file has ``seconds_per_iteration``, the median of the times of IterTimerHook (including data loading,
    without the first ten iterations), ``timed_iterations``, ``peak_memory_mib`` of the process with the highest
    memory, ``memory_kind``, ``device`` and ``processes``. On a GPU the memory is ``'allocated'``, PyTorch's
    peak in training iterations. On a CPU it is ``'resident'``, the peak of the whole process with Python,
    PyTorch and validations. On a system without /proc it is ``'inherited'``, which is at least the memory of
    the parent process.
    """

    priority = 'NORMAL'  # before LoggerHook, which resets PyTorch's peak

    def before_train(self, runner) -> None:
        # The history of a resumed run has the peak of the earlier runs.
        self._peak = float(runner.message_hub.runtime_info.get(_PEAK, 0.0))
        _reset_peak()

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        self._peak = max(self._peak, _peak_memory())
        runner.message_hub.update_info(_PEAK, self._peak)

    def after_val_epoch(self, runner, metrics=None) -> None:
        _reset_peak()

    def after_train(self, runner) -> None:
        peak = max(all_gather_object(self._peak))
        if not is_main_process():
            return
        seconds = list(map(float, runner.message_hub.get_scalar('train/time').data[0]))
        timed = seconds[min(_FIRST, len(seconds) // 10) :]
        cuda = torch.cuda.is_available()
        costs = dict(
            seconds_per_iteration=statistics.median(timed),
            timed_iterations=len(timed),
            peak_memory_mib=peak,
            memory_kind='allocated' if cuda else 'resident' if _STATUS.is_file() else 'inherited',
            device=torch.cuda.get_device_name() if cuda else 'CPU',
            processes=get_world_size(),
        )
        write_bytes(osp.join(runner.work_dir, COSTS), json.dumps(costs, indent=1).encode())


def _peak_memory() -> float:
    """Return the memory in MiB without waiting for the device."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    if _STATUS.is_file():
        # ru_maxrss is inherited through fork and exec, and would include the memory of the benchmark tool.
        return int(re.search(r'^VmHWM:\s*(\d+) kB', _STATUS.read_text(), re.MULTILINE)[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if _BYTES else 2**10)


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
