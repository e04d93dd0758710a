"""mIoU of both halves against true masks, where the user names them."""

import copy
import json

import numpy as np
import pytest
import trained
from PIL import Image

from mmseg_semi.datasets.orientation import displayed
from mmseg_semi.self_training import measure_quality, report_truth, select_reliable
from mmseg_semi.self_training.images import ImagePool
from mmseg_semi.self_training.prediction import Predictor
from mmseg_semi.self_training.scores import read_table
from mmseg_semi.self_training.truth import TruthReading, read_true_mask

NO_WORKERS = dict(num_workers=0)


def write_truth(folder, masks, suffix='.png'):
    for name, mask in masks.items():
        path = folder / f'{name}{suffix}'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    return str(folder)


def random_truth(cfg, pool):
    rng, images = np.random.default_rng(0), ImagePool(cfg, pool)
    truth = {}
    for i, name in enumerate(images.ids):
        with Image.open(images.info(i)['img_path']) as image:
            truth[name] = rng.integers(0, 4, image.size[::-1], dtype=np.uint8)
            truth[name][:3] = 255
    return truth


def mean_iou(pairs):
    """Percent, class by class over the pixels of all pairs (true, predicted)."""
    true = np.concatenate([t[t != 255] for t, _ in pairs])
    mask = np.concatenate([m[t != 255] for t, m in pairs])
    ious = []
    for c in range(4):
        union = ((true == c) | (mask == c)).sum()
        ious.append(((true == c) & (mask == c)).sum() / union if union else np.nan)
    return 100 * np.nanmean(ious), 100 * np.array(ious)


@pytest.fixture(scope='module')
def selected(cfg, checkpoints, pool, tmp_path_factory):
    out = tmp_path_factory.mktemp('selected') / 'out'
    select_reliable(cfg, checkpoints, pool, str(out), **NO_WORKERS)
    return out


def test_miou_of_both_halves(cfg, checkpoints, pool, tmp_path, selected):
    truth = random_truth(cfg, pool)
    truth['u1'][truth['u1'] == 3] = 2
    folder = write_truth(tmp_path, truth)
    report = report_truth(cfg, checkpoints[-1], pool, str(selected), folder, **NO_WORKERS)
    assert json.loads((selected / 'truth.json').read_text()) == report
    predictor, images = Predictor(cfg, checkpoints[-1], 'cpu'), ImagePool(cfg, pool)
    ids, _, reliable = read_table(str(selected / 'scores.csv'))
    pairs = {'reliable': [], 'unreliable': [], 'all': []}
    for positions, samples in images.load(images.plan(8), 0):
        size = samples[0]['data_samples'].ori_shape
        masks = predictor.masks(predictor.prepare(samples), size).numpy()
        for i, mask in zip(positions, masks, strict=True):
            for half in ('reliable' if reliable[i] else 'unreliable', 'all'):
                pairs[half].append((truth[ids[i]], mask))
    assert [len(pairs[half]) for half in pairs] == [3, 4, 7]
    for half in pairs:
        mean, ious = mean_iou(pairs[half])
        assert report['mIoU'][half] == pytest.approx(mean, abs=0.006)
        assert report['IoU'][half] == pytest.approx(list(ious), abs=0.006)
    assert len(set(report['mIoU'].values())) == 3
    assert report['classes'] == list(trained.CLASSES)


def test_a_perfect_half(cfg, checkpoints, pool, tmp_path, selected):
    predictor, images = Predictor(cfg, checkpoints[-1], 'cpu'), ImagePool(cfg, pool)
    ids, _, reliable = read_table(str(selected / 'scores.csv'))
    truth = {}
    for positions, samples in images.load(images.plan(8), 0):
        size = samples[0]['data_samples'].ori_shape
        masks = predictor.masks(predictor.prepare(samples), size).numpy()
        for i, mask in zip(positions, masks, strict=True):
            truth[ids[i]] = mask if reliable[i] else np.full_like(mask, 255)
    folder = write_truth(tmp_path, truth)
    report = report_truth(cfg, checkpoints[-1], pool, str(selected), folder, **NO_WORKERS)
    assert report['mIoU'] == {'reliable': 100.0, 'unreliable': None, 'all': 100.0}


def test_true_masks_that_count_from_one(cfg, checkpoints, pool, tmp_path, selected):
    """As ADE20K's: 0 is void, class c is c + 1; the config's test dataset says so."""
    truth = random_truth(cfg, pool)
    plain = report_truth(
        cfg, checkpoints[-1], pool, str(selected), write_truth(tmp_path, truth), **NO_WORKERS
    )
    shifted = {
        name: np.where(mask == 255, 0, mask + 1).astype(np.uint8) for name, mask in truth.items()
    }
    (tmp_path / 'shifted').mkdir()
    folder = write_truth(tmp_path / 'shifted', shifted)
    reduced = copy.deepcopy(cfg)
    reduced.test_dataloader.dataset.reduce_zero_label = True
    report = report_truth(reduced, checkpoints[-1], pool, str(selected), folder, **NO_WORKERS)
    assert report['mIoU'] == plain['mIoU']


