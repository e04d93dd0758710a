"""What is read from the files of a run."""

import json

import pytest
from tiny_run import tiny_config, tiny_stages_config

from mmseg_semi.comparison import read_class_ious, read_cost, read_scores, read_validations


def write(folder, start, *records, end='\n'):
    folder = folder / start / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, records)) + end)


def test_last_and_best_of_each_network_over_all_starts(tmp_path):
    write(
        tmp_path,
        '20260101_000000',
        {'step': 10, 'teacher/mIoU': 50.0, 'student/mIoU': 40.0, 'student/mAcc': 99.0},
        {'step': 15, 'loss': 1.0},
        {'step': 20, 'teacher/mIoU': 70.0, 'student/mIoU': 45.0},
        end='\n{"step": 30, "teacher/mI',  # killed while writing
    )
    write(
        tmp_path,
        '20260102_000000',
        # Resumed from iteration 15: its own record of iteration 20 counts.
        {'step': 20, 'teacher/mIoU': 60.0, 'student/mIoU': 44.0},
        {'step': 30, 'teacher/mIoU': 55.0, 'student/mIoU': 47.0},
    )
    assert read_scores(tmp_path, 'mIoU', 30) == {
        'teacher': (55.0, 60.0, 20),
        'student': (47.0, 47.0, 30),
    }
    assert read_validations(tmp_path, 'mIoU') == {
        'teacher': {10: 50.0, 20: 60.0, 30: 55.0},
        'student': {10: 40.0, 20: 44.0, 30: 47.0},
    }
    assert read_scores(tmp_path / '..' / tmp_path.name, 'mAcc', 10) == {'student': (99.0, 99.0, 10)}


def test_ious_of_the_last_iteration(tmp_path):
    write(
        tmp_path,
        '20260101_000000',
        {'step': 10, 'teacher/mIoU': 50.0, 'teacher/IoU.cat': 20.0},
        {
            'step': 20,
            'teacher/mIoU': 70.0,
            'teacher/IoU.cat': 60.0,
            'teacher/IoU.traffic light': float('nan'),
            'student/IoU.cat': 40.0,
        },
    )
    assert read_class_ious(tmp_path, 20) == {
        'teacher': {'cat': 60.0, 'traffic light': None},
        'student': {'cat': 40.0},
    }


def test_a_run_that_stopped_early_has_no_result(tmp_path):
    write(
        tmp_path, '20260101_000000', {'step': 10, 'mIoU': 50.0}, {'step': 20, 'mIoU': float('nan')}
    )
    with pytest.raises(ValueError, match='mIoU of iteration 20, only up to iteration 10'):
        read_scores(tmp_path, 'mIoU', 20)
    with pytest.raises(ValueError, match=r'has no mDice in .*--metric'):
        read_scores(tmp_path, 'mDice', 10)
    with pytest.raises(ValueError, match='has no mIoU in'):
        read_scores(tmp_path / 'elsewhere', 'mIoU', 10)


def test_images_seen_follow_batch_length_and_processes(tmp_path):
    cfg = tiny_config(tmp_path, labeled=3, unlabeled=1)
    with pytest.raises(FileNotFoundError, match='is not finished'):
        read_cost(cfg, 2)
    costs = dict(
        seconds_per_iteration=0.5, peak_memory_mib=900.0, memory_kind='resident', device='CPU'
    )
    (tmp_path / 'costs.json').write_text(json.dumps(costs))
    cost = read_cost(cfg, 2)
    assert (cost.labeled_seen, cost.unlabeled_seen) == (3 * 14 * 2, 14 * 2)
    assert (cost.iterations, cost.total_iterations) == (14, 14)
    assert cost.trainings == (('', 14, 14, 84, 28),)
    assert (cost.seconds_per_iteration, cost.peak_memory_mib) == (0.5, 900.0)


def test_each_training_is_told_apart(tmp_path):
    """GPS's teacher beforehand and its joint training; ST's teacher, and its student on a list of 10 + 9."""
    costs = dict(
        seconds_per_iteration=0.5, peak_memory_mib=900.0, memory_kind='resident', device='CPU'
    )
    gps = tiny_config(tmp_path, 'GPS', labeled=3, unlabeled=2)
    gps.stages = {
        'teacher': {'type': 'SupervisedStage', 'cfg': {'train_cfg': {'max_iters': 6}}},
        'joint': {'type': 'TrainStage'},
    }
    st = tiny_stages_config(tmp_path, 'st')
    for name in ('teacher', 'joint', 'student', 'label'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'costs.json').write_text(json.dumps(costs))
    (tmp_path / 'label/pseudo_labels.json').write_text('{"num_images": 9}')
    cost = read_cost(gps, 2)
    assert cost.trainings == (('teacher', 6, 6, 36, 0), ('joint', 14, 14, 84, 56))
    assert (cost.iterations, cost.total_iterations) == (14, 20)
    assert (cost.labeled_seen, cost.unlabeled_seen) == (120, 56)
    student = (round(14 * 4 * 10 / 19), round(14 * 4 * 9 / 19))
    assert read_cost(st, 1).trainings == (('teacher', 14, 14, 56, 0), ('student', 14, 14, *student))
