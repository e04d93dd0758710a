"""The benchmark of self-training compares equal things and prints its table; no time is asserted."""

import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / 'benchmarks'
SMALL = [
    '--width',
    '40',
    '--height',
    '32',
    '--images',
    '2',
    '--batch',
    '2',
    '--classes',
    '4',
    '--repeats',
    '1',
]


@pytest.fixture(scope='module')
def benchmark():
    """The script, with the two that it takes things from, as if it was run from its folder."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    try:
        import self_training

        yield self_training
    finally:
        sys.path.remove(str(FOLDER))
        for name in {'self_training', 'kernels', 'step'} - before:
            sys.modules.pop(name, None)


@pytest.mark.slow
def test_both_forms_agree_and_a_missed_target_fails_only_when_asked(benchmark, capsys, monkeypatch):
    monkeypatch.setattr(benchmark.torch, 'set_num_threads', lambda _: None)
    options = benchmark.parse(SMALL)
    rows = []
    compare = benchmark.compare
    monkeypatch.setattr(
        benchmark, 'compare', lambda *args: rows or rows.extend(compare(*args)) or rows
    )
    assert options.images == 2
    assert benchmark.main(SMALL) == 0
    assert [row.name for row in rows] == [
        'metric, masks of 500x375',
        'scoring',
        'labeling',
    ]
    assert [row.target for row in rows] == [3.0, None, 1.1]
    assert all(0 < share < 1 for row in rows[1:] for share in (row.usual_outside, row.ours_outside))
    rows[:] = [row._replace(usual=1.0, ours=0.1) for row in rows]
    assert benchmark.main([*SMALL, '--check']) == 0
    rows[2] = rows[2]._replace(ours=0.95)
    capsys.readouterr()
    assert benchmark.main([*SMALL, '--check']) == 1
    output = capsys.readouterr().out
    assert '| metric, masks of 500x375 | 2 | 20 | 10.00× | ≥ 3× |' in output
    assert output.endswith('\nBelow target: labeling.\n')


def test_forms_that_differ_are_not_timed(benchmark):
    mask = np.zeros((20, 20), np.uint8)
    other = mask.copy()
    other[0, 0] = 1
    benchmark.assert_same_masks([mask], [mask])
    with pytest.raises(AssertionError, match=r'only 99.7500% of the pixels'):
        benchmark.assert_same_masks([mask], [other])
    with pytest.raises(AssertionError):
        benchmark.assert_same_scores([0.5], [0.6], 0.02)
