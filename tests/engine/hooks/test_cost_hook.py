"""What the hook measures of a made training; tools/benchmark_methods.py's tests have real ones."""

import json
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


CHILD = '''
import importlib.util, resource, sys
spec = importlib.util.find_spec('mmseg_semi.engine.hooks')
from mmseg_semi.engine.hooks import cost_hook
print(cost_hook._peak_memory(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
'''
