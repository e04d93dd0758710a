"""UnlabeledDataset: folders, lists, and what it says about bad ones."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.logging import MMLogger
from mmseg.registry import DATASETS

from mmseg_semi.datasets import UnlabeledDataset


def names(dataset):
    return [Path(dataset.get_data_info(i)['img_path']).name for i in range(len(dataset))]


def test_folder_is_searched_recursively_sorted_and_whatever_the_case(data_root):
    image = np.zeros((4, 4, 3), np.uint8)
    cv2.imwrite(str(data_root / 'pool/b.png'), image)
    cv2.imwrite(str(data_root / 'pool/x.jpg'), image)
    (data_root / 'pool/x.jpg').rename(data_root / 'pool/CAMERA.JPG')
    (data_root / 'pool/notes.txt').write_text('not an image')
    dataset = UnlabeledDataset(data_root=str(data_root), img_dir='pool')
    assert names(dataset) == [
        'CAMERA.JPG', 'b.png', 'u5.jpg', 'u0.jpg', 'u1.jpg', 'u2.jpg', 'u3.jpg', 'u4.jpg',
    ]  # fmt: skip
    assert names(UnlabeledDataset(img_dir=str(data_root / 'pool'), img_suffix='.png')) == ['b.png']
    for ending in ('bmp', 'TIF', 'tiff', 'webp', 'jpeg'):
        (data_root / 'pool' / f'z.{ending}').touch()
    assert len(UnlabeledDataset(data_root=str(data_root), img_dir='pool')) == len(dataset) + 5
    for ending in ('bmp', 'TIF', 'tiff', 'webp', 'jpeg'):
        (data_root / 'pool' / f'z.{ending}').unlink()
    (data_root / 'list.txt').write_text('CAMERA\n')
    listed = UnlabeledDataset(data_root=str(data_root), img_dir='pool', ann_file='list.txt')
    assert names(listed) == ['CAMERA.JPG']


@pytest.mark.parametrize('prefix', [dict(img_dir='pool'), dict(data_prefix=dict(img_path='pool'))])
def test_list_of_ids_and_paths(data_root, prefix):
    cv2.imwrite(str(data_root / 'pool/p.png'), np.zeros((4, 4, 3), np.uint8))
    content = '\ufeffu3\r\n\r\nsub/u5.jpg\r\n  u0  \n\np'.encode()
    (data_root / 'list.txt').write_bytes(content)
    dataset = UnlabeledDataset(data_root=str(data_root), ann_file='list.txt', **prefix)
    assert names(dataset) == ['u3.jpg', 'u5.jpg', 'u0.jpg', 'p.png']


def test_first_suffix_counts_where_an_id_is_ambiguous(data_root):
    cv2.imwrite(str(data_root / 'pool/u0.png'), np.zeros((4, 4, 3), np.uint8))
    (data_root / 'list.txt').write_text('u0')
    common = dict(data_root=str(data_root), img_dir='pool', ann_file='list.txt')
    assert names(UnlabeledDataset(img_suffix=('.png', '.jpg'), **common)) == ['u0.png']
    assert names(UnlabeledDataset(img_suffix=('.jpg', '.png'), **common)) == ['u0.jpg']


def test_never_touches_annotations(data_root, config):
    shutil.rmtree(data_root / 'ann_dir')
    dataset = DATASETS.build(config['unlabeled'])
    sample = dataset[0]['data_samples']['weak']
    assert 'gt_sem_seg' not in sample
    assert 'seg_map_path' not in dataset.get_data_info(0)


def test_base_dataset_settings_pass_through(data_root):
    dataset = UnlabeledDataset(
        data_root=str(data_root), img_dir='pool', indices=2, metainfo=dict(source='pool')
    )
    assert len(dataset) == 2
    assert dataset.metainfo == dict(source='pool')


def test_duplicates_are_logged(data_root, caplog):
    (data_root / 'list.txt').write_text('u0\nu1\nu0\n')
    logger = MMLogger.get_instance('duplicates', logger_name='duplicates')
    logger.addHandler(caplog.handler)
    UnlabeledDataset(data_root=str(data_root), img_dir='pool', ann_file='list.txt')
    assert 'lists 1 image(s) more than once' in caplog.text


@pytest.mark.parametrize(
    ('line', 'said'),
    [
        ('/abs/u0', r"list\.txt line 2 is '/abs/u0'.*without leading slash"),
        ('u0\tann/u0', r"list\.txt line 2 is 'u0\\tann/u0'.*without tabs"),
    ],
)
def test_bad_line(data_root, line, said):
    (data_root / 'list.txt').write_text(f'u1\n{line}\n')
    with pytest.raises(ValueError, match=said):
        UnlabeledDataset(data_root=str(data_root), img_dir='pool', ann_file='list.txt')


def test_missing_listed_image(data_root):
    (data_root / 'list.txt').write_text('u0\nu7\nu0 ann/u0.png\n')
    with pytest.raises(
        FileNotFoundError, match=r'2 of 3 images of .*pool/u7\.jpg. Correct the list'
    ):
        UnlabeledDataset(data_root=str(data_root), img_dir='pool', ann_file='list.txt')


def test_empty_list_and_folder(data_root):
    (data_root / 'list.txt').write_text('\n\r\n')
    with pytest.raises(ValueError, match=r'no image in the list .*list\.txt. Set img_dir'):
        UnlabeledDataset(data_root=str(data_root), img_dir='pool', ann_file='list.txt')
    with pytest.raises(ValueError, match=r"no image in the folder .*pool\. .*\('\.bmp',\)"):
        UnlabeledDataset(data_root=str(data_root), img_dir='pool', img_suffix='.bmp')


def test_missing_list_and_folder(data_root):
    with pytest.raises(FileNotFoundError, match=r'nolist\.txt is not a file. Set ann_file'):
        UnlabeledDataset(data_root=str(data_root), img_dir='pool', ann_file='nolist.txt')
    with pytest.raises(FileNotFoundError, match=r'nowhere is not a folder\. Set img_dir'):
        UnlabeledDataset(data_root=str(data_root), img_dir='nowhere')


@pytest.mark.parametrize(
    ('settings', 'said'),
    [
        (dict(data_root=''), 'no img_dir, ann_file or data_root'),
        (dict(img_dir='pool', data_prefix=dict(img_path='pool')), 'not one folder'),
        (dict(data_prefix=dict(img_path='a', seg_map_path='b')), 'not one folder'),
        (dict(img_dir='pool', img_suffix=()), 'must be an ending'),
        (dict(img_dir='pool', pipeline=[dict(type='LoadAnnotations')]), 'needs labels'),
        (
            dict(
                img_dir='pool',
                pipeline=[dict(type='RandomCrop', crop_size=(8, 8), cat_max_ratio=0.75)],
            ),
            'needs labels',
        ),
    ],
)
def test_bad_settings(data_root, settings, said):
    with pytest.raises(ValueError, match=said):
        UnlabeledDataset(**{**dict(data_root=str(data_root)), **settings})


def test_remote_images_are_taken_on_trust_and_need_one_suffix(data_root):
    (data_root / 'list.txt').write_text('u0\nno/such.jpg')
    remote = dict(img_dir='http://host/pool', ann_file=str(data_root / 'list.txt'))
    dataset = UnlabeledDataset(img_suffix='.jpg', **remote)
    assert dataset.get_data_info(0)['img_path'] == 'http://host/pool/u0.jpg'
    assert dataset.get_data_info(1)['img_path'] == 'http://host/pool/no/such.jpg'
    with pytest.raises(ValueError, match='Set img_suffix to one ending'):
        UnlabeledDataset(img_suffix=('.jpg', '.png'), **remote)
