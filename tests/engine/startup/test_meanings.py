"""Runs whose datasets, or whose checkpoint, mean different classes by an index stop before the first step."""

import pytest
from processes import TOOLS, run_tool
from tiny_run import build_runner, dump, tiny_config, tiny_stages_config, write_images

from mmseg_semi.datasets.shapes import CLASSES, PALETTE
from mmseg_semi.self_training.prediction import Predictor

OTHER = [CLASSES[1], CLASSES[0], *CLASSES[2:]]


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('images'))


def test_validation_with_other_classes_palette_or_zero_label(tmp_path, images):
    config = tiny_config(tmp_path, images=images)
    for change, said in (
        ({'metainfo': {'classes': OTHER, 'palette': PALETTE}}, 'metainfo.classes differ (index 0'),
        (
            {'reduce_zero_label': True},
            'labeled.reduce_zero_label=False but val_dataloader.dataset.red',
        ),
    ):
        config.val_dataloader.dataset = {**config.test_dataloader.dataset, **change}
        with pytest.raises(ValueError, match=r'train_dataloader\.dataset\.labeled') as error:
            build_runner(config).train()
        assert said in str(error.value)


def test_the_test_set_of_a_supervised_training_is_compared_by_its_config(tmp_path, images):
    config = tiny_config(tmp_path, None, images=images)
    config.test_dataloader.dataset = {
        **config.test_dataloader.dataset,
        'metainfo': {'classes': OTHER},
        'data_root': 'not/there',
    }
    with pytest.raises(
        ValueError, match=r'^train_dataloader.dataset.metainfo.*test_dataloader.dataset.meta'
    ):
        build_runner(config).train()


def test_pseudo_labels_of_another_order(tmp_path, images):
    config = tiny_stages_config(tmp_path, images=images)
    training = tiny_config(tmp_path / 'teacher', None, images=images)
    training.train_dataloader = config.train_dataloader
    labels = tmp_path / 'labels'
    labels.mkdir()
    (labels / 'pseudo_labels.json').write_text(
        f'{{"num_images": 0, "settings": {{}}, "classes": {OTHER}}}'.replace("'", '"')
    )
    training.train_dataloader.dataset.pseudo_labeled.labels = [str(labels)]
    with pytest.raises(ValueError, match=r'classes of .*pseudo_labels\.json differ'):
        build_runner(training).train()


def test_masks_stored_in_two_ways_on_purpose_and_another_palette_are_warnings(
    tmp_path, images, caplog
):
    config = tiny_config(tmp_path, images=images, train_cfg__max_iters=1, train_cfg__val_interval=9)
    config.custom_hooks[0].same_masks = False
    config.val_dataloader.dataset = {
        **config.test_dataloader.dataset,
        'type': 'MappedSegDataset',
        'label_map': {254: 1},
        'metainfo': {'classes': list(CLASSES), 'palette': PALETTE[::-1]},
    }
    runner = build_runner(config)
    warned = []
    runner.logger.warning = warned.append
    runner.train()
    said = [line for line in warned if line.startswith('train_dataloader.dataset.labeled.')]
    assert [line.partition('=')[0].rpartition('.')[2] for line in said] == ['label_map', 'palette']


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory, images):
    folder = tmp_path_factory.mktemp('trained')
    changes = {'train_cfg__max_iters': 1, 'train_cfg__val_interval': 9}
    config = tiny_config(folder, None, images=images, **changes)
    config.default_hooks.checkpoint.interval = 1
    build_runner(config).train()
    return folder / 'iter_1.pth'


@pytest.mark.parametrize('stage', ['test', 'val'])
def test_a_checkpoint_of_another_order_is_not_scored(tmp_path, images, checkpoint, stage):
    config = tiny_config(tmp_path, None, images=images, load_from=str(checkpoint))
    config.train_dataloader = config.train_cfg = config.optim_wrapper = config.param_scheduler = (
        None
    )
    getattr(build_runner(config), stage)()  # its own classes
    config[f'{stage}_dataloader'].dataset.metainfo = {'classes': OTHER}
    with pytest.raises(
        ValueError,
        match=f'classes of the checkpoint .*iter_1.pth and {stage}_dataloader.dataset.metainfo',
    ):
        getattr(build_runner(config), stage)()


def test_a_resumed_training_stops_and_one_that_begins_with_its_weights_warns(
    tmp_path, images, checkpoint
):
    changes = {
        'train_cfg__max_iters': 2,
        'train_cfg__val_interval': 9,
        'load_from': str(checkpoint),
    }
    config = tiny_config(tmp_path, None, images=images, **changes)
    for part in ('train', 'val', 'test'):
        config[f'{part}_dataloader'].dataset.metainfo = {'classes': OTHER, 'palette': PALETTE}
    runner = build_runner(config)
    warned = []
    runner.logger.warning = warned.append
    runner.train()
    assert any(
        'were trained for other classes: classes of the checkpoint' in line for line in warned
    )
    config.resume = True
    with pytest.raises(ValueError, match='classes of the checkpoint'):
        build_runner(config).train()


def test_the_test_tool_compares_for_plain_configs_too(tmp_path, images, checkpoint):
    config = tiny_config(tmp_path, None, images=images)
    config.custom_hooks = []
    config.test_dataloader.dataset.metainfo = {'classes': OTHER}
    path = dump(config, tmp_path / 'plain.py')
    result = run_tool(TOOLS / 'test.py', path, checkpoint, cwd=tmp_path)
    assert result.code != 0
    assert (
        'iter_1.pth and test_dataloader.dataset.metainfo.classes differ (index 0' in result.output
    )


def test_what_labels_images_and_the_export_refuse_it(tmp_path, images, checkpoint):
    config = tiny_config(tmp_path, None, images=images)
    config.test_dataloader.dataset.metainfo = {'classes': OTHER}
    with pytest.raises(ValueError, match=r'iter_1.pth and test_dataloader.*differ \(index 0'):
        Predictor(config, str(checkpoint), 'cpu')
    path = dump(config, tmp_path / 'plain.py')
    result = run_tool(TOOLS / 'export.py', path, checkpoint, tmp_path / 'out', cwd=tmp_path)
    assert result.code != 0
    assert (
        'iter_1.pth and test_dataloader.dataset.metainfo.classes differ (index 0' in result.output
    )
