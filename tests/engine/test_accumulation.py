"""What is due inside an accumulation is put off to the end of its step, and schedules count steps."""

from pathlib import Path

import pytest
from mmengine.hooks import Hook
from tiny_run import build_runner, tiny_config

from mmseg_semi.engine.accumulation import due_at


def moments(interval, accumulated, length, begin=0):
    return [
        iteration
        for iteration in range(1, length + 1)
        if due_at(iteration, interval, accumulated, length, begin)
    ]


@pytest.mark.parametrize(
    ('interval', 'accumulated', 'expected'),
    [
        (5, 1, [5, 10]),
        (6, 3, [6, 12]),
        (5, 3, [6, 12]),
        (2, 3, [3, 6, 9, 12, 14]),
        (7, 4, [8, 14]),
        (0, 3, []),
        (-1, 3, []),
        (20, 3, []),
    ],
)
def test_moments(interval, accumulated, expected):
    assert moments(interval, accumulated, 14) == expected


def test_every_moment_is_put_off_by_less_than_a_step():
    for interval in range(1, 12):
        for accumulated in range(1, 6):
            length = 60 * accumulated
            due = range(interval, length + 1, interval)
            wanted = {-(-moment // accumulated) * accumulated for moment in due}
            assert moments(interval, accumulated, length) == sorted(wanted)


def test_first_moment():
    assert moments(5, 1, 20, begin=3) == [3, 8, 13, 18]
    assert moments(5, 4, 20, begin=3) == [4, 8, 16, 20]


class Diary(Hook):
    """Writes down the rates, the saved checkpoints and the validations of a training."""

    priority = 'LOWEST'

    def __init__(self):
        self.rates, self.saved, self.validated = [], [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.rates.append(runner.optim_wrapper.param_groups[0]['lr'])

    def before_save_checkpoint(self, runner, checkpoint):
        self.saved.append(checkpoint['meta']['iter'])

    def before_val(self, runner):
        self.validated.append(runner.iter)


def train(folder, **settings):
    runner = build_runner(tiny_config(folder, **settings))
    diary = Diary()
    runner.register_hook(diary)
    runner.train()
    return runner, diary


def test_saves_and_validations_wait_for_the_step(tmp_path):
    runner, diary = train(
        tmp_path,
        optim_wrapper__accumulative_counts=3,
        default_hooks__checkpoint__interval=5,
        train_cfg__val_interval=4,
    )
    # The last of the 14 iterations ends a step of two.
    assert diary.saved == [6, 12, 14]
    assert diary.validated == [6, 9, 12, 14]
    assert runner.model.ema_steps == 5
    log = next(Path(runner.log_dir).glob('*.log')).read_text()
    assert 'A checkpoint every 5 iterations falls inside optimizer steps' in log
    assert 'val_interval=4 falls inside optimizer steps of accumulative_counts=3' in log


def test_epochs_are_whole_steps(tmp_path):
    whole, _ = train(tmp_path / 'whole', epochs=3)
    batches = whole.train_loop.max_iters // 3
    accumulated = batches - 1
    assert accumulated > 1
    runner, diary = train(
        tmp_path / 'accumulated', epochs=3, optim_wrapper__accumulative_counts=accumulated
    )
    assert runner.train_loop.max_iters == runner.iter == 3 * accumulated
    assert runner.model.ema_steps == 3
    assert diary.saved == [accumulated * epoch for epoch in (1, 2, 3)]
    with pytest.raises(ValueError, match=f'An epoch has {batches} batches, but a step with accum'):
        train(tmp_path / 'short', epochs=3, optim_wrapper__accumulative_counts=batches + 1)


SCHEDULES = {
    'whole training': [dict(type='PolyLR', eta_min=0.001, power=0.9, by_epoch=False)],
    'warm-up in steps': [
        dict(type='LinearLR', start_factor=0.1, begin=0, end=3, by_epoch=False),
        dict(type='PolyLR', eta_min=0.001, power=0.9, begin=3, by_epoch=False),
    ],
    'end in steps': [dict(type='CosineAnnealingLR', eta_min=0.001, end=4, by_epoch=False)],
    'constant': [dict(type='FinalPolyLR', by_epoch=False)],
}


@pytest.mark.parametrize('name', SCHEDULES)
def test_rates_are_those_of_the_steps(name, tmp_path):
    settings = {
        'param_scheduler': SCHEDULES[name],
        'train_cfg__val_interval': 100,
        'default_hooks__checkpoint__interval': -1,
    }
    _, once = train(tmp_path / 'once', train_cfg__max_iters=5, **settings)
    _, thrice = train(
        tmp_path / 'thrice',
        train_cfg__max_iters=15,
        optim_wrapper__accumulative_counts=3,
        **settings,
    )
    assert thrice.rates == pytest.approx([rate for rate in once.rates for _ in range(3)], rel=1e-12)


@pytest.mark.parametrize(
    ('kind', 'key', 'settings'),
    [
        ('CosineAnnealingLR', 'T_max', {}),
        ('OneCycleLR', 'total_steps', {'eta_max': 0.005}),
    ],
)
def test_length_of_the_training_in_a_schedule_is_converted(kind, key, settings, tmp_path):
    def rates(accumulated):
        schedule = {'type': kind, key: 5 * accumulated, 'by_epoch': False, **settings}
        return train(
            tmp_path / str(accumulated),
            train_cfg__max_iters=5 * accumulated,
            train_cfg__val_interval=100,
            default_hooks__checkpoint__interval=-1,
            optim_wrapper__accumulative_counts=accumulated,
            param_scheduler=[schedule],
        )[1].rates

    once = rates(1)
    assert len(set(once)) == 5
    assert rates(3) == pytest.approx([rate for rate in once for _ in range(3)], rel=1e-12)


@pytest.mark.parametrize(
    ('schedule', 'told'),
    [
        ({'type': 'MultiStepLR', 'milestones': [1, 3]}, 'MultiStepLR has milestones=[1, 3]'),
        ({'type': 'StepLR', 'step_size': 2}, 'StepLR has step_size=2'),
        ({'type': 'CosineAnnealingLR', 'T_max': 5}, 'CosineAnnealingLR has T_max=5'),
        ({'type': 'MultiStepLR', 'milestones': [1]}, None),
    ],
)
def test_values_that_no_step_reaches_are_named(schedule, told, tmp_path):
    runner, _ = train(
        tmp_path,
        train_cfg__max_iters=6,
        train_cfg__val_interval=100,
        optim_wrapper__accumulative_counts=3,
        param_scheduler=[{**schedule, 'by_epoch': False}],
    )
    log = next(Path(runner.log_dir).glob('*.log')).read_text()
    if told is None:
        assert 'optimizer steps. Divide' not in log
    else:
        assert f'{told}, but max_iters=6 in accumulations of 3 are 2 optimizer steps' in log


def test_base_rate_in_the_log_is_that_of_the_optimizer(tmp_path):
    """MMEngine logs the rate of a group without parameters, if the groups have different rates."""
    runner, diary = train(
        tmp_path,
        optim_wrapper__accumulative_counts=2,
        optim_wrapper__paramwise_cfg={'custom_keys': {'backbone': {'lr_mult': 0.5}}},
        param_scheduler=[dict(type='LinearLR', start_factor=0.1, end=4, by_epoch=False)],
    )
    history, _ = runner.message_hub.get_scalar('train/base_lr').data
    assert list(history) == pytest.approx([2 * rate for rate in diary.rates])


def test_epochs_of_a_schedule_are_their_steps(tmp_path):
    schedule = [
        dict(type='PolyLR', eta_min=0.001, by_epoch=True, convert_to_iter_based=True, begin=0)
    ]
    runner, diary = train(
        tmp_path, epochs=3, param_scheduler=schedule, optim_wrapper__accumulative_counts=2
    )
    steps = runner.iter // 2
    # MMEngine's own schedule of so many steps; its last one has the least rate.
    assert diary.rates[::2] == diary.rates[1::2]
    assert diary.rates[0] == 0.005
    assert len(set(diary.rates)) == steps
    assert diary.rates[-1] == pytest.approx(0.001)


def test_schedule_that_outlasts_the_steps_is_named(tmp_path):
    runner, _ = train(
        tmp_path,
        train_cfg__max_iters=6,
        optim_wrapper__accumulative_counts=3,
        param_scheduler=[dict(type='PolyLR', end=5, by_epoch=False)],
    )
    log = next(Path(runner.log_dir).glob('*.log')).read_text()
    assert 'PolyLR has end=5, but max_iters=6 in accumulations of 3 are 2 optimizer steps' in log
    assert 'Divide its values by 3' in log
