"""The main job on real images: no method may break on CamVid what supervised training learns.

At this size (128 x 96, a minute of one core for the supervised run) no method needs to win.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CAMVID = Path(os.environ.get('CAMVID_ROOT', ROOT.parent / 'shared/data/camvid')).resolve()
CONFIGS = {
    'supervised': 'suponly/suponly_deeplabv3plus_r18-tiny_600iter_camvid-1_16-96x72.py',
    'iMAS': 'imas/imas_deeplabv3plus_r18-tiny_600iter_camvid-1_16-96x72.py',
    'ESL': 'esl/esl_deeplabv3plus_r18-tiny_600iter_camvid-1_16-96x72.py',
    'DeS4': 'des4/des4_deeplabv3plus_r18-tiny_600iter_camvid-1_16-96x72.py',
}
HALVES = ['train_dataloader.dataset.labeled', 'train_dataloader.dataset.unlabeled']

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CAMVID / 'splits').is_dir(),
        reason=f'CamVid is neither at $CAMVID_ROOT nor at {CAMVID}',
    ),
]


def start(method, work_dir):
    """Train, and validate on the test images, in a process of its own."""
    halves = ['train_dataloader.dataset'] if method == 'supervised' else HALVES
    places = [*halves, 'val_dataloader.dataset', 'test_dataloader.dataset']
    options = [f'{place}.data_root={CAMVID}' for place in places]
    options += [
        'val_dataloader.dataset.data_prefix.img_path=img_dir/test',
        'val_dataloader.dataset.data_prefix.seg_map_path=ann_dir/test',
        'val_dataloader.dataset.ann_file=splits/test.txt',
    ]
    command = [
        sys.executable,
        ROOT / 'tools/train.py',
        ROOT / 'configs' / CONFIGS[method],
        '--work-dir',
        work_dir,
        '--cfg-options',
        *options,
    ]
    return subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def scalars(work_dir):
    (file,) = work_dir.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope='module')
def logs(tmp_path_factory):
    """What each training has logged; all validate on the test images."""
    folder = tmp_path_factory.mktemp('camvid')
    runs = {method: start(method, folder / method) for method in CONFIGS}
    for method, process in runs.items():
        output, _ = process.communicate()
        assert process.returncode == 0, f'{method}: {output[-3000:]}'
    return {method: scalars(folder / method) for method in CONFIGS}


@pytest.mark.parametrize('method', ['iMAS', 'ESL', 'DeS4'])
def test_method_stays_within_three_points_of_supervised_training(logs, method):
    supervised = logs['supervised'][-1]['mIoU']
    teacher, student = (logs[method][-1][f'{network}/mIoU'] for network in ('teacher', 'student'))
    # About 30 is normal at 1/16; far below would mean that nothing was learnt.
    assert supervised > 24
    assert teacher > supervised - 3, (supervised, teacher, student)
    assert all(0 < entry['loss'] < 10 for entry in logs[method] if 'loss' in entry)
    key, ratio = {
        'iMAS': ('loss_unlabeled', 'confident_ratio'),
        'ESL': ('loss_soft', 'one_dominant_ratio'),
        'DeS4': ('loss_unlabeled', 'prototype_similarity'),
    }[method]
    unlabeled = [entry for entry in logs[method] if key in entry]
    assert len(unlabeled) >= 8
    assert 0.2 < sum(entry[ratio] for entry in unlabeled) / len(unlabeled) < 0.9


def test_contrast_of_esl_is_at_work(logs):
    entries = [entry for entry in logs['ESL'] if 'contrast_accuracy' in entry]
    assert entries[-1]['bank_fill_ratio'] > 0.9
    assert entries[-1]['contrast_accuracy'] > 2 * entries[0]['contrast_accuracy'] > 0
    assert entries[-1]['loss_contrast'] < 0.9 * entries[1]['loss_contrast']
