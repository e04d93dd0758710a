import numpy as np
import pytest
from converters import Converter, read, save, snapshot

voc_animals = Converter('voc_animals')

#: Values of each mask from left to right, in four equal columns: VOC's classes.
MASKS = {
    't0': (0, 8, 15, 255),  # background, cat, person, void
    't1': (0, 0, 15, 15),  # a person without an animal
    't2': (10, 12, 13, 17),  # cow, dog, horse, sheep
    'v0': (0, 3, 8, 8),  # a bird, which is not a class here, and a cat
    's0': (17, 17, 1, 0),
    's1': (1, 1, 1, 1),
}


@pytest.fixture
def root(tmp_path):
    voc = tmp_path / 'VOC2012'
    for name, values in MASKS.items():
        label = np.repeat(np.uint8(values), 80)[None].repeat(214, 0)
        save(voc / 'SegmentationClassAug' / f'{name}.png', label, mode='P')
        save(voc / 'JPEGImages' / f'{name}.jpg', np.stack([label] * 3, 2))
    lists = voc / 'ImageSets/Segmentation'
    lists.mkdir(parents=True)
    (lists / 'train.txt').write_text('t2\nt1\nt0\n')
    (lists / 'val.txt').write_text('v0\n')
    (lists / 'trainaug.txt').write_text('t0\nt1\nt2\ns0\ns1\n')
    classic = voc / 'splits/classic/92'
    classic.mkdir(parents=True)
    (classic / 'labeled.txt').write_text('t2\nt1\n')
    return tmp_path


def command(root, *options):
    return root / 'VOC2012', root / 'out', '--partial', *options


def test_images_masks_and_lists(root, capsys):
    voc_animals(*command(root))
    assert '2 train_voc, 1 val_voc, 1 sbd_only, 1 classic_92' in capsys.readouterr().out
    lists = {path.stem: path.read_text().split() for path in (root / 'out/splits').iterdir()}
    assert lists == {
        'train_voc': ['t0', 't2'],
        'val_voc': ['v0'],
        'sbd_only': ['s0'],
        'classic_92': ['t2'],
    }
    assert {path.stem for path in (root / 'out/img').iterdir()} == {'t0', 't2', 'v0', 's0'}
    for name, expected in {
        't0': (0, 1, 5, 255),
        't2': (2, 3, 4, 6),
        'v0': (0, 255, 1, 1),
        's0': (6, 6, 255, 0),
    }.items():
        found = read(root / f'out/mask/{name}.png')
        assert found.shape == read(root / f'out/img/{name}.jpg').shape[:2] == (107, 160)
        assert np.array_equal(found, np.repeat(np.uint8(expected), 40)[None].repeat(107, 0))


def test_the_longer_side_is_160():
    size_of = voc_animals.module.size_of
    assert [size_of(*size) for size in ((500, 375), (375, 500), (500, 333), (500, 332))] == [
        (160, 120),
        (120, 160),
        (160, 107),
        (160, 106),
    ]


def test_an_interrupted_run_is_completed(root):
    voc_animals(*command(root))
    complete = snapshot(root)
    (root / 'out/splits/val_voc.txt').unlink()
    (root / 'out/mask/t0.png').unlink()
    voc_animals(*command(root, '--nproc', '2'))
    assert snapshot(root) == complete


def test_bad_source_is_one_sentence(root):
    sentence = voc_animals.error(*command(root)[:2])
    assert 'train_voc 2 (not 437)' in sentence
    assert 'give --partial' in sentence
    (root / 'VOC2012/SegmentationClassAug/s0.png').unlink()
    assert 's0.png does not exist. Run tools/dataset_converters/voc_aug.py' in voc_animals.error(
        *command(root)
    )
    assert not (root / 'out').exists()
