import logging
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import CheckpointHook
from mmengine.runner import IterBasedTrainLoop

from mmseg_semi.engine import ResumableRandomnessHook
from mmseg_semi.engine.hooks.resumable_randomness_hook import _random_state, _set_random_state


def make_runner(resume=False, seed=3):
    hook = CheckpointHook(interval=2, by_epoch=False, save_last=False)
    logger = logging.getLogger('test_resumable_randomness')
    loader = SimpleNamespace(sampler=None)
    return SimpleNamespace(
        iter=0,
        seed=seed,
        hooks=[hook],
        _resume=resume,
        _train_loop=IterBasedTrainLoop.__new__(IterBasedTrainLoop),
        logger=logger,
        train_dataloader=loader,
    )


def draw():
    return random.random(), np.random.rand(), torch.rand(()).item()


def train(runner, hook, iterations, validate_at=()):
    """Draw numbers as a training does; save where a checkpoint is due."""
    drawn, saved = [], None
    for _ in range(iterations):
        hook.before_train_iter(runner, runner.iter)
        drawn.append(draw())
        hook.after_train_iter(runner, runner.iter)
        if (runner.iter + 1) % 2 == 0:
            saved = {}
            hook.before_save_checkpoint(runner, saved)
        runner.iter += 1
        if runner.iter in validate_at:
            hook.before_val(runner)
            draw()
            hook.after_val(runner)
    return drawn, saved


def start(runner):
    hook = ResumableRandomnessHook()
    hook.before_train(runner)
    return hook


def test_stream_depends_on_the_seed_and_not_on_what_was_drawn_before():
    torch.manual_seed(0)
    first, _ = train(make_runner(), start(make_runner()), 3)
    draw()
    second, _ = train(make_runner(), start(make_runner()), 3)
    other, _ = train(make_runner(seed=4), start(make_runner()), 3)
    assert first == second
    assert first != other


def test_validation_does_not_shift_the_stream():
    plain, _ = train(make_runner(), start(make_runner()), 4)
    validated, _ = train(make_runner(), start(make_runner()), 4, validate_at=(1, 2))
    assert plain == validated


def test_making_a_loaders_iterator_does_not_shift_the_stream():
    plain, _ = train(make_runner(), start(make_runner()), 4)
    hook, drawn = start(make_runner()), []
    for _ in range(2):
        hook.before_train_epoch(make_runner())
        draw()
        drawn += train(make_runner(), hook, 2)[0]
    assert plain == drawn


def test_states_of_an_earlier_iteration_are_not_saved():
    runner = make_runner()
    hook = start(runner)
    train(runner, hook, 3)
    checkpoint = {}
    hook.before_save_checkpoint(runner, checkpoint)
    assert checkpoint == {}


def test_resumed_run_draws_the_numbers_of_the_uninterrupted_one():
    whole, _ = train(make_runner(), start(make_runner()), 6)
    runner = make_runner()
    _, checkpoint = train(runner, start(runner), 4)
    resumed = make_runner(resume=True)
    resumed.iter = 4
    hook = ResumableRandomnessHook()
    hook.after_load_checkpoint(resumed, checkpoint)
    hook.before_train(resumed)
    draw()  # what the loader's iterator does
    rest, _ = train(resumed, hook, 2)
    assert rest == whole[4:]


class OnDevice(torch.Tensor):
    """Stands for a tensor on a GPU."""

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_states_of_a_checkpoint_on_the_device_come_to_the_host():
    """A validation before the first iteration gathers them, and each process would use all GPUs."""
    runner = make_runner()
    _, checkpoint = train(runner, start(runner), 4)
    for state in checkpoint['random_states']:
        state['torch'] = state['torch'].as_subclass(OnDevice)
    hook = ResumableRandomnessHook()
    resumed = make_runner(resume=True)
    hook.after_load_checkpoint(resumed, checkpoint)
    hook.before_train(resumed)
    hook.before_val(resumed)
    saved = {}
    hook.before_save_checkpoint(resumed, saved)
    assert [type(state['torch']) for state in saved['random_states']] == [torch.Tensor]


def test_loading_weights_only_starts_a_fresh_stream():
    runner = make_runner()
    whole, checkpoint = train(runner, start(runner), 4)
    fresh = make_runner(resume=False)
    hook = ResumableRandomnessHook()
    hook.after_load_checkpoint(fresh, checkpoint)
    hook.before_train(fresh)
    assert train(fresh, hook, 4)[0] == whole


def test_missing_states_are_said(caplog):
    runner = make_runner(resume=True)
    with caplog.at_level(logging.WARNING):
        ResumableRandomnessHook().after_load_checkpoint(runner, {})
    assert 'the checkpoint has none' in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        ResumableRandomnessHook().after_load_checkpoint(runner, {'random_states': [{}, {}]})
    assert 'the checkpoint has those of 2 processes' in caplog.text


@pytest.mark.parametrize('position', [-1, 625])
def test_a_position_outside_the_state_of_numpy_is_refused(position):
    state = _random_state()
    state['numpy'] = (*state['numpy'][:2], position, *state['numpy'][3:])
    with pytest.raises(ValueError, match=f'position in the random state of numpy is {position}'):
        _set_random_state(state)
