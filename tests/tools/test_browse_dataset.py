"""tools/browse_dataset.py: what it draws, for semi-supervised and for stock configs."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from processes import run_tool

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools/browse_dataset.py'
HEIGHT, WIDTH, GAP, TOP, TEXT = 160, 168, 6, 26, 20

CONFIG = """
custom_imports = dict(
    imports=['mmseg_semi.datasets', 'mmseg_semi.models'], allow_failed_imports=False)
default_scope = 'mmseg'
root = {root!r}
geometry = [dict(type='RandomCrop', crop_size=(160, 168)), dict(type='RandomFlip', prob=0.5)]
load = dict(type='LoadImageFromFile')
pack = dict(type='PackUnlabeledInputs')
model = dict(type='IMAS', segmentor=dict(type='EncoderDecoder', data_preprocessor=dict(
    type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True, size=(160, 168))))
train_dataloader = dict(
    batch_size=3,
    num_workers=2,
    persistent_workers=True,
    prefetch_factor=2,
    collate_fn=dict(type='collate_branches'),
    sampler=dict(type='LabeledUnlabeledSampler', labeled=1, unlabeled=2),
    dataset=dict(
        type='LabeledUnlabeledDataset',
        labeled=dict(
            type='BaseSegDataset', data_root=root,
            metainfo=dict(classes=('a', 'b'), palette=[[200, 0, 0], [0, 0, 200]]),
            data_prefix=dict(img_path='img', seg_map_path='ann'),
            pipeline=[load, dict(type='LoadAnnotations'), *geometry, dict(type='PackSegInputs')]),
        unlabeled=dict(
            type='UnlabeledDataset', data_root=root, img_dir='pool', img_suffix='.png',
            pipeline=[load, dict(type='AddValidMask'), *geometry, dict(
                type='MultiBranch', weak=[pack],
                strong=[dict(type='RandomIntensity', ranges=dict(hue=(0.0, 0.1))), pack])])))
"""

STOCK = """
default_scope = 'mmseg'
model = dict(type='EncoderDecoder', data_preprocessor=dict(
    type='SegDataPreProcessor', size=(160, 168), bgr_to_rgb=True,
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]))
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset', data_root={root!r},
        metainfo=dict(classes=('a', 'b'), palette=[[200, 0, 0], [0, 0, 200]]),
        data_prefix=dict(img_path='img', seg_map_path='ann'),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
                  dict(type='PackSegInputs')]))
