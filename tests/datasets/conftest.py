"""Small real files: textured JPEG images and their masks, in mmseg's folder layout."""

import copy

import cv2
import numpy as np
import pytest
from mmseg.utils import register_all_modules

import mmseg_semi.datasets  # noqa: F401  registers what the configs name

CLASSES = ('ground', 'sky', 'tree')
PALETTE = [[90, 60, 30], [90, 160, 250], [30, 140, 40]]


def texture(seed, height=24, width=32):
    """A smooth random image, uint8 (height, width, 3)."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(autouse=True)
def _scope():
    register_all_modules(init_default_scope=True)


@pytest.fixture
def data_root(tmp_path):
    """4 labeled images ``l0..l3`` with masks, 6 unlabeled ``u0..u5`` (one in a subfolder)."""
    for folder in ('img_dir/sub', 'ann_dir', 'pool/sub'):
        (tmp_path / folder).mkdir(parents=True)
    for i in range(4):
        cv2.imwrite(str(tmp_path / f'img_dir/l{i}.jpg'), texture(i))
        mask = np.arange(24 * 32).reshape(24, 32) * 3 // (24 * 32)
        mask[:2] = 255
        cv2.imwrite(str(tmp_path / f'ann_dir/l{i}.png'), mask.astype(np.uint8))
    for i in range(6):
        folder = 'pool/sub' if i == 5 else 'pool'
        cv2.imwrite(str(tmp_path / folder / f'u{i}.jpg'), texture(100 + i))
    (tmp_path / 'labeled.txt').write_text('l0\nl1\nl2\nl3\n')
    (tmp_path / 'unlabeled.txt').write_text('u0\nu1\nu2\nu3\nu4\nsub/u5\n')
    return tmp_path


@pytest.fixture
def config(data_root):
    """Config of a LabeledUnlabeledDataset over ``data_root``, free to be changed."""
    geometry = [
        dict(type='RandomResize', scale=(32, 24), ratio_range=(0.8, 1.5), keep_ratio=True),
        dict(type='RandomCrop', crop_size=(20, 24)),
        dict(type='RandomFlip', prob=0.5),
    ]
    return copy.deepcopy(
        dict(
            type='LabeledUnlabeledDataset',
            labeled=dict(
                type='BaseSegDataset',
                serialize_data=False,  # spares every test two slow rounds of garbage collection
                metainfo=dict(classes=CLASSES, palette=PALETTE),
                data_root=str(data_root),
                ann_file='labeled.txt',
                data_prefix=dict(img_path='img_dir', seg_map_path='ann_dir'),
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(type='LoadAnnotations'),
                    *geometry,
                    dict(type='PhotoMetricDistortion'),
                    dict(type='PackSegInputs'),
                ],
            ),
            unlabeled=dict(
                type='UnlabeledDataset',
                serialize_data=False,
                data_root=str(data_root),
                img_dir='pool',
                ann_file='unlabeled.txt',
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(type='AddValidMask'),
                    *geometry,
                    dict(
                        type='MultiBranch',
                        weak=[dict(type='PackUnlabeledInputs')],
                        strong=[
                            dict(type='RandomIntensity'),
                            dict(type='PackUnlabeledInputs'),
                        ],
                    ),
                ],
            ),
        )
    )
