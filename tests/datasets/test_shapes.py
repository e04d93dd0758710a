import hashlib

import cv2
import numpy as np
import pytest
from mmengine.registry import init_default_scope
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from mmseg_semi.datasets import shapes
from mmseg_semi.datasets.shapes import ShapesDataset, annotate, render, sample_scene, write_shapes

# SHA-256 over images and labels 0..19 of stream 3, 48x64: the stream is part of the demo's figures.
STREAM = 'be32496af6f4e3b20239937f45945829f2825f38164325efc4b64af395ef9099'


@pytest.fixture(autouse=True)
def _mmseg_scope():
    init_default_scope('mmseg')


def digest():
    sha = hashlib.sha256()
    for index in range(20):
        scene = sample_scene(3, index, (48, 64))
        sha.update(render(scene).tobytes())
        sha.update(annotate(scene).tobytes())
    return sha.hexdigest()


def build(pipeline=(), **settings):
    return DATASETS.build(
        dict(
            type='ShapesDataset',
            image_size=(48, 64),
            pipeline=[dict(type='LoadShapes'), *pipeline],
            **settings,
        )
    )


def test_pixels_are_the_same_on_every_machine():
    np.random.seed(0)
    first = np.random.get_state()[1]
    assert digest() == STREAM
    assert (np.random.get_state()[1] == first).all(), 'the global generator was drawn from'


