"""The parts of the demo; .ci/run trains with it."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def demo():
    spec = importlib.util.spec_from_file_location('demo', ROOT / 'tools/demo.py')
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up.
    sys.modules['demo'] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules['demo']


def log(training, entries):
    folder = training.work_dir / '20260101_000000' / 'vis_data'
    folder.mkdir(parents=True)
    lines = [json.dumps(entry) for entry in entries]
    # A line that is being written is not read yet.
    (folder / 'scalars.json').write_text('\n'.join(lines) + '\n{"step": 99')


def test_every_seed_gets_a_pair_of_trainings_on_images_of_its_own(demo, tmp_path):
    args = demo.parse_args(['--seeds', '3', '4', '--work-dir', str(tmp_path)])
    trainings = demo.plan(args)
    assert [(t.method, t.seed) for t in trainings] == [
        ('iMAS', 3),
        ('iMAS', 4),
        ('supervised', 3),
        ('supervised', 4),
    ]
    assert len({t.work_dir for t in trainings}) == 4
    for training in trainings:
        seeds = [option for option in training.options if 'seed' in option]
        assert all(option.endswith(f'={training.seed}') for option in seeds)
        assert f'randomness.seed={training.seed}' in seeds
        assert len(seeds) == (5 if training.method == 'iMAS' else 4)
        assert training.checkpoint.name == 'iter_900.pth'


def test_table_shows_last_best_and_gain(demo, tmp_path):
    trainings = demo.plan(demo.parse_args(['--seeds', '0', '1', '--work-dir', str(tmp_path)]))
    for training in trainings:
        shift = 10.0 * training.seed
        if training.method == 'supervised':
            entries = [{'step': 1, 'mIoU': 50 + shift}, {'step': 2, 'mIoU': 48 + shift}]
        else:
            entries = [
                {'step': 1, 'student/mIoU': 51 + shift, 'teacher/mIoU': 50 + shift},
                {'step': 2, 'student/mIoU': 52 + shift, 'teacher/mIoU': 54 + shift},
            ]
        log(training, entries)
        assert training.iteration() == 2
    lines = demo.table(trainings, [0, 1]).splitlines()
    assert lines[0] == '| | mIoU, last | mIoU, best | gain, last | seed 0, last | seed 1, last |'
    assert lines[2] == '| supervised | 53.00 | 55.00 | +0.00 | 48.00 | 58.00 |'
    assert lines[3] == '| iMAS, student | 57.00 | 57.00 | +4.00 | 52.00 | 62.00 |'
    assert lines[4] == '| iMAS, teacher | 59.00 | 59.00 | +6.00 | 54.00 | 64.00 |'


@pytest.mark.slow
def test_failed_training_says_where_its_output_is(demo, tmp_path):
    (training, _) = demo.plan(demo.parse_args(['--work-dir', str(tmp_path)]))
    training.options.append('train_cfg.max_iters=-1')
    with pytest.raises(
        RuntimeError, match=r'iMAS, seed 0 stopped with exit code \d+. See \S+output\.txt'
    ):
        demo.run([training], 1)


def test_finished_trainings_are_not_repeated(demo, tmp_path, capsys):
    (training, _) = demo.plan(demo.parse_args(['--work-dir', str(tmp_path)]))
    training.work_dir.mkdir()
    training.checkpoint.write_bytes(b'')
    demo.run([training], 1)
    assert 'found' in capsys.readouterr().out
    assert training.process is None


def test_picture_shows_what_both_trainings_see(demo, tmp_path, monkeypatch):
    semi, supervised = demo.plan(demo.parse_args(['--work-dir', str(tmp_path)]))
    for training in (semi, supervised):
        init_default_scope('mmseg')
        torch.manual_seed(0)
        model = MODELS.build(Config.fromfile(training.config).model)
        training.work_dir.mkdir()
        torch.save({'state_dict': model.state_dict()}, training.checkpoint)
    taus, hardness = [], demo.hardness
    monkeypatch.setattr(
        demo, 'hardness', lambda *maps, tau, **k: taus.append(tau) or hardness(*maps, tau=tau, **k)
    )
    demo.draw(supervised, semi, 2, tmp_path / 'picture.png')
    assert (tmp_path / 'picture.png').stat().st_size > 0
    # The threshold that the training used, and not the default.
    assert taus == [Config.fromfile(semi.config).model.semi_train_cfg.tau] * 2


def test_bad_arguments_are_refused(demo, capsys):
    with pytest.raises(SystemExit):
        demo.parse_args(['--processes', '0'])
    assert '--processes and --images must be at least 1' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        demo.parse_args(['--max-iters', '50'])
    assert '--max-iters 50 must be above 50' in capsys.readouterr().err
