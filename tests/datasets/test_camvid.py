import os
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_semi.datasets.camvid import CamVidDataset

ROOT = Path(
    os.environ.get('CAMVID_ROOT', Path(__file__).parents[2] / '..' / 'shared' / 'data' / 'camvid')
)
LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]


@pytest.fixture(autouse=True)
def _mmseg_scope():
    init_default_scope('mmseg')


def config(root, split='train', **changes):
    return dict(
        type='CamVidDataset',
        data_root=str(root),
        ann_file=f'splits/{split}.txt',
        data_prefix=dict(img_path=f'img_dir/{split}', seg_map_path=f'ann_dir/{split}'),
        pipeline=LOAD,
        **changes,
    )


def write(root, suffix='.jpg'):
    for folder in ('img_dir/train', 'ann_dir/train', 'splits'):
        (root / folder).mkdir(parents=True)
    Image.fromarray(np.full((6, 8, 3), 90, np.uint8)).save(root / 'img_dir/train' / f'a{suffix}')
    Image.fromarray(np.uint8([[0] * 8] * 5 + [[10] * 7 + [255]])).save(root / 'ann_dir/train/a.png')
    (root / 'splits/train.txt').write_text('a\n')


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_reads_images_and_labels(tmp_path, suffix):
    write(tmp_path, suffix)
    changes = dict(img_suffix=suffix) if suffix != '.jpg' else {}
    dataset = DATASETS.build(config(tmp_path, **changes))
    assert len(dataset) == 1
    assert dataset[0]['img'].shape == (6, 8, 3)
    assert set(np.unique(dataset[0]['gt_seg_map'])) == {0, 10, 255}
    assert len(dataset.metainfo['classes']) == len(dataset.metainfo['palette']) == 11
    assert dataset.metainfo['reduce_zero_label'] is False


@pytest.mark.parametrize(
    ('change', 'path'),
    [
        (dict(ann_file='splits/1_3/seed0/labeled.txt'), 'splits/1_3/seed0/labeled.txt'),
        (dict(data_prefix=dict(img_path='img_dir/nosuch', seg_map_path='x')), 'img_dir/nosuch'),
    ],
)
def test_missing_data_is_one_sentence(tmp_path, change, path):
    write(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        DATASETS.build(dict(config(tmp_path), **change))
    message = str(caught.value)
    assert message.startswith(f'CamVid: {tmp_path / path} ')
    assert 'docs/datasets.md#camvid' in message
    assert message.count('. ') <= 1


def test_real_images():
    if not (ROOT / 'img_dir').is_dir():
        pytest.skip(f'no CamVid at {ROOT}. Set CAMVID_ROOT')
    for split, count in (('train', 367), ('val', 101), ('test', 233)):
        dataset = DATASETS.build(config(ROOT, split))
        assert len(dataset) == count
    sample = dataset[0]
    assert sample['img'].shape[:2] == sample['gt_seg_map'].shape == (360, 480)
    assert set(np.unique(sample['gt_seg_map'])) <= {*range(11), 255}
    palette = Image.open(dataset.get_data_info(0)['seg_map_path']).getpalette()
    assert palette[:33] == [v for color in CamVidDataset.METAINFO['palette'] for v in color]
