"""The walk over nested datasets and their configs: what it finds, where, and in what order."""

import copy

import cv2
import numpy as np
import pytest
from mmengine.config import ConfigDict
from mmseg.registry import DATASETS, TRANSFORMS

from mmseg_semi.datasets.children import check_files_exist, with_checks
from mmseg_semi.datasets.walk import (
    concatenated,
    first_branch,
    image_files,
    leaf_configs,
    leaves,
    loader_configs,
    map_leaf_configs,
    map_leaves,
    named_sets,
    stage_leaves,
    transforms_within,
)


def shapes(start, number=2, **settings):
    pipeline = [dict(type='LoadShapes'), dict(type='PackSegInputs')]
    return dict(type='ShapesDataset', num_images=number, start=start, pipeline=pipeline, **settings)


def concat(*datasets):
    return dict(type='ConcatDataset', datasets=list(datasets))


def repeat(dataset, times=3):
    return dict(type='RepeatDataset', dataset=dataset, times=times)


NESTED = concat(shapes(0), repeat(concat(shapes(10), shapes(20))))
PLACES = ['.datasets[0]', '.datasets[1].dataset.datasets[0]', '.datasets[1].dataset.datasets[1]']


def test_built_and_configured_datasets_have_the_same_leaves():
    built, configs = leaves(DATASETS.build(copy.deepcopy(NESTED))), leaf_configs(NESTED)
    keys = [f'train_dataloader.dataset{place}' for place in PLACES]
    assert [leaf.key for leaf in built] == [leaf.key for leaf in configs] == keys
    assert [leaf.dataset.start for leaf in built] == [0, 10, 20]
    assert [leaf.dataset['start'] for leaf in configs] == [0, 10, 20]
    assert {leaf.kind for leaf in (*built, *configs)} == {None}


def test_a_plain_dataset_is_its_own_leaf():
    dataset = DATASETS.build(shapes(0))  # whose attribute `labeled` is a bool
    assert leaves(dataset, 'val_dataloader.dataset') == [
        (dataset, 'val_dataloader.dataset', None),
    ]
    config = shapes(0, labeled=False)
    assert leaf_configs(config, 'x', 'unlabeled') == [(config, 'x', 'unlabeled')]


def test_named_children_tell_the_kind(config):
    config = {
        **config,
        'labeled': concat(config['labeled'], config['labeled']),
        'unlabeled': repeat(config['unlabeled']),
    }
    expected = [
        ('train_dataloader.dataset.labeled.datasets[0]', 'labeled'),
        ('train_dataloader.dataset.labeled.datasets[1]', 'labeled'),
        ('train_dataloader.dataset.unlabeled.dataset', 'unlabeled'),
    ]
    assert [leaf[1:] for leaf in leaf_configs(config)] == expected
    built = DATASETS.build(config)
    assert [leaf[1:] for leaf in leaves(built)] == expected


def test_the_images_of_pseudo_labels_are_leaves_of_the_config():
    config = dict(
        type='SelfTrainingDataset',
        labeled=shapes(0),
        pseudo_labeled=dict(
            type='PseudoLabeledDataset', images=concat(shapes(10), shapes(20)), labels=['x']
        ),
    )
    assert [leaf[1:] for leaf in leaf_configs(config)] == [
        ('train_dataloader.dataset.labeled', 'labeled'),
        ('train_dataloader.dataset.pseudo_labeled.images.datasets[0]', 'pseudo_labeled'),
        ('train_dataloader.dataset.pseudo_labeled.images.datasets[1]', 'pseudo_labeled'),
    ]


def test_mapping_changes_leaves_of_a_copy_alone():
    dataset = DATASETS.build(copy.deepcopy(NESTED))
    keys = []

    def marked(leaf):
        keys.append(leaf.key)
        changed = copy.copy(leaf.dataset)
        changed.start += 1
        return changed

    mapped = map_leaves(dataset, marked)
    assert keys == [leaf.key for leaf in leaves(dataset)]
    assert [leaf.dataset.start for leaf in leaves(mapped)] == [1, 11, 21]
    assert [leaf.dataset.start for leaf in leaves(dataset)] == [0, 10, 20]
    assert len(mapped) == len(dataset) == 2 + 3 * 4


def test_mapping_configs_leaves_them_as_they_are():
    config = ConfigDict(NESTED)
    before = copy.deepcopy(config)
    mapped = map_leaf_configs(config, lambda leaf: {**leaf.dataset, 'seed': 9})
    assert [leaf.dataset['seed'] for leaf in leaf_configs(mapped)] == [9, 9, 9]
    assert mapped['type'] == 'ConcatDataset'
    assert mapped.datasets[1]['times'] == 3
    assert config == before
    alone = map_leaf_configs(shapes(0), lambda leaf: {'only': leaf.key}, 'here')
    assert alone == {'only': 'here'}


@pytest.mark.parametrize('build', [lambda x: x, DATASETS.build], ids=['config', 'built'])
def test_concatenated_sets_are_not_those_within_a_repetition(build):
    inner = repeat(concat(shapes(10), shapes(20)))
    sets = concatenated(build(concat(shapes(0), inner)), 'val_dataloader.dataset')
    assert [part.key for part in sets] == [
        'val_dataloader.dataset.datasets[0]',
        'val_dataloader.dataset.datasets[1]',
    ]
    alone = build(repeat(shapes(0)))
    assert concatenated(alone, 'x') == [(alone, 'x', None)]
    config = concat(shapes(0), concat(shapes(10), shapes(20)))
    assert [part.key for part in concatenated(config, 'x')] == [
        'x.datasets[0]',
        'x.datasets[1].datasets[0]',
        'x.datasets[1].datasets[1]',
    ]


