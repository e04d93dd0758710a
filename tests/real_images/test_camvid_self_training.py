"""Self-training's choice of images on real ones: the masks that it calls reliable are the better half.

A short training of the small network at 128 x 96: enough for the ranking, half a minute of one core.
"""

import json
import os
from pathlib import Path

import pytest
from processes import TOOLS, run_tool

ROOT = Path(__file__).resolve().parents[2]
CAMVID = Path(os.environ.get('CAMVID_ROOT', ROOT.parent / 'shared/data/camvid')).resolve()
CONFIG = ROOT / 'configs/stpp/stpp_deeplabv3plus_r18-tiny_600iter_camvid-96x72.py'

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CAMVID / 'splits').is_dir(),
        reason=f'CamVid is neither at $CAMVID_ROOT nor at {CAMVID}',
    ),
]


def test_reliable_masks_are_better_than_unreliable_ones(tmp_path):
    places = ['labeled', 'pseudo_labeled.images']
    roots = [f'train_dataloader.dataset.{place}.data_root={CAMVID}' for place in places]
    roots += [f'{name}_dataloader.dataset.data_root={CAMVID}' for name in ('val', 'test')]
    short = ['train_cfg.max_iters=150', 'train_cfg.val_interval=150']
    trained = run_tool(
        TOOLS / 'train.py',
        CONFIG,
        '--work-dir',
        'work',
        '--stages',
        'teacher',
        'select',
        '--cfg-options',
        *roots,
        *short,
        cwd=tmp_path,
    )
    assert trained.code == 0, trained.output[-3000:]
    assert '46 labeled images × 2 and 0 pseudo-labeled' in trained.output
    halves = [
        (tmp_path / f'work/select/{name}.txt').read_text().split()
        for name in ('reliable', 'unreliable')
    ]
    assert [len(half) for half in halves] == [160, 161]
    stability = tmp_path / 'work/teacher/stability'
    told = run_tool(
        TOOLS / 'select_reliable.py',
        CONFIG,
        CAMVID / 'splits/1_8/seed0/unlabeled.txt',
        'work/select',
        '--img-dir',
        CAMVID / 'img_dir/train',
        '--img-suffix',
        '.jpg',
        '--checkpoints',
        *[stability / f'iter_{moment}.pth' for moment in (50, 100, 150)],
        '--truth',
        CAMVID / 'ann_dir/train',
        cwd=tmp_path,
    )
    assert told.code == 0, told.output[-3000:]
    assert 'work/select has the scores of 321 images already' in told.output
    mean_iou = json.loads((tmp_path / 'work/select/truth.json').read_text())['mIoU']
    assert mean_iou['reliable'] > mean_iou['unreliable'] + 1, mean_iou
    assert mean_iou['all'] > 15, mean_iou
