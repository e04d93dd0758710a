"""The log says where the unlabeled loss never starts, and where a resumed training switches it on or off."""

import logging
from types import SimpleNamespace

import pytest
from mmengine.logging import MessageHub
from mmseg.registry import MODELS
from tiny import tiny_segmentor
from tiny_run import build_runner, tiny_config

from mmseg_semi.engine.startup.phases import PHASE, check_phases
from mmseg_semi.models.clock import Clock


def told(settings, step, length, before, caplog):
    """What the log says of a training of this length at this step, in optimizer steps."""
    model = MODELS.build(
        {'type': 'FixMatch', 'segmentor': tiny_segmentor(), 'semi_train_cfg': settings}
    )
    model.clock = Clock(step=step, num_steps=length)
    hub = MessageHub('test_phases')
    runner = SimpleNamespace(iter=step, logger=logging.getLogger('test_phases'), message_hub=hub)
    check_phases(runner, model, SimpleNamespace(runtime_info={PHASE: before} if before else {}))
    if length is not None:
        assert hub.get_info(PHASE) == [model.unlabeled_start, model.unlabeled_end]
    return [record.message for record in caplog.records]


START = {'unlabeled_start_fraction': 1 / 3}
BOTH = {**START, 'unlabeled_end_fraction': 2 / 3}


@pytest.mark.parametrize(
    ('settings', 'step', 'length', 'before', 'said'),
    [
        ({'unlabeled_start': 14}, 0, 14, None, 'starts at step 14, but the training has 14 steps'),
        ({'unlabeled_start': 13}, 0, 14, None, ''),
        ({'unlabeled_start': 14}, 0, None, None, ''),
        # The loss had started, or had ended.
        (
            START,
            14,
            60,
            (5, None),
            'from step 20 on, and that of the checkpoint had it from step 5 on.',
        ),
        (
            BOTH,
            14,
            40,
            (5, 9),
            'from step 13 until step 27, and that of the checkpoint had it from',
        ),
        (
            {},
            14,
            28,
            (20, None),
            'from step 0 on, and that of the checkpoint had it from step 20 on',
        ),
        # It is as it was at the resumed step.
        (START, 14, 28, (5, None), ''),
        (BOTH, 30, 40, (5, 9), ''),
        (START, 0, 60, (0, None), ''),
        (START, 14, 60, None, ''),
    ],
)
def test_a_moved_phase_is_named(settings, step, length, before, said, caplog):
    messages = told(settings, step, length, before, caplog)
    assert len(messages) == bool(said)
    assert said in ''.join(messages)


def test_a_training_that_is_resumed_with_another_length_says_it(tmp_path):
    cfg = tiny_config(tmp_path, 'FixMatch', model__semi_train_cfg={'unlabeled_start': 0, **START})
    for scheduler in cfg.param_scheduler:
        scheduler.pop('end', None)
    build_runner(cfg).train()
    cfg.load_from, cfg.resume = str(tmp_path / f'iter_{cfg.train_cfg.max_iters}.pth'), True
    cfg.train_cfg.max_iters *= 4
    build_runner(cfg).train()
    log = max(tmp_path.glob('*/*.log')).read_text()
    assert (
        'At step 14, this training has the unlabeled loss from step 19 on, and that of the' in log
    )