def test_true_masks_by_another_ending(cfg, checkpoints, pool, tmp_path, selected):
    folder = write_truth(tmp_path, random_truth(cfg, pool), '_mask.png')
    call = (cfg, checkpoints[-1], pool, str(selected), folder)
    report = report_truth(*call, truth_suffix='_mask.png', **NO_WORKERS)
    assert report['mIoU']['all'] > 0
    with pytest.raises(FileNotFoundError, match=r'^7 of 7 true masks do not exist, .*sub/u0.png'):
        report_truth(*call, **NO_WORKERS)


@pytest.mark.parametrize(
    ('mask', 'message'),
    [
        (np.zeros((24, 31), np.uint8), r'u1.png is 24x31 .* its image .*u1.png is 24x32'),
        (np.full((24, 32), 4, np.uint8), r'u1.png has the value 4, but the dataset has 4 classes'),
        (np.zeros((24, 32, 3), np.uint8), r'u1.png is a color image'),
    ],
)
def test_a_true_mask_that_does_not_fit(cfg, checkpoints, pool, tmp_path, selected, mask, message):
    folder = write_truth(tmp_path, {**random_truth(cfg, pool), 'u1': mask})
    with pytest.raises(ValueError, match=message):
        report_truth(cfg, checkpoints[-1], pool, str(selected), folder, **NO_WORKERS)


def test_a_selection_that_does_not_fit(cfg, checkpoints, pool, tmp_path, selected):
    folder = write_truth(tmp_path / 'truth', random_truth(cfg, pool))
    with pytest.raises(
        ValueError, match=r'empty has no selection.json, so not all of its images are'
    ):
        report_truth(cfg, checkpoints[-1], pool, str(tmp_path / 'empty'), folder, **NO_WORKERS)
    fewer = trained.write_pool(tmp_path / 'fewer', [(24, 32)] * 2)
    with pytest.raises(ValueError, match='has the scores of other images'):
        report_truth(cfg, checkpoints[-1], fewer, str(selected), folder, **NO_WORKERS)


@pytest.mark.parametrize('view', ['stored', 'displayed'])
def test_true_masks_of_turned_photographs(tmp_path, view):
    """Masks are compared as the image was predicted: as it is displayed."""
    true = np.zeros((24, 32), np.uint8)
    true[:5, :7] = 1
    for orientation in (1, 3, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image, mask = tmp_path / f'{orientation}.jpg', tmp_path / f'{orientation}.png'
        Image.new('RGB', (32, 24)).save(image, exif=exif)
        expected = displayed(true, orientation)
        Image.fromarray(expected if view == 'displayed' else true).save(mask)
        reading = TruthReading(drawn_on=view)
        read = read_true_mask(str(mask), str(image), np.zeros_like(expected), 4, reading, 255)
        assert np.array_equal(read, expected)
    exif[0x0112] = 3
    Image.new('RGB', (32, 24)).save(image, exif=exif)
    Image.fromarray(true).save(mask)
    with pytest.raises(ValueError, match="Set drawn_on='stored' of LoadAnnotations"):
        read_true_mask(str(mask), str(image), true, 4, TruthReading(), 255)


def test_masks_of_0_and_255(cfg, checkpoints, pool, tmp_path, selected):
    """`MappedSegDataset` and a test set with fewer classes in another order map the true masks, too."""
    truth = random_truth(cfg, pool)
    plain = report_truth(
        cfg, checkpoints[-1], pool, str(selected), write_truth(tmp_path, truth), **NO_WORKERS
    )
    names = dict(zip(range(4), (200, 1, 0, 3), strict=True))
    names[255] = 255
    stored = {name: np.vectorize(names.get)(mask).astype(np.uint8) for name, mask in truth.items()}
    (tmp_path / 'stored').mkdir()
    folder = write_truth(tmp_path / 'stored', stored)
    mapped = copy.deepcopy(cfg)
    meta = dict(classes=trained.CLASSES)
    mapped.test_dataloader.dataset.update(
        type='MappedSegDataset', label_map={200: 0, 0: 2}, metainfo=meta
    )
    report = report_truth(mapped, checkpoints[-1], pool, str(selected), folder, **NO_WORKERS)
    assert report['mIoU'] == plain['mIoU']
    quality = [
        measure_quality(one, checkpoints[-1], pool, masks, **NO_WORKERS)
        for one, masks in ((cfg, str(tmp_path)), (mapped, folder))
    ]
    assert quality[0] == quality[1]
    two = copy.deepcopy(mapped)
    other = dict(mapped.test_dataloader.dataset, label_map={200: 1})
    two.test_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[mapped.test_dataloader.dataset, other]
    )
    with pytest.raises(ValueError, match=r'label_map=\{200: 0, 0: 2\}, .*label_map=\{200: 1\}'):
        TruthReading.of_test(two)


def test_masks_are_read_as_those_of_the_test_set(cfg):
    assert TruthReading.of_test(cfg) == TruthReading()
    cfg = copy.deepcopy(cfg)
    pipeline = cfg.test_dataloader.dataset.pipeline
    pipeline[0].color_type = 'color_ignore_orientation'
    pipeline[1].drawn_on = 'stored'
    cfg.test_dataloader.dataset.reduce_zero_label = True
    assert TruthReading.of_test(cfg) == TruthReading(
        reduce_zero_label=True, is_displayed=False, drawn_on='stored'
    )
