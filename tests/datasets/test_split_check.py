"""A partition with each thing that can be wrong with it, and one with nothing."""

import re
import shutil

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmseg_semi.datasets.report import Report
from mmseg_semi.datasets.split_check import (
    build_parts,
    check_parts,
    parts_of_config,
)


@pytest.fixture
def cfg(config, data_root):
    """A training config over ``data_root``, with two validation images that are copies of none."""
    for folder in ('val_img', 'val_ann'):
        (data_root / folder).mkdir()
    for i in range(2):
        image = np.full((24, 32, 3), 40 * i, np.uint8)
        cv2.imwrite(str(data_root / f'val_img/v{i}.jpg'), image)
        cv2.imwrite(str(data_root / f'val_ann/v{i}.png'), np.full((24, 32), i, np.uint8))
    val = {**config['labeled'], 'ann_file': ''}
    val['data_prefix'] = dict(img_path='val_img', seg_map_path='val_ann')
    return Config(
        dict(
            train_dataloader=dict(dataset=config),
            val_dataloader=dict(dataset=val),
            test_dataloader=dict(dataset=val),
        )
    )


def report_of(cfg, frames=0):
    report = Report()
    parts = build_parts(parts_of_config(cfg), report)
    return check_parts(parts, report, frames, quiet=True)


def the_error(cfg):
    (error,) = report_of(cfg).errors
    assert '\n' not in error
    return error


def test_nothing_wrong(cfg):
    report = report_of(cfg)
    assert report.errors == []
    assert report.warnings == []
    assert report.facts[:3] == [
        'labeled: 4 images',
        'unlabeled: 6 images',
        'validation: 2 images',
    ]
    table = [line.split() for line in report.facts[3].splitlines()]
    # Two rows of 24 are void; of the others the three classes have 6, 8 and 8.
    assert table == [
        ['labeled', 'class', 'pixels', 'images'],
        ['ground', '27.27%', '4'],
        ['sky', '36.36%', '4'],
        ['tree', '36.36%', '4'],
        ['void:', '8.33%', 'of', 'all'],
    ]
    assert report.facts[4] == 'labeled list: unknown, no published partition'


def test_an_image_in_two_parts(cfg, data_root):
    (data_root / 'unlabeled.txt').write_text('u0\n')
    cfg.train_dataloader.dataset.labeled.data_prefix.img_path = 'pool'
    (data_root / 'labeled.txt').write_text('u0\n')
    shutil.copy(data_root / 'ann_dir/l0.png', data_root / 'ann_dir/u0.png')
    assert the_error(cfg) == (
        f'1 labeled images are in the unlabeled set, the first is {data_root}/pool/u0.jpg. Remove them from '
        'one of the two lists, since an image is either labeled or unlabeled.'
    )


@pytest.mark.parametrize('linked', [True, False])
def test_a_validation_image_that_is_trained_on(cfg, data_root, linked):
    """As itself, by a link, or as a copy of the same name in another folder; a namesake is none."""
    (data_root / 'val_img/v1.jpg').unlink()
    shutil.copy(data_root / 'ann_dir/l0.png', data_root / 'val_ann/u0.png')
    (data_root / 'val_ann/v1.png').unlink()
    target = data_root / 'val_img/u0.jpg'
    if linked:
        target.symlink_to(data_root / 'pool/u0.jpg')
    else:
        shutil.copy(data_root / 'pool/u0.jpg', target)
    what = 'are' if linked else 'have a copy of the same name'
    assert the_error(cfg).startswith(
        f'1 unlabeled images {what} in the validation set, the first is {data_root}/pool/u0.jpg. '
    )
    target.unlink()
    cv2.imwrite(str(target), np.zeros((24, 32, 3), np.uint8))
    assert report_of(cfg).errors == []


@pytest.mark.parametrize(
    ('gone', 'message'),
    [
        ('img_dir/l1.jpg', r'1 of 4 images of the labeled dataset do not exist'),
        ('ann_dir/l1.png', r'1 of 4 masks of the labeled dataset do not exist'),
        ('pool/u1.jpg', r'1 of 6 images of \S*unlabeled.txt do not exist'),
        ('labeled.txt', r'labeled.txt \(from ann_file\) does not exist'),
        ('val_ann/v1.png', r'1 of 2 masks of the validation dataset do not exist'),
    ],
)
def test_files_that_are_not_there(cfg, data_root, gone, message):
    (data_root / gone).unlink()
    assert re.search(message, the_error(cfg))


