"""Training steps of all methods give the numbers on file, and a comparison sees every difference."""

import copy
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope

ROOT = Path(__file__).parents[2]
ON_FILE = Path(__file__).with_name('same_steps.json')

spec = importlib.util.spec_from_file_location('same_steps', ROOT / 'benchmarks' / 'same_steps.py')
same_steps = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = same_steps  # where dataclasses look for it
spec.loader.exec_module(same_steps)

KNOWN = json.loads(ON_FILE.read_text(encoding='utf-8'))
REDUCED = [
    f'{name} {norm}'
    for name, case in same_steps.CASES.items()
    if case.reduced
    for norm in ('GN', 'BN')
]
REMEDY = (
    'If the numbers change on purpose, run `python benchmarks/same_steps.py fingerprint FILE.json`.'
)


@pytest.fixture(autouse=True, scope='module')
def default_scope():
    init_default_scope('mmseg')


def test_the_file_has_all_cases():
    assert list(KNOWN) == REDUCED, REMEDY


@pytest.mark.parametrize('name', KNOWN)
def test_three_steps_give_the_numbers_on_file(name):
    case, norm = name.split()
    found, known = same_steps.fingerprint(same_steps.CASES[case], norm), KNOWN[name]
    assert [list(log) for log in found['log']] == [list(log) for log in known['log']], REMEDY
    for log, other in zip(found['log'], known['log'], strict=True):
        assert log == pytest.approx(other, rel=1e-6, abs=1e-6), REMEDY
    for key in ('gradients', 'state'):
        pairs = torch.tensor(found[key]).view(-1, 2), torch.tensor(known[key]).view(-1, 2)
        # The norm, by which the weighted sum is judged, too.
        scale = pairs[1][:, :1].clamp(min=1e-6)
        torch.testing.assert_close(
            pairs[0] / scale, pairs[1] / scale, rtol=0, atol=1e-5, msg=REMEDY
        )


@pytest.fixture(scope='module')
def captured():
    return same_steps.run(same_steps.CASES['fixmatch'], 'GN')


def test_a_capture_equals_its_repetition(captured, capsys):
    again = same_steps.run(same_steps.CASES['fixmatch'], 'GN')
    assert same_steps.compare({'a': captured}, {'a': again}) == 0
    assert capsys.readouterr().out.startswith('1 cases, 0 differ, ')


def test_every_kind_of_difference_is_seen(captured):
    def change(path, edit):
        other = copy.deepcopy(captured)
        place = other
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = edit(place[path[-1]])
        problems, _ = same_steps.differences(captured, other)
        return problems

    weight = next(iter(captured['iterations'][2]['gradients']))
    assert len(change(('iterations', 2, 'gradients', weight), lambda x: x * (1 + 1e-6))) == 1
    assert len(change(('iterations', 0, 'gradients', weight), lambda _: None)) == 1
    assert len(change(('iterations', 1, 'log', 'loss'), lambda x: x + 1e-6)) == 1
    assert len(change(('iterations', 1, 'log', 'loss'), lambda x: x.double())) == 1
    assert len(change(('iterations', 1, 'random', 'torch'), lambda x: x.flip(0))) == 1
    assert len(change(('state', 'student.decode_head.conv_seg.weight'), torch.zeros_like)) == 1
    assert len(change(('iterations',), lambda x: x[:2])) == 1
    (order,) = change(('iterations', 0, 'log'), lambda x: dict(reversed(x.items())))
    assert 'another order' in order
    (gone,) = change(('state',), lambda x: dict(list(x.items())[1:]))
    assert 'only in old' in gone


def test_a_mask_of_another_branch_is_seen(captured):
    """The fault that one mask for all images would hide."""
    samples = same_steps.batch(0, 3)['data_samples']
    masks = [s.valid_mask.data for branch in ('weak', 'strong', 'strong2') for s in samples[branch]]
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == len(masks)


def test_a_case_that_failed_or_is_missing_differs(captured, capsys):
    assert same_steps.compare({'a': captured, 'b': captured}, {'a': "ValueError('x')"}) == 2
    assert "a: old: captured, new: ValueError('x')" in capsys.readouterr().out


def test_renamed_modules_are_compared_under_their_old_names(captured, monkeypatch):
    monkeypatch.setattr(same_steps, 'RENAMED', {'contrast.bank.': 'bank.'})
    assert same_steps.old_name('contrast.bank.rows') == 'bank.rows'
    assert same_steps.old_name('student.bank.rows') == 'student.bank.rows'
