import numpy as np
import pytest
from converters import Converter, read, save, snapshot
from scipy.io import savemat

voc_aug = Converter('voc_aug')

TRAIN, VAL, SBD = ['v0', 'v1'], ['w0'], ['v0', 's0', 's1', 'w0']


def mat(path, label):
    """A file as SBD has it: a struct GTcls with the field Segmentation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {'GTcls': {'Boundaries': np.zeros(2), 'Segmentation': label}})


@pytest.fixture
def root(tmp_path):
    """A devkit with its own masks (class 1 and void) and SBD's (class 2) of other and the same images."""
    voc, sbd = tmp_path / 'VOCdevkit/VOC2012', tmp_path / 'VOCaug/dataset'
    lists = voc / 'ImageSets/Segmentation'
    lists.mkdir(parents=True)
    (lists / 'train.txt').write_text('\n'.join(TRAIN))
    (lists / 'val.txt').write_bytes('\r\n'.join(VAL).encode())
    for name in {*TRAIN, *VAL, *SBD}:
        save(voc / 'JPEGImages' / f'{name}.jpg', np.zeros((3, 4, 3), np.uint8))
    for name in (*TRAIN, *VAL):
        mask = np.full((3, 4), 1, np.uint8)
        mask[0] = 255
        save(voc / 'SegmentationClass' / f'{name}.png', mask, mode='P')
    for i, name in enumerate(SBD):
        mat(sbd / 'cls' / f'{name}.mat', np.full((3, 4), 2 + i, np.uint8))
    (sbd / 'train.txt').write_text('v0\ns0\n')
    (sbd / 'val.txt').write_text('s1\nw0')
    return tmp_path


def command(root, *options):
    return root / 'VOCdevkit', root / 'VOCaug', '--partial', *options


def test_masks_and_lists(root, capsys):
    voc_aug(*command(root))
    assert '2 train, 1 val, 4 trainaug, 2 aug' in capsys.readouterr().out
    voc = root / 'VOCdevkit/VOC2012'
    masks = {path.stem: read(path) for path in (voc / 'SegmentationClassAug').iterdir()}
    assert {name: int(mask.max()) for name, mask in masks.items()} == {
        'v0': 255,  # VOC's own, with its void border, though SBD has one as well
        'v1': 255,
        'w0': 255,
        's0': 3,
        's1': 4,
    }
    own = voc / 'SegmentationClass/v0.png'
    assert (voc / 'SegmentationClassAug/v0.png').read_bytes() == own.read_bytes()
    lists = voc / 'ImageSets/Segmentation'
    assert (lists / 'trainaug.txt').read_text() == 's0\ns1\nv0\nv1\n'
    assert (lists / 'aug.txt').read_text() == 's0\ns1\n'


def test_an_interrupted_run_is_completed_and_nothing_is_overwritten(root):
    voc_aug(*command(root))
    complete = snapshot(root)
    lists = root / 'VOCdevkit/VOC2012/ImageSets/Segmentation'
    masks = root / 'VOCdevkit/VOC2012/SegmentationClassAug'
    (lists / 'aug.txt').unlink()
    (masks / 's0.png').unlink()
    voc_aug(*command(root, '--nproc', '2'))
    assert snapshot(root) == complete
    # MMSegmentation's converter writes the lists in any order.
    (lists / 'trainaug.txt').write_text('v1\ns1\nv0\ns0\n')
    voc_aug(*command(root))
    assert (lists / 'trainaug.txt').read_text().startswith('v1')
    save(masks / 's1.png', np.full((3, 4), 9, np.uint8))
    assert 's1.png exists with another content' in voc_aug.error(*command(root))
    assert read(masks / 's1.png').max() == 9


def test_what_the_stock_converter_left_is_replaced_on_request(root):
    """It puts SBD's mask where VOC has its own."""
    mask = root / 'VOCdevkit/VOC2012/SegmentationClassAug/v0.png'
    save(mask, np.full((3, 4), 2, np.uint8))
    assert 'v0.png exists with another content. Give --overwrite' in voc_aug.error(*command(root))
    voc_aug(*command(root, '--overwrite'))
    assert read(mask).max() == 255


def test_official_counts(root):
    sentence = voc_aug.error(*command(root)[:2])
    assert 'trainaug 4 (not 10582)' in sentence
    assert 'give --partial' in sentence
    assert not (root / 'VOCdevkit/VOC2012/SegmentationClassAug').exists()


def no_list(root):
    (root / 'VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt').unlink()


def list_of_bytes(root):
    (root / 'VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt').write_bytes(b'w\xff0')


def no_sbd(root):
    (root / 'VOCaug').rename(root / 'elsewhere')


def no_mat(root):
    (root / 'VOCaug/dataset/cls/s1.mat').unlink()


def broken_mat(root):
    (root / 'VOCaug/dataset/cls/s1.mat').write_bytes(b'MATLAB')


def wrong_value(root):
    mat(root / 'VOCaug/dataset/cls/s1.mat', np.full((3, 4), 21, np.uint8))


def other_mat(root):
    savemat(root / 'VOCaug/dataset/cls/s1.mat', {'other': 1})


@pytest.mark.parametrize(
    ('harm', 'message'),
    [
        (no_list, 'val.txt does not exist. Unpack VOCtrainval'),
        (list_of_bytes, 'val.txt is not text in UTF-8 (byte 1 is 0xff). Unpack VOCtrainval'),
        (no_sbd, 'is not a folder. Unpack benchmark.tgz'),
        (no_mat, 's1.mat does not exist. Unpack benchmark.tgz'),
        (broken_mat, 's1.mat is not a class map of SBD'),
        (other_mat, 's1.mat is not a class map of SBD'),
        (wrong_value, 's1.mat holds other values than 0..20 and 255'),
    ],
)
def test_bad_source_is_one_sentence(root, harm, message):
    harm(root)
    assert message in voc_aug.error(*command(root))
    assert not (root / 'VOCdevkit/VOC2012/ImageSets/Segmentation/trainaug.txt').exists()
