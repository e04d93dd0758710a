"""Soft labels go where their pixels go, through every geometric transform; files that do not fit are told."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmseg.registry import TRANSFORMS
from PIL import Image

from mmseg_semi.datasets import PseudoLabeledDataset, SelfTrainingDataset
from mmseg_semi.datasets.soft_labels import encode_soft_label, read_soft_label

HEIGHT, WIDTH, CLASSES = 12, 17, 4
LOAD = [{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations'}]
GEOMETRY = {
    'none': [],
    'shrunk': [{'type': 'Resize', 'scale': (9, 7), 'keep_ratio': False}],
    'enlarged': [{'type': 'Resize', 'scale': (40, 30), 'keep_ratio': False}],
    'cropped': [{'type': 'RandomCrop', 'crop_size': (8, 9)}],
    'flipped': [{'type': 'RandomFlip', 'prob': 1.0}],
    'upside down': [{'type': 'RandomFlip', 'prob': 1.0, 'direction': 'vertical'}],
    'padded': [{'type': 'Pad', 'size': (25, 20), 'pad_val': {'img': 0, 'seg': 255}}],
    'turned': [{'type': 'RandomRotate', 'prob': 1.0, 'degree': 40}],
    'center': [{'type': 'CenterCrop', 'crop_size': (8, 9)}],
    'cut': [{'type': 'RandomNoiseCutout', 'prob': 1.0}],
    'all': [
        {'type': 'RandomResize', 'scale': (24, 24), 'ratio_range': (0.5, 2.0), 'keep_ratio': True},
        {'type': 'RandomCrop', 'crop_size': (14, 14)},
        {'type': 'RandomFlip', 'prob': 0.5},
        {'type': 'Pad', 'size': (16, 16), 'pad_val': {'img': 0, 'seg': 255}},
        {'type': 'RandomColorJitter'},
        {'type': 'RandomNoiseCutout'},
    ],
}  # fmt: skip


def stored(k=2):
    """Maps that name their pixel: every one has other values."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    mask = ((x + 2 * y) % CLASSES).astype(np.uint8)
    mask[3, 4:7] = 255
    numbers = (y * WIDTH + x).astype(np.uint8)
    maps = [np.where(mask == 255, 0, mask), (mask + 1) % CLASSES, numbers, 255 - numbers]
    return mask, np.stack(maps).astype(np.uint8)[[*range(k), *range(2, 2 + k)]]


@pytest.fixture
def folders(tmp_path):
    """An image, its mask and its soft labels."""
    mask, soft = stored()
    (tmp_path / 'img').mkdir()
    (tmp_path / 'labels').mkdir()
    image = np.stack([stored()[1][2]] * 3, axis=2)
    assert cv2.imwrite(str(tmp_path / 'img/a.png'), image)
    Image.fromarray(mask).save(tmp_path / 'labels/a.png')
    (tmp_path / 'labels/a.soft').write_bytes(encode_soft_label(soft))
    summary(tmp_path)
    return tmp_path


def summary(folder, **changes):
    said = {'num_images': 1, 'soft': 2, 'classes': ['a', 'b', 'c', 'd'], **changes}
    (folder / 'labels/pseudo_labels.json').write_text(json.dumps(said))


def _end(pack):
    return GEOMETRY['padded'][0] if pack == 'Pad' else {'type': pack}


def dataset(folder, geometry=(), soft=True, pack='PackSegInputs'):
    images = {'type': 'UnlabeledDataset', 'img_dir': str(folder / 'img')}
    return PseudoLabeledDataset(
        images, str(folder / 'labels'), [*LOAD, *geometry, _end(pack)], soft=soft
    )


@pytest.mark.parametrize('kind', GEOMETRY)
def test_in_step_with_the_image(folders, kind):
    """The first map of values is different for every pixel, and so tells what a pixel must have."""
    mask, soft = stored()
    data = dataset(folders, GEOMETRY[kind])
    filled = 0
    for seed in range(5):
        with torch.random.fork_rng():
            np.random.seed(seed)
            sample = data[0]['data_samples']
        label, maps = sample.gt_sem_seg.data[0].numpy(), sample.gt_soft_seg.data.numpy()
        assert maps.shape == (4, *label.shape)
        assert maps.dtype == np.uint8
        real = label != 255
        pixel = maps[2].astype(int)
        # Every target is one whole pixel of the file, with its label.
        for channel in range(4):
            assert (maps[channel][real] == soft[channel].reshape(-1)[pixel[real]]).all()
        assert (label[real] == mask.reshape(-1)[pixel[real]]).all()
        filled += (~real).sum()
        np.random.seed(seed)
        hard = dataset(folders, GEOMETRY[kind], soft=False)[0]['data_samples']
        if kind not in ('all', 'cut'):
            assert (hard.gt_sem_seg.data[0].numpy() == label).all()
    assert filled > 0 or kind in ('cropped', 'center')


