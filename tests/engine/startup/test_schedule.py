"""A resumed training follows the schedule of its config, whatever the checkpoint was saved with."""

import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook, ParamSchedulerHook
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from tiny_run import build_runner, tiny_config

from mmseg_semi.engine import StepSchedulerHook
from mmseg_semi.engine.startup.schedule import TYPES, ConfiguredSchedule, continue_schedule

POLY = {'type': 'mmseg.NonzeroPolyLR', 'power': 0.9, 'eta_min': 0.0, 'by_epoch': False}
STOCK = {'type': 'PolyLR', 'power': 0.9, 'eta_min': 1e-4, 'by_epoch': False}
WARMUP = {'type': 'LinearLR', 'start_factor': 0.1, 'begin': 0, 'end': 4, 'by_epoch': False}
MOMENTUM = {'type': 'CosineAnnealingMomentum', 'eta_min': 0.5, 'by_epoch': False}
PLATEAU = {
    'type': 'ReduceOnPlateauLR',
    'monitor': 'teacher/mIoU',
    'rule': 'greater',
    'patience': 1,
}


class Training:
    """The schedule of a training, as a Runner builds, steps, saves and resumes it."""

    def __init__(
        self, schedule, length=14, *, lr=0.005, epoch=None, accumulated=1, hook=StepSchedulerHook
    ):
        weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
        groups = [{'params': weights[:1]}, {'params': weights[1:], 'lr': 10 * lr}]
        wrapper = OptimWrapper(torch.optim.AdamW(groups, lr=lr), accumulative_counts=accumulated)
        self.epoch_length, self.accumulated = epoch, accumulated
        epochs = length // epoch if epoch else 1
        in_steps = hook is StepSchedulerHook
        steps = length // accumulated if in_steps else length
        schedulers = [
            PARAM_SCHEDULERS.build(
                {'optimizer': wrapper, 'end': epochs if one.get('by_epoch', True) else steps, **one}
            )
            for one in copy.deepcopy(schedule)
        ]
        loop = EpochBasedTrainLoop if epoch else IterBasedTrainLoop
        self.runner = SimpleNamespace(
            optim_wrapper=wrapper,
            param_schedulers=schedulers,
            hooks=[hook()],
            iter=0,
            epoch=0,
            max_iters=length,
            max_epochs=epochs,
            train_loop=loop.__new__(loop),
            logger=logging.getLogger('test_schedule'),
            message_hub=MessageHub('test_schedule'),
            _resume=True,
        )
        self.per_step = accumulated if in_steps else 1

    def run(self, stop):
        """Rates and momenta of the iterations up to ``stop``."""
        runner, seen = self.runner, []
        for iteration in range(runner.iter, stop):
            groups = runner.optim_wrapper.param_groups
            seen.append([(group['lr'], group['betas']) for group in groups])
            runner.iter = iteration + 1
            if runner.iter % self.per_step == 0:
                self._step(by_epoch=False)
            if self.epoch_length and runner.iter % self.epoch_length == 0:
                runner.epoch += 1
                self._step(by_epoch=True)
        return seen

    def _step(self, by_epoch):
        for scheduler in self.runner.param_schedulers:
            if scheduler.by_epoch == by_epoch:
                scheduler.step()

    def checkpoint(self):
        continue_schedule(self.runner, None)  # notes the types, as when the training began
        return copy.deepcopy(
            {
                'iter': self.runner.iter,
                'epoch': self.runner.epoch,
                'param_schedulers': [one.state_dict() for one in self.runner.param_schedulers],
                'optimizer': self.runner.optim_wrapper.state_dict(),
                'message_hub': self.runner.message_hub.state_dict(),
            }
        )

    def resume(self, checkpoint):
        configured = ConfiguredSchedule(self.runner, checkpoint)
        self.runner.iter, self.runner.epoch = checkpoint['iter'], checkpoint['epoch']
        self.runner.optim_wrapper.load_state_dict(copy.deepcopy(checkpoint['optimizer']))
        pairs = zip(
            self.runner.param_schedulers, checkpoint.get('param_schedulers', ()), strict=False
        )
        for scheduler, state in pairs:
            scheduler.load_state_dict(copy.deepcopy(state))
        continue_schedule(self.runner, configured)
        return self


