"""What a staged training refuses before its first training, and what may be in its images and configs."""

import json
import shutil

import cv2
import pytest
from mmengine.config import Config
from mmseg.registry import RUNNERS
from tiny_run import tiny_config, tiny_stages_config, write_images

from mmseg_semi.engine.runner.stages import build_stages

SHORT = {'train_cfg__max_iters': 4, 'train_cfg__val_interval': 4}


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / 'data')


def refused(config, match):
    """The runner refuses a config, and no stage has started."""
    with pytest.raises(ValueError, match=match):
        RUNNERS.build(config).train()
    assert not list(config.work_dir.glob('stages/*.json'))


def staged(tmp_path, method='st', *, images, **changes):
    config = tiny_stages_config(tmp_path / 'work', method, images=images, **{**SHORT, **changes})
    config.default_hooks.checkpoint.interval = 1
    config.work_dir = tmp_path / 'work'
    return config


def run(config):
    RUNNERS.build(config).train()
    marks = [json.loads(path.read_text()) for path in config.work_dir.glob('stages/*.json')]
    assert marks
    assert all(mark['finished'] for mark in marks)


@pytest.mark.parametrize(
    ('changes', 'match'),
    [
        ({'model__backbone__type': 'ResNetV1x'}, '^Stage student: ResNetV1x is not in'),
        ({'stages__label__soft': 9}, r'^stages\.label\.soft=9, .* larger than num_classes=6\. Set'),
        (
            {
                'stages__label__soft': 2,
                'model__decode_head__loss_decode': dict(type='CrossEntropyLoss'),
            },
            '^Stage student: decode_head.loss_decode of FCNHead cannot use soft labels',
        ),
    ],
)
def test_students_that_cannot_be_built(images, tmp_path, changes, match):
    config = staged(tmp_path, images=images, **changes)
    tiny_config(tmp_path / 'own', None, images=images).dump(str(tmp_path / 'teacher.py'))
    config.teacher = dict(config=str(tmp_path / 'teacher.py'))
    refused(config, match)


def test_a_transform_of_pseudo_labels_that_does_not_exist(images, tmp_path):
    config = staged(tmp_path, images=images)
    config.train_dataloader.dataset.pseudo_labeled.pipeline[-2].type = 'RandomNoiseCutot'
    refused(config, '^Stage student: RandomNoiseCutot is not in')


def test_a_work_folder_among_the_unlabeled_images(images, tmp_path):
    config = staged(tmp_path, images=images)
    folder = tmp_path / 'data' / 'unlabeled'
    folder.mkdir()
    for name in (images / 'unlabeled.txt').read_text().split():
        shutil.copy(images / f'img_dir/{name}.png', folder)
    config.work_dir = folder / 'work'
    unlabeled = config.train_dataloader.dataset.pseudo_labeled.images
    unlabeled.img_dir = 'unlabeled'
    del unlabeled['ann_file']
    refused(config, 'is inside the folder of images')


@pytest.mark.parametrize(('kind', 'stage'), [('labeled', 'teacher'), ('unlabeled', 'label')])
def test_images_that_change_between_stages(images, tmp_path, kind, stage):
    config = staged(tmp_path, images=images, run_stages=['teacher', 'label'])
    run(config)
    run(config)
    path = images / f'{kind}.txt'
    path.write_text(path.read_text().split('\n', 1)[1])
    config.run_stages = ['label', 'student']
    with pytest.raises(ValueError, match=rf'^Stage {stage} was started with other {kind} images'):
        RUNNERS.build(config).train()
    mark = config.work_dir / 'stages' / f'{stage}.json'
    content = json.loads(mark.read_text())
    del content['images']  # as in a folder of an earlier version
    mark.write_text(json.dumps(content))
    RUNNERS.build(config)._check()


def test_names_with_blanks_and_odd_line_ends(images, tmp_path):
    names = (images / 'unlabeled.txt').read_text().split()
    folder = tmp_path / 'data' / 'unlabeled'
    folder.mkdir()
    for name, other in zip(names, ['x ', ' x', 'a\u0085b', '\u00a0y', 'z\u2028'], strict=False):
        shutil.copy(images / f'img_dir/{name}.png', folder / f'{other}.png')
    config = staged(tmp_path, 'stpp', images=images)
    unlabeled = config.train_dataloader.dataset.pseudo_labeled.images
    unlabeled.img_dir = 'unlabeled'
    del unlabeled['ann_file']
    run(config)
    labels = {path.stem for path in config.work_dir.glob('label_*/*.png')}
    assert labels == {path.stem for path in folder.iterdir()}


def test_gray_images_and_a_teacher_with_its_own_config(images, tmp_path):
    """``check_files`` is that of the staged config, since the images are."""
    for name in (images / 'unlabeled.txt').read_text().split():
        path = str(images / f'img_dir/{name}.png')
        cv2.imwrite(path, cv2.imread(path, cv2.IMREAD_GRAYSCALE))
    config = staged(tmp_path, images=images)
    own = tiny_config(tmp_path / 'own', None, images=images, **SHORT)
    own.default_hooks.checkpoint.interval = 1
    own.dump(str(tmp_path / 'teacher.py'))
    config.teacher = dict(config=str(tmp_path / 'teacher.py'))
    refused(config, r'is gray \(mode L\), not 8-bit RGB')
    config.train_dataloader.dataset.check_files = 'complete'
    run(config)


def test_a_teacher_config_without_hooks(images, tmp_path):
    """As tools/export.py writes it."""
    config = staged(tmp_path, images=images)
    own = tiny_config(tmp_path / 'own', None, images=images)
    own.pop('default_hooks')
    own.dump(str(tmp_path / 'teacher.py'))
    config.teacher = dict(config=str(tmp_path / 'teacher.py'))
    build_stages(Config(config.to_dict()))['label'].check()
    config.stages.label.checkpoint = 'best'
    with pytest.raises(ValueError, match='but no best checkpoint is saved'):
        build_stages(Config(config.to_dict()))['label'].check()
