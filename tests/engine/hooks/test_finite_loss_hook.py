from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import CheckpointHook
from tiny import collated_batch

from mmseg_semi.engine import FiniteLossHook


def make_runner(interval=-1):
    hook = CheckpointHook(interval=interval, by_epoch=False, save_last=False)
    hub = SimpleNamespace(runtime_info={'last_ckpt': 'work/iter_4.pth'})
    model = torch.nn.Linear(2, 2)
    return SimpleNamespace(iter=9, hooks=[hook], message_hub=hub, model=model)


def losses(**values):
    return {key: torch.tensor(value) for key, value in values.items()}


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_raises_one_iteration_later_naming_iteration_term_and_images(value):
    hook, runner, batch = FiniteLossHook(), make_runner(), collated_batch()
    outputs = losses(loss=value, loss_unlabeled=value, loss_ce=1.0, hardness=float('nan'))
    hook.after_train_iter(runner, 9, batch, outputs)
    with pytest.raises(FloatingPointError) as error:
        hook.after_train_iter(runner, 10, batch, losses(loss=1.0))
    message = str(error.value)
    assert 'loss term loss_unlabeled is NaN or infinite in iteration 10' in message
    assert 'labeled.png, unlabeled.png' in message
    assert message.endswith('resume from work/iter_4.pth.')


def test_raises_at_once_where_a_checkpoint_is_due():
    hook, runner = FiniteLossHook(), make_runner(interval=5)
    with pytest.raises(FloatingPointError, match='iteration 10'):
        hook.after_train_iter(runner, 9, collated_batch(), losses(loss=float('nan')))


def test_raises_before_a_validation():
    hook, runner = FiniteLossHook(), make_runner()
    hook.after_train_iter(runner, 9, collated_batch(), losses(loss=float('nan')))
    with pytest.raises(FloatingPointError, match='loss term loss is NaN'):
        hook.before_val(runner)


def test_finite_losses_and_diagnostics_that_are_not_pass():
    hook, runner = FiniteLossHook(), make_runner(interval=1)
    for index in range(3):
        hook.after_train_iter(
            runner, index, collated_batch(), losses(loss=1.0, hardness=float('nan'))
        )
    hook.before_val(runner)


def test_long_batches_are_cut_and_a_missing_checkpoint_is_said():
    hook, runner = FiniteLossHook(max_images=1), make_runner(interval=1)
    runner.message_hub.runtime_info.clear()
    with pytest.raises(
        FloatingPointError, match=r'images labeled\.png and 1 more\. .* from the start'
    ):
        hook.after_train_iter(runner, 0, collated_batch(), losses(loss=float('nan')))


def test_infinite_weights_of_a_finite_loss_are_not_saved():
    hook, runner = FiniteLossHook(), make_runner(interval=5)
    with torch.no_grad():
        runner.model.bias[1] = float('inf')
    runner.iter = 8
    hook.after_train_iter(runner, 8, collated_batch(), losses(loss=1.0))
    runner.iter = 9
    message = r'^weight bias is NaN or infinite in iteration 10 with'
    with pytest.raises(FloatingPointError, match=message):
        hook.after_train_iter(runner, 9, collated_batch(), losses(loss=1.0))
    runner.iter = 10
    hook.after_train_iter(runner, 10, collated_batch(), losses(loss=1.0))
    with pytest.raises(FloatingPointError, match=r'^weight bias'):
        hook.after_train_epoch(runner)


def test_infinite_constants_of_a_network_are_left_alone():
    hook, runner = FiniteLossHook(), make_runner(interval=1)
    runner.model.register_buffer('mask', torch.full((2, 2), float('-inf')))
    hook.after_train_iter(runner, 9, collated_batch(), losses(loss=1.0))
