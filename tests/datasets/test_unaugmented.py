import logging

import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.logging import MMLogger
from mmseg.registry import DATASETS, TRANSFORMS

from mmseg_semi.datasets import unaugmented

SHAPES = {
    'type': 'ShapesDataset',
    'num_images': 3,
    'image_size': (24, 32),
    'pipeline': [
        {'type': 'LoadShapes'},
        {'type': 'RandomFlip', 'prob': 1.0},
        {'type': 'RandomCrop', 'crop_size': (16, 16)},
        {'type': 'PackSegInputs'},
    ],
}


def test_images_come_as_they_are():
    dataset = DATASETS.build(SHAPES)
    plain = unaugmented(dataset)
    assert plain[0]['inputs'].shape == (3, 24, 32)
    assert dataset[0]['inputs'].shape == (3, 16, 16)
    given = unaugmented(dataset, [{'type': 'LoadShapes'}, {'type': 'PackSegInputs'}])
    assert torch.equal(given[2]['inputs'], plain[2]['inputs'])


@TRANSFORMS.register_module()
class ScaledBands(BaseTransform):
    """A user's own transform."""

    def transform(self, results):
        return results


def warnings(caplog):
    return [record for record in caplog.records if record.levelno == logging.WARNING]


def test_transforms_that_change_all_values_alike_stay(caplog):
    """The network is trained on normalized images."""
    MMLogger.get_instance('test_unaugmented').addHandler(caplog.handler)
    normalize = {'type': 'Normalize', 'mean': [100.0] * 3, 'std': [50.0] * 3, 'to_rgb': False}
    shapes = {**SHAPES, 'pipeline': [SHAPES['pipeline'][0], normalize, *SHAPES['pipeline'][1:]]}
    plain, raw = unaugmented(DATASETS.build(shapes)), unaugmented(DATASETS.build(SHAPES))
    torch.testing.assert_close(plain[1]['inputs'], (raw[1]['inputs'].float() - 100) / 50)
    assert not warnings(caplog)
    shapes['pipeline'].insert(1, {'type': 'ScaledBands'})
    unaugmented(DATASETS.build(shapes))
    (record,) = warnings(caplog)
    said = 'without augmentation leaves out ScaledBands. If the network needs it'
    assert said in record.getMessage()


def test_wrapped_datasets():
    both = DATASETS.build({'type': 'ConcatDataset', 'datasets': [SHAPES, SHAPES]})
    plain = unaugmented(both)
    assert len(plain) == 6
    assert plain[5]['inputs'].shape == (3, 24, 32)
    twice = DATASETS.build({'type': 'RepeatDataset', 'times': 2, 'dataset': SHAPES})
    assert unaugmented(twice)[4]['inputs'].shape == (3, 24, 32)
    assert both[0]['inputs'].shape == twice[0]['inputs'].shape == (3, 16, 16)


def test_images_of_a_mosaic_come_one_by_one():
    """MultiImageMixDataset mixes loaded images, and packs the result."""
    inner = {**SHAPES, 'pipeline': SHAPES['pipeline'][:2]}
    mosaic = {'type': 'RandomMosaic', 'prob': 1.0, 'img_scale': (24, 32)}
    mixed = {
        'type': 'MultiImageMixDataset',
        'dataset': inner,
        'pipeline': [
            mosaic,
            {'type': 'RandomCrop', 'crop_size': (16, 16)},
            {'type': 'PackSegInputs'},
        ],
    }
    dataset = DATASETS.build(mixed)
    plain, expected = unaugmented(dataset), unaugmented(DATASETS.build(SHAPES))
    assert len(plain) == 3
    for index in range(3):
        assert torch.equal(plain[index]['inputs'], expected[index]['inputs'])
    given = unaugmented(dataset, [{'type': 'LoadShapes'}, {'type': 'PackSegInputs'}])
    assert torch.equal(given[2]['inputs'], expected[2]['inputs'])
    assert dataset[0]['inputs'].shape == (3, 16, 16)


def test_pipeline_that_loads_nothing_is_refused():
    dataset = DATASETS.build({**SHAPES, 'pipeline': SHAPES['pipeline'][1:]})
    with pytest.raises(ValueError, match=r"leaves \['PackSegInputs'\] without its augmentation"):
        unaugmented(dataset)
    with pytest.raises(ValueError, match=r"leaves \['LoadShapes'\]"):
        unaugmented(dataset, [{'type': 'LoadShapes'}])
