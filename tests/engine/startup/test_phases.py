"""The log says where the unlabeled loss never starts, and where another length switches it on or off."""

import logging
from types import SimpleNamespace

import pytest
from mmseg.registry import MODELS
from tiny import tiny_segmentor
from tiny_run import build_runner, tiny_config

from mmseg_semi.engine.startup.phases import check_phases
from mmseg_semi.models.clock import Clock


def told(settings, step, length, saved, caplog, accumulated=1):
    """What the log says of a training with these lengths, in iterations, at this step."""
    model = MODELS.build(
        {'type': 'FixMatch', 'segmentor': tiny_segmentor(), 'semi_train_cfg': settings}
    )
    steps = None if length is None else length // accumulated
    model.clock = Clock(step=step, num_steps=steps, accumulation=accumulated)
    runner = SimpleNamespace(
        iter=step * accumulated,
        max_iters=length,
        optim_wrapper=SimpleNamespace(_accumulative_counts=accumulated),
        logger=logging.getLogger('test_phases'),
    )
    configured = saved and SimpleNamespace(saved_length=saved)
    check_phases(runner, model, configured)
    return [record.message for record in caplog.records]


START, BOTH = {'unlabeled_start_fraction': 1 / 3}, {'unlabeled_end_fraction': 2 / 3}
BOTH |= START


@pytest.mark.parametrize(
    ('settings', 'step', 'length', 'saved', 'said'),
    [
        ({'unlabeled_start': 14}, 0, 14, None, 'starts at step 14, but the training has 14 steps'),
        ({'unlabeled_start': 13}, 0, 14, None, ''),
        ({'unlabeled_start': 14}, 0, None, None, ''),
        # The loss had started, or had ended.
        (
            START,
            14,
            60,
            14,
            'is step 20 instead of 5. At step 14, the unlabeled loss is therefore off',
        ),
        (
            BOTH,
            14,
            40,
            14,
            'unlabeled_end_fraction=0.6667 is step 27 instead of 9. At step 14, the',
        ),
        # The new length changes nothing at the resumed step.
        (START, 14, 28, 14, ''),
        (START, 14, 14, 14, ''),
        (START, 0, 60, 14, ''),
        ({'unlabeled_start': 5}, 14, 60, 14, ''),
    ],
)
def test_a_moved_phase_is_named(settings, step, length, saved, said, caplog):
    messages = told(settings, step, length, saved, caplog)
    assert len(messages) == bool(said)
    assert said in ''.join(messages)


def test_the_remedy_keeps_the_steps(caplog):
    (message,) = told(BOTH, 14, 80, 28, caplog, accumulated=2)
    assert 'training of 14 steps, and this one has 40' in message
    start, end = 14 / 40 / 3, 2 * 14 / 40 / 3
    remedy = f'unlabeled_start_fraction={start:.4g}, unlabeled_end_fraction={end:.4g} to keep'
    assert remedy in message
    caplog.clear()
    kept = {'unlabeled_start_fraction': start, 'unlabeled_end_fraction': end}
    model = MODELS.build(
        {'type': 'FixMatch', 'segmentor': tiny_segmentor(), 'semi_train_cfg': kept}
    )
    model.clock = Clock(num_steps=40)
    assert (model.unlabeled_start, model.unlabeled_end) == (5, 9)


def test_a_training_that_is_resumed_with_another_length_says_it(tmp_path):
    cfg = tiny_config(tmp_path, 'FixMatch', model__semi_train_cfg={'unlabeled_start': 0, **START})
    for scheduler in cfg.param_scheduler:
        scheduler.pop('end', None)
    build_runner(cfg).train()
    cfg.load_from, cfg.resume = str(tmp_path / f'iter_{cfg.train_cfg.max_iters}.pth'), True
    cfg.train_cfg.max_iters *= 4
    build_runner(cfg).train()
    log = max(tmp_path.glob('*/*.log')).read_text()
    assert 'the unlabeled loss is therefore off instead of on' in log
