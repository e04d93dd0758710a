"""The bare passes of the benchmark are those that a step makes; no time is asserted."""

import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope
from tiny import tiny_segmentor

FOLDER = Path(__file__).parents[2] / 'benchmarks'
SMALL = ['--size', '32', '--labeled', '3', '--unlabeled', '3', '--classes', '4']


@pytest.fixture(scope='module')
def benchmarks():
    """Both scripts, as if they were run from their folder, on a tiny network."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    patch = pytest.MonkeyPatch()
    try:
        import recompute_memory
        import step

        patch.setattr(torch, 'set_num_threads', lambda _: None)
        patch.setattr(step, 'network_config', lambda depth, classes: tiny_segmentor('BN'))
        init_default_scope('mmseg')
        yield step, recompute_memory
    finally:
        patch.undo()
        sys.path.remove(str(FOLDER))
        for name in {'recompute_memory', 'step'} - before:
            sys.modules.pop(name, None)


def forwards(bench, function):
    """Images that each network's encoder sees in a call, with gradients and without."""
    seen = {}

    def count(name):
        def hook(module, inputs):
            key = name, torch.is_grad_enabled()
            seen[key] = seen.get(key, 0) + len(inputs[0])

        return hook

    networks = {name: getattr(bench.model, name) for name in bench.model.networks}
    handles = [
        network.backbone.register_forward_pre_hook(count(name))
        for name, network in networks.items()
    ]
    function()
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize(
    ('method', 'flags', 'cost'),
    [
        ('GPS', [], 23),
        ('GPS', ['--no-cutmix'], 20),
        ('CPS', [], 14),
        ('CPS', ['--no-cutmix'], 12),
        ('PrevMatch', [], 14),
        ('CorrMatch', [], 9),
    ],
)
def test_a_step_makes_the_passes_and_no_more(benchmarks, method, flags, cost):
    step, _ = benchmarks
    bench = step.Bench(step.parse_args(['--method', method, *SMALL, *flags]))
    made = forwards(bench, bench.step)
    assert made == forwards(bench, bench.passes)
    # Forwards for a pair of images, a backward counted as two.
    assert sum(3 * n if grad else n for (_, grad), n in made.items()) == cost * 3
    assert all(p.grad is None for p in bench.model.parameters())


def test_cutmix_is_left_out_of_cps_and_gps_alone(benchmarks, capsys):
    step, _ = benchmarks
    with pytest.raises(SystemExit):
        step.parse_args(['--method', 'iMAS', '--no-cutmix'])
    assert '--no-cutmix is for CPS and GPS, not for iMAS' in capsys.readouterr().err


def test_recomputing_is_measured_with_the_forwards_that_it_adds(benchmarks):
    _, recompute = benchmarks
    args = recompute.parse_args([*SMALL, '--methods', 'GPS'])
    measured = recompute.measure(args, 'GPS')
    assert list(measured) == [False, True]
    kept, less = measured[False][0], measured[True][0]
    assert 0 < less < kept
