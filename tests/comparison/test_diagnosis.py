"""Each symptom in the log of a training that was made to show it, and none in one that learns."""

import json
import re
from pathlib import Path

import pytest
from tiny_run import build_runner, tiny_config

from mmseg_semi.comparison import diagnose

PAGE = (Path(__file__).parents[2] / 'docs' / 'troubleshooting.md').read_text(encoding='utf-8')


def train(folder, method='FixMatch', **changes):
    """Train with records of every iteration; returns the folder."""
    cfg = tiny_config(folder, method, default_hooks__logger__interval=1, **changes)
    build_runner(cfg).train()
    return folder


def names(folder, *args):
    symptoms = diagnose(folder, *args)
    for symptom in symptoms:
        assert f'\n## {symptom.title}\n' in PAGE
    return {symptom.anchor: symptom for symptom in symptoms}


def write(folder, *records):
    """The log of a training with these records."""
    data = folder / '20260101_000000' / 'vis_data'
    data.mkdir(parents=True)
    text = ''.join(json.dumps(record) + '\n' for record in records)
    (data / 'scalars.json').write_text(text)
    return folder


def test_no_pixel_reaches_the_threshold(tmp_path):
    found = names(train(tmp_path, model__semi_train_cfg__tau=0.99999999))
    assert found['the-confident-ratio-stays-0'].evidence.startswith(
        'confident_ratio is 0.0000 in the last'
    )


def test_every_pixel_reaches_the_threshold(tmp_path):
    found = names(train(tmp_path, model__semi_train_cfg__tau=0.0))
    symptom = found['the-confident-ratio-is-1-at-once']
    assert symptom.evidence == 'confident_ratio is 1.000 in its first record.'
    assert symptom.remedy.startswith('Raise the threshold (semi_train_cfg.tau)')
    assert 'the-unlabeled-loss-is-0' not in found


def test_the_labels_become_one_class(tmp_path):
    """A class weight that only counts the background makes the network predict nothing else."""
    found = names(
        train(
            tmp_path,
            train_cfg__max_iters=40,
            train_cfg__val_interval=40,
            param_scheduler=[],
            optim_wrapper__optimizer__lr=0.05,
            model__segmentor__decode_head__loss_decode__class_weight=[1.0] + [1e-4] * 5,
        )
    )
    assert found['the-pseudo-labels-become-one-class'].evidence.startswith('pseudo_label_entropy')


@pytest.mark.parametrize(
    'settings', [dict(unlabeled_start=100), dict(unlabeled_start=0, unlabeled_weight=0.0)]
)
def test_unlabeled_images_that_do_not_count(tmp_path, settings):
    changes = {f'model__semi_train_cfg__{key}': value for key, value in settings.items()}
    assert 'the-unlabeled-loss-is-0' in names(train(tmp_path, 'IMAS', **changes))


def test_a_scheduler_that_ends_early(tmp_path):
    found = names(
        train(
            tmp_path,
            param_scheduler=[dict(type='PolyLR', end=6, eta_min=0.0, power=0.9, by_epoch=False)],
        )
    )
    assert re.search('from iteration [67] on', found['the-learning-rate-is-0'].evidence)


def test_a_learning_rate_that_teaches_nothing(tmp_path):
    found = names(train(tmp_path, None, optim_wrapper__optimizer__lr=1e-9, train_cfg__max_iters=60))
    assert list(found) == ['the-labeled-loss-does-not-fall']


def test_a_teacher_that_stays_where_it_was(tmp_path):
    folder = train(
        tmp_path,
        'IMAS',
        train_cfg__max_iters=60,
        train_cfg__val_interval=60,
        param_scheduler=[],
        optim_wrapper__optimizer__lr=0.01,
        **{'custom_hooks__3__decay': 0.99999, 'custom_hooks__3__copy_epochs': 0},
    )
    found = names(folder)['the-teacher-is-behind-the-student']
    assert found.evidence.startswith('At iteration 60 the teacher has mIoU ')


def test_a_training_that_falls_apart(tmp_path):
    """At the 61st iteration the learning rate becomes a thousand times higher."""
    folder = train(
        tmp_path,
        None,
        train_cfg__max_iters=70,
        train_cfg__val_interval=10,
        optim_wrapper__optimizer__lr=0.01,
        param_scheduler=[dict(type='MultiStepLR', milestones=[60], gamma=1000.0, by_epoch=False)],
    )
    assert ' at 70.' in names(folder, None, 'aAcc')['the-metric-falls-again'].evidence


def test_a_student_that_is_tested_on_other_images_than_it_saw(tmp_path):
    folder = write(tmp_path, {'student/mIoU': 55.0, 'teacher/mIoU': 79.5, 'step': 100})
    found = names(folder)['the-student-is-far-behind-the-teacher']
    assert found.evidence == 'At iteration 100 the teacher has mIoU 79.50, the student 55.00.'


def test_a_loss_that_is_not_finite(tmp_path):
    folder = write(tmp_path, {'loss': 1.0, 'step': 1}, {'loss': float('nan'), 'step': 2})
    assert names(folder)['the-loss-is-not-finite'].evidence == 'loss is not finite at iteration 2.'


def test_the_gain_over_supervised_training(tmp_path):
    mine = write(
        tmp_path / 'mine',
        {'student/mIoU': 20.0, 'teacher/mIoU': 30.0, 'step': 10},
        {'student/mIoU': 49.5, 'teacher/mIoU': 50.0, 'step': 20},
    )
    other = write(tmp_path / 'other', {'mIoU': 40.0, 'step': 10}, {'mIoU': 52.0, 'step': 20})
    found = names(mine, other)['the-gain-is-negative']
    assert found.evidence == (
        'mIoU of the teacher against the supervised training: -10.00 at 10, -2.00 at 20.'
    )
    assert found.remedy == 'The gain rises. Train longer.'
    assert names(other, mine) == {}
    worse = {'mIoU': 40.0, 'step': 10}, {'mIoU': 41.0, 'step': 20}
    assert (
        'stages.label.threshold'
        in names(write(tmp_path / 'st', *worse), other)['the-gain-is-negative'].remedy
    )
    cps = write(tmp_path / 'cps', {'loss_cps': 0.5, 'step': 5}, *worse)
    assert 'unlabeled_end_fraction' in names(cps, other)['the-gain-is-negative'].remedy
    with pytest.raises(ValueError, match=r'has no mDice\. Validate the training'):
        diagnose(mine, other, 'mDice')
    late = write(tmp_path / 'late', {'mIoU': 40.0, 'step': 15})
    with pytest.raises(ValueError, match=r'were validated at different iterations'):
        diagnose(mine, late)


def test_nothing_recorded(tmp_path):
    with pytest.raises(ValueError, match=r'has no record in \*/vis_data/scalars.json'):
        diagnose(tmp_path)


def test_a_training_that_learns_shows_none(tmp_path):
    folder = train(
        tmp_path,
        'IMAS',
        train_cfg__max_iters=60,
        train_cfg__val_interval=60,
        param_scheduler=[],
        optim_wrapper__optimizer__lr=0.005,
        model__semi_train_cfg__tau=0.5,
        model__semi_train_cfg__unlabeled_start=20,
    )
    assert names(folder) == {}