"""


@pytest.fixture(scope='module')
def browse():
    spec = importlib.util.spec_from_file_location('browse_dataset', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def root(tmp_path):
    """Orange labeled images with class 0 above class 1, green unlabeled ones, one too short."""
    for folder in ('img', 'ann', 'pool'):
        (tmp_path / folder).mkdir()
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[80:] = 1
    for i in range(2):
        orange = np.full((HEIGHT, WIDTH, 3), (0, 100, 200), np.uint8)  # BGR
        cv2.imwrite(str(tmp_path / f'img/l{i}.jpg'), orange, [cv2.IMWRITE_JPEG_QUALITY, 100])
        cv2.imwrite(str(tmp_path / f'ann/l{i}.png'), mask)
        green = np.full((HEIGHT - 40 * i, WIDTH, 3), (20, 150, 60), np.uint8)
        cv2.imwrite(str(tmp_path / f'pool/u{i}.png'), green)
    return tmp_path


@pytest.fixture
def write(root):
    def made(text):
        path = root / 'config.py'
        path.write_text(text.format(root=str(root)))
        return str(path)

    return made


def cell(grid, row, column):
    top = TOP + row * (HEIGHT + GAP + TEXT)
    left = GAP + column * (WIDTH + GAP)
    return grid[top : top + HEIGHT, left : left + WIDTH].astype(int)


def test_semi_supervised(browse, write, root, capsys):
    browse([write(CONFIG), '--output-dir', str(root / 'out'), '--num', '3'])
    printed = capsys.readouterr().out
    grid = np.asarray(Image.open(root / 'out/samples_0000.png'))
    assert grid.shape == (TOP + 3 * (HEIGHT + GAP + TEXT), GAP + 5 * (WIDTH + GAP), 3)
    rows = [line.split(' | ') for line in printed.splitlines() if '.png' in line and 'pool' in line]
    assert len(rows) == 3
    # Two unlabeled images per labeled one: the second row has no labeled image.
    assert [len(row) for row in rows] == [2, 1, 2]
    assert np.abs(cell(grid, 0, 0) - (200, 100, 0)).max() <= 2
    assert len(np.unique(cell(grid, 1, 0))) == 1
    label = cell(grid, 0, 1)
    assert np.abs(label[:80] - (200, 40, 0)).max() <= 2  # 0.4 image + 0.6 palette
    assert np.abs(label[80:] - (80, 40, 120)).max() <= 2
    for row, paths in enumerate(rows):
        real = HEIGHT - 40 * ('u1' in paths[-1])
        weak, valid = cell(grid, row, 2), cell(grid, row, 4)
        assert np.abs(weak[:real] - (60, 150, 20)).max() <= 1
        assert (valid[:real] == 255).all()
        assert (valid[real:] == 0).all()
    assert {'u0' in paths[-1] for paths in rows} == {True, False}


def test_second_strong_view_has_a_column_of_its_own(browse, write, root):
    gray = "strong2=[dict(type='RandomGray', prob=1.0), pack],"
    config = CONFIG.replace(
        "type='MultiBranch', weak=[pack],", f"type='MultiBranch', {gray} weak=[pack],"
    )
    browse([write(config), '--output-dir', str(root / 'out'), '--num', '2'])
    grid = np.asarray(Image.open(root / 'out/samples_0000.png'))
    assert grid.shape[1] == GAP + 6 * (WIDTH + GAP)
    # Columns are in the order of the branches: labeled, label, strong2, weak, strong, valid mask.
    view = cell(grid, 0, 2)[:120]
    assert (view == view[..., :1]).all()
    assert np.abs(view - 108).max() <= 1  # the luma of (60, 150, 20)
    assert np.abs(cell(grid, 0, 3)[:120] - (60, 150, 20)).max() <= 1


def test_stock_supervised(browse, write, root):
    browse([write(STOCK), '--output-dir', str(root / 'out'), '--num', '10'])
    first, second = (np.asarray(Image.open(root / f'out/samples_000{i}.png')) for i in (0, 8))
    assert first.shape[0] == TOP + 8 * (HEIGHT + GAP + TEXT)
    assert second.shape[0] == TOP + 2 * (HEIGHT + GAP + TEXT)
    assert first.shape[1] == GAP + 2 * (WIDTH + GAP)
    assert np.abs(cell(first, 7, 0) - (200, 100, 0)).max() <= 2


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['train_dataloader.dataset.unlabeled.img_dir=nowhere'], 'nowhere'),
        (['train_dataloader.sampler.labeled=0'], 'without labeled samples'),
        (['train_dataloader=None'], 'has no train_dataloader'),
        (['model.segmentor.data_preprocessor.size=(99,99)'], 'larger than data_preprocessor.size'),
    ],
)
def test_errors_are_one_sentence(browse, write, root, options, said):
    with pytest.raises(SystemExit) as error:
        browse([write(CONFIG), '--output-dir', str(root / 'out'), '--cfg-options', *options])
    assert error.value.code.startswith('browse_dataset: ')
    assert said in error.value.code
    assert '\n' not in error.value.code


def test_missing_config(browse):
    with pytest.raises(SystemExit, match=r'nowhere\.py does not exist. Give the path of a config'):
        browse(['nowhere.py'])


def test_command_line(write, root):
    done = run_tool(TOOL, write(CONFIG), '--num', '1', cwd=root)
    assert done.code == 0, done.output
    assert (root / 'work_dirs/config/browse/samples_0000.png').is_file()
