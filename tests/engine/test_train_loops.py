"""A length in epochs over the unlabeled images, from which all other lengths follow."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmseg.registry import MODELS
from tiny import tiny_segmentor
from tiny_run import METHODS, NUM_UNLABELED, build_runner, tiny_config

from mmseg_semi.datasets.children import num_counted
from mmseg_semi.engine.train_loops import epoch_lengths, epochs_of
from mmseg_semi.models.clock import Clock

POLY = {'type': 'NonzeroPolyLR', 'eta_min': 0, 'power': 0.9, 'by_epoch': False}


@pytest.mark.parametrize(
    ('images', 'per_step', 'accumulated', 'expected'),
    [
        (10399, 16, 1, (649, 51920, 649)),  # VOC, 183 labeled images: 80 epochs
        (10399, 16, 4, (649, 4 * 51920, 4 * 649)),
        (17, 8, 1, (2, 160, 2)),
        (16, 8, 1, (2, 160, 2)),
        (15, 8, 1, (1, 80, 1)),
        (3, 8, 1, (1, 80, 1)),  # the list is shorter than a step
    ],
)
def test_epochs_are_whole_steps(images, per_step, accumulated, expected):
    assert epoch_lengths(images, per_step, accumulated, 80, 1) == expected


def test_epochs_may_differ_by_partition():
    assert epochs_of(80, None) == epochs_of(80, 'cps/372') == 80
    assert epochs_of({'cps/186': 128, 'cps/372': 137}, 'cps/372') == 137
    with pytest.raises(
        ValueError, match=r'has no value for partition=own/5, only for cps/186\. Set'
    ):
        epochs_of({'cps/186': 128}, 'own/5')
    for wrong in (0, -1, 2.5, True, 'many'):
        with pytest.raises(ValueError, match='must be an integer of at least 1, got'):
            epochs_of(wrong, None)


class Diary(Hook):
    """Writes down the rates, the saved checkpoints and the validations of a training."""

    priority = 'LOWEST'

    def __init__(self):
        self.rates, self.saved, self.validated = [], [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        first, *_ = runner.optim_wrapper.get_lr().values()
        self.rates.append(first[0])

    def before_save_checkpoint(self, runner, checkpoint):
        self.saved.append(checkpoint['meta']['iter'])

    def before_val(self, runner):
        self.validated.append(runner.iter)


def epoch_config(folder, method='IMAS', length=None, schedule=POLY, **changes):
    """2 + 2 of 9 unlabeled images per step: 4 steps an epoch."""
    cfg = tiny_config(folder, method, **changes)
    cfg.train_cfg = {'type': 'UnlabeledEpochTrainLoop', **(length or {'epochs': 3, 'val_every': 2})}
    cfg.param_scheduler = [dict(schedule)]
    cfg.default_hooks.checkpoint.interval = 'val'
    return cfg


def train(cfg):
    runner, diary = build_runner(cfg), Diary()
    runner.register_hook(diary)
    runner.train()
    return runner, diary


def log_of(runner):
    return next(Path(runner.log_dir).glob('*.log')).read_text()


def test_everything_follows_from_epochs(tmp_path):
    runner, diary = train(epoch_config(tmp_path))
    assert runner.max_iters == runner.iter == 12
    assert diary.validated == [8, 12]
    assert diary.saved == [8, 12]
    poly = [0.005 * (1 - step / 12) ** 0.9 for step in range(12)]
    torch.testing.assert_close(diary.rates, poly)
    said = '3 epochs of 9 unlabeled images, 2 of them per step: 4 optimizer steps each, 12 iterations in all'
    assert log_of(runner).count(said) == 1


def test_epochs_are_optimizer_steps(tmp_path):
    cfg = epoch_config(tmp_path, optim_wrapper__accumulative_counts=2)
    runner, diary = train(cfg)
    # 9 images by 2 micro-batches of 2: 2 steps of 2 iterations, three times.
    assert (runner.max_iters, diary.validated, diary.saved) == (12, [8, 12], [8, 12])
    assert runner.model.ema_steps == 6
    assert runner.model.epoch_steps == 2
    torch.testing.assert_close(diary.rates[-1], 0.005 * (1 / 6) ** 0.9)


def test_given_iterations_win(tmp_path):
    length = {'epochs': 3, 'max_iters': 5}
    runner, diary = train(epoch_config(tmp_path / 'one', length=length))
    assert (runner.max_iters, diary.validated, diary.saved) == (5, [4, 5], [4, 5])
    torch.testing.assert_close(diary.rates[-1], 0.005 * (1 / 5) ** 0.9)
    length = {'epochs': 1, 'val_interval': 3}
    runner, diary = train(epoch_config(tmp_path / 'two', length=length))
    assert (runner.max_iters, diary.validated, diary.saved) == (4, [3, 4], [3, 4])


def test_labeled_images_alone_are_trained_on_for_as_long(tmp_path):
    counted = tiny_config(tmp_path).train_dataloader.dataset.unlabeled
    cfg = epoch_config(tmp_path / 'supervised', None)
    with pytest.raises(
        ValueError, match='counts epochs over unlabeled images, but ShapesDataset has'
    ):
        train(cfg)
    dataset = cfg.train_dataloader.dataset
    del cfg.train_dataloader['dataset']
    cfg.train_dataloader.dataset = {
        'type': 'CheckedDataset',
        'of': dataset.pop('type'),
        'counted': counted,
        **dataset,
    }
    runner, _ = train(cfg)
    assert runner.max_iters == 3 * (NUM_UNLABELED // 2)
    assert '3 epochs of 9 unlabeled images' in log_of(runner)


def test_iterations_win_over_epochs_of_other_partitions(tmp_path):
    length = {'epochs': {'classic/183': 80}, 'max_iters': 4}
    runner, _ = train(epoch_config(tmp_path, length=length))
    assert runner.max_iters == 4


def test_counted_sets_may_be_several(tmp_path):
    counted = tiny_config(tmp_path).train_dataloader.dataset.unlabeled
    both = {'type': 'ConcatDataset', 'datasets': [counted, counted]}
    assert num_counted(SimpleNamespace(counted=both)) == 2 * NUM_UNLABELED


def test_schedulers_that_count_epochs_are_refused(tmp_path):
    for change in ({'by_epoch': True}, {'by_epoch': True, 'convert_to_iter_based': True}):
        cfg = epoch_config(tmp_path, schedule={**POLY, **change})
        with pytest.raises(
            ValueError, match=r'param_scheduler.0 \(NonzeroPolyLR\) has by_epoch=True'
        ):
            train(cfg)


@pytest.mark.parametrize(
    ('length', 'says'),
    [
        ({'val_every': 1}, 'neither epochs nor max_iters'),
        ({'epochs': 2, 'val_every': 0}, 'val_every must be an integer of at least 1, got 0'),
        ({'epochs': 0}, 'epochs must be an integer of at least 1, got 0'),
    ],
)
def test_lengths_that_are_none(tmp_path, length, says):
    with pytest.raises(ValueError, match=says):
        train(epoch_config(tmp_path, length=length))


def test_a_resumed_run_has_the_weights_of_an_uninterrupted_one(tmp_path):
    # A ramp-up in epochs, whose steps are counted again.
    settings = {'unlabeled_start': 0, 'rampup_steps': 0, 'rampup_epochs': 2}
    cfg = epoch_config(tmp_path / 'whole', 'MeanTeacher')
    cfg.model.semi_train_cfg = settings
    whole, _ = train(cfg)
    cfg = epoch_config(tmp_path / 'resumed', 'MeanTeacher')
    cfg.model.semi_train_cfg = settings
    cfg.load_from, cfg.resume = str(tmp_path / 'whole' / 'iter_8.pth'), True
    resumed, diary = train(cfg)
    assert len(diary.rates) == 4
    expected = whole.model.state_dict()
    for key, value in resumed.model.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=0, msg=key)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('method', 'settings', 'steps'),
    [
        ('MeanTeacher', {'rampup_epochs': 2}, {'rampup_steps': 8}),
        ('U2PL', {'unlabeled_start_epochs': 1}, {'unlabeled_start': 4}),
        ('DeS4', {'unlabeled_start_epochs': 1}, {'unlabeled_start': 4}),
        ('ESL', {'unlabeled_start_epochs': 1}, {'unlabeled_start': 4}),
        ('ESL', {'unlabeled_start_fraction': 2 / 3}, {'unlabeled_start': 4}),
        ('GPS', {'unlabeled_start_fraction': 1 / 3}, {'unlabeled_start': 2}),
        ('UniMatchV2', {'unlabeled_start_fraction': 0.5}, {'unlabeled_start': 3}),
    ],
)
def test_settings_in_other_units_are_those_in_steps(tmp_path, method, settings, steps):
    found = []
    for name, chosen in {'epochs': settings, 'steps': steps}.items():
        cfg = epoch_config(tmp_path / name, method, length={'max_iters': 6, 'val_interval': 6})
        given = cfg.model.semi_train_cfg
        for key in ('unlabeled_start', 'rampup_steps'):
            given.pop(key, None)
        given.update(chosen)
        found.append(train(cfg)[0].model.state_dict())
    for key, value in found[0].items():
        torch.testing.assert_close(value, found[1][key], rtol=0, atol=0, msg=key)


def test_a_setting_in_two_units_is_refused(tmp_path):
    settings = {'unlabeled_start': 3, 'unlabeled_start_fraction': 0.5}
    cfg = tiny_config(tmp_path, 'FixMatch', model__semi_train_cfg=settings)
    said = 'unlabeled_start=3 and unlabeled_start_fraction=0.5, which set the same length'
    with pytest.raises(ValueError, match=said):
        build_runner(cfg)


@pytest.mark.parametrize(
    ('settings', 'says', 'passed'),
    [
        ({'unlabeled_start_fraction': 0.5}, 'or set unlabeled_start', 'started'),
        ({'unlabeled_end_fraction': 0.5}, 'or leave the setting out', 'ended'),
    ],
)
def test_a_fraction_needs_the_length_of_the_training(settings, says, passed):
    model = MODELS.build(
        {'type': 'FixMatch', 'segmentor': tiny_segmentor(), 'semi_train_cfg': settings}
    )
    with pytest.raises(ValueError, match=f'needs the length of the training.*{says}'):
        getattr(model, passed)
    for step, expected in ((1, False), (2, True)):
        model.clock = Clock(step=step, num_steps=5)
        assert getattr(model, passed) == expected


class Written(Hook):
    """Writes down which scalars each iteration has logged."""

    priority = 'LOWEST'

    def __init__(self):
        self.keys = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        scalars = runner.message_hub.log_scalars
        self.keys.append({key for key in scalars if key.startswith('train/')})


def ending_config(folder, method):
    """6 steps, of which only the third and the fourth have an unlabeled loss."""
    cfg = epoch_config(folder, method, length={'max_iters': 6, 'val_interval': 4})
    settings = cfg.model.semi_train_cfg
    settings.pop('rampup_steps', None)
    settings.update(unlabeled_start=2, unlabeled_end_fraction=2 / 3)
    return cfg


@pytest.mark.slow
@pytest.mark.parametrize('method', sorted(METHODS))
def test_the_unlabeled_loss_ends(tmp_path, method):
    whole, written = build_runner(ending_config(tmp_path / 'whole', method)), Written()
    whole.register_hook(written)
    whole.train()
    before, within, after = written.keys[1], written.keys[3], written.keys[5]
    assert before < within  # the unlabeled images add scalars
    # They leave the log, in which MMEngine would repeat their last values.
    assert after == written.keys[4] == before

    cfg = ending_config(tmp_path / 'resumed', method)
    cfg.load_from, cfg.resume = str(tmp_path / 'whole' / 'iter_4.pth'), True
    resumed, written = build_runner(cfg), Written()
    resumed.register_hook(written)
    resumed.train()
    assert written.keys == [after, after]
    expected = whole.model.state_dict()
    for key, value in resumed.model.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=0, msg=key)


def test_the_unlabeled_loss_ends_in_a_training_by_epochs(tmp_path):
    settings = {'tau': 0.0, 'unlabeled_start': 0, 'unlabeled_end_fraction': 2 / 3}
    cfg = tiny_config(tmp_path, 'FixMatch', epochs=3, model__semi_train_cfg=settings)
    runner, written = build_runner(cfg), Written()
    runner.register_hook(written)
    runner.train()
    end = len(written.keys) * 2 // 3
    found = ['train/loss_unlabeled' in keys for keys in written.keys]
    assert found == [True] * end + [False] * (len(found) - end)
    # CostHook reads the times of the whole training.
    for key in ('train/time', 'train/data_time'):
        assert len(runner.message_hub.get_scalar(key).data[0]) == len(found)


def test_the_unlabeled_loss_cannot_end_before_it_starts(tmp_path):
    settings = {'unlabeled_start': 7, 'unlabeled_end_fraction': 0.5}
    cfg = tiny_config(tmp_path, 'FixMatch', model__semi_train_cfg=settings)
    said = r'unlabeled_end_fraction=0\.5 ends the unlabeled loss at step 7, but it starts at step 7\. Raise'
    with pytest.raises(ValueError, match=said):
        build_runner(cfg).train()