@pytest.mark.parametrize('part', ['labeled', 'validation'])
def test_masks_out_of_range(cfg, data_root, part):
    path = data_root / ('ann_dir/l2.png' if part == 'labeled' else 'val_ann/v1.png')
    mask = np.array(Image.open(path))
    mask[0, :2] = 3, 200
    Image.fromarray(mask).save(path)
    assert the_error(cfg) == (
        f'{part} masks have values that are none of 3 classes (3 in 1, 200 in 1 masks, the first is {path}). '
        'Correct the masks, the number of classes, or reduce_zero_label=False.'
    )


def test_reduce_zero_label_is_known(cfg, data_root):
    for i in range(4):
        path = data_root / f'ann_dir/l{i}.png'
        mask = np.array(Image.open(path))
        Image.fromarray(np.where(mask == 255, 0, mask + 1).astype(np.uint8)).save(path)
    assert 'none of 3 classes (3 in 4 masks' in the_error(cfg)
    cfg.train_dataloader.dataset.labeled.reduce_zero_label = True
    report = report_of(cfg)
    assert report.errors == []
    assert 'void: 8.33%' in report.facts[3]


def test_masks_of_another_size_or_kind(cfg, data_root):
    Image.fromarray(np.zeros((32, 24), np.uint8)).save(data_root / 'ann_dir/l1.png')
    assert the_error(cfg) == (
        f'{data_root}/ann_dir/l1.png is 32x24 (height x width) but its image '
        f'{data_root}/img_dir/l1.jpg is 24x32. Give every image a mask of the same size.'
    )
    for i in (2, 3):
        Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(data_root / f'ann_dir/l{i}.png')
    kinds, size = report_of(cfg).errors
    assert kinds.startswith(
        f'2 labeled masks cannot be read, the first: {data_root}/ann_dir/l2.png has'
    )
    assert 'l1.png' in size


def test_a_camera_that_was_turned(cfg, data_root):
    """The mask has the size of the image as it is stored, or as it is displayed; or nothing tells."""
    image = Image.new('RGB', (32, 24))
    exif = image.getexif()
    exif[274] = 6
    image.save(data_root / 'img_dir/l1.jpg', exif=exif)
    assert report_of(cfg).errors == []
    Image.fromarray(np.zeros((32, 24), np.uint8)).save(data_root / 'ann_dir/l1.png')
    assert report_of(cfg).errors == []
    exif[274] = 3
    image.save(data_root / 'img_dir/l1.jpg', exif=exif)
    assert 'l1.jpg is 24x32 as stored and 24x32 as displayed' in the_error(cfg)
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(data_root / 'ann_dir/l1.png')
    assert "Set drawn_on='stored' of LoadAnnotations or" in the_error(cfg)
    cfg.train_dataloader.dataset.labeled.pipeline[1].drawn_on = 'stored'
    assert report_of(cfg).errors == []


@pytest.mark.parametrize(
    ('where', 'part'),
    [
        ('img_dir/l1.jpg', 'labeled'),
        ('pool/u1.jpg', 'unlabeled'),
        ('val_img/v1.jpg', 'validation'),
    ],
)
@pytest.mark.parametrize('how', ['text', 'truncated', 'png', 'broken'])
def test_images_that_cannot_be_read(cfg, data_root, where, part, how):
    """Whether their headers tell it or only their pixels, with labels or without."""
    path = data_root / where
    if how == 'text':
        path.write_text('no image')
    elif how == 'truncated':
        path.write_bytes(path.read_bytes()[:-20])
    else:
        cv2.imwrite(str(path.with_suffix('.png')), cv2.imread(str(path)))
        content = bytearray(path.with_suffix('.png').read_bytes())
        path.with_suffix('.png').unlink()
        if how == 'broken':
            at = content.index(b'IDAT') + 4
            content[at : at + 12] = bytes(12)
        path.write_bytes(content)  # the ending says JPEG, the content decides
    if how == 'png':
        assert report_of(cfg).errors == []
        return
    error = the_error(cfg)
    assert error.startswith(str(path))
    assert re.search('cannot be (read as an image|loaded)|is truncated', error)
    other = path.with_name(path.name.replace('1', '0'))
    other.write_text('no image, either')
    assert the_error(cfg).startswith(f'2 {part} images cannot be read, the first: {data_root}/')


def test_warnings(cfg, data_root):
    (data_root / 'labeled.txt').write_text('l0\nl1\nl1\n')
    for i in range(2):
        Image.fromarray(np.zeros((24, 32), np.uint8)).save(data_root / f'ann_dir/l{i}.png')
    twice, absent = report_of(cfg).warnings
    assert twice.startswith('1 of 3 lines of the labeled list repeat an image')
    assert absent.startswith(
        'No labeled image shows sky, tree: nothing can be learned about them. '
    )


