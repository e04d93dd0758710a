import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub

from mmseg_semi.engine import PseudoLabelMonitorHook


def run(ratios, name, **settings):
    hub = MessageHub.get_instance(name)
    runner = SimpleNamespace(message_hub=hub, logger=logging.getLogger(name))
    hook = PseudoLabelMonitorHook(**settings)
    hook.before_train(runner)
    for index, ratio in enumerate(ratios):
        outputs = {} if ratio is None else {'confident_ratio': torch.tensor(ratio)}
        for key, value in outputs.items():
            hub.update_scalar(f'train/{key}', value)
        hook.after_train_iter(runner, index, outputs=outputs)


def test_warns_when_the_ratio_stays_zero(caplog):
    with caplog.at_level(logging.WARNING):
        run([None] * 5 + [0.0] * 6, 'monitor_zero', interval=2, patience=3)
    (record,) = caplog.records
    assert 'confident_ratio has been 0 for 6 iterations' in record.message
    assert 'Lower semi_train_cfg.tau' in record.message


def test_silent_when_any_interval_has_confident_pixels(caplog):
    with caplog.at_level(logging.WARNING):
        run(([0.0] * 5 + [0.1]) * 3, 'monitor_fine', interval=2, patience=3)
    assert not caplog.records


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match='interval=0 and patience=3'):
        PseudoLabelMonitorHook(interval=0)
