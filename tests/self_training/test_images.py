"""Which images, in which batches, prepared how; and what is said of an image that cannot be read."""

import copy

import cv2
import numpy as np
import pytest
import trained
from mmengine.config import Config
from PIL import Image

from mmseg_semi.datasets import ShapesDataset
from mmseg_semi.self_training import prediction_pipeline
from mmseg_semi.self_training.images import BATCH_PIXELS, ImagePool, images_per_batch

RESIZE = dict(type='Resize', scale=(64, 48), keep_ratio=True)


def with_pipeline(*pipeline, **dataset):
    return Config(dict(test_dataloader=dict(dataset=dict(pipeline=list(pipeline), **dataset))))


def load(pool, batches, workers=0):
    return [
        (positions, [tuple(s['inputs'].shape[1:]) for s in samples])
        for positions, samples in pool.load(batches, workers)
    ]


def test_annotations_are_left_out_and_what_resizes_stays():
    class LoadSpecialAnnotations:
        pass

    pipeline = [
        trained.LOAD,
        RESIZE,
        dict(type='LoadAnnotations', reduce_zero_label=True),
        dict(type='LoadDepthAnnotation'),
        dict(type=LoadSpecialAnnotations),
        dict(type='CheckLabels'),
        trained.PACK,
    ]
    cfg = with_pipeline(*pipeline)
    before = copy.deepcopy(cfg.to_dict())
    assert prediction_pipeline(cfg) == [trained.LOAD, RESIZE, trained.PACK]
    assert cfg.to_dict() == before
    wrapped = Config(dict(test_dataloader=dict(dataset=dict(dataset=cfg.test_dataloader.dataset))))
    assert prediction_pipeline(wrapped) == [trained.LOAD, RESIZE, trained.PACK]


def test_a_config_without_a_test_pipeline():
    for cfg in (Config({}), with_pipeline()):
        with pytest.raises(
            ValueError, match=r'^The config has no test_dataloader.dataset.pipeline'
        ):
            prediction_pipeline(cfg)


def test_a_test_pipeline_that_crops():
    """The mask of the crop would be stored as that of the whole image."""
    for crop in ('CenterCrop', 'EvaluationCenterCrop'):
        cfg = with_pipeline(trained.LOAD, dict(type=crop, crop_size=(8, 8)), trained.PACK)
        with pytest.raises(ValueError, match=rf'^test_dataloader.dataset.pipeline has {crop}, so'):
            prediction_pipeline(cfg)


def test_ids_and_subset(cfg, pool):
    images = ImagePool(cfg, pool)
    assert images.ids == ['sub/u0', 'u1', 'u2', 'u3', 'u4', 'u5', 'u6']
    some = ImagePool(cfg, pool, ['u6', 'sub/u0', 'u6'])
    assert some.ids == ['sub/u0', 'u6']  # in the order of the dataset
    assert some.info(1)['img_path'].endswith('u6.png')
    assert len(ImagePool(cfg, pool, [])) == 0
    with pytest.raises(
        ValueError, match=r"^1 of 2 ids of the subset are not images, the first is 'v'"
    ):
        ImagePool(cfg, pool, ['u1', 'v'])


def test_batches_have_one_size(cfg, pool):
    images = ImagePool(cfg, pool)
    assert images.plan(8) == [[0, 1, 3, 5, 6], [2, 4]]
    assert images.plan(2) == [[0, 1], [3, 5], [6], [2, 4]]
    assert ImagePool(cfg, pool, ['u2', 'u3', 'u4']).plan(8) == [[0, 2], [1]]
    assert ImagePool(cfg, pool, []).plan(8) == []


def test_large_images_come_in_small_batches():
    assert images_per_batch((1024, 2048), 8) == 1
    assert images_per_batch((2000, 3000), 8) == 1
    assert images_per_batch((1024, 1024), 8) == 2
    assert images_per_batch((375, 500), 8) == 8
    assert images_per_batch((375, 500), 3) == 3
    assert images_per_batch(None, 5) == 5
    assert BATCH_PIXELS == 2048 * 1024


def test_sizes_come_from_headers(cfg, pool, monkeypatch):
    """Planning decodes no image."""
    monkeypatch.setattr(cv2, 'imdecode', None)
    monkeypatch.setattr(Image.Image, 'load', None)
    assert len(ImagePool(cfg, pool).plan(8)) == 2


def test_drawn_images_need_no_file():
    cfg = with_pipeline(dict(type='LoadShapes'), trained.PACK)
    config = dict(type='ShapesDataset', num_images=3, image_size=(24, 32), labeled=False)
    images = ImagePool(cfg, config)
    assert images.plan(2) == [[0, 1], [2]]
    ((positions, samples),) = images.load([[2]], 0)
    assert positions == [2]
    assert 'gt_sem_seg' not in samples[0]['data_samples']
    drawn = ShapesDataset(num_images=3, image_size=(24, 32), pipeline=[dict(type='LoadShapes')])[2]
    assert (samples[0]['inputs'].permute(1, 2, 0).numpy() == drawn['img']).all()


def test_a_network_trained_on_drawn_images_reads_files(pool):
    images = ImagePool(with_pipeline(dict(type='LoadShapes'), trained.PACK), pool)
    assert load(images, [[0]]) == [([0], [(24, 32)])]


@pytest.mark.parametrize('workers', [0, 1])
def test_loading(cfg, pool, workers):
    images = ImagePool(cfg, pool)
    batches = [[0, 1], [2]]
    assert load(images, batches, workers) == [([0, 1], [(24, 32)] * 2), ([2], [(32, 24)])]
    ((_, samples),) = images.load([[0]], workers)
    assert (samples[0]['inputs'].permute(1, 2, 0).numpy() == trained.texture(0)).all()
    assert samples[0]['data_samples'].ori_shape == (24, 32)
    assert load(images, [], workers) == []