def test_a_stage_may_have_a_list_of_loaders():
    cfg = dict(
        train_dataloader=dict(dataset=shapes(0)),
        val_dataloader=[dict(dataset=shapes(10)), dict(dataset=concat(shapes(20), shapes(30)))],
        test_dataloader=None,
    )
    assert [key for key, _ in loader_configs(cfg, 'train')] == ['train_dataloader']
    assert [key for key, _ in loader_configs(cfg, 'val')] == [
        'val_dataloader[0]',
        'val_dataloader[1]',
    ]
    assert loader_configs(cfg, 'test') == []
    assert [(leaf.key, leaf.dataset['start']) for leaf in stage_leaves(cfg, 'val')] == [
        ('val_dataloader[0].dataset', 10),
        ('val_dataloader[1].dataset.datasets[0]', 20),
        ('val_dataloader[1].dataset.datasets[1]', 30),
    ]


def test_each_leaf_is_asked_for_the_files_of_its_own_loaders(config, data_root):
    labeled = config['labeled']
    drawn = shapes(0)  # their paths are names alone
    joined = concat(drawn, repeat(labeled))
    dataset = DATASETS.build({**joined, 'ignore_keys': ['classes', 'palette']})
    check_files_exist(dataset, 'labeled', 'train_dataloader.dataset.labeled')
    (data_root / 'ann_dir/l1.png').unlink()
    with pytest.raises(FileNotFoundError) as error:
        check_files_exist(dataset, 'labeled', 'train_dataloader.dataset.labeled')
    assert '1 of 4 masks of the labeled dataset do not exist' in str(error.value)
    assert 'train_dataloader.dataset.labeled.datasets[1].dataset' in str(error.value)


def test_checks_reach_every_leaf(config, data_root):
    labeled = DATASETS.build(repeat(concat(config['labeled'], config['labeled'])))
    checked = with_checks('labeled', labeled, 3)
    for leaf in leaves(checked):
        names = [type(t).__name__ for t in leaf.dataset.pipeline.transforms]
        assert names[0] == 'CheckImageFile'
        assert 'CheckLabels' in names
    for leaf in leaves(labeled):
        assert type(leaf.dataset.pipeline.transforms[0]).__name__ == 'LoadImageFromFile'
    cv2.imwrite(str(data_root / 'ann_dir/l2.png'), np.full((24, 32), 7, np.uint8))
    with pytest.raises(ValueError, match='has the value 7'):
        checked[4 + 2]


def test_the_first_branch_goes_from_the_outside_to_the_first_leaf():
    config = repeat(concat(repeat(shapes(10)), shapes(20)))
    found = first_branch(config)
    kinds = ['RepeatDataset', 'ConcatDataset', 'RepeatDataset', 'ShapesDataset']
    assert [one['type'] for one in found] == kinds
    assert found[-1]['start'] == 10
    assert first_branch(shapes(0)) == [shapes(0)]


def test_files_are_named_once_and_samples_without_files_not_at_all(tmp_path):
    for name in 'ab':
        cv2.imwrite(str(tmp_path / f'{name}.png'), np.zeros((4, 4, 3), np.uint8))
    config = repeat(dict(type='UnlabeledDataset', img_dir=str(tmp_path), pipeline=[]))
    dataset = DATASETS.build(concat(config, config))
    assert image_files(dataset) == [str(tmp_path / f'{name}.png') for name in 'abab']
    dataset.datasets[1].dataset.get_data_info = lambda index: dict(sample=index)
    assert image_files(dataset) == [str(tmp_path / f'{name}.png') for name in 'ab']


def test_transforms_within_others_are_found_in_their_order():
    flip, crop = dict(type='RandomFlip', prob=0.5), dict(type='RandomCrop', crop_size=8)
    pipeline = [
        dict(type='LoadShapes'),
        dict(type='RandomApply', transforms=[flip], prob=0.5),
        dict(type='MultiBranch', weak=[crop], strong=[dict(type='PackSegInputs')]),
    ]
    built = [TRANSFORMS.build(config) for config in pipeline]
    names = [type(transform).__name__ for transform in transforms_within([*built, 'text', None])]
    assert names == [
        'LoadShapes',
        'RandomApply',
        'Compose',
        'RandomFlip',
        'MultiBranch',
        'RandomCrop',
        'PackSegInputs',
    ]


def test_the_sets_of_a_config_have_roles(config):
    """Children of our datasets by their kind, anything else as one; all loaders of a stage."""
    loaders = [dict(dataset=shapes(30)), dict(dataset=None), dict(dataset=shapes(30))]
    cfg = dict(
        train_dataloader=dict(dataset=config),
        val_dataloader=loaders,
        test_dataloader=loaders[0],
    )
    train = 'train_dataloader.dataset'
    labeled = ('labeled', 0, f'{train}.labeled', config['labeled'])
    evaluated = [
        ('validation', 0, 'val_dataloader[0].dataset', shapes(30)),
        ('validation', 2, 'val_dataloader[2].dataset', shapes(30)),
        ('test', 0, 'test_dataloader.dataset', shapes(30)),
    ]
    unlabeled = ('unlabeled', 0, f'{train}.unlabeled', config['unlabeled'])
    assert named_sets(cfg) == [labeled, unlabeled, *evaluated]
    staged = dict(labeled=config['labeled'], pseudo_labeled=dict(images=shapes(40)))
    cfg['train_dataloader'] = dict(dataset=staged)
    images = ('unlabeled', 0, f'{train}.pseudo_labeled.images', shapes(40))
    assert named_sets(cfg) == [labeled, images, *evaluated]
    cfg['train_dataloader'] = dict(dataset=NESTED)
    assert named_sets(cfg) == [('training', 0, train, NESTED), *evaluated]
    assert named_sets(dict(model={})) == []
