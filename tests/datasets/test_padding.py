"""Crops larger than their image: padded before strong views change them, and not valid there."""

import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import init_default_scope

import mmseg_semi
from mmseg_semi.datasets.transforms.operations import OPERATIONS

BASES = Path(mmseg_semi.__file__).parents[1] / 'configs' / '_base_' / 'datasets'
MEAN_COLOR = (104, 116, 124)  # blue, green, red
#: Bases whose strong view changes colors, with the color that fills crops.
COLORS = {
    'voc12_semi': MEAN_COLOR,
    'voc12_semi_color': MEAN_COLOR,
    'cityscapes_semi': MEAN_COLOR,
    'cityscapes_semi_color': MEAN_COLOR,
    'voc_animals_semi': MEAN_COLOR,
    'voc_animals_semi_color': MEAN_COLOR,
    'nuclei_semi': MEAN_COLOR,
    'nuclei_semi_color': MEAN_COLOR,
    'own_semi': MEAN_COLOR,
    'own_semi_color': MEAN_COLOR,
    'own_semi_518': MEAN_COLOR,
    'voc12_unimatch': (0, 0, 0),
    'cityscapes_unimatch': (0, 0, 0),
}
SEEDS = (0, 1, 2)


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmseg')


def steps_of(name, kind):
    """The pipeline of a base without its loading, at scales that leave something to pad; and the crop."""
    cfg = Config.fromfile(BASES / f'{name}.py')
    steps = [dict(step) for step in cfg.train_dataloader.dataset[kind].pipeline]
    for step in steps:
        if step['type'] == 'RandomResize':
            step['ratio_range'] = (0.5, 0.7)
    kept = [s for s in steps if s['type'] not in ('LoadImageFromFile', 'LoadAnnotations')]
    return kept, tuple(cfg.crop_size)


def loaded(seed, label=False):
    """A freshly loaded image of a size of its own, brighter than what fills crops."""
    height, width = 130 + 10 * seed, 260 - 20 * seed
    image = np.random.default_rng(seed).integers(130, 201, (height, width, 3), dtype=np.uint8)
    results = dict(img=image, img_path=f'{seed}.jpg', img_shape=image.shape[:2], seg_fields=[])
    if label:
        results.update(gt_seg_map=np.ones((height, width), np.uint8), seg_fields=['gt_seg_map'])
    return results


def run(steps, seed, label=False):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return Compose(copy.deepcopy(steps))(loaded(seed, label))


@pytest.mark.parametrize('name', COLORS)
def test_color_operations_see_the_padded_crop(name):
    steps, crop = steps_of(name, 'unlabeled')
    pack = dict(type='PackUnlabeledInputs')
    shapes = set()
    for operation in ('autocontrast', 'equalize'):
        changes = dict(type='RandomIntensity', num_ops=1, operations=(operation,))
        views = dict(type='MultiBranch', weak=[pack], strong=[changes, pack])
        for seed in SEEDS:
            packed = run([*steps[:-1], views], seed)
            weak, strong = (packed['inputs'][branch].numpy() for branch in ('weak', 'strong'))
            assert weak.shape == strong.shape == (3, *crop)
            padded = np.ascontiguousarray(weak.transpose(1, 2, 0))
            expected = OPERATIONS[operation](padded, None)
            np.testing.assert_array_equal(strong.transpose(1, 2, 0), expected)

            samples = packed['data_samples']
            valid = samples['weak'].valid_mask.data[0].numpy()
            np.testing.assert_array_equal(valid, samples['strong'].valid_mask.data[0].numpy())
            filled = (padded == COLORS[name]).all(axis=2)
            assert filled.any()
            np.testing.assert_array_equal(valid, ~filled)
            rows, columns = valid.any(axis=1), valid.any(axis=0)
            shapes.add((int(rows.sum()), int(columns.sum())))
            # The order decides: without its padding the crop becomes another one.
            alone = OPERATIONS[operation](padded[rows][:, columns].copy(), None)
            assert (alone != expected[rows][:, columns]).mean() > 0.5
    assert len(shapes) == len(SEEDS)


@pytest.mark.parametrize('name', COLORS)
def test_labels_of_padding_are_void(name):
    steps, crop = steps_of(name, 'labeled')
    for seed in SEEDS:
        packed = run(steps, seed, label=True)
        label = packed['data_samples'].gt_sem_seg.data[0]
        assert label.shape == crop
        assert packed['inputs'].shape == (3, *crop)
        filled = (packed['inputs'].permute(1, 2, 0) == torch.tensor(COLORS[name])).all(dim=2)
        assert filled.any()
        assert torch.equal(label, torch.where(filled, 255, 1).to(label.dtype))
