"""Configs by the name of a method, and what a comparison sets in all of them."""

import pytest
from mmengine.config import Config

from mmseg_semi.comparison import (
    data_root_keys,
    drawn_seed_keys,
    find_config,
    set_partition,
    trainings_of,
)
from mmseg_semi.comparison.configs import NAME

FILES = (
    'imas/imas_deeplabv3plus_r18-tiny_600iter_camvid-1_8-96x72.py',
    'imas/imas_deeplabv3plus_r18-tiny_600iter_camvid-1_16-96x72.py',
    'imas/imas_deeplabv3plus_r101-d16_4xb8-80e_voc12-blender-cps-662-513x513.py',
    'imas/imas-official_deeplabv3plus_r101-d16_4xb8-80e_voc12-blender-cps-662-513x513.py',
    'mean_teacher/mean-teacher_segformer_b1_10k_own-512x512.py',
    'imas/README.py',
    '_base_/datasets/camvid.py',
)


@pytest.fixture
def root(tmp_path):
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_a_name_is_taken_apart():
    said = NAME.fullmatch(FILES[2].partition('/')[2]).groupdict()
    assert said['method'] == 'imas'
    assert (said['head'], said['network']) == ('deeplabv3plus', 'r101-d16')
    assert said['schedule'] == '4xb8-80e'
    assert (said['dataset'], said['partition'], said['crop']) == (
        'voc12',
        'blender-cps-662',
        '513x513',
    )


@pytest.mark.parametrize(
    ('method', 'parts', 'found'),
    [
        ('imas', {'dataset': 'camvid', 'partition': '1_8'}, FILES[0]),
        ('imas', {'dataset': 'camvid', 'partition': '1_16', 'network': None}, FILES[1]),
        ('imas', {'dataset': 'voc12'}, FILES[2]),
        ('imas-official', {}, FILES[3]),
        ('mean_teacher', {'head': 'segformer'}, FILES[4]),
        ('mean-teacher', {'dataset': 'own'}, FILES[4]),
    ],
)
def test_the_one_that_fits_is_found(root, method, parts, found):
    assert find_config(method, root, **parts) == root / found


@pytest.mark.parametrize(
    ('method', 'parts', 'says'),
    [
        (
            'imas',
            {'dataset': 'camvid'},
            r'2 configs of imas have dataset=camvid: .*1_16-96x72.*1_8-96x72',
        ),
        ('imas', {}, r'3 configs of imas have no further part'),
        # The nearest first.
        (
            'imas',
            {'dataset': 'camvid', 'partition': '1_4'},
            r'imas has no config with dataset=camvid, partition=1_4: it has imas_\w+_r18-tiny_\w+_camvid-1_16',
        ),
        ('cps', {}, r"'cps' is no method of .*choose of imas, imas-official, mean-teacher\."),
    ],
)
def test_others_are_refused_with_the_candidates(root, method, parts, says):
    with pytest.raises(ValueError, match=says):
        find_config(method, root, **parts)


@pytest.mark.parametrize('method', ['suponly', 'suponly-des4', 'imas', 'esl', 'des4', 'st', 'stpp'])
@pytest.mark.parametrize(
    'parts',
    [
        {'dataset': 'camvid', 'partition': '1_8', 'network': 'r18-tiny'},
        {'dataset': 'shapes', 'partition': '40'},
    ],
)
def test_methods_of_the_package_are_found(method, parts):
    path = find_config(method, **parts)
    assert path.is_file()
    assert path.name.startswith(f'{method}_')


def test_every_set_of_drawn_images_is_seeded():
    for method, children in {
        'suponly': ['dataset'],
        'imas': ['dataset.labeled', 'dataset.unlabeled'],
        'st': ['dataset.labeled', 'dataset.pseudo_labeled.images'],
    }.items():
        cfg = Config.fromfile(find_config(method, dataset='shapes', partition='40'))
        keys = [f'train_dataloader.{child}.seed' for child in children]
        assert drawn_seed_keys(cfg) == [
            *keys,
            'val_dataloader.dataset.seed',
            'test_dataloader.dataset.seed',
        ]
        assert data_root_keys(cfg) == []


def test_trainings_end_with_the_result():
    cfg = Config.fromfile(find_config('stpp', dataset='shapes', partition='40'))
    cfg.work_dir = 'work'
    trainings = trainings_of(cfg)
    assert list(trainings) == ['teacher', 'student', 'final']
    assert trainings['teacher'].train_dataloader.dataset.pseudo_labeled is None
    plain = Config.fromfile(find_config('suponly', dataset='shapes', partition='40'))
    assert trainings_of(plain) == {'': plain}


LISTED = {'type': 'CamVidDataset', 'ann_file': 'old.txt'}


def lists_of(dataset, partition):
    """The lists of a training's dataset after set_partition."""
    cfg = Config({'train_dataloader': {'dataset': dataset}})
    set_partition(cfg, partition)
    return cfg.train_dataloader.dataset


def test_a_partition_sets_the_lists_of_every_kind_of_training():
    assert lists_of(LISTED, 'p/q').ann_file == 'p/q/labeled.txt'
    assert lists_of(LISTED, 'all.txt').ann_file == 'all.txt'
    semi = {'type': 'LabeledUnlabeledDataset', 'labeled': LISTED, 'unlabeled': LISTED}
    found = lists_of(semi, 'p')
    assert found.labeled.ann_file == 'p/labeled.txt'
    assert found.unlabeled.ann_file == 'p/unlabeled.txt'
    images = {'type': 'PseudoLabeledDataset', 'images': LISTED}
    self_training = {'type': 'SelfTrainingDataset', 'labeled': LISTED, 'pseudo_labeled': images}
    found = lists_of(self_training, 'p')
    assert found.labeled.ann_file == 'p/labeled.txt'
    assert found.pseudo_labeled.images.ann_file == 'p/unlabeled.txt'
    baseline = {**self_training, 'pseudo_labeled': None}
    assert lists_of(baseline, 'all.txt').labeled.ann_file == 'all.txt'


def test_a_partition_that_does_not_fit_is_one_sentence():
    semi = {'type': 'LabeledUnlabeledDataset', 'labeled': LISTED, 'unlabeled': LISTED}
    with pytest.raises(ValueError, match=r'partition=all.txt is one list, and None takes two'):
        lists_of(semi, 'all.txt')
    with pytest.raises(ValueError, match='None trains on a ShapesDataset without ann_file'):
        lists_of({'type': 'ShapesDataset'}, 'p')