@pytest.mark.parametrize('kind', ['cropped', 'flipped', 'upside down', 'padded', 'center', 'none'])
def test_targets_lie_on_their_pixels(folders, kind):
    data = dataset(folders, GEOMETRY[kind])
    packed = data[0]
    sample, image = packed['data_samples'], packed['inputs'][0]
    real = sample.gt_sem_seg.data[0] != 255
    assert (sample.gt_soft_seg.data[2][real] == image[real]).all()


def test_without_soft_nothing_changes(folders):
    sample = dataset(folders, soft=False)[0]['data_samples']
    assert 'gt_soft_seg' not in sample
    assert (sample.gt_sem_seg.data[0].numpy() == stored()[0]).all()


@pytest.mark.parametrize('orientation', [3, 6, 8])
def test_an_image_with_an_orientation(folders, orientation):
    """Mask and soft labels were made of the stored pixels, the image is loaded as it is displayed."""
    numbers = stored()[1][2]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.stack([numbers] * 3, axis=2)).save(folders / 'img/a.png', exif=exif)
    summary(folders, drawn_on='stored')
    packed = dataset(folders)[0]
    sample = packed['data_samples']
    assert packed['inputs'].shape[1:] == ((WIDTH, HEIGHT) if orientation > 4 else (HEIGHT, WIDTH))
    real = sample.gt_sem_seg.data[0] != 255
    assert (sample.gt_soft_seg.data[2][real] == packed['inputs'][0][real]).all()
    assert real.sum() == real.numel() - 3


def test_a_file_as_it_was_written():
    _, soft = stored()
    content = encode_soft_label(soft)
    assert len(content) < soft.nbytes


def write(folder, maps):
    (folder / 'labels/a.soft').write_bytes(encode_soft_label(maps))


FILES = {
    'missing': (lambda f: (f / 'labels/a.soft').unlink(), FileNotFoundError, r'a.soft does not exist'),
    'broken': (
        lambda f: (f / 'labels/a.soft').write_bytes(b'no png'),
        ValueError,
        r'a.soft cannot be read as soft labels \(',
    ),
    'cut off': (
        lambda f: (f / 'labels/a.soft').write_bytes((f / 'labels/a.soft').read_bytes()[:80]),
        ValueError,
        r'a.soft cannot be read as soft labels \(',
    ),
    'another size': (
        lambda f: write(f, stored()[1][:, :-1]),
        ValueError,
        r'a.soft is 44x17 \(height x width\), but 2 classes of each pixel of its mask of 12x17 make 48x17',
    ),
    'another k': (lambda f: write(f, stored(1)[1]), ValueError, r'a.soft is 24x17 .* make 48x17. Remove'),
    'another class': (
        lambda f: write(f, np.concatenate([stored()[1][:2] + 3, stored()[1][2:]])),
        ValueError,
        r'a.soft has the class 6, but the folder is of 4 classes. Remove the folder',
    ),
}  # fmt: skip


@pytest.mark.parametrize('kind', FILES)
def test_files_that_do_not_fit(folders, kind):
    harm, error, sentence = FILES[kind]
    harm(folders)
    with pytest.raises(error, match=sentence):
        dataset(folders)[0]
    assert dataset(folders, soft=False)[0]


def test_a_folder_without_soft_labels(folders):
    summary(folders, soft=None)
    with pytest.raises(ValueError, match=r'labels has no soft labels, and .*soft=True. Make'):
        dataset(folders)
    dataset(folders, soft=False)


def test_soft_labels_of_other_classes_than_the_labeled_images(folders):
    labeled = {
        'type': 'BaseSegDataset',
        'metainfo': {'classes': ['a', 'b', 'c']},
        'data_prefix': {'img_path': str(folders / 'img'), 'seg_map_path': str(folders / 'labels')},
        'img_suffix': '.png',
        'seg_map_suffix': '.png',
        'pipeline': [*LOAD, {'type': 'PackSegInputs'}],
    }
    with pytest.raises(
        ValueError, match=r'has soft labels of 4 classes, and the labeled dataset names 3'
    ):
        SelfTrainingDataset(labeled, dataset(folders))
    assert not SelfTrainingDataset(labeled, dataset(folders, soft=False)).has_soft_labels


def test_pipelines_that_soft_labels_cannot_pass(folders):
    crop = {'type': 'RandomCrop', 'crop_size': (8, 8), 'cat_max_ratio': 0.75}
    with pytest.raises(ValueError, match=r'pipeline\[2\].cat_max_ratio=0.75 counts hard labels'):
        dataset(folders, [crop])
    with pytest.raises(ValueError, match=r'ends in PackSegInputs, and .* LoadAnnotations, Pad'):
        dataset(folders, pack='Pad')
    assert TRANSFORMS.get('AddSoftLabels') is None  # the dataset puts them in


def test_read_checks_before_it_trusts(folders):
    maps = read_soft_label(str(folders / 'labels/a.soft'), (HEIGHT, WIDTH), 2, CLASSES)
    assert (maps == stored()[1]).all()