#: Schedule and options of what is saved at iteration 10, what is resumed, and what the log names.
CHANGES = {
    'longer': ([POLY], {}, [POLY], {'length': 28}, 'param_scheduler.0.end=14 is now 28.'),
    'longer_stock': ([STOCK], {}, [STOCK], {'length': 28}, 'end=14 is now 28.'),
    'longer_behind_a_warm_up': (
        [WARMUP, {**POLY, 'begin': 4}],
        {},
        [WARMUP, {**POLY, 'begin': 4}],
        {'length': 28},
        'has: param_scheduler.1.end=14 is now 28.',
    ),
    'longer_momentum': (
        [POLY, MOMENTUM],
        {},
        [POLY, MOMENTUM],
        {'length': 28},
        'param_scheduler.1.end=14 is now 28',
    ),
    'longer_accumulated': (
        [POLY],
        {'accumulated': 2},
        [POLY],
        {'accumulated': 2, 'length': 28},
        'param_scheduler.0.end=7 is now 14.',
    ),
    'other_accumulation': ([POLY], {}, [POLY], {'accumulated': 2}, 'end=14 is now 7.'),
    'longer_under_mmengines_hook': (
        [POLY],
        {'hook': ParamSchedulerHook, 'accumulated': 2},
        [POLY],
        {'hook': ParamSchedulerHook, 'accumulated': 2, 'length': 28},
        'end=14 is now 28.',
    ),
    'longer_in_epochs': (
        [{**WARMUP, 'end': 6}, {**STOCK, 'by_epoch': True}],
        {'length': 15, 'epoch': 5},
        [{**WARMUP, 'end': 6}, {**STOCK, 'by_epoch': True}],
        {'length': 30, 'epoch': 5},
        'has: param_scheduler.1.end=3 is now 6.',
    ),
    'shorter': ([POLY], {}, [POLY], {'length': 12}, 'end=14 is now 12.'),
    'power': ([POLY], {}, [{**POLY, 'power': 0.5}], {}, 'power=0.9 is now 0.5.'),
    'eta_min': ([STOCK], {}, [{**STOCK, 'eta_min': 0.0}], {}, 'eta_min=0.0001 is now 0.0.'),
    'begin': ([POLY], {}, [{**POLY, 'begin': 3}], {}, 'begin=0 is now 3.'),
    'type': (
        [{**POLY, 'eta_min': 1e-4}],
        {},
        [STOCK],
        {},
        'param_scheduler.0.type=NonzeroPolyLR is now PolyLR',
    ),
    'one_more': ([POLY], {}, [WARMUP, POLY], {}, 'param_scheduler.1 (NonzeroPolyLR) is new'),
    'one_less': ([WARMUP, POLY], {}, [POLY], {}, 'param_scheduler.1 (NonzeroPolyLR) is missing'),
    'base_rate': (
        [POLY],
        {},
        [POLY],
        {'lr': 0.01},
        'the base rate of param_scheduler.0, 0.005, is',
    ),
}


@pytest.mark.parametrize('name', CHANGES)
def test_rates_are_those_of_a_training_that_had_the_schedule_all_along(name, caplog):
    before, old, after, new, said = CHANGES[name]
    saved = Training(before, **old)
    saved.run(10)
    length = new.get('length', 14)
    whole = Training(after, **new).run(length)
    resumed = Training(after, **new).resume(saved.checkpoint())
    assert resumed.run(length) == whole[10:]
    assert 'was saved with another schedule than the config has' in caplog.text
    assert said in caplog.text
    state = resumed.runner.message_hub.get_info(TYPES)
    assert list(state) == [f'param_scheduler.{index}' for index in range(len(after))]


@pytest.mark.parametrize('schedule', [[WARMUP, POLY, MOMENTUM], [STOCK]])
def test_equal_schedule_is_left_as_it_was_saved(schedule, caplog):
    saved = Training(schedule)
    saved.run(10)
    checkpoint = saved.checkpoint()
    # No replay: what another hook has done to the rate stays.
    checkpoint['optimizer']['param_groups'][0]['lr'] = 0.123
    resumed = Training(schedule).resume(checkpoint)
    assert resumed.runner.optim_wrapper.param_groups[0]['lr'] == 0.123
    states = [one.state_dict() for one in resumed.runner.param_schedulers]
    assert states == checkpoint['param_schedulers']
    assert not caplog.text


def test_checkpoint_without_schedulers_goes_on_in_the_schedule(caplog):
    saved = Training([POLY])
    saved.run(10)
    checkpoint = saved.checkpoint()
    del checkpoint['param_schedulers']
    resumed = Training([POLY]).resume(checkpoint)
    assert resumed.run(14) == Training([POLY]).run(14)[10:]
    assert 'than the config has: it has none.' in caplog.text


def test_finished_schedule_with_an_end_of_its_own_is_refused():
    saved = Training([{**STOCK, 'end': 14}])
    saved.run(14)
    with pytest.raises(
        ValueError, match=r'param_scheduler\.0 \(PolyLR\) ends at step 14 of 28'
    ) as error:
        Training([{**STOCK, 'end': 14}], 28).resume(saved.checkpoint())
    assert 'its learning rate would stay at 0.0001' in str(error.value)
    assert 'Set param_scheduler.0.end=28' in str(error.value)


def test_an_unchanged_training_goes_on_behind_its_decay(caplog):
    saved = Training([{**STOCK, 'end': 8}])
    rates = saved.run(10)
    checkpoint = saved.checkpoint()
    checkpoint['message_hub']['runtime_info']['max_iters'] = 14
    resumed = Training([{**STOCK, 'end': 8}]).resume(checkpoint)
    assert all(rate == rates[-1] for rate in resumed.run(14))
    assert 'ends at step 8 of 14. The learning rate is constant' in caplog.text


