import pytest
import torch
from mmseg.registry import DATASETS

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


def test_wrapped_datasets():
    both = DATASETS.build({'type': 'ConcatDataset', 'datasets': [SHAPES, SHAPES]})
    plain = unaugmented(both)
    assert len(plain) == 6
    assert plain[5]['inputs'].shape == (3, 24, 32)
    twice = DATASETS.build({'type': 'RepeatDataset', 'times': 2, 'dataset': SHAPES})
    assert unaugmented(twice)[4]['inputs'].shape == (3, 24, 32)
    assert both[0]['inputs'].shape == twice[0]['inputs'].shape == (3, 16, 16)


def test_pipeline_that_loads_nothing_is_refused():
    dataset = DATASETS.build({**SHAPES, 'pipeline': SHAPES['pipeline'][1:]})
    with pytest.raises(ValueError, match=r"leaves \['PackSegInputs'\] without its augmentation"):
        unaugmented(dataset)
    with pytest.raises(ValueError, match=r"leaves \['LoadShapes'\]"):
        unaugmented(dataset, [{'type': 'LoadShapes'}])
