"""A resumed training follows the schedule of its config, whatever the checkpoint was saved with."""

import copy
import re

import pytest
import torch
from mmengine.hooks import Hook
from tiny_run import build_runner, tiny_config

POLY = {'type': 'NonzeroPolyLR', 'power': 0.9, 'eta_min': 0.0, 'by_epoch': False}
STOCK = {'type': 'PolyLR', 'power': 0.9, 'eta_min': 1e-4, 'by_epoch': False}
WARMUP = {'type': 'LinearLR', 'start_factor': 0.1, 'begin': 0, 'end': 4, 'by_epoch': False}
#: What is resumed at iteration 10 of 14, and with what.
SCENARIOS = {
    'longer': ({'param_scheduler': [POLY]}, {'train_cfg__max_iters': 28}),
    'longer_stock_poly': ({'param_scheduler': [STOCK]}, {'train_cfg__max_iters': 28}),
    'longer_with_warm_up': (
        {'param_scheduler': [WARMUP, {**POLY, 'begin': 4}]},
        {'train_cfg__max_iters': 28},
    ),
    'longer_momentum': (
        {
            'param_scheduler': [
                POLY,
                {'type': 'CosineAnnealingMomentum', 'eta_min': 0.5, 'by_epoch': False},
            ]
        },
        {'train_cfg__max_iters': 28},
    ),
    'longer_accumulated': (
        {'param_scheduler': [POLY], 'optim_wrapper__accumulative_counts': 2},
        {'train_cfg__max_iters': 28},
    ),
    'longer_under_mmengines_hook': (
        {
            'param_scheduler': [POLY],
            'default_hooks__param_scheduler': {'_delete_': True, 'type': 'ParamSchedulerHook'},
        },
        {'train_cfg__max_iters': 28},
    ),
    'longer_gps': (
        {
            'method': 'GPS',
            'param_scheduler': {
                'students': [POLY],
                'teacher': [{'type': 'FinalPolyLR', 'by_epoch': False}],
            },
        },
        {'train_cfg__max_iters': 28},
    ),
    'shorter': ({'param_scheduler': [POLY]}, {'train_cfg__max_iters': 12}),
    'other_power': ({'param_scheduler': [POLY]}, {'param_scheduler': [{**POLY, 'power': 0.5}]}),
    'other_type': ({'param_scheduler': [{**POLY, 'eta_min': 1e-4}]}, {'param_scheduler': [STOCK]}),
    'other_number': ({'param_scheduler': [POLY]}, {'param_scheduler': [WARMUP, POLY]}),
    'other_base': ({'param_scheduler': [POLY]}, {'optim_wrapper__optimizer__lr': 0.01}),
}
#: What the log names.
NAMED = {
    'longer': 'param_scheduler.0.end=14 is now 28.',
    'longer_momentum': 'param_scheduler.1.end=14 is now 28',
    'longer_accumulated': 'param_scheduler.0.end=7 is now 14.',
    'longer_gps': 'param_scheduler.students.0.end=14 is now 28; param_scheduler.teacher.0.end=14 is now 28',
    'shorter': 'param_scheduler.0.end=14 is now 12',
    'other_power': 'param_scheduler.0.power=0.9 is now 0.5.',
    'other_type': 'param_scheduler.0.type=NonzeroPolyLR is now PolyLR',
    'other_number': 'param_scheduler.1 (NonzeroPolyLR) is new',
    'other_base': 'the base rate of param_scheduler.0, 0.005, is now 0.01',
}


class RateHook(Hook):
    """Notes learning rates and momenta of each iteration."""

    priority = 'LOWEST'

    def __init__(self):
        self.seen = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        wrapper = runner.optim_wrapper
        wrappers = wrapper.values() if hasattr(wrapper, 'optim_wrappers') else [wrapper]
        groups = [group for one in wrappers for group in one.param_groups]
        self.seen.append([(group['lr'], group.get('betas')) for group in groups])


def train(folder, **settings):
    """Rates of the iterations of a training, the log, and the Runner."""
    runner = build_runner(
        tiny_config(folder, val_evaluator__iou_metrics=['mIoU'], **copy.deepcopy(settings))
    )
    hook = RateHook()
    runner.register_hook(hook)
    runner.train()
    (log,) = (folder / runner.timestamp).glob('*.log')
    return hook.seen, log.read_text(), runner


@pytest.mark.parametrize('name', SCENARIOS)
def test_rates_are_those_of_a_training_that_had_the_schedule_all_along(name, tmp_path):
    before, changes = SCENARIOS[name]
    before = {'train_cfg__val_interval': 100, **before}
    after = {**before, **changes}
    train(tmp_path / 'before', **before)
    whole, _, _ = train(tmp_path / 'whole', **after)
    checkpoint = tmp_path / 'before' / 'iter_10.pth'
    rates, log, _ = train(tmp_path / 'after', load_from=str(checkpoint), resume=True, **after)
    assert rates == whole[10:]
    if name in NAMED:
        assert 'was saved with another schedule than the config has' in log
        assert NAMED[name] in log


