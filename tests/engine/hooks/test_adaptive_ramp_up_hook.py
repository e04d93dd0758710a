"""The weight of GPS's feedback over a training, told by a runner that only counts."""

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from mmseg.registry import MODELS
from tiny import tiny_segmentor

from mmseg_semi.datasets import LabeledUnlabeledSampler
from mmseg_semi.engine import AdaptiveRampUpHook
from mmseg_semi.functional.schedules import gaussian_ramp_up
from mmseg_semi.models.clock import Clock

LOGGER = logging.getLogger('test_adaptive_ramp_up_hook')


class Recorder:
    """A message hub and a visualizer as far as the hook writes to them."""

    def __init__(self):
        self.weights, self.guidance, self.epochs = [], [], []

    def update_scalar(self, name, value):
        {'train/ramp_up_weight': self.weights, 'train/guidance_weight': self.guidance}[name].append(
            value
        )

    def add_scalars(self, scalars, step):
        self.epochs.append((step, scalars))


def make_runner(max_iters=20, num_unlabeled=9, unlabeled=2, method='GPS', world_size=1, **settings):
    """A runner whose epochs have num_unlabeled // unlabeled iterations; more for pairs."""
    settings = {'cutmix': None, **settings} if method == 'GPS' else {}
    torch.manual_seed(0)
    model = MODELS.build(
        {'type': method, 'segmentor': tiny_segmentor(), 'semi_train_cfg': settings}
    )
    dataset = SimpleNamespace(num_labeled=4, num_unlabeled=num_unlabeled)
    streams = getattr(model, 'unlabeled_batches', 1)
    sampler = LabeledUnlabeledSampler(dataset, 2, unlabeled, seed=0, unlabeled_streams=streams)
    sampler.world_size = world_size
    recorder = Recorder()
    return SimpleNamespace(
        model=model,
        train_dataloader=SimpleNamespace(sampler=sampler),
        optim_wrapper=SimpleNamespace(
            _accumulative_counts=1,
            _inner_count=0,
            _max_counts=max_iters,
            should_update=lambda: True,
        ),
        max_iters=max_iters,
        iter=0,
        logger=LOGGER,
        message_hub=recorder,
        visualizer=recorder,
    )


