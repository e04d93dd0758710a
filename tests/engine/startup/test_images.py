"""What is said of images before the first iteration: turned masks, lost bands, transforms for colors."""

import numpy as np
import pytest
from mmengine.dataset import Compose
from mmseg.registry import DATASETS
from PIL import Image
from tiny_run import build_runner, tiny_config, write_images

from mmseg_semi.engine.startup.images import check_images

LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]


@pytest.fixture
def root(tmp_path):
    return write_images(tmp_path / 'images')


def file(root, name, folder='img_dir'):
    first = (root / f'{name}.txt').read_text().split()[0]
    return root / folder / f'{first}.png'


def turn(path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as image:
        image.copy().save(path, exif=exif)


def start(config):
    """Train; what stops it at once."""
    runner = build_runner(config)
    with pytest.raises(ValueError, match=r'.') as error:
        runner.train()
    assert runner.iter == 0
    assert '\n' not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize('name', ['labeled', 'val'])
@pytest.mark.parametrize('method', ['FixMatch', None])
def test_a_mask_that_may_be_turned_stops_the_training(root, tmp_path, name, method):
    """Also a plain one on mmseg's own data sets, and in the validation set before it is needed."""
    path = file(root, name)
    turn(path, 4)
    said = start(tiny_config(tmp_path / 'work', method, images=root))
    assert f'image {path} is 32x32 as stored and 32x32 as displayed (EXIF orientation 4)' in said
    assert (
        "Set drawn_on='stored' of LoadAnnotations or drawn_on='displayed' of LoadAnnotations"
        in said
    )


def dataset(root, pipeline, name='labeled'):
    return DATASETS.build(
        dict(
            type='BaseSegDataset',
            data_root=str(root),
            ann_file=f'{name}.txt',
            data_prefix=dict(img_path='img_dir', seg_map_path='ann_dir'),
            img_suffix='.png',
            metainfo=dict(classes=('a', 'b', 'c', 'd')),
            pipeline=pipeline,
        )
    )


class Runner:
    """A runner as far as the check reads it."""

    def __init__(self, dataset, mean=(0.0, 0.0, 0.0)):
        self.train_dataloader = type('Loader', (), dict(dataset=dataset))
        preprocessor = type('Preprocessor', (), dict(mean=mean))
        self.model = type('Model', (), dict(data_preprocessor=preprocessor))


def check(dataset, mean=(0.0, 0.0, 0.0), **validation):
    check_images(Runner(dataset, mean), validation)


@pytest.mark.parametrize('method', ['FixMatch', None])
def test_a_rotation_that_interpolates_masks(root, tmp_path, method):
    config = tiny_config(tmp_path / 'work', method, images=root)
    dataset = config.train_dataloader.dataset
    labeled = dataset.labeled if method else dataset
    labeled.pipeline.insert(2, dict(type='RandomRotFlip', rotate_prob=0.0))
    if method:  # whose mask of real pixels is exact
        dataset.unlabeled.pipeline.insert(2, dict(type='RandomRotFlip', rotate_prob=1.0))
    config.train_cfg.max_iters = 1
    build_runner(config).train()
    labeled.pipeline[2]['rotate_prob'] = 0.1
    assert 'pipeline has RandomRotFlip, which interpolates masks' in start(config)


def test_sound_images_pass(root):
    train, val = dataset(root, LOAD), dataset(root, LOAD, 'val')
    check(train, val=val)
    turn(file(root, 'labeled'), 3)
    stored = dataset(root, [LOAD[0], dict(type='LoadAnnotations', drawn_on='stored')])
    check(stored, val=val)


def test_loaders_of_other_packages_are_named(root):
    """They turn images and leave masks as they are."""
    from mmcv.transforms import LoadImageFromFile

    turn(file(root, 'labeled'), 3)
    train = dataset(root, [dict(type=LoadImageFromFile), LOAD[1]])
    with pytest.raises(ValueError, match=r'loads them by mmcv\.transforms\.loading and .* by name'):
        check(train)


def test_bits_of_a_validation_image(root):
    path = file(root, 'val')
    Image.fromarray(np.full((32, 32), 1000, np.uint16)).save(path)
    with pytest.raises(
        ValueError, match=rf'{path} has 3 band\(s\) of 16 bits and the loader gives 3 of uint8'
    ):
        check(dataset(root, LOAD), val=dataset(root, LOAD, 'val'))


@pytest.mark.parametrize('where', ['train', 'val'])
def test_channels_that_the_preprocessor_does_not_have(root, where):
    gray = dataset(root, [dict(type='LoadImageFromFile', color_type='grayscale'), LOAD[1]])
    color = dataset(root, LOAD)
    sets = (gray, color) if where == 'train' else (color, gray)
    with pytest.raises(ValueError, match=r'has 1 channel\(s\) as loaded, but .* have 3 values'):
        check(sets[0], val=sets[1])
    check(sets[0], mean=(0.0,), val=sets[1])


@pytest.mark.parametrize(
    ('transform', 'refused'),
    [
        (dict(type='PhotoMetricDistortion'), True),
        (dict(type='CLAHE'), True),
        (dict(type='RandomFlip', prob=0.5), False),
        (dict(type='RandomApply', transforms=[dict(type='AdjustGamma')]), True),
        (dict(type='RandomChoice', transforms=[[dict(type='CLAHE')], []]), True),
        (dict(type='MultiBranch', strong=[dict(type='PhotoMetricDistortion')]), True),
    ],
    ids=str,
)
def test_transforms_for_colors_on_16_bits(root, transform, refused):
    for name in ('labeled', 'val'):
        Image.fromarray(np.full((32, 32), 1000, np.uint16)).save(file(root, name))
    load = dict(type='LoadImageFromFile', color_type='unchanged')
    data = dataset(root, [load, LOAD[1]])
    data.pipeline = Compose([load, LOAD[1], transform])
    if not refused:
        check(data, mean=(0.0,))
        return
    with pytest.raises(
        ValueError,
        match=r'which needs 8-bit RGB images, but .* is loaded with 1 channel\(s\) of (uint16|float32). Remove',
    ):
        check(data, mean=(0.0,))
