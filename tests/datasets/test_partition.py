"""A partition fills the lists of a train dataset, and is asked for where a list waits for it."""

import pytest
from mmengine.config import Config, ConfigDict
from mmseg.registry import DATASETS

from mmseg_semi.datasets.data_check import dataset_configs
from mmseg_semi.datasets.partition import check_partition, fill_partition, numbered
from mmseg_semi.datasets.paths import check_data_paths
from mmseg_semi.datasets.split_check import parts_of_config
from mmseg_semi.datasets.walk import leaf_configs

LABELED = {'type': 'CamVidDataset', 'ann_file': 'splits/{partition}/labeled.txt', 'pipeline': []}
UNLABELED = {'type': 'UnlabeledDataset', 'ann_file': 'splits/{partition}/unlabeled.txt'}
SEMI = {'type': 'LabeledUnlabeledDataset', 'labeled': LABELED, 'unlabeled': UNLABELED}
SELF = {
    'type': 'SelfTrainingDataset',
    'labeled': LABELED,
    'pseudo_labeled': {'type': 'PseudoLabeledDataset', 'images': UNLABELED, 'labels': None},
}
SUPERVISED = {'of': 'CamVidDataset', **LABELED, 'type': 'CheckedDataset', 'counted': UNLABELED}


@pytest.mark.parametrize('dataset', [SEMI, SELF, SUPERVISED])
def test_all_lists_are_filled(dataset):
    given = ConfigDict(dataset, partition='classic/183')
    filled = fill_partition(given)
    text = str(filled)
    assert text.count('splits/classic/183/labeled.txt') == 1
    assert text.count('splits/classic/183/unlabeled.txt') == 1
    assert 'partition' not in filled
    assert given == ConfigDict(dataset, partition='classic/183')  # not changed
    assert filled.type == dataset['type']


def test_what_needs_no_partition_comes_back():
    dataset = {'type': 'CamVidDataset', 'ann_file': 'splits/train.txt'}
    assert fill_partition(dataset) is dataset
    assert fill_partition({**dataset, 'partition': None}) == dataset


@pytest.mark.parametrize('dataset', [SEMI, SELF, SUPERVISED])
def test_a_list_that_waits_is_one_sentence(dataset):
    says = r'dataset.partition is not set, and .*ann_file=splits/\{partition\}/labeled.txt needs it'
    with pytest.raises(ValueError, match=says):
        fill_partition(dataset)
    with pytest.raises(ValueError, match=says):
        DATASETS.build(dataset)


@pytest.mark.parametrize('dataset', [SEMI, SELF, SUPERVISED])
def test_a_partition_that_nothing_waits_for_is_one_sentence(dataset):
    config = fill_partition({**dataset, 'partition': 'a/1'})
    says = r'dataset.partition=b/2 is set, and no list of the dataset has \{partition\} for it'
    with pytest.raises(ValueError, match=says):
        DATASETS.build({**config, 'partition': 'b/2'})


@pytest.mark.parametrize('partition', [7, '', '/', ['a']])
def test_a_partition_is_a_folder(partition):
    with pytest.raises(
        ValueError, match='must be the folder of the lists, such as classic/183, got'
    ):
        fill_partition({**SEMI, 'partition': partition})


def test_whoever_reads_children_gets_the_lists_of_the_partition():
    for dataset in (SEMI, SELF):
        given = {**dataset, 'partition': 'p/5'}
        cfg = Config({'train_dataloader': {'dataset': given}})
        lists = ['splits/p/5/labeled.txt', 'splits/p/5/unlabeled.txt']
        assert [leaf.dataset['ann_file'] for leaf in leaf_configs(given)] == lists
        assert [part['ann_file'] for part in parts_of_config(cfg).values()] == lists
        assert [config['ann_file'] for _, _, config, _ in dataset_configs(cfg)] == lists
        with pytest.raises(FileNotFoundError, match=r'splits/p/5/labeled\.txt'):
            check_data_paths(given)


def test_a_supervised_set_has_its_partition_and_does_not_load_what_it_counts(tmp_path):
    for folder in ('img', 'ann', 'lists/p/2'):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / 'lists/p/2/labeled.txt').write_text('a\nb\n')
    dataset = DATASETS.build(
        {
            **SUPERVISED,
            'data_root': str(tmp_path),
            'data_prefix': {'img_path': 'img', 'seg_map_path': 'ann'},
            'ann_file': 'lists/{partition}/labeled.txt',
            'partition': 'p/2',
        }
    )
    assert len(dataset) == 2
    assert dataset.partition == 'p/2'
    assert dataset.counted['ann_file'] == 'splits/p/2/unlabeled.txt'


def test_a_number_that_is_not_the_list_s_is_one_sentence():
    check_partition('p/2', 2)
    check_partition('1_16/seed0', 2)
    with pytest.raises(
        ValueError, match=r'partition=p/3 says 3 labeled images, and its list has 2.*fold_3'
    ):
        check_partition('p/3', 2)


def test_a_number_at_the_end_counts_labeled_images():
    assert numbered('classic/183') == 183
    assert numbered('92') == 92
    assert numbered('1_16/seed0') is numbered('l8_0') is numbered(None) is None
