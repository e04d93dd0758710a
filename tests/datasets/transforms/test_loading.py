"""Loaders: images and masks in one orientation whatever reads them, and files with all their bands."""

import numpy as np
import pytest
from mmengine.dataset import Compose
from mmseg.apis import inference_model, init_model
from mmseg.datasets.transforms import PackSegInputs
from mmseg.registry import DATASETS
from PIL import Image
from trained import checkpoint, config

from mmseg_semi.datasets.orientation import displayed
from mmseg_semi.datasets.transforms import LoadAnnotations, LoadImageFromFile, loading
from mmseg_semi.functional._torch import knows_uint16

MASK = np.zeros((24, 40), np.uint8)
MASK[:8, :10], MASK[8:20, 30:] = 1, 2
LOADERS = [
    {},
    dict(imdecode_backend='pillow'),
    dict(color_type='unchanged'),
    dict(color_type='grayscale'),
    dict(color_type='color_ignore_orientation'),
    dict(color_type='unchanged', imdecode_backend='pillow'),
]


def write_image(path, orientation, pixels=MASK):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.stack([pixels * 100] * 3, axis=-1)).save(path, exif=exif)
    return str(path)


def write_mask(path, view, orientation, pixels=MASK):
    Image.fromarray(displayed(pixels, orientation) if view == 'displayed' else pixels).save(path)
    return str(path)


def load(image, mask, loader, drawn_on=None):
    pipeline = Compose(
        [dict(type='LoadImageFromFile', **loader), dict(type='LoadAnnotations', drawn_on=drawn_on)]
    )
    return pipeline(dict(img_path=image, seg_map_path=mask, seg_fields=[], reduce_zero_label=False))


def shown(results):
    """The classes that the image shows, by its brightness."""
    image = results['img'] if results['img'].ndim == 2 else results['img'][..., 0]
    return np.round(image / 100).astype(np.uint8)


def test_pipelines_that_name_the_stock_loaders_have_ours():
    steps = Compose([dict(type='LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')]).transforms
    assert [type(step) for step in steps] == [LoadImageFromFile, LoadAnnotations]


@pytest.mark.parametrize('kind', ['jpg', 'png', 'webp', 'tif'])
@pytest.mark.parametrize('loader', LOADERS, ids=str)
@pytest.mark.parametrize('view', ['stored', 'displayed'])
def test_masks_lie_on_their_images(tmp_path, kind, loader, view):
    for orientation in range(1, 9):
        image = write_image(tmp_path / f'{orientation}.{kind}', orientation)
        mask = write_mask(tmp_path / f'm{orientation}.png', view, orientation)
        drawn_on = view if orientation in (2, 3, 4) else None
        results = load(image, mask, loader, drawn_on)
        wrong = shown(results) != results['gt_seg_map']  # along the edges of a JPEG file
        assert wrong.mean() < 0.02, orientation
        turned = 'ignore' not in str(loader) or kind == 'tif'
        expected = displayed(MASK, orientation) if turned else MASK
        assert np.array_equal(results['gt_seg_map'], expected), orientation
        assert results['ori_shape'] == results['img_shape'] == expected.shape


@pytest.mark.parametrize('orientation', [2, 3, 4])
def test_a_mask_that_may_be_turned_is_refused(tmp_path, orientation):
    image = write_image(tmp_path / 'i.jpg', orientation)
    mask = write_mask(tmp_path / 'm.png', 'stored', orientation)
    with pytest.raises(
        ValueError, match=rf"m\.png .*i\.jpg .*orientation {orientation}.*drawn_on='stored'"
    ):
        load(image, mask, {})


def test_the_entry_of_a_mask_counts(tmp_path):
    image = write_image(tmp_path / 'i.jpg', 3)
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(MASK).save(tmp_path / 'm.png', exif=exif)
    results = load(image, str(tmp_path / 'm.png'), {})
    assert np.array_equal(results['gt_seg_map'], displayed(MASK, 3))
    # Where the image was saved upright, without its entry.
    write_image(tmp_path / 'i.jpg', 1, displayed(MASK, 3))
    results = load(image, str(tmp_path / 'm.png'), {})
    assert np.array_equal(results['gt_seg_map'], displayed(MASK, 3))


def test_masks_of_images_without_an_entry_are_as_mmseg_loads_them(tmp_path):
    image = write_image(tmp_path / 'i.png', 1)
    results = load(image, write_mask(tmp_path / 'm.png', 'stored', 1), {}, 'displayed')
    assert np.array_equal(results['gt_seg_map'], MASK)
    assert 'exif_orientation' not in results