def train(runner, losses=None, until=None, hook=None):
    """Run the iterations; ``losses`` are those of students and teacher in each epoch."""
    hook = hook or AdaptiveRampUpHook()
    hook.before_train(runner)
    length = runner.train_dataloader.sampler.iters_per_epoch
    for iteration in range(runner.iter, until or runner.max_iters):
        runner.iter = runner.optim_wrapper._inner_count = iteration
        runner.model.clock = Clock.of(runner.optim_wrapper)
        hook.before_train_iter(runner, 0)
        students, teacher = (losses or {}).get(runner.iter // length + 1, (2.0, 1.0))
        runner.model.ramp_up.labeled_sums += torch.tensor([students, teacher, 1.0])
        hook.after_train_iter(runner, 0)
    runner.iter += 1
    return runner.message_hub.weights


def expected(epochs, length, end, of):
    """Weights of all iterations where the ramp-up ends after epoch ``end`` (0: it does not) of ``of``."""
    return [
        1.0 if end and epoch > end else gaussian_ramp_up(epoch, of)
        for epoch in range(1, epochs + 1)
        for _ in range(length)
    ]


def test_weight_is_constant_in_an_epoch_and_grows_to_1():
    weights = train(make_runner())
    assert weights == expected(5, 4, 0, 5)
    assert weights[0] == pytest.approx(0.5273, abs=1e-4)
    assert weights[-1] == 1


def test_students_that_catch_up_end_it_from_the_next_epoch_on(caplog):
    runner = make_runner()
    with caplog.at_level(logging.INFO, LOGGER.name):
        # Worse again later: it stays at 1.
        weights = train(runner, {2: (1.0, 1.0), 3: (9.0, 1.0)})
    assert weights == expected(5, 4, 2, 5)
    assert runner.model.ramp_up.latch_epoch == 2
    assert 'In epoch 2 the cross-entropy of the labeled images was 1.0000 (students)' in caplog.text
    assert caplog.text.count('The ramp-up ends') == 1
    steps = [(step, scalars['epoch']) for step, scalars in runner.visualizer.epochs]
    assert steps == [(4, 1), (8, 2), (12, 3), (16, 4), (20, 5)]
    assert runner.visualizer.epochs[2][1]['epoch_ce_students'] == 9


@pytest.mark.parametrize('stop', [5, 13, 20])
def test_guidance_falls_as_the_feedback_grows(stop):
    # The students catch up after epoch 2, which changes the feedback alone.
    losses = {2: (0.5, 1.0)}
    first, second = (make_runner(guidance='ramp_down') for _ in range(2))
    train(first, losses, until=stop)
    guidance = first.message_hub.guidance
    if stop < 20:
        second.model.load_state_dict(first.model.state_dict())
        second.iter = stop
        train(second, losses)
        guidance = guidance + second.message_hub.guidance
    slow = [math.exp(-(((step // 4 + 1 - 1) / 5) ** 2)) for step in range(20)]
    assert guidance == pytest.approx(slow, rel=1e-12)
    assert guidance[0] == 1
    assert guidance[::-1] == pytest.approx(expected(5, 4, 0, 5), rel=1e-12)


def test_guidance_falls_from_the_start_of_the_unlabeled_images():
    runner = make_runner(guidance='ramp_down', unlabeled_start=6)
    train(runner)
    slow = [math.exp(-((max(0, (step - 6) // 4) / 4) ** 2)) for step in range(20)]
    assert runner.message_hub.guidance == pytest.approx(slow, rel=1e-12)


def test_comparison_switched_off():
    weights = train(make_runner(), {1: (0.1, 1.0)}, hook=AdaptiveRampUpHook(adaptive=False))
    assert weights == expected(5, 4, 0, 5)


@pytest.mark.parametrize('stop', [5, 8, 11])
def test_resumed_run_goes_on(stop):
    losses = {2: (0.5, 1.0)}
    whole = train(make_runner(), losses)
    first, second = make_runner(), make_runner()
    weights = train(first, losses, until=stop)
    second.model.load_state_dict(first.model.state_dict())
    second.iter = stop
    assert weights + train(second, losses) == whole
    assert second.model.ramp_up.latch_epoch == 2


def test_latch_holds_when_a_resumed_run_has_longer_epochs():
    first = make_runner()
    train(first, {2: (0.5, 1.0)}, until=10)
    # Of one rank instead of two: iteration 10 is in the first of the longer epochs.
    second = make_runner(num_unlabeled=24)
    second.model.load_state_dict(first.model.state_dict())
    second.iter = 10
    assert train(second) == [1.0] * 10
    assert second.model.ramp_up.latch_epoch == 2


def test_run_that_loads_weights_of_another_ramps_up_again():
    first = make_runner()
    train(first, {2: (0.5, 1.0)}, until=10)
    assert first.model.ramp_up.labeled_sums.any()
    second = make_runner()
    second.model.load_state_dict(first.model.state_dict())
    # The sums that were loaded would decide for the students.
    second.model.ramp_up.labeled_sums.copy_(torch.tensor([0.0, 99.0, 1.0]))
    assert train(second) == expected(5, 4, 0, 5)
    assert second.model.ramp_up.latch_epoch == 0


def test_epochs_count_from_the_start_of_the_unlabeled_images(caplog):
    runner = make_runner(unlabeled_start=6)
    with caplog.at_level(logging.INFO, LOGGER.name):
        # 14 iterations are left: four epochs, the last of two.
        weights = train(runner, hook=AdaptiveRampUpHook(adaptive=False))
    assert weights == [0.0] * 6 + expected(4, 4, 0, 4)[:14]
    assert [step for step, _ in runner.visualizer.epochs] == [10, 14, 18]
    assert [scalars['epoch'] for _, scalars in runner.visualizer.epochs] == [1, 2, 3]
    assert '4 epochs of 4 steps, 20 in all' in caplog.text
    assert 'epochs count from step 6' in caplog.text


def test_ranks_share_an_epoch():
    assert train(make_runner(num_unlabeled=17, world_size=2)) == expected(5, 4, 0, 5)


def test_one_epoch_has_full_weight_and_a_part_of_one_counts():
    assert set(train(make_runner(max_iters=3))) == {1.0}
    # Three epochs, the last of one iteration.
    assert train(make_runner(max_iters=9)) == expected(3, 4, 0, 3)[:9]


def test_pairs_make_an_epoch_twice_as_long():
    runner = make_runner(num_unlabeled=8, cutmix='pair', max_iters=16)
    assert train(runner) == expected(2, 8, 0, 2)


def test_epoch_without_labels_decides_nothing():
    runner = make_runner()
    hook = AdaptiveRampUpHook()
    hook.before_train(runner)
    for runner.iter in range(4):
        hook.before_train_iter(runner, 0)
        hook.after_train_iter(runner, 0)
    assert runner.model.ramp_up.latch_epoch == 0
    assert runner.visualizer.epochs == []


def test_untrained_teacher_is_warned_about(capsys):
    AdaptiveRampUpHook().before_train(make_runner())
    assert 'The teacher of GPS is not trained' in capsys.readouterr().out


def test_what_it_cannot_serve_is_refused():
    with pytest.raises(ValueError, match='does not support FixMatch, which has no ramp-up'):
        AdaptiveRampUpHook().before_train(make_runner(method='FixMatch'))
    runner = make_runner()
    runner.train_dataloader.sampler = object()
    with pytest.raises(ValueError, match='Use LabeledUnlabeledSampler'):
        AdaptiveRampUpHook().before_train(runner)
