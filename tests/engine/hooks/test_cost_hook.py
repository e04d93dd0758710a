"""What the hook measures of a made training; tools/benchmark_methods.py's tests have real ones."""

import json
import subprocess
import sys
import uuid
from types import SimpleNamespace

import pytest
from mmengine.logging import MessageHub

from mmseg_semi.engine import CostHook
from mmseg_semi.engine.hooks import cost_hook


def make_runner(folder):
    return SimpleNamespace(
        work_dir=str(folder), message_hub=MessageHub.get_instance(uuid.uuid4().hex)
    )


def train(runner, hook, memories, monkeypatch, seconds=0.5):
    hook.before_train(runner)
    for memory in memories:
        monkeypatch.setattr(cost_hook, '_peak_memory', lambda memory=memory: memory)
        runner.message_hub.update_scalar('train/time', seconds)
        hook.after_train_iter(runner, 0)


def test_time_is_the_median_without_the_first_iterations(tmp_path, monkeypatch):
    runner, hook = make_runner(tmp_path), CostHook()
    train(runner, hook, [100.0] * 2, monkeypatch, seconds=60.0)
    train(runner, hook, [100.0] * 9, monkeypatch, seconds=0.25)
    train(runner, hook, [100.0] * 9, monkeypatch, seconds=0.75)
    hook.after_train(runner)
    costs = json.loads((tmp_path / 'costs.json').read_text())
    # 20 iterations: the first two are left out, which took a minute each.
    assert costs['timed_iterations'] == 18
    assert costs['seconds_per_iteration'] == pytest.approx(0.5)
    assert (costs['device'], costs['memory_kind'], costs['processes']) == ('CPU', 'resident', 1)


def test_a_resumed_run_knows_the_peak_of_before(tmp_path, monkeypatch):
    runner = make_runner(tmp_path)
    train(runner, CostHook(), [100.0, 300.0, 200.0], monkeypatch)
    hook = CostHook()
    train(runner, hook, [50.0], monkeypatch)
    hook.after_train(runner)
    assert json.loads((tmp_path / 'costs.json').read_text())['peak_memory_mib'] == 300.0


def test_memory_is_that_of_the_process(monkeypatch, tmp_path):
    before = cost_hook._peak_memory()
    block = bytearray(b'\x01' * (200 * 2**20))
    assert cost_hook._peak_memory() >= 200
    assert cost_hook._peak_memory() <= before + 400
    # A small process of this large one: getrusage says at least what this one needed.
    code = (
        'import resource; print(open("/proc/self/status").read()); '
        'print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)'
    )
    said = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    del block
    assert int(said.stdout.split()[-1]) > 200 * 2**10
    monkeypatch.setattr(cost_hook, '_STATUS', tmp_path / 'status')
    (tmp_path / 'status').write_text(said.stdout)
    assert 1 < cost_hook._peak_memory() < 100


def test_without_proc_the_memory_is_said_to_be_inherited(monkeypatch, tmp_path):
    monkeypatch.setattr(cost_hook, '_STATUS', tmp_path / 'status')
    assert cost_hook._peak_memory() > 50
    runner, hook = make_runner(tmp_path), CostHook()
    train(runner, hook, [100.0], monkeypatch)
    hook.after_train(runner)
    assert json.loads((tmp_path / 'costs.json').read_text())['memory_kind'] == 'inherited'