def test_image_and_label_formats():
    scene = sample_scene(3, 0, (48, 64))
    image, label = render(scene), annotate(scene)
    assert image.shape == (48, 64, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert label.shape == (48, 64)
    assert label.dtype == np.uint8
    assert set(np.unique(label)) <= {0, 1, 2, 3, 4, 5, 255}


def test_streams_of_a_seed_are_disjoint_and_seeds_differ():
    train = build(num_images=30, seed=4)
    val = build(num_images=30, seed=4, start=30)
    other = build(num_images=30, seed=5)
    images = {d['img_path']: d['img'].tobytes() for s in (train, val, other) for d in s}
    assert len(images) == 90
    assert len(set(images.values())) == 90
    # A stretch that overlaps another gives the same images under the same names.
    again = build(num_images=1, seed=4, start=30)[0]
    assert again['img'].tobytes() == images[again['img_path']] == val[0]['img'].tobytes()


def test_void_is_the_border_between_instances_and_one_pixel_thin():
    scene = sample_scene(3, 1, (64, 64))
    label = annotate(scene)
    # Independent and slow: which item owns each pixel, then compare with two neighbors.
    owner = np.zeros((64, 64), dtype=int)
    kind = np.zeros((64, 64), dtype=int)
    for number, item in enumerate(scene.items, 1):
        for row in range(64):
            for column in range(64):
                dy, dx = row - item.center[0], column - item.center[1]
                cos, sin = item.rotation
                v, u = np.float32([[cos * dy - sin * dx]]), np.float32([[sin * dy + cos * dx]])
                if np.hypot(dy, dx) <= item.radius and shapes._inside(item, v, u)[0, 0]:
                    owner[row, column], kind[row, column] = number * bool(item.label), item.label
    for row in range(64):
        for column in range(64):
            right = owner[row, min(column + 1, 63)]
            below = owner[min(row + 1, 63), column]
            void = owner[row, column] != right or owner[row, column] != below
            assert label[row, column] == (255 if void else kind[row, column])
    assert 0 < (label == 255).mean() < 0.15


def test_classes_are_balanced_and_background_leads():
    pixels = np.zeros(256)
    present = np.zeros(256)
    for index in range(300):
        count = np.bincount(annotate(sample_scene(0, index, (64, 64))).ravel(), minlength=256)
        pixels += count
        present += count > 0
    share = pixels[:6] / pixels[:6].sum()
    assert 0.6 < share[0] < 0.85
    assert share[1:].min() > 0.5 * share[1:].max()
    assert present[1:6].min() > 60


def test_hue_alone_does_not_tell_the_classes():
    """The best rules from a pixel's hue to a class stay far from a segmentation."""
    table = np.zeros((36, 6))
    for index in range(300):
        scene = sample_scene(1, index, (64, 64))
        hue = cv2.cvtColor(render(scene), cv2.COLOR_BGR2HSV)[..., 0] // 5
        label = annotate(scene)
        np.add.at(table, (hue[label != 255], label[label != 255]), 1)
    for weight in (1, 0.5, 0.25, 0.1):  # of the background, which would win every hue
        rule = (table * [weight, 1, 1, 1, 1, 1]).argmax(1)
        said = np.stack([table[rule == c].sum(0) for c in range(6)])
        iou = np.diag(said) / (said.sum(0) + said.sum(1) - np.diag(said))
        assert iou.mean() < 0.35, weight


@pytest.mark.parametrize('labeled', [True, False])
def test_stock_pipeline(labeled):
    dataset = build(
        num_images=4,
        labeled=labeled,
        pipeline=[
            dict(type='RandomResize', scale=(64, 48), ratio_range=(1.0, 2.0), keep_ratio=True),
            dict(type='RandomCrop', crop_size=(48, 48), cat_max_ratio=0.9 if labeled else 1.0),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PhotoMetricDistortion'),
            dict(type='PackSegInputs'),
        ],
    )
    assert isinstance(dataset, BaseSegDataset)
    assert dataset.metainfo['classes'][0] == 'background'
    assert len(dataset.metainfo['palette']) == 6
    before = dataset.pipeline.transforms[0](dataset.get_data_info(2))['img'].copy()
    sample = dataset[2]
    assert sample['inputs'].shape == (3, 48, 48)
    meta = sample['data_samples'].metainfo
    assert meta['ori_shape'] == (48, 64)
    assert meta['img_path'] == 'shapes/seed0/000002.png'
    assert ('gt_sem_seg' in sample['data_samples']) == labeled
    # What the pipeline did to the image it got did not reach the cache.
    after = dataset.pipeline.transforms[0](dataset.get_data_info(2))['img']
    assert (before == after).all()


def test_unlabeled_never_draws_a_label(monkeypatch):
    def refuse(scene):
        raise AssertionError('a label was drawn')

    monkeypatch.setattr(shapes, 'annotate', refuse)
    for sample in build(num_images=3, labeled=False):
        assert not {'gt_seg_map', 'seg_fields', 'label_map', 'seg_map_path'} & set(sample)
    with pytest.raises(AssertionError, match='a label was drawn'):
        build(num_images=3)[0]


def test_labeled_and_unlabeled_images_are_the_same():
    labeled, unlabeled = build(num_images=2), build(num_images=2, labeled=False)
    for one, other in zip(labeled, unlabeled, strict=True):
        assert (one['img'] == other['img']).all()
        assert one['img_path'] == other['img_path']


def test_chosen_classes_are_renumbered():
    full = build(num_images=1)[0]['gt_seg_map']
    part = build(num_images=1, metainfo=dict(classes=('background', 'ring')))[0]['gt_seg_map']
    expected = np.full_like(full, 255)
    expected[full == 0], expected[full == 5] = 0, 1
    assert (part == expected).all()


@pytest.mark.parametrize(
    'setting',
    [
        dict(image_size=(8, 64)),
        dict(image_size=(64,)),
        dict(num_images=0),
        dict(seed=-1),
        dict(start=1.5),
        dict(reduce_zero_label=True),
    ],
)
def test_settings_out_of_range(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        ShapesDataset(**setting)


def test_written_files_are_what_the_dataset_draws(tmp_path):
    names = write_shapes(tmp_path, 3, image_size=(48, 64), seed=2, start=7)
    assert names == ['000007', '000008', '000009']
    files = DATASETS.build(
        dict(
            type='BaseSegDataset',
            data_root=str(tmp_path),
            data_prefix=dict(img_path='img_dir', seg_map_path='ann_dir'),
            img_suffix='.png',
            metainfo=ShapesDataset.METAINFO,
            pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')],
        )
    )
    for drawn, read in zip(build(num_images=3, seed=2, start=7), files, strict=True):
        assert (drawn['img'] == read['img']).all()
        assert (drawn['gt_seg_map'] == read['gt_seg_map']).all()
    write_shapes(tmp_path / 'unlabeled', 1, labeled=False)
    assert not (tmp_path / 'unlabeled' / 'ann_dir').exists()