def test_neighboring_frames(cfg, data_root):
    """Of the unlabeled ones with labeled ones, and of validation with all that is trained on."""
    cfg.train_dataloader.dataset.labeled.data_prefix.img_path = 'pool'
    (data_root / 'labeled.txt').write_text('u0\n')
    (data_root / 'unlabeled.txt').write_text('u2\nu4\nsub/u5\n')
    shutil.copy(data_root / 'ann_dir/l0.png', data_root / 'ann_dir/u0.png')
    for folder, ending in (('val_img', 'jpg'), ('val_ann', 'png')):
        (data_root / folder / f'v0.{ending}').rename(data_root / folder / f'u6.{ending}')
        (data_root / folder / f'v1.{ending}').rename(data_root / folder / f'u9.{ending}')
    report = report_of(cfg, frames=2)
    assert report.errors == []
    unlabeled, val = report.warnings
    assert unlabeled.startswith(
        '1 of 3 unlabeled images lie within 2 frames of a labeled image by their names, such as u2 and u0: '
    )
    assert val.startswith(
        '1 of 2 validation images lie within 2 frames of a training image by their names, such as u6 and u4: '
    )
    assert report_of(cfg, frames=0).warnings == []


def test_parts_of_other_configs(cfg):
    dataset = cfg.train_dataloader.dataset
    images = dataset.unlabeled
    staged = Config(
        dict(
            train_dataloader=dict(
                dataset=dict(labeled=dataset.labeled, pseudo_labeled=dict(images=images))
            )
        )
    )
    assert parts_of_config(staged) == {'labeled': dataset.labeled, 'unlabeled': images}
    plain = Config(
        dict(train_dataloader=dict(dataset=dataset.labeled), val_dataloader=cfg.val_dataloader)
    )
    assert list(parts_of_config(plain)) == ['labeled', 'validation']
    cfg.test_dataloader = dict(dataset={**cfg.val_dataloader.dataset, 'ann_file': 'test.txt'})
    assert list(parts_of_config(cfg)) == ['labeled', 'unlabeled', 'validation', 'test']
    with pytest.raises(
        ValueError, match=r'has no train_dataloader.dataset. Give the config of a tr'
    ):
        parts_of_config(Config({'model': {}}))


def test_labeled_among_unlabeled_is_an_error_of_a_partition_only(cfg, data_root):
    """A folder of all images, or a list of all, is a usual unlabeled set."""
    shared = data_root / 'img_dir/l0.jpg'
    shutil.copy(shared, data_root / 'pool/l0.jpg')
    unlabeled = cfg.train_dataloader.dataset.unlabeled
    (data_root / 'unlabeled.txt').write_text('u0\nl0\n')
    assert 'have a copy of the same name in the unlabeled set' in the_error(cfg)
    (data_root / 'lists').mkdir()
    (data_root / 'lists/all.txt').write_text('u0\nl0\n')
    unlabeled.ann_file = 'lists/all.txt'
    said = (
        f'1 labeled images have a copy of the same name in the unlabeled set, the first is {shared}. They '
        'are trained on with and without their labels.'
    )
    assert (report_of(cfg).errors, report_of(cfg).warnings) == ([], [said])
    unlabeled.ann_file = ''
    assert (report_of(cfg).errors, report_of(cfg).warnings) == ([], [said])
    cfg.val_dataloader.dataset = {**cfg.val_dataloader.dataset, 'ann_file': ''}
    shutil.copy(data_root / 'pool/u0.jpg', data_root / 'val_img/u0.jpg')
    shutil.copy(data_root / 'ann_dir/l0.png', data_root / 'val_ann/u0.png')
    cfg.test_dataloader = cfg.val_dataloader
    assert 'make the result invalid' in the_error(cfg)  # whatever the sets are called


@pytest.mark.parametrize('name', ['labeled', 'unlabeled'])
def test_the_list_is_text(cfg, data_root, name):
    path = data_root / f'{name}.txt'
    content = path.read_bytes()
    path.write_bytes(b'\xef\xbb\xbf' + content)
    if name == 'unlabeled':  # this dataset leaves the mark out
        assert report_of(cfg).errors == []
    else:
        assert the_error(cfg).startswith(f'{path} begins with a byte order mark, which would be')
    path.write_bytes(content + 'gr\u00fcn\n'.encode('latin-1'))
    assert the_error(cfg).startswith(f'{path} line {content.count(10) + 1} is not UTF-8 text. Save')


def test_an_empty_list_is_an_error(cfg, data_root):
    (data_root / 'labeled.txt').write_text('')
    assert the_error(cfg) == 'The labeled dataset has no image. Correct its list or its folder.'