def test_a_validation_set_of_mmseg_is_loaded_alike(tmp_path):
    """No check of ours is in its pipeline, and it resizes before it loads the mask."""
    for folder in ('img', 'ann'):
        (tmp_path / folder).mkdir()
    write_image(tmp_path / 'img/a.jpg', 6)
    write_mask(tmp_path / 'ann/a.png', 'stored', 6)
    dataset = DATASETS.build(
        dict(
            type='BaseSegDataset',
            data_root=str(tmp_path),
            data_prefix=dict(img_path='img', seg_map_path='ann'),
            metainfo=dict(classes=('a', 'b', 'c')),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='Resize', scale=(48, 80)),
                dict(type='LoadAnnotations'),
                dict(type='PackSegInputs'),
            ],
        )
    )
    sample = dataset[0]
    assert sample['inputs'].shape == (3, 80, 48)
    assert np.array_equal(sample['data_samples'].gt_sem_seg.data[0], displayed(MASK, 6))


@pytest.mark.parametrize('loader', [{}, dict(color_type='unchanged')], ids=str)
def test_inference_sees_what_training_sees(tmp_path, loader):
    cfg = config([dict(type='LoadImageFromFile', **loader), dict(type='PackSegInputs')])
    cfg.test_pipeline = cfg.test_dataloader.dataset.pipeline
    model = init_model(cfg, checkpoint(cfg, tmp_path / 'w.pth'), device='cpu')
    upright = write_image(tmp_path / 'upright.png', 1, displayed(MASK, 6))
    turned = write_image(tmp_path / 'turned.png', 6)
    expected, found = (inference_model(model, path).pred_sem_seg.data for path in (upright, turned))
    assert found.shape == (1, 40, 24)
    assert (found == expected).all()


def test_an_unreadable_image_is_one_sentence(tmp_path):
    (tmp_path / 'a.jpg').write_bytes(b'no image')
    with pytest.raises(ValueError, match=r'a\.jpg cannot be read as an image. Replace it'):
        LoadImageFromFile().transform(dict(img_path=str(tmp_path / 'a.jpg')))
    assert (
        LoadImageFromFile(ignore_empty=True).transform(dict(img_path=str(tmp_path / 'a.jpg')))
        is None
    )


# ------------------------------------------------------------------------------------ bands and bits
BANDS = np.random.default_rng(0).integers(0, 4000, (24, 40, 4)).astype(np.uint16)


@pytest.fixture
def write_tiff(tmp_path):
    tifffile = pytest.importorskip(
        'tifffile', reason='tifffile is not installed: pip install tifffile'
    )

    def write(array, name='a.tif', **settings):
        tifffile.imwrite(tmp_path / name, array, **settings)
        return str(tmp_path / name)

    return write


def read(path, **loader):
    return LoadImageFromFile(**loader).transform(dict(img_path=path))['img']


TIFF = dict(color_type='unchanged', imdecode_backend='tifffile')


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize('number', [3, 4, 6])
def test_all_bands_wherever_the_file_has_them(write_tiff, dtype, number):
    bands = np.random.default_rng(1).integers(0, 200, (24, 40, number)).astype(dtype)
    first = np.moveaxis(bands, -1, 0)
    gray = dict(photometric='minisblack')
    for path in (
        write_tiff(bands, **gray, planarconfig='contig'),
        write_tiff(first, **gray, planarconfig='separate'),
        write_tiff(first, **gray),  # a page per band
        write_tiff(bands, photometric='rgb', bigtiff=True),
    ):
        image = read(path, **TIFF)
        assert image.dtype == (dtype if knows_uint16 or dtype != np.uint16 else np.float32)
        assert np.array_equal(image, bands)


def test_one_band_has_no_axis_of_bands(write_tiff):
    assert np.array_equal(read(write_tiff(BANDS[..., 0]), **TIFF), BANDS[..., 0])


def test_a_turned_tiff_file(write_tiff):
    path = write_tiff(BANDS, photometric='rgb', extratags=[(274, 3, 1, 6, True)])
    for loader in (TIFF, dict(color_type='unchanged')):
        image = read(path, **loader)
        assert image.shape == (40, 24, 4)
    assert np.array_equal(read(path, **TIFF), displayed(BANDS, 6))


