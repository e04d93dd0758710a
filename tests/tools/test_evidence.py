"""The driver of many runs: what a plan means, rows that outlive a stop, and a run of it."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_run import dump, tiny_config, write_images

from mmseg_semi.comparison import evidence as runs

TOOL = Path(__file__).resolve().parents[2] / 'tools/evidence.py'
spec = importlib.util.spec_from_file_location('evidence', TOOL)
evidence = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = evidence  # which dataclasses look into
spec.loader.exec_module(evidence)


@pytest.fixture
def config(tmp_path):
    """A file of iMAS on images with two partitions."""
    images = write_images(tmp_path / 'images')
    for part in ('half', 'whole'):
        (images / part).mkdir()
        for half in ('labeled', 'unlabeled'):
            text = (images / f'{half}.txt').read_text()
            (images / part / f'{half}.txt').write_text(text)
    return dump(tiny_config(tmp_path / 'x', 'IMAS', images=images), tmp_path / 'config.py')


def plan_of(tmp_path, *entries):
    path = tmp_path / 'plan.json'
    path.write_text(json.dumps(entries))
    return evidence.plan(path, tmp_path / 'work')


def test_lists_are_multiplied_and_settings_arrive(tmp_path, config):
    jobs = plan_of(
        tmp_path,
        {
            'config': str(config),
            'partition': ['half', 'whole'],
            'val': 'val.txt',
            'seed': [0, 1],
            'lr': [0.1, 0.2],
            'iters': 6,
            'hooks': [{'type': 'MemoryFormatHook'}],
            'options': {'model.semi_train_cfg.tau': 0.4},
        },
    )
    assert len(jobs) == 8
    said = {
        (
            job.cfg.train_dataloader.dataset.labeled.ann_file,
            job.cfg.train_dataloader.dataset.unlabeled.ann_file,
            job.seed,
            job.cfg.optim_wrapper.optimizer.lr,
        )
        for job in jobs
    }
    assert said == {
        (f'{part}/labeled.txt', f'{part}/unlabeled.txt', seed, lr)
        for part in ('half', 'whole')
        for seed in (0, 1)
        for lr in (0.1, 0.2)
    }
    cfg = jobs[0].cfg
    assert cfg.model.semi_train_cfg.tau == 0.4
    assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval) == (6, 6)
    assert cfg.val_evaluator.type == 'ClassIoUMetric'
    assert [hook.type for hook in cfg.custom_hooks[-2:]] == ['CostHook', 'MemoryFormatHook']
    # Seeds share the hash, everything else changes it.
    assert len({job.settings for job in jobs}) == 4


def test_the_hash_is_of_settings_not_of_places(tmp_path, config):
    (job,) = plan_of(tmp_path, {'config': str(config)})
    moved = job.cfg.copy()
    moved.work_dir = 'elsewhere'
    moved.val_dataloader.dataset.data_root = '/other'
    assert evidence.settings_hash(moved) == job.settings
    for key, value in {
        'optim_wrapper.optimizer.lr': 0.3,
        'model.semi_train_cfg.tau': 0.7,
        'train_cfg.max_iters': 15,
        'train_dataloader.dataset.labeled.ann_file': 'other.txt',
    }.items():
        (other,) = plan_of(tmp_path, {'config': str(config), 'options': {key: value}})
        assert other.settings != job.settings, key


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        (
            {'config': 'a.py', 'learning_rate': 1},
            "has the unknown key 'learning_rate'. Use the keys",
        ),
        ({'seed': 0}, 'has no method or config'),
        ({'method': 'imas', 'dataset': 'nosuch'}, 'imas has no config with dataset=nosuch'),
    ],
)
def test_a_wrong_plan_is_one_sentence(tmp_path, entry, message):
    with pytest.raises(ValueError, match=message):
        plan_of(tmp_path, entry)


def test_a_plan_that_asks_twice_is_refused(tmp_path, config):
    with pytest.raises(ValueError, match=r'lists config_\w+_seed0'):
        plan_of(tmp_path, {'config': str(config), 'seed': [0, 0]})


def test_rows_of_another_commit_do_not_count(tmp_path):
    rows = tmp_path / 'rows.jsonl'
    assert runs.finished(rows, 'a') == set()
    for seed, commit in ((0, 'a'), (1, 'a'), (2, 'b')):
        runs.append(rows, {'settings': 'x', 'seed': seed, 'commit': commit, 'scores': {}})
    assert runs.finished(rows, 'a') == {('x', 0), ('x', 1)}


def test_a_row_cut_short_is_named(tmp_path):
    rows = tmp_path / 'rows.jsonl'
    runs.append(rows, {'settings': 'x', 'seed': 0, 'commit': 'a', 'scores': {}})
    with rows.open('a') as file:
        file.write('{"settings": "x", "se')
    with pytest.raises(ValueError, match=r'Line 2 of .*rows\.jsonl is not JSON .*. Remove it'):
        runs.finished(rows, 'a')
    rows.write_text('{"loss": 1}')
    with pytest.raises(ValueError, match=r'Line 1 of .* is not a row of a run: it has no scores'):
        runs.finished(rows, 'a')


def test_classes_are_measured_by_each_evaluator(tmp_path, config):
    evaluators = [{'type': 'IoUMetric'}, {'type': 'IoUMetric', 'prefix': 'again'}]
    (job,) = plan_of(tmp_path, {'config': str(config), 'options': {'val_evaluator': evaluators}})
    assert [one.type for one in job.cfg.val_evaluator] == ['ClassIoUMetric'] * 2


def test_changed_and_foreign_checkouts_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=rf'not from {tmp_path}. Set PYTHONPATH={tmp_path}'):
        evidence.commit_of(tmp_path)

    def git(*arguments):
        subprocess.run(['git', '-C', str(tmp_path), *arguments], check=True, capture_output=True)

    package = SimpleNamespace(__file__=str(tmp_path / 'mmseg_semi/__init__.py'))
    monkeypatch.setattr(evidence, 'mmseg_semi', package)
    (tmp_path / 'a.py').write_text('1')
    git('init')
    git('add', 'a.py')
    git('-c', 'user.name=a', '-c', 'user.email=a@b', 'commit', '-m', 'One')
    assert len(evidence.commit_of(tmp_path)) == 40
    (tmp_path / 'a.py').write_text('2')
    with pytest.raises(ValueError, match=r'uncommitted changes \(M a.py\)'):
        evidence.commit_of(tmp_path)


def test_runs_leave_rows_and_are_not_repeated(tmp_path, config, monkeypatch, capsys):
    monkeypatch.setattr(evidence, 'commit_of', lambda root: 'c' * 40)
    entry = {
        'config': str(config),
        'partition': 'half',
        'iters': 4,
        'options': {'train_cfg.val_begin': 1, 'optim_wrapper.accumulative_counts': 2},
    }
    broken = {**entry, 'options': {'model.type': 'NoSuchMethod'}}
    plan, rows = tmp_path / 'plan.json', tmp_path / 'kept' / 'rows.jsonl'
    plan.write_text(json.dumps([entry, broken]))
    command = [str(plan), '--rows', str(rows), '--work-dir', str(tmp_path / 'work'), '--jobs', '2']
    with pytest.raises(SystemExit, match='1 of 2 runs failed'):
        evidence.main(command)
    (row,) = map(json.loads, rows.read_text().splitlines())
    assert (row['partition'], row['seed'], row['steps'], row['commit']) == ('half', 0, 2, 'c' * 40)
    assert (row['labeled_seen'], row['unlabeled_seen']) == (8, 8)
    assert row['scores'].keys() == {'student', 'teacher'}
    score = row['scores']['teacher']
    assert score['best_iteration'] == 4
    assert score['curve'] == {'4': score['last']}
    assert score['last'] == score['best'] >= 0
    ious = [value for value in score['class_iou'].values() if value is not None]
    assert len(score['class_iou']) == 6
    assert sum(ious) / len(ious) == pytest.approx(score['last'], abs=0.01)
    assert row['seconds'] > 0
    assert row['cpu_seconds'] > 0
    assert not list((tmp_path / 'work').rglob('*.pth'))
    # What is finished is not run again, what failed is.
    plan.write_text(json.dumps([entry]))
    capsys.readouterr()
    evidence.main(command)
    assert capsys.readouterr().out == '1 jobs, 1 of them finished before\n'
    assert len(rows.read_text().splitlines()) == 1
