"""File checks: what they refuse and what they let through."""

import copy
import io

import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from mmseg_semi.datasets.transforms import CheckImageFile, CheckLabels
from mmseg_semi.datasets.transforms.checks import with_file_checks


@pytest.fixture
def picture():
    small = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(small, (80, 60), interpolation=cv2.INTER_CUBIC))


def check(path, **settings):
    results = dict(img_path=str(path), kept=1)
    assert CheckImageFile(**settings)(results) is results


@pytest.mark.parametrize('name', ['a.jpg', 'a.png', 'a.bmp', 'a.tif', 'a.webp'])
def test_rgb_files_pass(tmp_path, picture, name):
    picture.save(tmp_path / name)
    check(tmp_path / name)


def test_trailing_data_passes(tmp_path, picture):
    """Cameras and editors append to files; what the decoder reads is complete."""
    for name, rest in (
        ('a.jpg', b'\0' * 100),
        ('b.jpg', b'maker notes' * 20),
        ('c.png', b'xyz' * 50),
    ):
        picture.save(tmp_path / name)
        with open(tmp_path / name, 'ab') as file:
            file.write(rest)
        check(tmp_path / name)


@pytest.mark.parametrize(
    ('mode', 'name', 'said'),
    [
        ('L', 'a.jpg', 'gray'),
        ('L', 'a.png', 'gray'),
        ('1', 'a.png', 'black and white'),
        ('P', 'a.png', 'a palette image'),
        ('RGBA', 'a.png', 'RGB with transparency'),
        ('LA', 'a.png', 'gray with transparency'),
        ('CMYK', 'a.jpg', 'CMYK'),
    ],
)
def test_other_modes(tmp_path, picture, mode, name, said):
    path = tmp_path / name
    picture.convert(mode).save(path)
    with pytest.raises(
        ValueError,
        match=rf'{name} is {said} \(mode {mode}\), not 8-bit RGB. Convert .*check_files=.complete.',
    ):
        check(path)
    check(path, rgb=False)


@pytest.mark.parametrize(
    ('name', 'shape'),
    [('a.png', (9, 9)), ('a.png', (9, 9, 3)), ('a.tif', (9, 9)), ('a.tif', (9, 9, 3))],
)
def test_sixteen_bits(tmp_path, name, shape):
    """Pillow calls a 16-bit color file 'RGB', so its depth must come from the header."""
    assert cv2.imwrite(str(tmp_path / name), np.full(shape, 1000, dtype=np.uint16))
    with pytest.raises(ValueError, match='is 16-bit'):
        check(tmp_path / name)


@pytest.mark.parametrize('name', ['a.jpg', 'a.png'])
@pytest.mark.parametrize('share', [0.5, 0.99])
def test_truncated(tmp_path, picture, name, share):
    path = tmp_path / name
    picture.save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=rf'{name} is truncated. Copy it again'):
        check(path)


def test_truncated_with_a_thumbnail(tmp_path, picture):
    """The thumbnail's end marker is not the image's."""
    thumbnail = io.BytesIO()
    picture.resize((16, 12)).save(thumbnail, 'JPEG')
    note = b'\xff\xfe' + (len(thumbnail.getvalue()) + 2).to_bytes(2, 'big') + thumbnail.getvalue()
    picture.save(tmp_path / 'a.jpg')
    content = (tmp_path / 'a.jpg').read_bytes()
    (tmp_path / 'a.jpg').write_bytes(content[:2] + note + content[2:])
    check(tmp_path / 'a.jpg')
    (tmp_path / 'a.jpg').write_bytes(content[:2] + note + content[2:-200])
    with pytest.raises(ValueError, match='is truncated'):
        check(tmp_path / 'a.jpg')


@pytest.mark.parametrize('content', [b'', b'this is not an image at all'])
def test_unreadable(tmp_path, content):
    (tmp_path / 'a.jpg').write_bytes(content)
    with pytest.raises(ValueError, match=r'a\.jpg cannot be read as an image'):
        check(tmp_path / 'a.jpg')


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'a\.jpg does not exist. Restore'):
        check(tmp_path / 'a.jpg')


def test_remote_files_are_left_alone():
    check('s3://bucket/a.jpg')


def labels(label, path='m.png', size=(6, 8), num_classes=3):
    results = dict(
        img=np.zeros((*size, 3), np.uint8), img_path='a.jpg', gt_seg_map=label, seg_map_path=path
    )
    assert CheckLabels(num_classes)(results) is results


