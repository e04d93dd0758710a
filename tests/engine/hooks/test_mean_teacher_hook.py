import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmseg.registry import MODELS
from tiny import build_plain, collated_batch, tiny_segmentor

from mmseg_semi.engine import MeanTeacherHook


def make_runner(model, accumulative_counts=1, iters_per_epoch=4, max_iters=100):
    optimizer = torch.optim.SGD(model.student.parameters(), lr=0.1)
    return SimpleNamespace(
        model=model,
        iter=0,
        max_iters=max_iters,
        logger=logging.getLogger('test_mean_teacher_hook'),
        optim_wrapper=OptimWrapper(optimizer, accumulative_counts=accumulative_counts),
        message_hub=MessageHub.get_instance('test_mean_teacher_hook'),
        train_dataloader=SimpleNamespace(sampler=SimpleNamespace(iters_per_epoch=iters_per_epoch)),
    )


def train(runner, hook, iterations):
    """Run iterations as the train loop does, and return the decay after each."""
    decays = []
    for index in range(iterations):
        hook.before_train_iter(runner, index)
        outputs = runner.model.train_step(collated_batch(seed=runner.iter), runner.optim_wrapper)
        steps = int(runner.model.ema_steps)
        hook.after_train_iter(runner, index, outputs=outputs)
        updated = int(runner.model.ema_steps) > steps
        decays.append(
            runner.message_hub.get_scalar('train/ema_decay').current() if updated else None
        )
        runner.iter += 1
    return decays


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = MODELS.build({'type': 'IMAS', 'segmentor': tiny_segmentor('GN')})
    model.init_weights()
    return model.train()


def test_decay_is_zero_in_the_copied_epoch_then_warms_up(model):
    runner, hook = make_runner(model), MeanTeacherHook(decay=0.85, copy_epochs=1)
    hook.before_train(runner)
    assert train(runner, hook, 4) == [0, 0, 0, 0]
    student, teacher = model.student.state_dict(), model.teacher.state_dict()
    assert all(torch.equal(student[key], teacher[key]) for key in student)
    decays = train(runner, hook, 4)
    assert decays == pytest.approx([1 - 1 / 5, 1 - 1 / 6, 0.85, 0.85])


def test_teacher_follows_optimizer_steps_and_not_accumulated_iterations(model):
    runner, hook = make_runner(model, accumulative_counts=2), MeanTeacherHook(warmup='none')
    hook.before_train(runner)
    assert train(runner, hook, 5) == [None, 0.996, None, 0.996, None]
    assert model.ema_steps == 2


def test_warm_up_goes_on_after_a_resume(model):
    runner, hook = make_runner(model), MeanTeacherHook(decay=0.99)
    hook.before_train(runner)
    whole = train(runner, hook, 6)
    torch.manual_seed(0)
    resumed = MODELS.build({'type': 'IMAS', 'segmentor': tiny_segmentor('GN')})
    resumed.load_state_dict(model.state_dict())
    runner, hook = make_runner(resumed.train()), MeanTeacherHook(decay=0.99)
    hook.before_train(runner)
    decays = train(runner, hook, 2)
    assert whole == pytest.approx([0, 1 / 2, 2 / 3, 3 / 4, 4 / 5, 5 / 6])
    assert decays == pytest.approx([6 / 7, 7 / 8])


def test_teacher_of_u2pl_is_a_copy_through_two_epochs_also_after_a_resume(model):
    settings = dict(decay=0.99, warmup='none', copy_epochs=2)
    runner, hook = make_runner(model, iters_per_epoch=3), MeanTeacherHook(**settings)
    hook.before_train(runner)
    assert train(runner, hook, 5) == [0] * 5
    resumed = MODELS.build({'type': 'IMAS', 'segmentor': tiny_segmentor('GN')})
    resumed.load_state_dict(model.state_dict())
    runner = make_runner(resumed.train(), iters_per_epoch=3)
    hook = MeanTeacherHook(**settings)
    hook.before_train(runner)
    assert train(runner, hook, 3) == [0, 0.99, 0.99]


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'decay': 1.1}, r'decay must be in \[0, 1\], got 1\.1'),
        ({'warmup': 'linear'}, "warmup='linear' is unknown"),
        ({'buffers': 'skip'}, "buffers='skip' is unknown"),
        ({'copy_epochs': -1}, 'must be at least 0'),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MeanTeacherHook(**settings)


def test_model_without_teacher_is_refused(model):
    runner = make_runner(model)
    runner.model = build_plain()
    with pytest.raises(ValueError, match='does not support EncoderDecoder, which has no EMA'):
        MeanTeacherHook().before_train(runner)


def test_copy_epochs_needs_our_sampler(model):
    runner = make_runner(model)
    runner.train_dataloader.sampler = SimpleNamespace()
    with pytest.raises(ValueError, match='Give copy_steps instead'):
        MeanTeacherHook(copy_epochs=1).before_train(runner)


def test_teacher_that_would_never_be_an_average_is_warned_about(model, caplog):
    with caplog.at_level(logging.WARNING):
        MeanTeacherHook(0.9, copy_epochs=1).before_train(make_runner(model, max_iters=5))
        assert not caplog.records
        MeanTeacherHook(copy_epochs=1).before_train(make_runner(model, max_iters=4))
    assert 'a copy of the student for 4 optimizer steps' in caplog.text


@pytest.mark.parametrize(
    ('decay', 'accumulated', 'max_iters', 'warned'),
    [
        (0.996, 1, 2999, 'averages over about 250 optimizer steps'),
        (0.996, 1, 1200, 'Set decay=0.99.'),
        (0.996, 1, 700, 'Set decay=0.982.'),
        (0.982, 1, 700, ''),
        (0.996, 1, 3000, ''),
        (0.996, 2, 5998, 'the training has only 2999'),
        (0.999, 1, 11999, 'MeanTeacherHook.decay=0.999'),
        (0.999, 1, 12000, ''),
        (0.99, 1, 600, ''),
        (0.99, 1, 599, 'Set decay=0.979.'),
        (0.99, 2, 300, 'has only 150, so the teacher lags behind the student. Set decay=0.92.'),
        (0.99, 1, 4, 'Set decay=0.9.'),
        (0.9, 1, 4, ''),
        (1.0, 1, 4, ''),
    ],
)
def test_average_that_is_too_long_for_the_training_is_warned_about(
    model, caplog, decay, accumulated, max_iters, warned
):
    runner = make_runner(model, accumulative_counts=accumulated, max_iters=max_iters)
    with caplog.at_level(logging.WARNING):
        MeanTeacherHook(decay=decay).before_train(runner)
    assert len(caplog.records) == bool(warned)
    assert warned in caplog.text
