"""When the student becomes an earlier model: at an interval, or after the best validations."""

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop
from mmseg.registry import MODELS
from tiny import collated_batch, tiny_segmentor
from tiny_run import build_runner, tiny_config

from mmseg_semi.engine import EarlierModelHook
from mmseg_semi.engine.hooks.earlier_model_hook import BEST

BIAS = 'decode_head.conv_seg.bias'


class Loop(BaseLoop):
    def __init__(self) -> None:
        """Of a training that has been built."""

    def run(self) -> None:
        """Nothing."""


def make_runner(accumulation=1, iterations=20, method='PrevMatch', validates=True):
    torch.manual_seed(0)
    model = MODELS.build({'type': method, 'segmentor': tiny_segmentor('GN')}).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper = OptimWrapper(optimizer, accumulative_counts=accumulation)
    wrapper.initialize_count_status(model, 0, iterations)
    return SimpleNamespace(
        model=model,
        optim_wrapper=wrapper,
        iter=0,
        max_iters=iterations,
        val_loop=Loop() if validates else None,
        _train_loop=Loop(),
        _resume=False,
        logger=logging.getLogger('test_earlier_model_hook'),
        message_hub=MessageHub('test_earlier_model_hook'),
    )


def train(runner, hook, iterations) -> list[int]:
    """Run iterations as the train loop does; returns the number of models after each."""
    numbers = []
    for index in range(iterations):
        runner.model.train_step(collated_batch(seed=index), runner.optim_wrapper)
        hook.after_train_iter(runner, index)
        runner.iter += 1
        numbers.append(len(runner.model.earlier.models))
    return numbers


def test_at_an_interval_put_off_to_the_end_of_a_step():
    runner, hook = make_runner(), EarlierModelHook(interval=2)
    hook.before_train(runner)
    assert train(runner, hook, 5) == [0, 1, 1, 2, 2]
    runner, hook = make_runner(accumulation=2), EarlierModelHook(interval=3)
    assert train(runner, hook, 9) == [0, 0, 0, 1, 1, 2, 2, 2, 2]
    runner, hook = make_runner(), EarlierModelHook(interval=2, begin=4)
    assert train(runner, hook, 6) == [0, 0, 0, 1, 1, 2]


def test_the_copy_is_the_student_behind_the_step():
    runner, hook = make_runner(), EarlierModelHook(interval=1)
    train(runner, hook, 2)
    student = runner.model.student.state_dict()
    first, second = runner.model.earlier.models
    assert torch.equal(second[BIAS], student[BIAS])
    assert not torch.equal(first[BIAS], second[BIAS])


@pytest.mark.parametrize('prefix', ['student/', ''])
def test_after_each_validation_that_is_the_best_so_far(prefix):
    runner, hook = make_runner(), EarlierModelHook()
    hook.before_train(runner)
    assert train(runner, hook, 1) == [0]
    numbers = []
    for score in (0.0, 30.5, 30.5, 29.0, math.nan, 31.0):
        hook.after_val_epoch(runner, {'other/mIoU': 99.0, f'{prefix}mIoU': score})
        numbers.append(len(runner.model.earlier.models))
    assert numbers == [1, 2, 2, 2, 2, 3]
    assert runner.message_hub.get_info(BEST) == 31.0


def test_a_score_before_begin_counts_and_keeps_nothing():
    runner, hook = make_runner(), EarlierModelHook(begin=2)
    hook.before_train(runner)
    numbers = []
    for score in (50.0, 40.0, 60.0):
        train(runner, hook, 1)
        hook.after_val_epoch(runner, {'student/mIoU': score})
        numbers.append(len(runner.model.earlier.models))
    assert numbers == [0, 0, 1]


def test_a_test_or_validation_alone_keeps_nothing():
    runner, hook = make_runner(), EarlierModelHook()
    runner._train_loop = {'type': 'IterBasedTrainLoop'}
    hook.after_val_epoch(runner, {'student/mIoU': 50.0})
    assert runner.model.earlier.models == []


def test_only_a_resumed_training_takes_the_earlier_models_of_a_checkpoint():
    hook = EarlierModelHook()
    for resumes, training, expected in (
        (True, True, {'student.a', 'earlier.0.a'}),
        (False, True, {'student.a'}),
        (False, False, {'student.a'}),
    ):
        runner = make_runner()
        runner._resume = resumes
        runner._train_loop = Loop() if training else {}
        checkpoint = {'state_dict': {'student.a': 1, 'earlier.0.a': 2}}
        hook.after_load_checkpoint(runner, checkpoint)
        assert checkpoint['state_dict'].keys() == expected


def test_what_cannot_work_is_said_before_the_training():
    with pytest.raises(ValueError, match=r'EarlierModelHook\.interval must be at least 1, got 0\.'):
        EarlierModelHook(interval=0)
    with pytest.raises(ValueError, match=r'EarlierModelHook\.begin must be at least 0, got -1\.'):
        EarlierModelHook(begin=-1)
    with pytest.raises(ValueError, match='does not support UniMatch, which has no earlier models'):
        EarlierModelHook().before_train(make_runner(method='UniMatch'))
    with pytest.raises(ValueError, match=r'but this run has none\. Set its interval'):
        EarlierModelHook().before_train(make_runner(validates=False))
    EarlierModelHook(interval=3).before_train(make_runner(validates=False))
    runner, hook = make_runner(), EarlierModelHook(metric='mDice')
    with pytest.raises(
        ValueError, match=r"metric='mDice' is not a metric .* \(student/mIoU, aAcc\)"
    ):
        hook.after_val_epoch(runner, {'student/mIoU': 1.0, 'aAcc': 2.0})


def test_a_training_keeps_models_and_one_without_the_hook_is_refused(tmp_path):
    config = tiny_config(tmp_path, 'PrevMatch', train_cfg__val_interval=2)
    runner = build_runner(config)
    runner.train()
    assert 1 <= len(runner.model.earlier.models) <= 3
    assert -math.inf < runner.message_hub.get_info(BEST) <= 100
    config.custom_hooks[3].metric = 'mDice'
    with pytest.raises(
        ValueError, match=r"metric='mDice' is not a metric .* \(student/aAcc, student/mIoU"
    ):
        build_runner(config).train()
    del config.custom_hooks[3]
    with pytest.raises(ValueError, match='PrevMatch needs EarlierModelHook'):
        build_runner(config).train()
