"""GPS and CPS on CamVid's files: the plumbing, from the lists to the teacher's stage and three figures."""

import os
from pathlib import Path

import pytest
import torch
from processes import TOOLS, run_tool

ROOT = Path(__file__).resolve().parents[2]
CAMVID = Path(os.environ.get('CAMVID_ROOT', ROOT.parent / 'shared/data/camvid')).resolve()
CONFIG = '{0}/{0}_deeplabv3plus_r18-tiny_600iter_camvid-96x72.py'

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CAMVID / 'splits').is_dir(),
        reason=f'CamVid is neither at $CAMVID_ROOT nor at {CAMVID}',
    ),
]


def train(method, work_dir):
    """Four iterations of each training, with batches of 2, validated on 4 images."""
    train_set, val_set = 'train_dataloader.dataset', 'val_dataloader.dataset'
    options = [
        f'{train_set}.labeled.data_root={CAMVID}',
        f'{train_set}.unlabeled.data_root={CAMVID}',
        f'{val_set}.data_root={CAMVID}',
        f'{val_set}.indices=4',
        'train_dataloader.batch_size=4',
        'train_dataloader.sampler.labeled=2',
        'train_dataloader.sampler.unlabeled=2',
        'train_cfg.max_iters=4',
        'train_cfg.val_interval=4',
        'default_hooks.checkpoint.interval=4',
        'default_hooks.logger.interval=2',
        'model.semi_train_cfg.unlabeled_start_fraction=0.5',
    ]
    config = ROOT / 'configs' / CONFIG.format(method)
    arguments = (config, '--work-dir', 'work', '--cfg-options', *options)
    return run_tool(TOOLS / 'train.py', *arguments, cwd=work_dir)


def test_gps_trains_its_teacher_and_then_all_three(tmp_path):
    result = train('gps', tmp_path)
    assert result.code == 0, result.output
    assert '23 labeled images × 1 and 0 pseudo-labeled ones' in result.output
    assert 'GPS: 23 labeled and 344 unlabeled images; 2+2 per process' in result.output
    for name in ('student1', 'student2', 'teacher'):
        assert f'{name}/mIoU: ' in result.output
    lines = [line for line in result.output.splitlines() if 'Iter(train)' in line]
    assert ['loss_fps' in line for line in lines] == [False, False, False, True]
    checkpoints = [
        torch.load(tmp_path / 'work' / stage / 'iter_4.pth', weights_only=False)['state_dict']
        for stage in ('teacher', 'joint')
    ]
    key = 'decode_head.conv_seg.weight'
    # Its rate in the joint stage is small, but not 0.
    before, after = checkpoints[0][key], checkpoints[1][f'teacher.{key}']
    assert not torch.equal(before, after)


def test_cps_trains_both(tmp_path):
    result = train('cps', tmp_path)
    assert result.code == 0, result.output
    for name in ('student1', 'student2'):
        assert f'{name}/mIoU: ' in result.output
    lines = [line for line in result.output.splitlines() if 'Iter(train)' in line]
    assert ['loss_cps' in line for line in lines] == [False, True]
