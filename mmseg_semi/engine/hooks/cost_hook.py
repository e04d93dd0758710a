"""Records what a training costs: time per iteration and memory."""

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
_BYTES = sys.platform == 'darwin'  # counts ru_maxrss in bytes, others in KiB
_FIRST = 10  # iterations that warm up caches, at most a tenth of all


@HOOKS.register_module()
class CostHook(Hook):
    """Write ``WORK_DIR/costs.json`` at the end of a training, also of one that was killed and resumed.

    It has ``seconds_per_iteration``, the median of what IterTimerHook measured (loading included, without the
    first ten iterations), ``timed_iterations``, ``peak_memory_mib`` of the process that needs most,
    ``memory_kind``, ``device`` and ``processes``. On a GPU the memory is ``'allocated'``, PyTorch's peak in
    the training iterations; without one it is ``'resident'``, the peak of the whole process: Python, PyTorch
    and the validations in it. Where a system has no /proc it is ``'inherited'``, of which the process that
    started this one is a lower bound.
    """

    priority = 'NORMAL'  # before LoggerHook, which resets PyTorch's peak

    def before_train(self, runner) -> None:
        # A resumed run's history knows the peak of its predecessors.
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
    """MiB; asks neither the device nor the host to wait."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    if _STATUS.is_file():
        # ru_maxrss outlives fork and exec, so that it would be at least what the benchmark tool itself needs.
        return int(re.search(r'^VmHWM:\s*(\d+) kB', _STATUS.read_text(), re.MULTILINE)[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if _BYTES else 2**10)


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
