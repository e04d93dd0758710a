"""The kernel benchmark compares equal things and prints its tables; no time is asserted."""

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / 'benchmarks' / 'kernels.py'


@pytest.fixture(scope='module')
def kernels():
    spec = importlib.util.spec_from_file_location('kernels_benchmark', PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_every_kernel_equals_its_usual_form(kernels):
    setting = kernels.Setting(batch=3, classes=6, size=41)
    for case in kernels.CASES:
        kernels.assert_equal(case, setting, case.inputs(setting))


def test_a_wrong_kernel_is_not_timed(kernels):
    case = next(case for case in kernels.CASES if case.name == 'paste')
    wrong = kernels.Case('wrong', '', case.inputs, case.usual, lambda bases, *_: list(bases))
    with pytest.raises(AssertionError, match='wrong, result 0'):
        kernels.times(wrong, kernels.Setting(batch=2, classes=3, size=33), repeats=1)


def test_a_missed_target_fails_only_when_asked(kernels, capsys, monkeypatch):
    arguments = ['--only', 'paste', '--size', '33', '--batch', '2', '--repeats', '1']
    monkeypatch.setattr(kernels.torch, 'set_num_threads', lambda _: None)
    case = next(case for case in kernels.CASES if case.name == 'paste')
    monkeypatch.setattr(case, 'speed_target', 1e9)
    assert kernels.main(arguments) == 0
    assert kernels.main([*arguments, '--check']) == 1
    output = capsys.readouterr().out
    assert '| paste | boolean indexing' in output
    assert 'Below target: paste speed.' in output
    monkeypatch.setattr(case, 'speed_target', 1e-9)
    assert kernels.main([*arguments, '--check']) == 0
