"""Trainings on masks whose second class is 255 stop before the first step: labeled and validation masks."""

import numpy as np
import pytest
from PIL import Image
from tiny_run import build_runner, tiny_config, write_images

from mmseg_semi.datasets.walk import leaf_configs

TWO = {'classes': ['background', 'crack'], 'palette': [[0, 0, 0], [9, 9, 9]]}


@pytest.fixture
def images(tmp_path):
    """Masks of 0 and 1."""
    root = write_images(tmp_path / 'images')
    for path in (root / 'ann_dir').iterdir():
        mask = np.array(Image.open(path))
        Image.fromarray((mask == mask.max()).astype(np.uint8)).save(path)
    return root


def two_classes(tmp_path, images, method):
    changes = {'train_cfg__max_iters': 1, 'train_cfg__val_interval': 1}
    config = tiny_config(tmp_path / 'work', method, images=images, **changes)
    network = config.model if method is None else config.model.segmentor
    network.decode_head.num_classes = 2
    for stage in ('train', 'val', 'test'):
        for leaf in leaf_configs(config[f'{stage}_dataloader'].dataset):
            if leaf.kind != 'unlabeled':
                leaf.dataset.metainfo = TWO
    return config


def turn_into_255(images, name):
    for line in (images / f'{name}.txt').read_text().split():
        path = images / f'ann_dir/{line}.png'
        Image.fromarray(255 * np.array(Image.open(path))).save(path)


@pytest.mark.parametrize('method', [None, 'IMAS'])
@pytest.mark.parametrize('name', ['labeled', 'val'])
def test_0_and_255_stop_and_the_line_that_is_given_trains(tmp_path, images, method, name):
    config = two_classes(tmp_path, images, method)
    turn_into_255(images, name)
    key = 'val_dataloader.dataset'
    if name == 'labeled':
        key = 'train_dataloader.dataset' + ('.labeled' if method else '')
    with pytest.raises(
        ValueError,
        match=rf'^{key}: class crack has no pixel and 255 holds [\d.]+ %: are your masks 0/255\?',
    ):
        build_runner(config).train()
    other = 'val' if name == 'labeled' else 'labeled'
    turn_into_255(images, other)  # now all of them, as the sentence says
    for stage in ('train', 'val', 'test'):
        for leaf in leaf_configs(config[f'{stage}_dataloader'].dataset):
            if leaf.kind != 'unlabeled':
                leaf.dataset.update(type='MappedSegDataset', label_map={255: 1})
    runner = build_runner(config)
    runner.train()
    labels = runner.val_dataloader.dataset[0]['data_samples'].gt_sem_seg.data
    assert labels.unique().tolist() == [0, 1]
    if method is None:
        [name] = [key for key in runner.message_hub.log_scalars if key.endswith('mIoU')]
        assert runner.message_hub.get_scalar(name).current() >= 0


def test_void_on_purpose_trains(tmp_path, images):
    config = two_classes(tmp_path, images, 'IMAS')
    turn_into_255(images, 'labeled')
    config.custom_hooks[0].check_masks = False
    build_runner(config).train()


def test_a_resumed_run_is_checked_as_well(tmp_path, images):
    config = two_classes(tmp_path, images, None)
    config.default_hooks.checkpoint.interval = 1
    build_runner(config).train()
    turn_into_255(images, 'val')
    config.resume, config.train_cfg.max_iters = True, 2
    with pytest.raises(ValueError, match=r'^val_dataloader.dataset: class crack has no pixel'):
        build_runner(config).train()


def spoil(images, name, change):
    """Change the second mask of a list, and return its path."""
    line = (images / f'{name}.txt').read_text().split()[1]
    path = images / f'ann_dir/{line}.png'
    Image.fromarray(change(np.array(Image.open(path)))).save(path)
    return path


def with_value_7(mask):
    mask[:3, :2] = 7
    return mask


BAD = {
    r'is \d+x\d+ \(height x width\) but its image \S+ is \d+x\d+': lambda mask: mask[:, 1:],
    r'has the value 7, but the dataset has 2 classes': with_value_7,
}


@pytest.mark.parametrize('said', BAD)
@pytest.mark.parametrize('method', [None, 'IMAS'])
@pytest.mark.parametrize('stage', ['train', 'val', 'test'])
def test_masks_of_an_evaluation_are_checked(tmp_path, images, method, said, stage):
    """MMSegmentation's metric counts such values as wrong pixels, and does not name a file of another size."""
    path = spoil(images, 'val', BAD[said])
    config = two_classes(tmp_path, images, method)
    if not any(hook['type'] == 'StartupCheckHook' for hook in config.custom_hooks):
        config.custom_hooks.append(dict(type='StartupCheckHook'))
    runner = build_runner(config)
    with pytest.raises(ValueError, match=rf'{path.name} {said}'):
        getattr(runner, stage)()
