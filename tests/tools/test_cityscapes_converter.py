import importlib.machinery
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from converters import Converter, read, save, snapshot
from mmseg.datasets import CityscapesDataset
from PIL import Image

cityscapes = Converter('cityscapes')

#: Of the table in cityscapesScripts: label id of each training class, by name.
IDS = {
    'road': 7, 'sidewalk': 8, 'building': 11, 'wall': 12, 'fence': 13, 'pole': 17, 'traffic light': 19,
    'traffic sign': 20, 'vegetation': 21, 'terrain': 22, 'sky': 23, 'person': 24, 'rider': 25, 'car': 26,
    'truck': 27, 'bus': 28, 'train': 31, 'motorcycle': 32, 'bicycle': 33,
}  # fmt: skip


@pytest.fixture(autouse=True)
def without_scripts(monkeypatch):
    """Whether cityscapesscripts is installed is the tests' choice."""
    find = importlib.util.find_spec

    def found(name, *rest):
        if name == 'cityscapesscripts' and name not in sys.modules:
            return None
        return find(name, *rest)

    monkeypatch.setattr(importlib.util, 'find_spec', found)


@pytest.fixture
def scripts(monkeypatch):
    """The one function of cityscapesscripts that MMSegmentation's converter calls."""

    def draw(source, target, encoding):
        assert encoding == 'trainIds'
        label = np.full((2, 3), json.loads(Path(source).read_text())['class'], np.uint8)
        Image.fromarray(label).save(target)

    names = ('cityscapesscripts', '.preparation', '.preparation.json2labelImg')
    for name in (names[0] + end.removeprefix(names[0]) for end in names):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    module.json2labelImg = draw


@pytest.fixture
def root(tmp_path):
    for split, count in (('train', 2), ('val', 1)):
        for i in range(count):
            name = f'{split}/aachen/a_{i}'
            save(tmp_path / f'leftImg8bit/{name}_leftImg8bit.png', np.zeros((2, 3, 3), np.uint8))
            ids = np.arange(0, 34, dtype=np.uint8).reshape(2, 17)
            save(tmp_path / f'gtFine/{name}_gtFine_labelIds.png', ids)
            (tmp_path / f'gtFine/{name}_gtFine_polygons.json').write_text('{"class": 5}')
    return tmp_path


def test_every_id_becomes_its_training_id(root, capsys):
    cityscapes(root, '--partial')
    assert '2 train, 1 val, from label ids' in capsys.readouterr().out
    names = CityscapesDataset.METAINFO['classes']
    expected = np.full(34, 255)
    for name, index in IDS.items():
        expected[index] = names.index(name)
    label = read(root / 'gtFine/train/aachen/a_1_gtFine_labelTrainIds.png')
    assert label.ravel().tolist() == expected.tolist()
    assert len(names) == len(IDS) == 19


def test_the_stock_converter_draws_polygons_where_it_can(root, scripts, capsys):
    cityscapes(root, '--partial')
    assert 'from polygons' in capsys.readouterr().out
    target = root / 'gtFine/val/aachen/a_0_gtFine_labelTrainIds.png'
    assert read(target).tolist() == [[5, 5, 5]] * 2
    before = snapshot(root)
    cityscapes(root, '--partial')
    assert snapshot(root) == before
    assert 'exists with another content' in cityscapes.error(root, '--partial', '--ids')
    (root / 'gtFine/val/aachen/a_0_gtFine_polygons.json').write_text('{')
    assert 'a_0_gtFine_polygons.json cannot be read' in cityscapes.error(root, '--partial')


def test_polygons_without_the_scripts(root):
    sentence = cityscapes.error(root, '--partial', '--polygons')
    assert 'Run `pip install cityscapesscripts`, or give --ids' in sentence


def test_an_interrupted_run_is_completed(root):
    cityscapes(root, '--partial')
    before = snapshot(root)
    (root / 'gtFine/train/aachen/a_0_gtFine_labelTrainIds.png').unlink()
    cityscapes(root, '--partial', '--nproc', '2')
    assert snapshot(root) == before


def test_bad_source_is_one_sentence(root):
    assert 'train 2 (not 2975), val 1 (not 500)' in cityscapes.error(root)
    ids = root / 'gtFine/train/aachen/a_1_gtFine_labelIds.png'
    save(ids, np.full((2, 3), 34, np.uint8))
    assert 'a_1_gtFine_labelIds.png holds other values' in cityscapes.error(root, '--partial')
    ids.write_bytes(b'no image')
    assert 'a_1_gtFine_labelIds.png cannot be read' in cityscapes.error(root, '--partial')
    ids.unlink()
    assert 'does not exist. Unpack leftImg8bit' in cityscapes.error(root, '--partial')
    assert 'leftImg8bit/train is not a folder' in cityscapes.error(root / 'nowhere')
