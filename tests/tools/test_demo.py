"""The parts of the demo; .ci/run trains with it."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from PIL import Image

from mmseg_semi.datasets import NucleiDataset

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


def test_every_seed_gets_a_pair_of_trainings(demo, tmp_path):
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
        assert f'randomness.seed={training.seed}' in training.options
        assert training.checkpoint.name == 'iter_1800.pth'
        cfg = Config.fromfile(training.config)
        data = cfg.train_dataloader.dataset
        assert data.partition == 'dark/l4_0'
        for dataset in (data.get('labeled', data), cfg.val_dataloader.dataset):
            assert dataset.data_root == str(demo.DATA)
        if training.method == 'iMAS':
            assert data.unlabeled.data_root == str(demo.DATA)
        assert cfg.val_dataloader.dataset.ann_file == demo.VALIDATION
        assert cfg.custom_hooks[-1].type == 'MemoryFormatHook'
        assert cfg.train_cfg.max_iters == cfg.train_cfg.val_interval == 1800


def test_training_and_validation_images_are_different_and_dark(demo):
    def read(path):
        return (demo.DATA / path).read_text().split()

    labeled, unlabeled = (
        read(f'lists/{demo.PARTITION}/{name}.txt') for name in ('labeled', 'unlabeled')
    )
    images = [*labeled, *unlabeled, *read(demo.VALIDATION)]
    assert (len(labeled), len(unlabeled), len(images)) == (4, 400, 541)
    assert len(set(images)) == 541
    assert set(labeled) == set(read('splits/l4_0.txt'))
    assert set(read(demo.VALIDATION)) < set(read('splits/val.txt'))


def test_table_shows_means_and_gain(demo, tmp_path):
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
    assert lines[0] == '| | mIoU | gain | seed 0 | seed 1 |'
    assert lines[2] == '| supervised | 53.00 | +0.00 | 48.00 | 58.00 |'
    assert lines[3] == '| iMAS, student | 57.00 | +4.00 | 52.00 | 62.00 |'
    assert lines[4] == '| iMAS, teacher | 59.00 | +6.00 | 54.00 | 64.00 |'


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
    init_default_scope('mmseg')
    # Networks that predict the same class everywhere: supervised training background, the teacher nucleus.
    for training, head, favored in ((supervised, '', 0), (semi, 'teacher.', 1)):
        state = MODELS.build(Config.fromfile(training.config).model).state_dict()
        state[f'{head}decode_head.conv_seg.weight'].zero_()
        state[f'{head}decode_head.conv_seg.bias'].copy_(torch.eye(3)[favored])
        training.work_dir.mkdir()
        torch.save({'state_dict': state}, training.checkpoint)
    saved = []
    monkeypatch.setattr(demo, 'save_panels', lambda *args: saved.append(args))
    demo.draw(supervised, semi, 2, tmp_path / 'picture.png')
    ((path, rows, titles, captions),) = saved
    assert path == str(tmp_path / 'picture.png')
    assert titles == ['image', 'truth', 'supervised', 'iMAS', 'iMAS better, worse']
    names = (demo.DATA / demo.VALIDATION).read_text().split()
    assert len(rows) == len(captions) == 2
    background, nucleus = NucleiDataset.METAINFO['palette'][:2]
    for name, caption, row in zip(names[:2], captions, rows, strict=True):
        image, truth, first, second, difference = row
        mask = np.array(Image.open(demo.DATA / f'mask/{name}.png'))
        assert np.array_equal(
            image, np.array(Image.open(demo.DATA / f'img/{name}.jpg').convert('RGB'))
        )
        assert np.array_equal(truth, np.array(NucleiDataset.METAINFO['palette'], np.uint8)[mask])
        assert (first == background).all()
        assert (second == nucleus).all()
        colors = np.array([(230, 60, 60), (60, 200, 60), (120, 120, 120)], np.uint8)
        assert np.array_equal(difference, colors[mask])
        shares = [100 * (mask == label).mean() for label in (0, 1)]
        assert caption == 'correct pixels: supervised {:.1f} %, iMAS {:.1f} %'.format(*shares)


def test_comparison_is_black_where_both_are_correct(demo):
    truth, first, second = np.array([[[0, 0, 0, 0]], [[0, 0, 1, 1]], [[0, 1, 0, 1]]])
    colors = demo.compare(truth, first, second)
    assert colors.tolist() == [[[0, 0, 0], [230, 60, 60], [60, 200, 60], [120, 120, 120]]]


def test_missing_images_are_an_error(demo, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, 'DATA', tmp_path)
    with pytest.raises(SystemExit, match=r'val\.txt does not exist\. Run the demo in a clone'):
        demo.main(['--work-dir', str(tmp_path / 'demo')])


def test_bad_arguments_are_refused(demo, capsys):
    with pytest.raises(SystemExit):
        demo.parse_args(['--processes', '0'])
    assert '--processes and --images must be at least 1' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        demo.parse_args(['--max-iters', '50'])
    assert '--max-iters 50 must be above 50' in capsys.readouterr().err
