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
    'supervised': 'suponly/suponly_deeplabv3plus_r18-tiny_600iter_camvid-96x72.py',
    'iMAS': 'imas/imas_deeplabv3plus_r18-tiny_600iter_camvid-96x72.py',
    'ESL': 'esl/esl_deeplabv3plus_r18-tiny_600iter_camvid-96x72.py',
    'DeS4': 'des4/des4_deeplabv3plus_r18-tiny_600iter_camvid-96x72.py',
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


def test_methods_stay_within_three_points_of_supervised_training(tmp_path):
    """One test, so that these trainings run once, however tests are dealt to processes."""
    runs = {method: start(method, tmp_path / method) for method in CONFIGS}
    for method, process in runs.items():
        output, _ = process.communicate()
        assert process.returncode == 0, f'{method}: {output[-3000:]}'
    logs = {method: scalars(tmp_path / method) for method in CONFIGS}
    supervised = logs['supervised'][-1]['mIoU']
    # About 30 is normal at 1/16; far below would mean that nothing was learned.
    assert supervised > 24
    for method, check in CHECKS.items():
        log = logs[method]
        teacher, student = (log[-1][f'{network}/mIoU'] for network in ('teacher', 'student'))
        assert teacher > supervised - 3, (method, supervised, teacher, student)
        assert all(0 < entry['loss'] < 10 for entry in log if 'loss' in entry), method
        check(log)


def check_pseudo_labels_of_imas(log):
    unlabeled = [entry for entry in log if 'loss_unlabeled' in entry]
    assert len(unlabeled) >= 8
    assert 0.2 < sum(entry['confident_ratio'] for entry in unlabeled) / len(unlabeled) < 0.9


def check_soft_labels_and_contrast_of_esl(log):
    first, *_, last = (entry for entry in log if 'contrast_accuracy' in entry)
    # From scratch the teacher is unsure at first, and grows surer.
    assert first['one_dominant_ratio'] < last['one_dominant_ratio'] - 0.1
    assert last['bank_fill_ratio'] > 0.9
    # Of 64 entries 1/64 would be chance.
    assert last['contrast_accuracy'] > 1.2 * first['contrast_accuracy'] > 0.1
    assert last['loss_contrast'] < 0.97 * first['loss_contrast']


def check_prototypes_of_des4(log):
    entries = [entry for entry in log if 'prototype_similarity' in entry]
    unlabeled = [entry for entry in entries if 'loss_unlabeled' in entry]
    assert len(unlabeled) >= 8
    assert unlabeled[-1]['loss_unlabeled'] < unlabeled[0]['loss_unlabeled']
    assert entries[-1]['prototype_ratio'] == 1
    # The classes move apart, and their prototypes come to rest.
    assert entries[-1]['prototype_similarity'] < entries[0]['prototype_similarity'] - 0.1
    # As many samples of a class as the rarest has: a small share of all pixels.
    assert 0.005 < entries[-1]['sampled_ratio'] < 0.05
    assert entries[-1]['pseudo_label_distance'] < 0.2


CHECKS = {
    'iMAS': check_pseudo_labels_of_imas,
    'ESL': check_soft_labels_and_contrast_of_esl,
    'DeS4': check_prototypes_of_des4,
}
