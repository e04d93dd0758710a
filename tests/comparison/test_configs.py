"""Configs by the name of a method, and what a comparison sets in all of them."""

import pytest
from mmengine.config import Config

from mmseg_semi.comparison import (
    data_root_keys,
    drawn_seed_keys,
    find_config,
    set_length,
    set_partition,
    trainings_of,
)
from mmseg_semi.comparison.configs import NAME

FILES = (
    'imas/imas_deeplabv3plus_r18-d8_1xb16-10k_camvid-480x360.py',
    'imas/imas_deeplabv3plus_r18-tiny_600iter_camvid-96x72.py',
    'imas/imas_deeplabv3plus_r101-d16_4xb8-80e_voc12-513x513.py',
    'imas/imas-official_deeplabv3plus_r101-d16_4xb8-80e_voc12-513x513.py',
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
    assert (said['dataset'], said['crop']) == ('voc12', '513x513')


@pytest.mark.parametrize(
    ('method', 'parts', 'found'),
    [
        ('imas', {'dataset': 'camvid', 'schedule': '1xb16-10k'}, FILES[0]),
        ('imas', {'dataset': 'camvid', 'network': 'r18-tiny', 'crop': None}, FILES[1]),
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
            r'2 configs of imas have dataset=camvid\. .*camvid-480x360.*camvid-96x72',
        ),
        ('imas', {}, r'3 configs of imas have no further part'),
        # The nearest first.
        (
            'imas',
            {'dataset': 'camvid', 'network': 'r50-d8'},
            r'imas has no config with dataset=camvid, network=r50-d8, only imas_\w+_r18-d8_1xb16-10k_camvid',
        ),
        (
            'cps',
            {},
            r"'cps' is neither a method of .*Choose one of imas, imas-official, mean-teacher\.",
        ),
    ],
)
def test_others_are_refused_with_the_candidates(root, method, parts, says):
    with pytest.raises(ValueError, match=says):
        find_config(method, root, **parts)


@pytest.mark.parametrize('method', ['suponly', 'suponly-des4', 'imas', 'esl', 'des4', 'st', 'stpp'])
@pytest.mark.parametrize(
    'parts',
    [
        {'dataset': 'camvid', 'network': 'r18-tiny'},
        {'dataset': 'shapes'},
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
        cfg = Config.fromfile(find_config(method, dataset='shapes'))
        keys = [f'train_dataloader.{child}.seed' for child in children]
        assert drawn_seed_keys(cfg) == [
            *keys,
            'val_dataloader.dataset.seed',
            'test_dataloader.dataset.seed',
        ]
        assert data_root_keys(cfg) == []


def test_trainings_end_with_the_result():
    cfg = Config.fromfile(find_config('stpp', dataset='shapes'))
    cfg.work_dir = 'work'
    trainings = trainings_of(cfg)
    assert list(trainings) == ['teacher', 'student', 'final']
    assert trainings['teacher'].train_dataloader.dataset.pseudo_labeled is None
    plain = Config.fromfile(find_config('suponly', dataset='shapes'))
    assert trainings_of(plain) == {'': plain}


LISTED = {'type': 'CamVidDataset', 'ann_file': 'old.txt'}
WAITING = {'type': 'CheckedDataset', 'of': 'CamVidDataset', 'ann_file': '{partition}/labeled.txt'}


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


def test_a_partition_is_the_key_where_lists_wait_for_it():
    found = lists_of(WAITING, 'p/q')
    assert (found.partition, found.ann_file) == ('p/q', '{partition}/labeled.txt')
    semi = {'type': 'LabeledUnlabeledDataset', 'labeled': WAITING, 'unlabeled': LISTED}
    found = lists_of({**semi, 'partition': 'old'}, 'p')
    assert found.to_dict() == {**semi, 'partition': 'p'}
    # A list of one's own belongs to no partition, and has no unlabeled images to count.
    found = lists_of({**WAITING, 'partition': 'old', 'counted': LISTED}, 'all.txt')
    assert found.to_dict() == {**WAITING, 'ann_file': 'all.txt'}


def test_a_length_in_epochs_becomes_iterations(tmp_path):
    for name, number in {'labeled': 4, 'unlabeled': 22}.items():
        (tmp_path / f'{name}.txt').write_text('\n'.join(f'{name}{i}' for i in range(number)))
        (tmp_path / 'img').mkdir(exist_ok=True)
        for i in range(number):
            (tmp_path / 'img' / f'{name}{i}.jpg').touch()
    images = {'type': 'UnlabeledDataset', 'img_dir': str(tmp_path / 'img'), 'img_suffix': '.jpg'}
    images['ann_file'] = str(tmp_path / 'unlabeled.txt')
    semi = {
        'type': 'LabeledUnlabeledDataset',
        'labeled': {},
        'unlabeled': images,
        'partition': None,
    }
    supervised = {'type': 'CheckedDataset', 'of': 'CamVidDataset', 'counted': images}
    pairs = {
        'type': 'LabeledUnlabeledSampler',
        'labeled': 2,
        'unlabeled': 4,
        'unlabeled_streams': 2,
    }
    for loader in (
        {'dataset': semi, 'sampler': pairs, 'batch_size': 6},
        {'dataset': supervised, 'sampler': {'type': 'InfiniteSampler'}, 'batch_size': 2},
    ):
        length = {'type': 'UnlabeledEpochTrainLoop', 'epochs': 3, 'val_every': 2}
        # 22 images by 2 processes x 2 micro-batches x 2 images: 2 steps, of 2 iterations each.
        cfg = Config({'train_dataloader': loader, 'train_cfg': length})
        cfg.optim_wrapper = {'accumulative_counts': 2}
        set_length(cfg, processes=2)
        assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval) == (12, 8)
        set_length(cfg, processes=1)
        assert cfg.train_cfg.max_iters == 12  # given now
    cfg.train_cfg = length
    del cfg.train_dataloader.dataset.counted
    with pytest.raises(ValueError, match='trains for 3 epochs of unlabeled images but has none'):
        set_length(cfg, processes=1)


def test_a_partition_that_does_not_fit_is_one_sentence():
    semi = {'type': 'LabeledUnlabeledDataset', 'labeled': LISTED, 'unlabeled': LISTED}
    with pytest.raises(ValueError, match=r'partition=all.txt is one list, but None needs two'):
        lists_of(semi, 'all.txt')
    with pytest.raises(ValueError, match='None trains on a ShapesDataset without ann_file'):
        lists_of({'type': 'ShapesDataset'}, 'p')
