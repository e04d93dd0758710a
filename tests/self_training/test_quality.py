"""Pseudo-labels against true masks: shares, precision and recall by confidence, and measured batch norm."""

import copy

import numpy as np
import pytest
import torch
import trained
from PIL import Image

from mmseg_semi.self_training import measure_quality, network_names, quality_table
from mmseg_semi.self_training.images import ImagePool
from mmseg_semi.self_training.prediction import Predictor

NO_WORKERS = dict(num_workers=0)


@pytest.fixture(scope='module')
def method(tmp_path_factory):
    """Config and checkpoint of iMAS, whose teacher and student differ."""
    cfg = trained.config(method=True)
    return cfg, trained.checkpoint(cfg, tmp_path_factory.mktemp('quality') / 'x.pth')


@pytest.fixture(scope='module')
def truth(cfg, pool, tmp_path_factory):
    """Folder of random true masks, the first three rows void, and the masks themselves."""
    folder, rng, masks = tmp_path_factory.mktemp('truth'), np.random.default_rng(0), {}
    images = ImagePool(cfg, pool)
    for i, name in enumerate(images.ids):
        with Image.open(images.info(i)['img_path']) as image:
            masks[name] = rng.integers(0, 4, image.size[::-1], dtype=np.uint8)
        masks[name][:3] = 255
        path = folder / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(masks[name]).save(path)
    return str(folder), masks


def pixels(cfg, checkpoint, pool, masks):
    """Confidence, label and truth of every pixel that is not void, image by image."""
    predictor, images = Predictor(cfg, checkpoint, 'cpu'), ImagePool(cfg, pool)
    found = []
    for positions, samples in images.load([[i] for i in range(len(images))], 0):
        size = samples[0]['data_samples'].ori_shape
        confidence, label = predictor.confident_labels(predictor.prepare(samples), size)
        plain = predictor.masks(predictor.prepare(samples), size)
        assert torch.equal(label.to(torch.uint8), plain)
        true = masks[images.ids[positions[0]]]
        valid = true != 255
        found.append((confidence[0].numpy()[valid], label[0].numpy()[valid], true[valid]))
    return [np.concatenate(values) for values in zip(*found, strict=True)]


def percent(part, whole):
    return pytest.approx(100 * part.sum() / whole.sum(), abs=0.02) if whole.any() else None


def test_a_network_that_diverged(cfg, checkpoints, pool, truth, tmp_path):
    state = torch.load(checkpoints[0])
    state['state_dict']['decode_head.conv_seg.bias'].fill_(float('nan'))
    path = str(tmp_path / 'diverged.pth')
    torch.save(state, path)
    with pytest.raises(
        ValueError, match=r'diverged\.pth predicts values .* not finite for .*\.png'
    ):
        measure_quality(cfg, path, pool, truth[0], **NO_WORKERS)


def test_counts_by_confidence_and_class(cfg, checkpoints, pool, truth):
    folder, masks = truth
    report = measure_quality(
        cfg, checkpoints[0], pool, folder, thresholds=[0.3, 0.6, 0.9], batch_size=2, **NO_WORKERS
    )
    confidence, label, true = pixels(cfg, checkpoints[0], pool, masks)
    assert report['classes'] == list(trained.CLASSES)
    assert report['truth'] == [percent(true == c, true >= 0) for c in range(4)]
    shares = []
    for row, threshold in zip(report['thresholds'], (0.3, 0.6, 0.9), strict=True):
        kept = confidence >= threshold
        assert row['threshold'] == threshold
        assert row['kept'] == percent(kept, kept | True)
        assert row['precision'] == percent(kept & (label == true), kept)
        for c in range(4):
            mine, right = kept & (label == c), kept & (label == c) & (true == c)
            assert row['share'][c] == percent(mine, kept)
            assert row['class_precision'][c] == percent(right, mine)
            assert row['class_recall'][c] == percent(right, true == c)
            union = mine | (kept & (true == c))
            assert row['IoU'][c] == percent(right, union)
        shares.append(row['kept'])
    assert shares[0] > shares[1] > shares[2] > 0
    assert sum(value is not None for value in report['thresholds'][0]['class_precision']) >= 2
    table = quality_table(report).splitlines()
    assert len(table) == 2 + 1 + 3
    assert table[2].startswith('| (truth) |  |  | ')
    assert table[3].startswith(f'| ≥ 0.3 | {report["thresholds"][0]["kept"]:.1f} | ')
    assert {line.count('|') for line in table} == {3 + 4 + 4 + 1}


