"""Another label for void than 255: the same training, or one sentence before it."""

import copy
import re

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.registry import RUNNERS
from PIL import Image
from tiny_run import METHODS, build_runner, tiny_config, tiny_stages_config, write_images

from mmseg_semi.datasets.shapes import CLASSES, PALETTE


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Folders of the same images whose masks have 255, 200 or 0 for void; with 0 the classes are 1 to 6."""
    folders = {255: write_images(tmp_path_factory.mktemp('void255'))}
    for void in (200, 0):
        folders[void] = write_images(tmp_path_factory.mktemp(f'void{void}'))
        for path in (folders[void] / 'ann_dir').iterdir():
            mask = np.array(Image.open(path))
            kept = mask + 1 if void == 0 else mask
            Image.fromarray(np.where(mask == 255, void, kept).astype(np.uint8)).save(path)
    return folders


def with_void(config, void, padding=True):
    """The config with another label for void in all its parts."""
    datasets = [config.val_dataloader.dataset, config.test_dataloader.dataset]
    train = config.train_dataloader.dataset
    datasets.append(train.get('labeled') or train)
    for dataset in datasets:
        dataset.ignore_index = void
        if void == 0:
            dataset.metainfo = {'classes': ['void', *CLASSES], 'palette': [[0, 0, 0], *PALETTE]}
    network = config.model.get('segmentor', config.model)
    heads = network.get('auxiliary_head') or []
    for head in [network.decode_head, *(heads if isinstance(heads, list) else [heads])]:
        head.ignore_index = void
        head.num_classes = len(CLASSES) + (void == 0)
    network.data_preprocessor.seg_pad_val = void
    for stage in ('val', 'test'):
        config[f'{stage}_evaluator'].ignore_index = void
    if padding:  # each image by another amount
        crop = next(t for t in datasets[-1].pipeline if t.type == 'RandomCrop')
        crop.crop_size = (24, 28)
        if 'unlabeled' in train:
            next(t for t in train.unlabeled.pipeline if t.type == 'RandomCrop').crop_size = (28, 24)
    return config


def losses_of(runner):
    losses = []
    original = runner.model.train_step

    def recording(*args, **kwargs):
        found = original(*args, **kwargs)
        losses.append({key: float(value.detach()) for key, value in found.items()})
        return found

    runner.model.train_step = recording
    runner.train()
    return losses


def short(work_dir, method, folder, **changes):
    return tiny_config(
        work_dir,
        method,
        images=folder,
        train_cfg__max_iters=2,
        train_cfg__val_interval=9,
        **changes,
    )


@pytest.mark.parametrize('method', [*sorted(METHODS), None])
def test_void_of_200_is_that_of_255(method, images, tmp_path):
    expected = losses_of(build_runner(with_void(short(tmp_path / '255', method, images[255]), 255)))
    found = losses_of(build_runner(with_void(short(tmp_path / '200', method, images[200]), 200)))
    assert found == expected
    assert len(found) == 2


@pytest.mark.parametrize('method', ['DeS4', 'ESL', 'FixMatch', 'GPS', 'IMAS', 'U2PL', None])
def test_void_may_be_the_label_of_a_class(method, images, tmp_path):
    config = with_void(short(tmp_path, method, images[0]), 0)
    for losses in losses_of(build_runner(config)):
        assert all(np.isfinite(value) for key, value in losses.items() if 'loss' in key)


def test_the_ignored_class_is_no_pseudo_label(images, tmp_path):
    model = build_runner(with_void(short(tmp_path, 'FixMatch', images[0]), 0)).model
    logits = torch.zeros(1, 7, 2, 2)
    logits[0, 0, 0] = 5.0
    logits[0, 3, 1] = 5.0
    _, label = model.most_probable(logits, (2, 2))
    assert label.tolist() == [[[255, 255], [3, 3]]]


@pytest.mark.parametrize('runtime', ['st', 'stpp'])
def test_self_training_in_stages(runtime, images, tmp_path):
    changes = {'train_cfg__max_iters': 3, 'train_cfg__val_interval': 3}
    config = tiny_stages_config(tmp_path, runtime, images=images[0], **changes)
    config.default_hooks.checkpoint.interval = 1
    config = with_void(config, 0, padding=False)
    for transform in config.train_dataloader.dataset.pseudo_labeled.pipeline:
        if transform.type == 'RandomNoiseCutout':
            transform.ignore_index = 0
    RUNNERS.build(config).train()
    assert (tmp_path / 'last_checkpoint').is_file()


def change_segmentor(config, **settings):
    config.merge_from_dict({f'model.segmentor.{key}': value for key, value in settings.items()})


def add(config, kind, transform):
    dataset = config.train_dataloader.dataset[kind]
    dataset.pipeline = [*dataset.pipeline[:-1], ConfigDict(transform), dataset.pipeline[-1]]


DISAGREEMENTS = {
    'data_preprocessor.seg_pad_val is 255': lambda c: change_segmentor(
        c, **{'data_preprocessor.seg_pad_val': 255}
    ),
    'auxiliary_head.ignore_index is 255': lambda c: change_segmentor(
        c, auxiliary_head={**c.model.segmentor.decode_head, 'ignore_index': 255}
    ),
    'loss_decode.ignore_index of DiceLoss is 255': lambda c: change_segmentor(
        c, decode_head={'loss_decode': {'type': 'DiceLoss', '_delete_': True}}
    ),
    'train_dataloader.dataset.labeled.ignore_index is 255': lambda c: (
        c.train_dataloader.dataset.labeled.pop('ignore_index')
    ),
    'labeled.reduce_zero_label=True': lambda c: c.train_dataloader.dataset.labeled.update(
        reduce_zero_label=True
    ),
    'labeled.pipeline: Pad.pad_val.seg is 255': lambda c: add(
        c, 'labeled', {'type': 'Pad', 'size': (32, 32)}
    ),
    'labeled.pipeline: RandomCrop.ignore_index is 255': lambda c: add(
        c, 'labeled', {'type': 'RandomCrop', 'crop_size': (8, 8), 'cat_max_ratio': 0.75}
    ),
    'labeled.pipeline: RandomRotate.seg_pad_val is 255': lambda c: add(
        c,
        'labeled',
        {
            'type': 'RandomApply',
            'transforms': [{'type': 'RandomRotate', 'prob': 0.5, 'degree': 9}],
        },
    ),
    'unlabeled.pipeline: Pad.pad_val.seg=200 treats filled pixels': lambda c: add(
        c, 'unlabeled', {'type': 'Pad', 'size': (32, 32), 'pad_val': {'img': 0, 'seg': 200}}
    ),
    'val_evaluator.ignore_index of IoUMetric is 255': lambda c: c.val_evaluator.update(
        ignore_index=255
    ),
    'val_dataloader.dataset.ignore_index is 255': lambda c: c.val_dataloader.dataset.pop(
        'ignore_index'
    ),
}


@pytest.mark.parametrize('sentence', list(DISAGREEMENTS))
def test_parts_that_disagree_are_refused(sentence, images, tmp_path):
    config = with_void(short(tmp_path, 'IMAS', images[200]), 200, padding=False)
    config = copy.deepcopy(config)
    config.train_dataloader.dataset.check_files = False
    DISAGREEMENTS[sentence](config)
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        build_runner(config).train()
    if 'unlabeled' not in sentence:
        assert 'decode_head.ignore_index=200' in str(error.value)
    assert not list(tmp_path.glob('iter_*.pth'))


def test_a_test_compares_its_metrics(images, tmp_path):
    config = with_void(short(tmp_path, 'IMAS', images[200]), 200)
    config.test_evaluator.ignore_index = 255
    with pytest.raises(ValueError, match=r'test_evaluator.ignore_index of IoUMetric is 255'):
        build_runner(config).test()


def test_masks_with_another_value_for_void_are_refused(images, tmp_path):
    config = with_void(short(tmp_path, 'IMAS', images[255]), 200)
    with pytest.raises(ValueError, match=r'has the value 255, but .* 200 = void'):
        build_runner(config).train()