def test_decay_that_ends_early_is_named(caplog):
    continue_schedule(Training([{**POLY, 'end': 5}]).runner, None)
    assert (
        'param_scheduler.0 (NonzeroPolyLR) ends at step 5 of 14. The learning rate' in caplog.text
    )


@pytest.mark.parametrize(
    ('decay', 'options', 'said'),
    [
        ({**POLY, 'end': 56}, {}, 'ends at step 56, but the training has 14, so the learning rate'),
        (
            {**STOCK, 'end': 3, 'by_epoch': True},
            {'epoch': 7},
            'ends at epoch 3, but the training has 2',
        ),
        ({**POLY, 'end': 14}, {}, ''),
        # MMEngine's default of a scheduler that is already built.
        ({**POLY, 'end': 10**9}, {}, ''),
        # StepSchedulerHook warns of it.
        ({**POLY, 'end': 14}, {'accumulated': 2}, ''),
    ],
)
def test_decay_that_ends_late_is_named(decay, options, said, caplog):
    continue_schedule(Training([decay], **options).runner, None)
    assert len(caplog.records) == bool(said)
    assert said in caplog.text


@pytest.mark.parametrize(
    ('warm_up', 'options', 'said'),
    [
        ({**WARMUP, 'end': 15}, {}, 'is a warm-up to step 15, but the training has only 14, so'),
        (
            {**WARMUP, 'end': 8},
            {'accumulated': 2, 'hook': ParamSchedulerHook},
            '',
        ),
        (
            {**WARMUP, 'end': 3, 'by_epoch': True},
            {'epoch': 7},
            'to epoch 3, but the training has only 2',
        ),
        ({**WARMUP, 'end': 14}, {}, ''),
        ({**WARMUP, 'end': 15, 'start_factor': 1.0, 'end_factor': 0.5}, {}, ''),
    ],
)
def test_warm_up_that_does_not_end_is_named(warm_up, options, said, caplog):
    continue_schedule(Training([warm_up], **options).runner, None)
    assert len(caplog.records) == bool(said)
    assert said in caplog.text


@pytest.mark.parametrize('epoch', [None, 5])
def test_checkpoint_behind_the_end_is_refused(epoch):
    schedule = [{**STOCK, 'by_epoch': epoch is not None}]
    saved = Training(schedule, 15, epoch=epoch)
    saved.run(15)
    said = (
        r'from epoch 3, and train_cfg\.max_epochs=2' if epoch else r'from iter 15, .*max_iters=10'
    )
    with pytest.raises(ValueError, match=said):
        Training(schedule, 10, epoch=epoch).resume(saved.checkpoint())


def test_plateau_keeps_what_it_has_seen():
    saved = Training([PLATEAU], 10, epoch=5)
    saved.run(5)
    saved.runner.param_schedulers[0].step({'teacher/mIoU': 3.0})
    saved.run(10)
    longer = {'patience': 7, 'end': 4}
    resumed = Training([{**PLATEAU, **longer}], 20, epoch=5).resume(saved.checkpoint())
    scheduler = resumed.runner.param_schedulers[0]
    assert (scheduler.best, scheduler.patience, scheduler.end) == (3.0, 7, 4)
    assert scheduler._global_step == 2


def test_other_schedule_beside_a_plateau_is_refused():
    schedule = [{**STOCK, 'by_epoch': True}, PLATEAU]
    saved = Training(schedule, 10, epoch=5)
    saved.run(5)
    with pytest.raises(ValueError, match='depends on metrics of earlier'):
        Training(schedule, 20, epoch=5).resume(saved.checkpoint())


def test_schedules_of_other_wrappers_are_refused():
    training = Training([POLY])
    state = training.runner.param_schedulers[0].state_dict()
    saved = {'param_schedulers': {'students': [state], 'teacher': [state]}}
    with pytest.raises(ValueError, match='students, teacher, but the config has a single one'):
        ConfiguredSchedule(training.runner, saved)


class RateHook(Hook):
    """Notes the learning rates of each iteration."""

    priority = 'LOWEST'

    def __init__(self):
        self.seen = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        groups = [one.param_groups for one in runner.optim_wrapper.values()]
        self.seen.append([group['lr'] for several in groups for group in several])


@pytest.mark.slow
def test_longer_run_with_several_wrappers(tmp_path):
    def train(folder, **settings):
        config = tiny_config(
            tmp_path / folder,
            'GPS',
            **settings,
            train_cfg__val_interval=100,
            default_hooks__checkpoint__interval=2,
        )
        config.param_scheduler.students[0].pop('end')
        runner = build_runner(config)
        hook = RateHook()
        runner.register_hook(hook)
        runner.train()
        (log,) = (tmp_path / folder / runner.timestamp).glob('*.log')
        return hook.seen, log.read_text()

    train('before', train_cfg__max_iters=2)
    whole, _ = train('whole', train_cfg__max_iters=4)
    checkpoint = str(tmp_path / 'before' / 'iter_2.pth')
    rates, log = train('after', train_cfg__max_iters=4, load_from=checkpoint, resume=True)
    assert rates == whole[2:]
    for key in ('students', 'teacher'):
        assert f'param_scheduler.{key}.0.end=2 is now 4' in log