def test_each_network_of_a_method(method, pool, truth):
    cfg, checkpoint = method
    state = torch.load(checkpoint, weights_only=True)
    other = copy.deepcopy(state)
    key = 'student.decode_head.conv_seg.bias'
    other['state_dict'][key] = other['state_dict'][key] + torch.tensor([0.0, 0.0, 0.0, 50.0])
    torch.save(other, checkpoint)
    assert network_names(cfg) == ('student', 'teacher')
    shares = {}
    for name in ('student', 'teacher', ''):
        report = measure_quality(cfg, checkpoint, pool, truth[0], network=name, **NO_WORKERS)
        shares[name] = report['thresholds'][0]['share']
    assert shares['student'] == [0, 0, 0, 100]
    assert shares['teacher'][3] < 100
    assert shares[''] == shares['teacher']  # iMAS predicts with its teacher
    with pytest.raises(
        ValueError, match=r"^network='pupil' is none of IMAS. Choose one of student, teacher"
    ):
        measure_quality(cfg, checkpoint, pool, truth[0], network='pupil', **NO_WORKERS)


def test_batch_norm_measured_on_these_images(cfg, checkpoints, pool, truth):
    """Statistics that were spoiled give back the labels of statistics measured by hand."""
    predictor, images = Predictor(cfg, checkpoints[0], 'cpu'), ImagePool(cfg, pool)
    batches = [samples for _, samples in images.load(images.plan(8), 0)]
    inputs = [predictor.prepare(samples) for samples in batches]
    norm = next(
        m
        for m in predictor._network.modules()
        if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)
    )
    saved, momentum = norm.running_mean.clone(), norm.momentum
    seen = []
    handle = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0].mean((0, 2, 3))))
    with predictor.measuring_batch_norm():
        for samples, batch in zip(batches, inputs, strict=True):
            predictor.masks(batch, samples[0]['data_samples'].ori_shape)
    handle.remove()
    torch.testing.assert_close(norm.running_mean, torch.stack(seen).mean(0))
    assert not torch.allclose(norm.running_mean, saved)
    assert (norm.momentum, norm.training) == (momentum, False)
    call = (cfg, checkpoints[0], pool, truth[0])
    saved, measured = (
        measure_quality(*call, measure_batch_norm=m, **NO_WORKERS) for m in (False, True)
    )
    assert saved['truth'] == measured['truth']
    assert saved['thresholds'] != measured['thresholds']
    with pytest.raises(ValueError, match='batch_size=1, no batch has 2 images of the same size'):
        measure_quality(*call, measure_batch_norm=True, batch_size=1, **NO_WORKERS)


@pytest.mark.parametrize('thresholds', [[], [0.5, 0.5], [0.9, 0.5], [-0.1], [0.5, 1.0], [[0.5]]])
def test_thresholds_that_are_none(cfg, checkpoints, pool, truth, thresholds):
    with pytest.raises(ValueError, match=r'^thresholds=.* must be ascending confidences'):
        measure_quality(cfg, checkpoints[0], pool, truth[0], thresholds=thresholds, **NO_WORKERS)


def test_classes_that_do_not_occur_have_no_figure(cfg, checkpoints, pool, truth):
    report = measure_quality(
        cfg, checkpoints[0], pool, truth[0], thresholds=[0.0, 1 - 1e-12], **NO_WORKERS
    )
    assert report['thresholds'][0]['kept'] == 100
    last = report['thresholds'][1]
    assert last['kept'] == 0
    assert last['precision'] is None
    assert last['share'] == [None] * 4
    assert '–' in quality_table(report)
