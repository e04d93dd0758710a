"""Schedulers that begin when the training is over are refused in a sentence of ours."""

import pytest
from mmengine.config import Config
from tiny_run import build_runner, tiny_config, tiny_stages_config

from mmseg_semi.engine.startup.lengths import check_config, check_lengths

WARMUP = {'type': 'LinearLR', 'start_factor': 0.1, 'begin': 0, 'end': 50, 'by_epoch': False}
POLY = {'type': 'PolyLR', 'begin': 50, 'by_epoch': False}
SAID = (
    r'The training has 14 optimizer step\(s\), but param_scheduler\.1 \(PolyLR\) begins at '
    r'optimizer step 50\. Set train_cfg\.max_iters above 50, or lower param_scheduler\.1\.begin'
)


@pytest.mark.parametrize(
    ('schedule', 'epochs', 'steps', 'accumulated', 'message'),
    [
        ([WARMUP, POLY], 1, 14, 1, SAID),
        ({'teacher': [POLY]}, 1, 50, 1, r'param_scheduler\.teacher\.0 \(PolyLR\) begins'),
        (POLY, 1, 50, 4, r'param_scheduler \(PolyLR\) .*max_iters above 200'),
        (
            [{**POLY, 'begin': 3, 'end': 3}],
            1,
            14,
            1,
            r'begin=3 and end=3\. Set param_scheduler\.0\.end',
        ),
        ([{'type': 'PolyLR', 'begin': 2}], 2, None, 1, r'2 epoch\(s\), .*max_epochs above 2'),
        ([{'type': 'PolyLR', 'begin': 2}], 1, 14, 1, r'Set param_scheduler\.0\.by_epoch=False'),
    ],
)
def test_lengths_that_do_not_fit_are_refused(schedule, epochs, steps, accumulated, message):
    with pytest.raises(ValueError, match=message):
        check_lengths(schedule, epochs, steps, accumulated)


def test_lengths_that_fit_are_let_through():
    check_lengths([WARMUP, POLY], 1, 51)
    check_lengths([{'type': 'PolyLR', 'begin': 1}], 2)
    check_lengths(None, 1, 14)
    check_config(Config({'train_cfg': {'max_iters': 51}, 'param_scheduler': [WARMUP, POLY]}))


@pytest.mark.parametrize(
    'constructor', ['LearningRateDecayOptimizerConstructor', 'LayerDecayOptimizerConstructor']
)
def test_constructors_that_read_the_backbone_of_the_model(constructor):
    cfg = Config({'train_cfg': {'max_iters': 5}, 'model': {'type': 'IMAS', 'segmentor': {}}})
    cfg.optim_wrapper = {'type': 'OptimWrapper', 'constructor': constructor}
    with pytest.raises(
        ValueError, match=f"'NetworkOptimWrapperConstructor', network_.*'{constructor}'"
    ):
        check_config(cfg)
    cfg.model = {'type': 'EncoderDecoder'}
    check_config(cfg)


def test_mixed_precision_without_a_gpu(monkeypatch):
    cfg = Config({'train_cfg': {'max_iters': 5}, 'optim_wrapper': {'type': 'AmpOptimWrapper'}})
    monkeypatch.setattr('mmseg_semi.engine.startup.lengths.get_device', lambda: 'cpu')
    with pytest.raises(ValueError, match="'AmpOptimWrapper', but mixed precision needs a GPU"):
        check_config(cfg)
    monkeypatch.setattr('mmseg_semi.engine.startup.lengths.get_device', lambda: 'cuda')
    check_config(cfg)


@pytest.mark.parametrize('epochs', [None, 2])
def test_a_runner_says_so_before_it_builds_the_schedulers(epochs, tmp_path):
    config = tiny_config(tmp_path, epochs=epochs, param_scheduler=[WARMUP, POLY])
    with pytest.raises(ValueError, match=r'begins at optimizer step 50\. Set train_cfg') as error:
        build_runner(config).train()
    assert 'should be larger than begin' not in str(error.value)


def test_a_stage_says_so_before_any_stage_runs(tmp_path):
    config = tiny_stages_config(tmp_path, 'st', param_scheduler=[WARMUP, POLY])
    from mmseg_semi.engine import StagedRunner

    with pytest.raises(ValueError, match='Stage teacher: The training has 14'):
        StagedRunner(config).train()
