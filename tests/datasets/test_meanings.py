"""What class indices mean in two datasets, compared: every difference is one sentence."""

import json

import pytest
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from mmseg_semi.datasets import MappedSegDataset, PseudoLabeledDataset
from mmseg_semi.datasets.meanings import (
    Meaning,
    check_checkpoint,
    compare_all,
    differences,
    meaning_of_checkpoint,
    meanings_of,
    meanings_of_config,
)

NAMES = ('road', 'car', 'sky')
ONE = Meaning(
    'train_dataloader.dataset.labeled', NAMES, False, {}, [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
)
OTHER = ONE._replace(key='val_dataloader.dataset')


def test_equal_meanings_and_unknown_parts_differ_in_nothing():
    assert differences(ONE, OTHER) == []
    assert differences(ONE, Meaning('val_dataloader.dataset', NAMES)) == []


@pytest.mark.parametrize(
    ('change', 'of', 'said'),
    [
        (
            {'classes': ('road', 'sky', 'car')},
            'classes',
            'train_dataloader.dataset.labeled.metainfo.classes and val_dataloader.dataset.metainfo.classes '
            "differ (index 1 is 'car' in the former and 'sky' in the latter). Give both the same classes in "
            'the same order.',
        ),
        (
            {'classes': ('road', 'car')},
            'classes',
            'train_dataloader.dataset.labeled.metainfo.classes names 3 classes but '
            'val_dataloader.dataset.metainfo.classes names 2. Give both the same classes in the same order.',
        ),
        (
            {'reduce_zero_label': True},
            'reduce_zero_label',
            'train_dataloader.dataset.labeled.reduce_zero_label=False but '
            'val_dataloader.dataset.reduce_zero_label=True. A mask value means different classes in '
            'them. Give both the same one; if the masks are stored in two ways on purpose, set '
            'StartupCheckHook same_masks=False.',
        ),
        (
            {'label_map': {255: 1}},
            'label_map',
            'train_dataloader.dataset.labeled.label_map={} but val_dataloader.dataset.label_map={255: 1}. A ',
        ),
        (
            {'palette': [[9, 9, 9]] * 3},
            'palette',
            'train_dataloader.dataset.labeled.metainfo.palette=[[0, 0, 0], [1, 1, 1], [2, 2, 2]] but '
            'val_dataloader.dataset.metainfo.palette=[[9, 9, 9], [9, 9, 9], [9, 9, 9]]. The pictures',
        ),
    ],
)
def test_a_difference_names_both_keys_both_values_and_the_remedy(change, of, said):
    [difference] = compare_all([ONE, ONE, OTHER._replace(**change)])
    assert difference.of == of
    assert difference.sentence.startswith(said)


def dataset(folder, kind=BaseSegDataset, **settings):
    for name in ('images', 'masks'):
        (folder / name).mkdir(exist_ok=True)
    prefix = {'img_path': str(folder / 'images'), 'seg_map_path': str(folder / 'masks')}
    return kind(data_prefix=prefix, metainfo={'classes': NAMES}, lazy_init=True, **settings)


def test_a_built_dataset_and_its_config_mean_the_same(tmp_path):
    built = dataset(tmp_path, MappedSegDataset, label_map={255: 1})
    [meaning] = meanings_of(built, 'val_dataloader.dataset')
    assert meaning[:4] == ('val_dataloader.dataset', NAMES, False, {255: 1})
    config = {
        'type': 'MappedSegDataset',
        'label_map': {255: 1},
        'metainfo': {'classes': list(NAMES)},
    }
    [told] = meanings_of_config({'val_dataloader': {'dataset': config}}, 'val')
    # What only building tells is not known.
    assert told == meaning._replace(palette=None, reduce_zero_label=None)


def test_a_config_knows_the_classes_of_its_type_and_what_a_subset_maps():
    config = {'type': 'RepeatDataset', 'times': 2, 'dataset': {'type': 'ADE20KDataset'}}
    [whole] = meanings_of_config({'test_dataloader': {'dataset': config}}, 'test')
    assert whole.key == 'test_dataloader.dataset.dataset'
    assert (len(whole.classes), whole.reduce_zero_label, whole.label_map) == (150, True, {})
    subset = {
        'type': 'CheckedDataset',
        'of': 'CamVidDataset',
        'metainfo': {'classes': ['Sky', 'Car']},
    }
    names = DATASETS.get('CamVidDataset').METAINFO['classes']
    subset['metainfo']['classes'] = [names[3], names[0]]
    [part] = meanings_of_config({'test_dataloader': {'dataset': subset}}, 'test')
    assert part.classes == (names[3], names[0])
    assert (part.label_map[3], part.label_map[0], part.label_map[1]) == (0, 1, 255)


def test_pseudo_labels_mean_what_their_summary_says(tmp_path):
    labels = PseudoLabeledDataset.__new__(PseudoLabeledDataset)
    labels.labels = [str(tmp_path)]
    summary = tmp_path / 'pseudo_labels.json'
    summary.write_text(json.dumps({'classes': ['road', 'sky', 'car']}))
    [meaning] = meanings_of(labels, 'x', 'pseudo_labeled')
    [difference] = differences(ONE, meaning)
    assert difference.sentence == (
        f'train_dataloader.dataset.labeled.metainfo.classes and classes of {summary} differ (index 1 is '
        "'car' in the former and 'sky' in the latter). Give both the same classes in the same order."
    )
    summary.write_text(json.dumps({'classes': ['class 0', 'class 1', 'class 2']}))
    assert meanings_of(labels, 'x', 'pseudo_labeled') == []


def test_a_checkpoint_is_compared_with_the_sets_of_a_config():
    config = {
        'test_dataloader': {'dataset': {'type': 'BaseSegDataset', 'metainfo': {'classes': NAMES}}}
    }
    saved = {'meta': {'dataset_meta': {'classes': list(NAMES), 'label_map': None}}}
    assert meaning_of_checkpoint(saved, 'a.pth')[1:4] == (NAMES, None, {})
    check_checkpoint(saved, 'a.pth', config)
    check_checkpoint({'state_dict': {}}, 'a.pth', config)
    saved['meta']['dataset_meta']['classes'] = ('car', 'road', 'sky')
    with pytest.raises(
        ValueError,
        match=r'^classes of the checkpoint a\.pth and test_dataloader\.dataset\.metainfo\.classes differ '
        r"\(index 0 is 'car' in the former and 'road' in the latter\)",
    ):
        check_checkpoint(saved, 'a.pth', config)
