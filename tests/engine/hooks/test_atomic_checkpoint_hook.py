import os
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import CheckpointHook
from mmengine.logging import MessageHub
from tiny_run import build_runner, tiny_config

from mmseg_semi.engine import AtomicCheckpointHook


class Saver:
    """Stands for a Runner: writes what it is told to, or is killed half-way."""

    def __init__(self, work_dir):
        self.work_dir = str(work_dir)
        self.iter = self.epoch = 0
        self.message_hub = MessageHub.get_instance(f'saver_{work_dir}')
        self.logger = SimpleNamespace(info=lambda message: None)
        self.killed = False

    def save_checkpoint(self, out_dir, filename, *args, **kwargs):
        path = os.path.join(out_dir, filename)
        if self.killed:
            with open(path, 'wb') as file:
                file.write(b'half')
            raise KeyboardInterrupt
        torch.save({'iter': self.iter}, path)


@pytest.fixture
def hook_and_runner(tmp_path):
    runner = Saver(tmp_path)
    hook = AtomicCheckpointHook(interval=1, by_epoch=False, max_keep_ckpts=1)
    hook.before_train(runner)
    return hook, runner


def save(hook, runner):
    hook._save_checkpoint(runner)
    runner.iter += 1


def test_keeps_the_newest_and_points_to_it(hook_and_runner, tmp_path):
    hook, runner = hook_and_runner
    for _ in range(3):
        save(hook, runner)
    assert sorted(os.listdir(tmp_path)) == ['iter_3.pth', 'last_checkpoint']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'iter_3.pth')
    assert runner.message_hub.get_info('keep_ckpt_ids') == [3]


def test_killed_while_saving_the_last_good_one_stands(hook_and_runner, tmp_path):
    hook, runner = hook_and_runner
    save(hook, runner)
    runner.killed = True
    with pytest.raises(KeyboardInterrupt):
        save(hook, runner)
    last = (tmp_path / 'last_checkpoint').read_text()
    assert torch.load(last) == {'iter': 0}
    assert not (tmp_path / 'iter_2.pth').exists()


def test_saving_the_same_step_again_replaces_it(hook_and_runner, tmp_path):
    hook, runner = hook_and_runner
    hook._save_checkpoint(runner)
    hook._save_checkpoint_with_step(runner, 1, {'iter': 1})
    assert sorted(os.listdir(tmp_path)) == ['iter_1.pth', 'last_checkpoint']


@pytest.mark.parametrize('iteration', [5, 14])
def test_killed_while_saving_the_best_one_it_validates_again(tmp_path, monkeypatch, iteration):
    """The scalars are written by then, but the validation counts only with its best checkpoint."""
    changes = dict(train_cfg__val_interval=5, default_hooks__checkpoint__save_best='teacher/mIoU')
    config = tiny_config(tmp_path, **changes)
    (tmp_path / 'last_validation').write_text('99')  # of an earlier training
    save_best, validated = CheckpointHook._save_best_checkpoint, []

    def killing(self, runner, metrics):
        validated.append(runner.iter)
        if runner.iter == iteration and validated.count(iteration) == 1:
            raise KeyboardInterrupt
        metrics = {**metrics, 'teacher/mIoU': float(runner.iter)}
        save_best(self, runner, metrics)

    monkeypatch.setattr(CheckpointHook, '_save_best_checkpoint', killing)
    with pytest.raises(KeyboardInterrupt):
        build_runner(config).train()
    config.resume = True
    runner = build_runner(config)
    runner.train()
    assert validated == sorted([5, 10, 14, iteration])
    assert (tmp_path / 'last_validation').read_text() == '14'
    assert [path.name for path in tmp_path.glob('best_*')] == ['best_teacher_mIoU_iter_14.pth']
    build_runner(config).train()
    assert len(validated) == 4