def test_stacks_of_images_are_refused(write_tiff):
    path = write_tiff(np.zeros((5, 24, 40, 3), np.uint8), photometric='rgb')
    with pytest.raises(
        ValueError, match=r'a\.tif has the axes QYXS of 5x24x40x3. Save one image per file'
    ):
        read(path, **TIFF)


@pytest.mark.parametrize(
    ('number', 'settings'),
    [
        (4, dict(photometric='minisblack', planarconfig='contig')),
        (4, dict(photometric='rgb')),
        (6, dict(photometric='rgb')),
        (6, dict(photometric='minisblack', planarconfig='separate')),
    ],
    ids=str,
)
@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_colors_of_a_file_with_more_are_refused(write_tiff, number, settings, backend, capfd):
    bands = np.random.default_rng(1).integers(0, 4000, (24, 40, number)).astype(np.uint16)
    if settings.get('planarconfig') == 'separate':
        bands = np.moveaxis(bands, -1, 0)
    path = write_tiff(bands, **settings)
    with pytest.raises(ValueError, match=r'a\.tif .*(bands?|read)') as error:
        read(path, imdecode_backend=backend)
    assert '\n' not in str(error.value)
    said = f'{number} band(s) of 16 bits and the loader gives'
    assert said in str(error.value)
    assert "color_type='unchanged', imdecode_backend='tifffile'" in str(error.value)


@pytest.mark.parametrize('planar', [False, True])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_unchanged_is_refused_where_opencv_drops_or_mixes_bands(write_tiff, dtype, planar):
    bands = BANDS.astype(dtype)
    path = (
        write_tiff(np.moveaxis(bands, -1, 0), photometric='minisblack', planarconfig='separate')
        if planar
        else write_tiff(bands, photometric='minisblack', planarconfig='contig')
    )
    with pytest.raises(
        ValueError, match=r'4 band\(s\) of (8|16) bits and the loader gives 1 of uint'
    ):
        read(path, color_type='unchanged')


def test_planar_colors_of_16_bits_are_refused(write_tiff):
    """OpenCV gives the right shape and other numbers."""
    path = write_tiff(np.moveaxis(BANDS, -1, 0), photometric='rgb', planarconfig='separate')
    with pytest.raises(
        ValueError, match=r'4 band\(s\) of 16 bits and the loader gives 4 of uint16'
    ):
        read(path, color_type='unchanged')


@pytest.mark.parametrize('known', [False, True])
def test_sixteen_bits_become_a_tensor_of_every_torch(tmp_path, known, monkeypatch):
    monkeypatch.setattr(loading, 'knows_uint16', known and knows_uint16)
    Image.fromarray(BANDS[..., 0]).save(tmp_path / 'a.png')
    results = dict(img_path=str(tmp_path / 'a.png'))
    results = LoadImageFromFile(color_type='unchanged').transform(results)
    if not known:
        assert results['img'].dtype == np.float32
    packed = PackSegInputs().transform(results)['inputs']
    assert np.array_equal(packed[0].float().numpy(), BANDS[..., 0])


@pytest.mark.parametrize('kind', ['png', 'tif'])
def test_sixteen_bits_are_not_cut_to_eight(tmp_path, kind):
    Image.fromarray(BANDS[..., 0]).save(tmp_path / f'a.{kind}')
    path = str(tmp_path / f'a.{kind}')
    for loader in ({}, dict(color_type='grayscale'), dict(imdecode_backend='pillow')):
        with pytest.raises(
            ValueError, match=r"of 16 bits and the loader gives .* of uint8\. .*'unchanged'"
        ):
            read(path, **loader)
    assert np.array_equal(read(path, color_type='unchanged'), BANDS[..., 0])


def test_transparency_may_be_left_out(tmp_path):
    picture = Image.fromarray(BANDS.astype(np.uint8), 'RGBA')
    for kind in ('png', 'tif'):
        picture.save(tmp_path / f'a.{kind}')
        assert read(str(tmp_path / f'a.{kind}')).shape == (24, 40, 3)
        assert read(str(tmp_path / f'a.{kind}'), color_type='unchanged').shape == (24, 40, 4)


def test_what_is_no_tiff_file_is_refused(write_tiff, tmp_path):
    Image.fromarray(MASK).save(tmp_path / 'a.png')
    with pytest.raises(ValueError, match=r'a\.png cannot be read by tifffile \(not a TIFF file'):
        read(str(tmp_path / 'a.png'), **TIFF)


def test_tifffile_must_be_installed(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(ImportError, match='pip install tifffile imagecodecs'):
        LoadImageFromFile(**TIFF)
