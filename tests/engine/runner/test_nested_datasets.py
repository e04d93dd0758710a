"""ConcatDataset and RepeatDataset in the place of each dataset: checked, trained on, labeled, exported."""

import copy
import json

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS, RUNNERS
from tiny_run import (
    NUM_UNLABELED,
    NUM_VAL,
    build_runner,
    tiny_config,
    tiny_stages_config,
    write_images,
)

from mmseg_semi.comparison.configs import data_root_keys, set_partition
from mmseg_semi.comparison.fairness import facts
from mmseg_semi.datasets import image_ids
from mmseg_semi.datasets.data_check import check_data
from mmseg_semi.datasets.report import Report
from mmseg_semi.datasets.split_check import build_parts, check_parts, parts_of_config
from mmseg_semi.engine.export import plain_config
from mmseg_semi.self_training.images import ImagePool, prediction_pipeline
from mmseg_semi.self_training.masks import classes_and_palette
from mmseg_semi.self_training.truth import reduces_zero_label


@pytest.fixture
def images(tmp_path):
    """The images of all sets, with lists of each set's halves."""
    folder = write_images(tmp_path / 'images')
    for name in ('labeled', 'unlabeled', 'val'):
        lines = (folder / f'{name}.txt').read_text().splitlines()
        for half, ids in (('a', lines[::2]), ('b', lines[1::2])):
            (folder / f'{name}_{half}.txt').write_text('\n'.join(ids) + '\n')
    return folder


def halves(dataset, name):
    """The same images: the halves of the list joined, and the second one repeated."""
    dataset = dataset.to_dict() if hasattr(dataset, 'to_dict') else copy.deepcopy(dataset)
    first, second = ({**dataset, 'ann_file': f'{name}_{half}.txt'} for half in 'ab')
    second = {'type': 'RepeatDataset', 'times': 2, 'dataset': second}
    return {'type': 'ConcatDataset', 'datasets': [first, second]}


def nested(config):
    """The config with every dataset in halves."""
    dataset = config.train_dataloader.dataset
    dataset.labeled = halves(dataset.labeled, 'labeled')
    if dataset.get('unlabeled'):
        dataset.unlabeled = halves(dataset.unlabeled, 'unlabeled')
    if dataset.get('pseudo_labeled'):
        dataset.pseudo_labeled.images = halves(dataset.pseudo_labeled.images, 'unlabeled')
    for stage in ('val', 'test'):
        loader = config[f'{stage}_dataloader']
        loader.dataset = halves(loader.dataset, 'val')
    return config


@pytest.mark.slow
def test_the_stages_of_self_training(images, tmp_path):
    changes = {'train_cfg__max_iters': 4, 'train_cfg__val_interval': 4}
    config = nested(tiny_stages_config(tmp_path / 'work', images=images, **changes))
    config.default_hooks.checkpoint.interval = 1
    RUNNERS.build(config).train()
    ids = sorted((images / 'unlabeled.txt').read_text().split())
    labels = sorted(tmp_path.glob('work/*/pseudo_labels.json'))
    written = sum(json.loads(path.read_text())['num_images'] for path in labels[-2:])
    assert written >= NUM_UNLABELED
    masks = {path.stem for path in tmp_path.glob('work/*/*.png')}
    assert set(ids) <= masks


def test_a_method_with_nested_halves_and_sets(images, tmp_path):
    config = nested(tiny_config(tmp_path / 'work', images=images, train_cfg__max_iters=4))
    config.val_cfg.names = config.test_cfg.names = ['a', 'b']
    runner = build_runner(config)
    runner.train()
    metrics = runner.test()
    assert {'a/teacher/mIoU', 'b/student/mIoU', 'teacher/mIoU'} <= metrics.keys()
    plain = plain_config(config, {})
    first, second = plain.test_dataloader.dataset.datasets
    assert (first.type, second.type, second.dataset.type) == (
        'BaseSegDataset',
        'RepeatDataset',
        'BaseSegDataset',
    )


def test_a_validation_image_in_a_part_of_the_training_set_is_refused(images, tmp_path):
    config = nested(tiny_config(tmp_path / 'work', images=images))
    inner = config.train_dataloader.dataset.unlabeled.datasets[1].dataset
    inner.ann_file = 'val_a.txt'
    with pytest.raises(ValueError, match='unlabeled images are also validation images'):
        build_runner(config).train()