@pytest.mark.parametrize('dtype', [np.uint8, np.int64])
def test_labels_in_range(dtype):
    labels(np.array([[0, 1, 2, 255] * 2] * 6, dtype=dtype))
    labels(np.full((6, 8), 254, dtype=dtype), num_classes=255)
    labels(np.full((6, 8), 200, dtype=dtype), num_classes=None)


@pytest.mark.parametrize('dtype', [np.uint8, np.int64])
@pytest.mark.parametrize('value', [3, 254])
def test_label_out_of_range(dtype, value):
    label = np.full((6, 8), 255, dtype=dtype)
    label[2, 3] = value
    with pytest.raises(
        ValueError,
        match=rf'^m\.png has the value {value}, but the dataset has 3 classes .*reduce_zero_label=True',
    ):
        labels(label)


def test_a_class_that_metainfo_leaves_out_and_another_void_value(tmp_path):
    """The remedy, tried with the loader of MMSegmentation."""
    mask = tmp_path / 'm.png'
    results = dict(
        img=np.zeros((2, 3, 3), np.uint8),
        img_path='a.jpg',
        seg_map_path=str(mask),
        label_map={0: 0, 1: 255, 2: 1},
        reduce_zero_label=False,
        seg_fields=[],
    )
    loader = LoadAnnotations()
    Image.fromarray(np.array([[0, 1, 254]] * 2, np.uint8)).save(mask)
    loaded = loader(copy.deepcopy(results))
    with pytest.raises(
        ValueError, match=r'Write 255 instead of 254 into the masks and remove ignore'
    ):
        CheckLabels(2, 254)(loaded)
    Image.fromarray(np.array([[0, 1, 255]] * 2, np.uint8)).save(mask)
    loaded = loader(copy.deepcopy(results))
    assert CheckLabels(2)(loaded)['gt_seg_map'].tolist() == [[0, 255, 255]] * 2


def test_negative_label():
    with pytest.raises(ValueError, match='has the value'):
        labels(np.full((6, 8), -1))


def test_size_differs():
    with pytest.raises(ValueError, match=r'm\.png is 8x6 .* its image a\.jpg is 6x8'):
        labels(np.zeros((8, 6), np.uint8))


def test_color_mask():
    with pytest.raises(ValueError, match=r'm\.png is a color image, but a mask must be'):
        labels(np.zeros((6, 8, 3), np.uint8))


def test_sixteen_bit_mask(tmp_path):
    path = str(tmp_path / 'm.png')
    cv2.imwrite(path, np.full((6, 8), 300, dtype=np.uint16))
    with pytest.raises(ValueError, match=r'm\.png is 16-bit'):
        labels(np.full((6, 8), 300 % 256, np.uint8), path, num_classes=100)


def test_bad_num_classes():
    with pytest.raises(ValueError, match='num_classes=0'):
        CheckLabels(0)


def names(transforms):
    return [type(t).__name__ for t in transforms]


def test_places_in_a_pipeline():
    pipeline = Compose(
        [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    ).transforms
    before = list(pipeline)
    checked, unchecked = with_file_checks(pipeline, 3, labeled=True)
    assert names(checked) == [
        'CheckImageFile', 'LoadImageFromFile', 'LoadAnnotations', 'CheckLabels', 'PackSegInputs',
    ]  # fmt: skip
    assert unchecked == ''
    assert pipeline == before
    checked, unchecked = with_file_checks(pipeline[:1], None, labeled=False)
    assert names(checked) == ['CheckImageFile', 'LoadImageFromFile']
    assert unchecked == ''


@pytest.mark.parametrize(
    ('loader', 'rgb', 'said'),
    [
        (dict(color_type='unchanged'), False, 'others than RGB'),
        (dict(imdecode_backend='tifffile'), False, 'others than RGB'),
        (dict(color_type='color_ignore_orientation'), True, ''),
        (dict(backend_args=dict(backend='local')), True, ''),
        (dict(backend_args=dict(backend='http')), None, 'through a file backend'),
    ],
)
def test_loaders_with_wishes_of_their_own(loader, rgb, said):
    pipeline = Compose([dict(type='LoadImageFromFile', **loader)]).transforms
    checked, unchecked = with_file_checks(pipeline, None, labeled=False)
    assert (len(checked) == 1) if rgb is None else (checked[0].rgb == rgb)
    assert said in unchecked
    assert bool(said) == bool(unchecked)


def test_what_cannot_be_checked_is_said():
    _, unchecked = with_file_checks([lambda results: results], 3, labeled=True)
    assert 'labels (no transform is named Load...)' in unchecked
    pipeline = Compose([dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]).transforms
    _, unchecked = with_file_checks(pipeline, None, labeled=True)
    assert 'label values (the dataset has no class names)' in unchecked
