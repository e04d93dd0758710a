"""Settings of DistributedDataParallel at the top of a config reach the wrapper, or are refused."""

from types import SimpleNamespace

import pytest
from ddp_runs import start_each
from mmengine.config import ConfigDict
from mmengine.model import MMDistributedDataParallel, convert_sync_batchnorm
from ranks import run_on_ranks
from tiny import build_plain
from torch import nn

from mmseg_semi.engine.startup.wrappers import check_wrapper

OFF = {'find_unused_parameters': False, 'static_graph': False, 'broadcast_buffers': False}
RUNS = [
    ({}, [OFF]),
    ({'find_unused_parameters': True}, [{**OFF, 'find_unused_parameters': True}]),
    ({'method': 'GPS', 'broadcast_buffers': True}, [{**OFF, 'broadcast_buffers': True}] * 2),
    ({'static_graph': True}, [{**OFF, 'static_graph': True}]),
    ({'method': None, 'static_graph': True}, [{**OFF, 'static_graph': True}]),
    (
        {'model_wrapper_cfg__find_unused_parameters': True},
        [{**OFF, 'find_unused_parameters': True}],
    ),
    (
        {'find_unused_parameters': True, 'model_wrapper_cfg__find_unused_parameters': False},
        'find_unused_parameters=True at the top level of the config contradicts '
        'model_wrapper_cfg.find_unused_parameters=False. Remove one of them.',
    ),
]


def test_settings_at_the_top_reach_every_wrapper_of_the_model(tmp_path):
    settings = [run for run, _ in RUNS]
    (found,) = run_on_ranks(start_each, 1, tmp_path, str(tmp_path), *settings)
    assert found == [expected for _, expected in RUNS]


def test_wrapper_that_skips_the_step_of_a_method_is_refused():
    from mmseg.registry import MODELS
    from tiny_run import tiny_config

    wrapped = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
    vars(wrapped).update(_modules={'module': MODELS.build(tiny_config('unused').model)})
    runner = SimpleNamespace(model=wrapped, cfg=ConfigDict())
    with pytest.raises(ValueError, match='MMDistributedDataParallel cannot train IMAS') as error:
        check_wrapper(runner)
    assert "model_wrapper_cfg.type='SemiDistributedDataParallel'" in str(error.value)


def test_sync_bn_without_the_activation_of_its_layer_is_refused():
    """A layer of batch normalization and activation, which MMEngine's conversion does not know."""

    class NormAct(nn.BatchNorm2d):
        def __init__(self, channels):
            super().__init__(channels)
            self.act = nn.ReLU()

        def forward(self, x):
            return self.act(super().forward(x))

    model = build_plain()
    model.backbone.extra = NormAct(2)
    runner = SimpleNamespace(model=model, cfg=ConfigDict())
    check_wrapper(runner)
    convert_sync_batchnorm(model)
    with pytest.raises(ValueError, match=r'replaced backbone\.extra by .* not call its act\.'):
        check_wrapper(runner)


def test_one_process_has_no_wrapper():
    cfg = ConfigDict(find_unused_parameters=True)
    check_wrapper(SimpleNamespace(model=build_plain(), cfg=cfg))
    assert 'model_wrapper_cfg' not in cfg