def test_a_batch_is_split_where_loading_changes_a_size(cfg, tmp_path):
    """The header of a photo does not say that the camera was held upright; its EXIF data does."""
    for i in range(3):
        exif = Image.Exif()
        if i == 1:
            exif[0x0112] = 6  # orientation: turned by a quarter
        Image.fromarray(trained.texture(i)).save(tmp_path / f'{i}.jpg', exif=exif)
    images = ImagePool(cfg, dict(type='UnlabeledDataset', img_dir=str(tmp_path)))
    assert images.plan(8) == [[0, 1, 2]]
    assert load(images, images.plan(8)) == [([0, 2], [(24, 32)] * 2), ([1], [(32, 24)])]


def test_a_batch_is_split_where_the_pipeline_makes_it_too_large(pool):
    wide = dict(type='Resize', scale=(2048, 1024), keep_ratio=False)
    images = ImagePool(with_pipeline(trained.LOAD, wide, trained.PACK), pool)
    loaded = load(images, [[0, 1]])
    assert loaded == [([0], [(1024, 2048)]), ([1], [(1024, 2048)])]


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-40]), 'is truncated'),
        (lambda p: p.write_text('no image'), 'cannot be read as an image'),
        (lambda p: p.unlink(), 'does not exist'),
        (lambda p: cv2.imwrite(str(p), np.zeros((24, 32), np.uint8)), 'is gray .*8-bit RGB'),
        # Header and end are whole; what is between is not, and the decoder gives nothing.
        (lambda p: p.write_bytes(p.read_bytes()[:60] + p.read_bytes()[-12:]), 'cannot be read'),
    ],
    ids=['truncated', 'text', 'missing', 'gray', 'hollow'],
)
def test_an_image_that_cannot_be_read(cfg, tmp_path, workers, spoil, words):
    config = trained.write_pool(tmp_path, [(24, 32)] * 2)
    images = ImagePool(cfg, config)
    spoil(tmp_path / 'u1.png')
    assert sorted(i for batch in images.plan(8) for i in batch) == [0, 1]
    with pytest.raises((ValueError, FileNotFoundError), match=f'u1.png {words}') as error:
        load(images, [[0, 1]], workers)
    assert '\n' not in str(error.value)


def test_gray_images_pass_where_the_config_says_so(cfg, tmp_path):
    config = trained.write_pool(tmp_path, [(24, 32)])
    cv2.imwrite(str(tmp_path / 'sub' / 'u0.png'), np.zeros((24, 32), np.uint8))
    cfg = copy.deepcopy(cfg)
    for check_files in (False, 'complete'):
        cfg.train_dataloader = dict(dataset=dict(check_files=check_files))
        assert load(ImagePool(cfg, config), [[0]]) == [([0], [(24, 32)])]
    (tmp_path / 'sub' / 'u0.png').write_text('no image')
    with pytest.raises(ValueError, match='cannot be read as an image'):
        load(ImagePool(cfg, config), [[0]])


def test_the_fingerprint_knows_the_images_but_not_where_they_are(cfg, pool, tmp_path):
    one, two = tmp_path / 'one', tmp_path / 'two'
    sizes = [(24, 32), (32, 24)]
    fingerprint = ImagePool(cfg, trained.write_pool(one, sizes)).fingerprint()
    assert fingerprint.startswith('2 from sub/u0 on, SHA-256 ')
    assert ImagePool(cfg, trained.write_pool(two, sizes)).fingerprint() == fingerprint
    cv2.imwrite(str(two / 'u1.png'), trained.texture(9, 40, 40))
    assert ImagePool(cfg, dict(pool, img_dir=str(two))).fingerprint() != fingerprint
    assert ImagePool(cfg, dict(pool, img_dir=str(one)), ['u1']).fingerprint() != fingerprint


def test_the_fingerprint_knows_images_that_change_without_changing_their_size(cfg, pool, tmp_path):
    """As uncompressed images do if they are, for example, normalized in place."""
    path, config = tmp_path / 'u.bmp', dict(pool, img_dir=str(tmp_path), img_suffix='.bmp')
    fingerprints = []
    for size in [(4, 4), (64, 96)]:
        for brightness in (0, 1):
            cv2.imwrite(str(path), trained.texture(0, *size) // 2 + brightness)
            fingerprints.append((path.stat().st_size, ImagePool(cfg, config).fingerprint()))
    sizes, values = zip(*fingerprints, strict=True)
    assert len(set(sizes)) == 2
    assert len(set(values)) == 4


@pytest.mark.parametrize(
    ('suffix', 'truth_suffix', 'expected'),
    [
        ('.png', '.png', 'a/b_leftImg8bit.png'),
        ('_leftImg8bit.png', '_gtFine_labelTrainIds.png', 'a/b_gtFine_labelTrainIds.png'),
        (('.jpg', '.png'), '_mask.png', 'a/b_leftImg8bit_mask.png'),
    ],
)
def test_names_of_true_masks(cfg, tmp_path, suffix, truth_suffix, expected):
    path = tmp_path / 'a' / 'b_leftImg8bit.png'
    path.parent.mkdir()
    cv2.imwrite(str(path), trained.texture(0))
    config = dict(type='UnlabeledDataset', img_dir=str(tmp_path), img_suffix=suffix)
    assert ImagePool(cfg, config).true_mask_name(0, truth_suffix) == expected
