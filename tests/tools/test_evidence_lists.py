"""Lists of the evidence: disjoint where they must be, the same on every machine."""

import importlib.util
from pathlib import Path

import pytest
from PIL import Image

from mmseg_semi.datasets.preparation import PreparationError

TOOL = Path(__file__).resolve().parents[2] / 'tools/evidence_lists.py'
spec = importlib.util.spec_from_file_location('evidence_lists', TOOL)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


def voc_splits():
    train = [f't{i:03}' for i in range(150)]
    return {
        'train_voc': train,
        'sbd_only': [f's{i}' for i in range(30)],
        'val_voc': ['v0', 'v1'],
        'classic_92': train[:3],
        'classic_183': train[2:8],
        'classic_366': train[5:20],
        'classic_732': train[10:40],
    }


def test_partitions_of_voc_animals():
    splits = voc_splits()
    lists = tool.make_lists('voc_animals', splits)
    train = set(splits['train_voc']) | set(splits['sbd_only'])
    tuning = set(lists['tuning/val.txt'])
    assert len(tuning) == 100
    assert tuning < set(splits['train_voc'][40:])
    assert set(lists['all/labeled.txt']) == train
    assert set(lists['tuning/all/labeled.txt']) == train - tuning
    for part in ('classic_92', 'classic_183', 'classic_366', 'classic_732'):
        assert lists[f'{part}/labeled.txt'] == lists[f'tuning/{part}/labeled.txt'] == splits[part]
        assert set(lists[f'{part}/unlabeled.txt']) == train - set(splits[part])
        assert set(lists[f'tuning/{part}/unlabeled.txt']) == train - set(splits[part]) - tuning
    assert lists == tool.make_lists('voc_animals', {k: v[::-1] for k, v in splits.items()})


def test_wrong_lists_are_refused():
    splits = voc_splits()
    with pytest.raises(PreparationError, match='v0 of the training lists is in val_voc'):
        tool.make_lists('voc_animals', {**splits, 'sbd_only': ['v0']})
    with pytest.raises(PreparationError, match='x of classic_92 is in no training list'):
        tool.make_lists('voc_animals', {**splits, 'classic_92': ['x']})
    with pytest.raises(PreparationError, match='train_voc has 80 images that no partition labels'):
        tool.make_lists('voc_animals', {**splits, 'train_voc': splits['train_voc'][:120]})


def test_command_writes_all_lists_and_again_the_same(tmp_path, capsys):
    images = [f'n{i:03}' for i in range(200)]
    splits = {'all': images, 'val': ['v0']}
    for count in (4, 8, 16, 32):
        for draw in range(3):
            splits[f'l{count}_{draw}'] = images[draw : draw + count]
    (tmp_path / 'splits').mkdir()
    for name, ids in splits.items():
        (tmp_path / f'splits/{name}.txt').write_text('\n'.join(ids))
    (tmp_path / 'img').mkdir()
    for name in [*images, 'v0']:
        # The images from n006 on are bright, except the validation image.
        value = 101 if name >= 'n006' and name != 'v0' else 99
        Image.new('RGB', (8, 8), (value,) * 3).save(tmp_path / f'img/{name}.jpg')
    for _ in range(2):
        tool.main(['nuclei', str(tmp_path)])
    assert 'lists/tuning/l32_0/labeled.txt: 32 images' in capsys.readouterr().out
    unlabeled = (tmp_path / 'lists/tuning/l32_0/unlabeled.txt').read_text().split()
    tuning = (tmp_path / 'lists/tuning/val.txt').read_text().split()
    assert len(unlabeled) == 200 - 32 - 100
    assert not set(unlabeled) & set(tuning)
    assert not set(tuning) & set(images[:34])
    dark = {
        str(path.relative_to(tmp_path / 'lists/dark')): path.read_text().split()
        for path in (tmp_path / 'lists/dark').rglob('*.txt')
    }
    # l4_2 is n002 to n005, and the larger lists have bright images.
    assert dark == {
        'val.txt': ['v0'],
        'all/labeled.txt': images[:6],
        'l4_0/labeled.txt': images[:4],
        'l4_0/unlabeled.txt': images[4:6],
        'l4_1/labeled.txt': images[1:5],
        'l4_1/unlabeled.txt': [images[0], images[5]],
        'l4_2/labeled.txt': images[2:6],
        'l4_2/unlabeled.txt': images[:2],
    }
    (tmp_path / 'img/n007.jpg').unlink()
    with pytest.raises(SystemExit, match=r'n007\.jpg does not exist or is not an image\. Prepare'):
        tool.main(['nuclei', str(tmp_path)])
    (tmp_path / 'splits/l8_1.txt').unlink()
    with pytest.raises(SystemExit, match=r'l8_1\.txt does not exist\. Prepare the data'):
        tool.main(['nuclei', str(tmp_path)])


def test_images_in_the_repository_are_those_of_their_lists():
    root = TOOL.parents[1] / 'examples/nuclei'
    splits = {path.stem: path.read_text().split() for path in (root / 'splits').glob('*.txt')}
    lists = tool.make_lists('nuclei', splits)
    images = {*lists['all/labeled.txt'], *splits['val']}
    assert {path.stem for path in (root / 'img').glob('*.jpg')} == images
    assert {path.stem for path in (root / 'mask').glob('*.png')} == images
    assert (len(lists['l8_0/unlabeled.txt']), len(splits['val'])) == (492, 164)
    splits['dark'] = tool.dark_images(root / 'img', sorted(images))
    lists = tool.make_lists('nuclei', splits)
    shipped = sorted((root / 'lists').rglob('*.txt'))
    assert len(shipped) == 3
    for path in shipped:
        assert path.read_text().split() == lists[str(path.relative_to(root / 'lists'))]
