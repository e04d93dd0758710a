"""Files of editors and systems, endings in capitals, names with spaces and letters of any language."""

import unicodedata

import cv2
import numpy as np
import pytest
from mmengine.logging import MMLogger
from mmseg.registry import DATASETS

from mmseg_semi.datasets import UnlabeledDataset, check_files_exist
from mmseg_semi.datasets.children import build_child, check_names, image_paths, taken_files
from mmseg_semi.datasets.names import alike, is_hidden, is_image
from mmseg_semi.datasets.walk import leaves

ODD = ('with space.jpg', 'Größe.jpg', '道路.jpg', 'e\u0301.jpg', 'A.B.JPG')


def texture(seed):
    """A random image, uint8 (24, 32, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)


@pytest.fixture
def log(caplog):
    logger = MMLogger.get_instance('names', logger_name='names')
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def clutter(folder):
    """What editors and systems leave in a folder."""
    (folder / '.ipynb_checkpoints').mkdir(parents=True)
    cv2.imwrite(str(folder / '.ipynb_checkpoints/u0-checkpoint.jpg'), texture(0))
    for name in ('._u0.jpg', '.DS_Store', 'Thumbs.db', 'desktop.ini'):
        (folder / name).write_bytes(b'\0')


def write(path, seed=0):
    content = cv2.imencode(path.suffix.lower(), texture(seed))[1].tobytes()
    path.write_bytes(content)


def stock(data_root, **settings):
    """A BaseSegDataset of the whole folder."""
    return dict(
        type='BaseSegDataset',
        serialize_data=False,
        metainfo=dict(classes=('a', 'b', 'c')),
        data_root=str(data_root),
        data_prefix=dict(img_path='img_dir', seg_map_path='ann_dir'),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')],
        **settings,
    )


@pytest.mark.parametrize(
    ('name', 'hidden'),
    [
        ('a.jpg', False),
        ('a/b c/é.jpg', False),
        ('._a.jpg', True),
        ('.ipynb_checkpoints/a.jpg', True),
        ('a\\.b\\c.jpg', True),
        ('a/Thumbs.db', True),
    ],
)
def test_hidden(name, hidden):
    assert is_hidden(name) is hidden


def test_images_end_in_either_case():
    assert [is_image(n) for n in ('a.JPG', 'a.Png', 'a.txt', 'Thumbs.db')] == [
        True,
        True,
        False,
        False,
    ]


def test_unlabeled_images_without_what_is_hidden(data_root, log):
    clutter(data_root / 'pool')
    dataset = UnlabeledDataset(data_root=str(data_root), img_dir='pool')
    assert len(dataset) == 6
    assert (
        f'2 hidden image file(s) of {data_root}/pool are left out, the first is ._u0.jpg: names of files or '
        'folders begin with a dot.'
    ) in log.text


def test_unlabeled_images_of_any_name_from_a_folder_and_from_a_list(data_root):
    for name in ODD:
        write(data_root / 'pool' / name)
    found = UnlabeledDataset(
        data_root=str(data_root), img_dir='pool', pipeline=[dict(type='LoadImageFromFile')]
    )
    assert {path.rpartition('/')[2] for path in image_paths(found)} >= set(ODD)
    (data_root / 'odd.txt').write_text(
        '\n'.join(n.rpartition('.')[0] for n in ODD), encoding='utf-8'
    )
    listed = UnlabeledDataset(
        data_root=str(data_root),
        img_dir='pool',
        ann_file='odd.txt',
        pipeline=[dict(type='LoadImageFromFile')],
    )
    assert [path.rpartition('/')[2] for path in image_paths(listed)] == list(ODD)
    assert all(listed[i]['img'].shape == (24, 32, 3) for i in range(len(listed)))


def test_labeled_and_validation_images_of_any_name(data_root):
    for name in ODD[:-1]:
        write(data_root / 'img_dir' / name)
        stem = name.rpartition('.')[0]
        (data_root / f'ann_dir/{stem}.png').write_bytes((data_root / 'ann_dir/l0.png').read_bytes())
    for ann_file in ('', 'odd.txt'):
        ids = '\n'.join(n.rpartition('.')[0] for n in ODD[:-1])
        (data_root / 'odd.txt').write_text(ids, encoding='utf-8')
        dataset = DATASETS.build(stock(data_root, ann_file=ann_file))
        check_files_exist(dataset, 'validation', 'val_dataloader.dataset')
        assert len(dataset) == (4 if ann_file else 8)
        assert all(dataset[i]['gt_seg_map'].shape == (24, 32) for i in range(len(dataset)))


@pytest.mark.parametrize('name', ['labeled', 'validation'])
def test_stock_datasets_would_take_images_of_hidden_folders(data_root, name):
    clutter(data_root / 'img_dir')
    clutter(data_root / 'ann_dir')
    dataset = DATASETS.build(stock(data_root))
    assert len(dataset) == 5
    with pytest.raises(
        ValueError,
        match=rf'^1 images of the {name} dataset lie in hidden folders, the first is '
        r'.*/\.ipynb_checkpoints/u0-.*. Remove these folders, or set ann_file of KEY to a list',
    ):
        check_files_exist(dataset, name, 'KEY')
    check_files_exist(DATASETS.build(stock(data_root, ann_file='labeled.txt')), name, 'KEY')


def test_what_an_ending_leaves_out_is_logged(data_root, log):
    write(data_root / 'img_dir/l4.JPG')
    write(data_root / 'img_dir/l5.png')
    (data_root / 'img_dir/._l0.jpg').touch()
    [leaf] = leaves(DATASETS.build(stock(data_root)), 'KEY')
    check_names(leaf, 'validation', taken_files(leaf.dataset))
    assert (
        f'KEY: 2 image files of {data_root}/img_dir are not among its images (1 .JPG, 1 .png). Its '
        "img_suffix is '.jpg' (case-sensitive). If they are images to use, convert all images with "
        'tools/dataset_converters/folders.py --rgb, or list one dataset for each ending in a ConcatDataset.'
    ) in log.text
    assert f'1 hidden image file(s) of {data_root}/img_dir are left out' in log.text


def test_the_rest_of_a_folder_is_that_of_another_dataset_of_the_set(data_root, log):
    write(data_root / 'img_dir/l4.JPG')
    several = dict(
        type='ConcatDataset',
        datasets=[stock(data_root), stock(data_root, img_suffix='.JPG')],
    )
    for config, expected in ((several, 0), (stock(data_root), 1)):
        dataset = DATASETS.build(config)
        for leaf in leaves(dataset, 'KEY'):
            check_names(leaf, 'validation', taken_files(dataset))
        assert log.text.count('are not among its images') == expected


def test_a_folder_of_capitals_alone(data_root):
    for path in sorted((data_root / 'img_dir').glob('*.jpg')):
        path.rename(path.with_suffix('.JPG'))
    with pytest.raises(ValueError, match=r'dataset has no image \(.*img_dir has 4 \.JPG\)'):
        build_child('labeled', stock(data_root))
    assert len(build_child('labeled', stock(data_root, img_suffix='.JPG'))) == 4


@pytest.mark.parametrize('which', ['img_dir', 'ann_dir', 'pool'])
def test_a_listed_file_in_another_case_is_named(data_root, config, which):
    there = {'img_dir': 'l1.jpg', 'ann_dir': 'l1.png', 'pool': 'u1.jpg'}[which]
    other = there[:2] + there[2:].title()
    (data_root / which / there).rename(data_root / which / other)
    said = rf'the first is .*{there} \({other} is there, in another case\)'
    if which == 'pool':
        config['unlabeled']['img_suffix'] = '.jpg'
    with pytest.raises(FileNotFoundError, match=said):
        DATASETS.build(config)


def test_what_a_missing_file_may_mean(tmp_path):
    for name in (unicodedata.normalize('NFD', 'é.jpg'), 'b.jpeg', 'C.jpg'):
        (tmp_path / name).touch()
    composed = unicodedata.normalize('NFC', 'é.jpg')
    assert 'in another Unicode form of its letters' in alike(str(tmp_path / composed))
    assert alike(str(tmp_path / 'b.jpg')) == ' (b.jpeg is there)'
    assert alike(str(tmp_path / 'c.jpg')) == ' (C.jpg is there, in another case)'
    assert alike(str(tmp_path / 'd.jpg')) == ''
    assert alike(str(tmp_path / 'none/d.jpg')) == ''


def test_pseudo_labels_beside_what_is_hidden(data_root, config):
    labels = data_root / 'labels'
    labels.mkdir()
    (labels / 'u0.png').write_bytes((data_root / 'ann_dir/l0.png').read_bytes())
    (labels / '.ipynb_checkpoints').mkdir()
    (labels / '.ipynb_checkpoints/u0-checkpoint.png').write_bytes(b'')
    (labels / 'pseudo_labels.json').write_text('{"num_images": 1, "settings": {}}')
    images = {k: v for k, v in config['unlabeled'].items() if k != 'pipeline'}
    pseudo = DATASETS.build(dict(type='PseudoLabeledDataset', images=images, labels=str(labels)))
    assert len(pseudo) == 1
