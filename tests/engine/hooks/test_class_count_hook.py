"""Class counts of the labeled set: right, kept, found again, and counted again for another list."""

import json
import logging
import os
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmseg.registry import DATASETS
from PIL import Image
from tiny_run import NUM_LABELED, tiny_config, write_images
from torch import nn

from mmseg_semi.datasets.shapes import CLASSES
from mmseg_semi.engine import ClassCountHook

LOGGER = logging.getLogger('test_class_count_hook')


def runner_of(work_dir, images=None):
    """What the hook asks of a runner."""
    config = tiny_config(work_dir, images=images)
    model = torch.nn.Module()
    model.equalizer, model.ignore_index = nn.Module(), 255
    counts = torch.zeros(len(CLASSES), dtype=torch.int64)
    model.equalizer.register_buffer('class_counts', counts)
    dataset = DATASETS.build(config.train_dataloader.dataset)
    return SimpleNamespace(
        model=model,
        work_dir=str(work_dir),
        logger=LOGGER,
        train_dataloader=SimpleNamespace(dataset=dataset, num_workers=0),
    )


def count(runner, **settings):
    ClassCountHook(**settings).before_train(runner)
    return runner.model.equalizer.class_counts.tolist()


def expected_counts(images):
    total = np.zeros(256, dtype=np.int64)
    for name in (images / 'labeled.txt').read_text().split():
        mask = np.asarray(Image.open(images / 'ann_dir' / f'{name}.png'))
        total += np.bincount(mask.ravel(), minlength=256)
    return total[: len(CLASSES)].tolist()


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / 'images')


def kept(folder):
    return sorted(folder.glob('class_counts_*.json'))


def test_counts_are_of_whole_masks_and_kept_beside_the_work_directory(tmp_path, images, caplog):
    with caplog.at_level(logging.INFO, LOGGER.name):
        counts = count(runner_of(tmp_path / 'work', images))
    assert counts == expected_counts(images)
    assert sum(counts) <= NUM_LABELED * 32 * 32
    assert 'Counting the classes in the masks of 5 labeled images.' in caplog.text
    (file,) = kept(tmp_path)
    assert json.loads(file.read_text())['counts'] == counts
    # Another run with the same list, in another work directory beside it, reads no mask.
    caplog.clear()
    with caplog.at_level(logging.INFO, LOGGER.name):
        assert count(runner_of(tmp_path / 'other', images)) == counts
    assert 'are read from' in caplog.text
    assert 'Counting' not in caplog.text
    assert len(kept(tmp_path)) == 1


def test_another_list_is_counted_again(tmp_path, images):
    first = count(runner_of(tmp_path / 'work', images))
    names = (images / 'labeled.txt').read_text().split()
    (images / 'labeled.txt').write_text('\n'.join(names[:3]) + '\n')
    fewer = count(runner_of(tmp_path / 'work', images))
    assert fewer == expected_counts(images) != first
    assert len(kept(tmp_path)) == 2


def test_changed_masks_are_counted_again(tmp_path, images):
    first = count(runner_of(tmp_path / 'work', images))
    name = (images / 'labeled.txt').read_text().split()[0]
    path = images / 'ann_dir' / f'{name}.png'
    mask = np.full_like(np.asarray(Image.open(path)), 255)
    Image.fromarray(mask).save(path)
    os.utime(path, (1, 1))
    assert count(runner_of(tmp_path / 'work', images)) == expected_counts(images) != first


def test_drawn_images_and_a_folder_of_ones_own(tmp_path):
    counts = count(runner_of(tmp_path / 'work'), cache_dir=str(tmp_path / 'kept' / 'here'))
    assert sum(counts) > 0
    assert len(kept(tmp_path / 'kept' / 'here')) == 1
    assert not kept(tmp_path)


def test_file_that_is_no_such_file_is_replaced(tmp_path, images, caplog):
    counts = count(runner_of(tmp_path / 'work', images))
    (file,) = kept(tmp_path)
    for content in ('{"finger', '{}', '[1]', '{"fingerprint": "another", "counts": [1]}'):
        file.write_text(content)
        caplog.clear()
        assert count(runner_of(tmp_path / 'work', images)) == counts
        assert 'They are counted again' in caplog.text
        assert json.loads(file.read_text())['counts'] == counts


def test_passes_draw_no_random_number(tmp_path, images):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    count(runner_of(tmp_path / 'work', images))
    assert torch.equal(torch.get_rng_state(), before)


def test_absent_classes_are_said(tmp_path, images, caplog):
    for name in (images / 'labeled.txt').read_text().split():
        path = images / 'ann_dir' / f'{name}.png'
        mask = np.asarray(Image.open(path)).copy()
        mask[mask == 2] = 0
        Image.fromarray(mask).save(path)
    with caplog.at_level(logging.INFO, LOGGER.name):
        counts = count(runner_of(tmp_path / 'work', images))
    assert counts[2] == 0
    assert re.search(rf'The labeled images lack .*\b{CLASSES[2]}\b.*\.', caplog.text)


def test_no_labeled_pixel_at_all(tmp_path, images):
    for path in (images / 'ann_dir').glob('*.png'):
        Image.fromarray(np.full((32, 32), 255, dtype=np.uint8)).save(path)
    with pytest.raises(ValueError, match='No pixel of the 5 labeled masks has a class'):
        count(runner_of(tmp_path / 'work', images))
    assert not kept(tmp_path)


def test_wrong_model_and_data_are_said(tmp_path):
    runner = runner_of(tmp_path / 'work')
    runner.train_dataloader.dataset = runner.train_dataloader.dataset.labeled
    with pytest.raises(
        ValueError,
        match=r'ClassCountHook needs the labeled images of a LabeledUnlabeledDat',
    ):
        count(runner)
    runner.model = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match='does not support Linear, which does not use'):
        count(runner)
