"""ReliableSelectionHook: when it keeps checkpoints, what is in them, its ranking in an ordinary run."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EarlyStoppingHook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from tiny_run import build_runner, tiny_config, tiny_stages_config

from mmseg_semi.engine import ReliableSelectionHook
from mmseg_semi.engine.hooks.reliable_selection_hook import kept_checkpoints


class Clock:
    """A Runner as far as the hook reads it: it writes down when it is told to save."""

    def __init__(self, work_dir, length, loop=EpochBasedTrainLoop, accumulated=1):
        self.work_dir, self.epoch, self.iter = str(work_dir), 0, 0
        self.train_loop = loop.__new__(loop)
        self.train_loop._max_epochs = self.train_loop._max_iters = length
        self.saved, self.hooks = [], []
        self.optim_wrapper = SimpleNamespace(_accumulative_counts=accumulated)

    def save_checkpoint(self, out_dir, filename, **settings):
        Path(out_dir).mkdir(exist_ok=True)
        Path(out_dir, filename).touch()
        self.saved.append((filename, settings))


@pytest.mark.parametrize(
    ('length', 'count', 'moments'),
    [(80, 3, [26, 53, 80]), (240, 3, [80, 160, 240]), (3, 3, [1, 2, 3]), (7, 2, [3, 7])],
)
@pytest.mark.parametrize('loop', [EpochBasedTrainLoop, IterBasedTrainLoop])
def test_moments(length, count, moments, loop, tmp_path):
    """METHODS: after E // 3, 2E // 3 and E epochs; a loop of iterations counts those."""
    runner = Clock(tmp_path, length, loop)
    hook = ReliableSelectionHook(num_checkpoints=count)
    hook.before_train(runner)
    for now in range(length):
        runner.epoch = runner.iter = now
        hook.after_train_iter(runner, 0)
        if loop is EpochBasedTrainLoop:
            hook.after_train_epoch(runner)
    hook.after_train(runner)
    unit = 'epoch' if loop is EpochBasedTrainLoop else 'iter'
    names = [f'{unit}_{moment}.pth' for moment in moments]
    assert [name for name, _ in runner.saved] == [f'{name}.partial' for name in names]
    assert all(not settings['save_optimizer'] for _, settings in runner.saved)
    assert kept_checkpoints(runner.work_dir) == [
        str(tmp_path / 'stability' / name) for name in names
    ]
    assert sorted(path.name for path in (tmp_path / 'stability').glob('*.pth*')) == sorted(names)


@pytest.mark.parametrize('loop', [EpochBasedTrainLoop, IterBasedTrainLoop])
def test_a_training_that_may_miss_a_moment(tmp_path, loop):
    runner, hook = Clock(tmp_path, 9, loop), ReliableSelectionHook()
    unit = 'epoch' if loop is EpochBasedTrainLoop else 'iter'
    runner.epoch = runner.iter = 6
    missing = (
        rf'{unit}_3\.pth does not exist, although the resumed training is at a later {unit}\. '
    )
    with pytest.raises(FileNotFoundError, match=missing):
        hook.before_train(runner)
    (tmp_path / 'stability').mkdir()
    for moment in (3, 6):
        (tmp_path / f'stability/{unit}_{moment}.pth').touch()
    hook.before_train(runner)
    runner.hooks = [EarlyStoppingHook(monitor='mIoU')]
    with pytest.raises(ValueError, match=rf'at {unit} 3, 6, 9, but EarlyStoppingHook may stop'):
        hook.before_train(runner)


def test_moments_of_steps(tmp_path):
    """Of the 8 steps of 30 iterations, those after which one batch of all micro-batches would be saved."""
    runner = Clock(tmp_path, 30, IterBasedTrainLoop, accumulated=4)
    hook = ReliableSelectionHook()
    for runner.iter in range(30):
        hook.after_train_iter(runner, 0)
    assert [name for name, _ in runner.saved] == [f'iter_{n}.pth.partial' for n in (8, 20, 30)]


@pytest.mark.parametrize('loop', [EpochBasedTrainLoop, IterBasedTrainLoop])
def test_a_short_training_is_refused(loop, tmp_path):
    with pytest.raises(ValueError, match=r'A training of 2 (epoch|iter)\(s\) has no 3 different'):
        ReliableSelectionHook().before_train(Clock(tmp_path, 2, loop))


def test_one_checkpoint_is_refused():
    with pytest.raises(ValueError, match='num_checkpoints must be at least 2, got 1'):
        ReliableSelectionHook(num_checkpoints=1)


def test_a_training_that_has_not_ended(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'is not finished, or did not save checkpoints'):
        kept_checkpoints(str(tmp_path))


def test_it_ranks_images_at_the_end_of_an_ordinary_training(tmp_path):
    images = tiny_stages_config(tmp_path).train_dataloader.dataset.pseudo_labeled.images
    config = tiny_config(tmp_path / 'work', None)
    config.custom_hooks.append(
        dict(type='ReliableSelectionHook', images=images.to_dict(), ratio=0.3)
    )
    runner = build_runner(config)
    runner.train()
    selection = tmp_path / 'work/selection'
    assert len((selection / 'scores.csv').read_text().splitlines()) == 1 + 9
    assert len((selection / 'reliable.txt').read_text().split()) == 2  # floor(0.3 · 9)
    assert len((selection / 'unreliable.txt').read_text().split()) == 7
    last = torch.load(tmp_path / 'work/stability/iter_14.pth', weights_only=False)
    trained = runner.model.state_dict()
    assert last['state_dict'].keys() == trained.keys()
    assert all(torch.equal(last['state_dict'][key], trained[key]) for key in trained)
    assert 'optimizer' not in last
    # The checkpoint holds its config and classes: the tools need nothing else.
    assert Config.fromstring(last['meta']['cfg'], '.py').model.type == 'EncoderDecoder'
    assert len(last['meta']['dataset_meta']['classes']) == 6