def test_check_data_reads_each_dataset(images, tmp_path):
    config = nested(tiny_config(tmp_path / 'work', images=images))
    report = check_data(config, workers=1, quiet=True)
    assert [part.key for part in report.sets] == [
        f'train_dataloader.dataset.{name}.{inner}'
        for name in ('labeled', 'unlabeled')
        for inner in ('datasets[0]', 'datasets[1].dataset')
    ] + ['val_dataloader.dataset.datasets[0]', 'val_dataloader.dataset.datasets[1].dataset']
    assert report.num_problems == 0
    assert not any('more than once' in line for line in report.lines())
    # A mask of the second labeled dataset, and one of the second validation set.
    for name in ('labeled', 'val'):
        file = (images / f'{name}_b.txt').read_text().split()[0]
        cv2.imwrite(str(images / 'ann_dir' / f'{file}.png'), np.full((32, 32), 99, np.uint8))
    report = check_data(config, workers=1, quiet=True)
    assert [part.name for part in report.sets if part.problems] == ['labeled 2', 'validation 2']


def test_a_partition_of_nested_datasets_is_checked(images, tmp_path):
    config = nested(tiny_config(tmp_path / 'work', images=images))
    report = Report()
    parts = build_parts(parts_of_config(config), report)
    check_parts(parts, report, quiet=True)
    assert not report.errors
    table = [fact for fact in report.facts if 'labeled class' in fact]
    assert len(table) == 1  # over both datasets
    file = (images / 'labeled_b.txt').read_text().split()[0]
    cv2.imwrite(str(images / 'ann_dir' / f'{file}.png'), np.full((32, 32), 99, np.uint8))
    check_parts(parts, report, quiet=True)
    assert any('99 in 1 masks' in error for error in report.errors)


def test_pseudo_labels_have_one_name_per_image(images, tmp_path):
    config = nested(tiny_config(tmp_path / 'work', images=images))
    plain = tiny_config(tmp_path / 'work', images=images).train_dataloader.dataset.unlabeled
    joined = config.train_dataloader.dataset.unlabeled
    ids = image_ids(DATASETS.build(copy.deepcopy(joined)))
    assert sorted(ids) == sorted(image_ids(DATASETS.build(copy.deepcopy(plain))))
    pool = ImagePool(config, joined)
    assert pool.ids == ids
    assert pool.true_mask_name(len(ids) - 1, '.png') == f'{ids[-1]}.png'
    whole = copy.deepcopy(joined)
    del whole['datasets'][1]['dataset']['ann_file']
    pool = ImagePool(config, {**whole, 'datasets': whole['datasets'][1:]})
    with pytest.raises(ValueError, match='is inside the folder of images'):
        pool.check_outside(str(images / 'img_dir' / 'labels'))


def test_what_the_tools_read_of_test_sets(images, tmp_path):
    plain = tiny_config(tmp_path / 'work', images=images)
    config = nested(tiny_config(tmp_path / 'work', images=images))
    assert prediction_pipeline(config) == prediction_pipeline(plain)
    assert classes_and_palette(None, {}, config, 6) == classes_and_palette(None, {}, plain, 6)
    first, second = config.test_dataloader.dataset.datasets
    first.reduce_zero_label = second.dataset.reduce_zero_label = True
    assert reduces_zero_label(config)
    first.reduce_zero_label = False
    with pytest.raises(ValueError, match=r'datasets\[1\].dataset.reduce_zero_label=True'):
        reduces_zero_label(config)
    first.pipeline = [first.pipeline[0], {'type': 'Resize', 'scale': (8, 8)}, *first.pipeline[1:]]
    with pytest.raises(ValueError, match='prepare images in two ways'):
        prediction_pipeline(config)


def test_what_a_comparison_reads(images, tmp_path):
    plain = tiny_config(tmp_path / 'work', images=images)
    config = nested(tiny_config(tmp_path / 'work', images=images))
    found, expected = facts(config), facts(plain)
    for name in (
        'labeled images',
        'unlabeled images',
        'validation images',
        'validation pipeline',
    ):
        assert found[name] == expected[name]
    assert 'val_dataloader.dataset.datasets.1.dataset.data_root' in data_root_keys(config)
    with pytest.raises(ValueError, match=r'has 2 labeled datasets, .*labeled.datasets\[0\]'):
        set_partition(config, 'elsewhere')
    repeated = Config({'train_dataloader': {'dataset': plain.train_dataloader.dataset}})
    labeled = repeated.train_dataloader.dataset.labeled
    repeated.train_dataloader.dataset.labeled = {
        'type': 'RepeatDataset',
        'times': 2,
        'dataset': labeled,
    }
    set_partition(repeated, 'elsewhere')
    assert repeated.train_dataloader.dataset.labeled.dataset.ann_file == 'elsewhere/labeled.txt'
    assert repeated.train_dataloader.dataset.unlabeled.ann_file == 'elsewhere/unlabeled.txt'
    assert len(found['validation images']) == NUM_VAL
