"""Datasets that are read by a list: VOC animals and nuclei."""

import os
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from PIL import Image

SHARED = Path(__file__).parents[2] / '..' / 'shared' / 'data'
ROOTS = {
    'VOCAnimalsDataset': Path(os.environ.get('VOC_ANIMALS_ROOT', SHARED / 'voc_animals')),
    'NucleiDataset': Path(os.environ.get('NUCLEI_ROOT', SHARED / 'nuclei')),
}
LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]


@pytest.fixture(autouse=True)
def _mmseg_scope():
    init_default_scope('mmseg')


def build(kind, root, ann_file='splits/a.txt', **changes):
    return DATASETS.build(
        dict(
            type=kind,
            data_root=str(root),
            ann_file=ann_file,
            data_prefix=dict(img_path='img', seg_map_path='mask'),
            pipeline=LOAD,
            **changes,
        )
    )


def write(root, values):
    for folder in ('img', 'mask', 'splits'):
        (root / folder).mkdir()
    Image.fromarray(np.zeros((2, 4, 3), np.uint8)).save(root / 'img/a.jpg')
    Image.fromarray(np.uint8([values] * 2)).save(root / 'mask/a.png')
    (root / 'splits/a.txt').write_text('a\n')


@pytest.mark.parametrize(('kind', 'classes'), [('VOCAnimalsDataset', 7), ('NucleiDataset', 3)])
def test_labels_are_the_files(tmp_path, kind, classes):
    write(tmp_path, [0, 1, 2, 255])
    dataset = build(kind, tmp_path)
    assert len(dataset) == 1
    assert dataset[0]['gt_seg_map'][0].tolist() == [0, 1, 2, 255]
    assert len(dataset.metainfo['classes']) == len(dataset.metainfo['palette']) == classes


def test_borders_are_nuclei_where_they_are_no_class(tmp_path):
    write(tmp_path, [0, 1, 2, 255])
    dataset = build('NucleiDataset', tmp_path, metainfo=dict(classes=('background', 'nucleus')))
    assert dataset[0]['gt_seg_map'][0].tolist() == [0, 1, 1, 255]
    assert dataset.metainfo['palette'] == [[0, 0, 0], [0, 160, 255]]


@pytest.mark.parametrize(
    ('kind', 'title', 'anchor'),
    [
        ('VOCAnimalsDataset', 'VOC animals', 'voc-animals'),
        ('NucleiDataset', 'Nuclei', 'nuclei'),
    ],
)
def test_missing_data_is_one_sentence(tmp_path, kind, title, anchor):
    write(tmp_path, [0, 0, 0, 0])
    with pytest.raises(FileNotFoundError) as caught:
        build(kind, tmp_path, 'lists/l8_0/labeled.txt')
    message = str(caught.value)
    assert message.startswith(f'{title}: {tmp_path}/lists/l8_0/labeled.txt ')
    assert f'docs/datasets.md#{anchor} ' in message
    assert message.count('. ') <= 1


@pytest.mark.parametrize(
    ('kind', 'lists', 'values'),
    [
        (
            'VOCAnimalsDataset',
            {'train_voc': 437, 'val_voc': 445, 'sbd_only': 2694, 'classic_366': 104},
            {*range(7), 255},
        ),
        ('NucleiDataset', {'all': 500, 'val': 164, 'l32_2': 32}, {0, 1, 2}),
    ],
)
def test_real_images(kind, lists, values):
    root = ROOTS[kind]
    if not (root / 'img').is_dir():
        pytest.skip(f'no images of {kind} at {root}')
    for name, count in lists.items():
        dataset = build(kind, root, f'splits/{name}.txt')
        assert len(dataset) == count
        sample = dataset[0]
        assert sample['img'].shape[:2] == sample['gt_seg_map'].shape
        assert max(sample['gt_seg_map'].shape) == 160
        assert set(np.unique(sample['gt_seg_map'])) <= values