def test_epochs_beside_iterations(tmp_path):
    schedule = [{**WARMUP, 'end': 6}, {'type': 'PolyLR', 'eta_min': 1e-4, 'by_epoch': True}]
    settings = {'param_scheduler': schedule, 'default_hooks__checkpoint__max_keep_ckpts': -1}
    train(tmp_path / 'before', epochs=3, **settings)
    whole, _, _ = train(tmp_path / 'whole', epochs=6, **settings)
    options = {'load_from': str(tmp_path / 'before' / 'epoch_2.pth'), 'resume': True}
    rates, log, _ = train(tmp_path / 'after', epochs=6, **options, **settings)
    assert rates == whole[-len(rates) :]
    assert len(rates) == len(whole) * 2 // 3
    assert 'param_scheduler.1.end=3 is now 6' in log


def test_equal_schedule_is_left_alone(tmp_path):
    whole, _, _ = train(tmp_path / 'run')
    options = {'load_from': str(tmp_path / 'run' / 'iter_10.pth'), 'resume': True}
    rates, log, _ = train(tmp_path / 'again', **options)
    assert rates == whole[10:]
    assert 'another schedule' not in log


def test_finished_schedule_with_an_end_of_its_own_is_refused(tmp_path):
    train(tmp_path / 'run', param_scheduler=[{**STOCK, 'end': 14}])
    options = {'load_from': str(tmp_path / 'run' / 'iter_14.pth'), 'resume': True}
    with pytest.raises(
        ValueError, match=r'param_scheduler\.0 \(PolyLR\) ends at step 14 of 28'
    ) as e:
        train(
            tmp_path / 'again',
            param_scheduler=[{**STOCK, 'end': 14}],
            train_cfg__max_iters=28,
            **options,
        )
    assert 'its learning rate would stay at 0.0001. Set param_scheduler.0.end=28' in str(e.value)


def test_decay_that_ends_early_is_named(tmp_path):
    _, log, _ = train(tmp_path, train_cfg__max_iters=4, param_scheduler=[{**POLY, 'end': 2}])
    assert 'param_scheduler.0 (NonzeroPolyLR) ends at step 2 of 4, after which' in log
    assert 'Set param_scheduler.0.end=4' in log


def test_checkpoint_behind_the_end_is_refused(tmp_path):
    train(tmp_path / 'run')
    options = {'load_from': str(tmp_path / 'run' / 'iter_14.pth'), 'resume': True}
    with pytest.raises(ValueError, match='is of iter 14, and train_cfg.max_iters=10'):
        train(tmp_path / 'again', train_cfg__max_iters=10, **options)


def test_checkpoint_without_schedulers_goes_on_in_the_schedule(tmp_path):
    whole, _, _ = train(tmp_path / 'run')
    checkpoint = torch.load(tmp_path / 'run' / 'iter_10.pth', weights_only=False)
    del checkpoint['param_schedulers'], checkpoint['optimizer']
    torch.save(checkpoint, tmp_path / 'bare.pth')
    rates, log, _ = train(tmp_path / 'again', load_from=str(tmp_path / 'bare.pth'), resume=True)
    assert rates == whole[10:]
    assert 'than the config has: it has none.' in log


PLATEAU = {'type': 'ReduceOnPlateauLR', 'monitor': 'teacher/mIoU', 'rule': 'greater', 'patience': 1}


def test_plateau_keeps_what_it_has_seen(tmp_path):
    settings = {'param_scheduler': [PLATEAU], 'epochs': 2}
    _, _, before = train(tmp_path / 'run', **settings)
    settings['epochs'] = 4
    options = {'load_from': str(tmp_path / 'run' / 'epoch_2.pth'), 'resume': True}
    config = tiny_config(tmp_path / 'again', **settings, **options)
    runner = build_runner(config)
    seen = {}

    class Look(Hook):
        def before_train_epoch(self, runner):
            seen.setdefault('state', dict(vars(runner.param_schedulers[0])))

    runner.register_hook(Look())
    runner.train()
    assert seen['state']['end'] == 4
    assert seen['state']['best'] == before.param_schedulers[0].best
    assert seen['state']['num_bad_epochs'] == before.param_schedulers[0].num_bad_epochs


def test_other_schedule_beside_a_plateau_is_refused(tmp_path):
    poly = {'type': 'PolyLR', 'by_epoch': True}
    train(tmp_path / 'run', param_scheduler=[poly, PLATEAU], epochs=2)
    options = {'load_from': str(tmp_path / 'run' / 'epoch_1.pth'), 'resume': True}
    with pytest.raises(ValueError, match='follows metrics of earlier validations'):
        train(tmp_path / 'again', param_scheduler=[poly, PLATEAU], epochs=4, **options)


def test_schedules_of_other_wrappers_are_refused(tmp_path):
    train(tmp_path / 'run', method='GPS')
    options = {'load_from': str(tmp_path / 'run' / 'iter_10.pth'), 'resume': True}
    with pytest.raises(ValueError, match='students, teacher, and the config has a single one') as e:
        train(tmp_path / 'again', method='CPS', **options)
    assert re.search('start a new training with load_from', str(e.value))
