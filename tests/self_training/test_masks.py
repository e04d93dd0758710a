"""Palette PNG files: any viewer shows colors, mmseg reads class indices."""

import numpy as np
import pytest
import torch
import trained
from mmengine.config import Config
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from mmseg_semi.self_training.masks import (
    MaskWriter,
    classes_and_palette,
    encode_mask,
    read_mask,
    voc_colors,
)


@pytest.mark.parametrize('num_classes', [2, 21, 255])
def test_mmseg_reads_the_class_indices(tmp_path, num_classes):
    mask = np.random.default_rng(0).integers(0, num_classes, (37, 53), dtype=np.uint8)
    palette = voc_colors(num_classes)
    path = tmp_path / 'x.png'
    path.write_bytes(encode_mask(mask, palette))
    results = dict(seg_map_path=str(path), seg_fields=[], reduce_zero_label=False)
    assert (LoadAnnotations().transform(results)['gt_seg_map'] == mask).all()
    assert (read_mask(str(path)) == mask).all()
    with Image.open(path) as image:
        assert image.mode == 'P'
        assert (np.array(image.convert('RGB')) == np.array(palette, dtype=np.uint8)[mask]).all()


def test_colors_of_voc():
    known = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    assert voc_colors(5) == known
    assert voc_colors(21)[20] == [0, 64, 128]
    assert voc_colors(256)[255] == [224, 224, 192]
    assert len({tuple(color) for color in voc_colors(256)}) == 256


def test_where_names_and_colors_come_from():
    def config(**dataset):
        return Config(dict(test_dataloader=dict(dataset=dataset)))

    meta = dict(classes=('a', 'b'), palette=[[1, 2, 3], [4, 5, 6]])
    cfg = config(type='BaseSegDataset', metainfo=dict(classes=('c', 'd'), palette=[[7, 8, 9]] * 2))
    own = [[9, 9, 9], [8, 8, 8], [7, 7, 7]]
    assert classes_and_palette(own, meta, cfg, 2) == (['a', 'b'], own[:2])
    assert classes_and_palette(None, meta, cfg, 2) == (['a', 'b'], meta['palette'])
    assert classes_and_palette(None, {}, cfg, 2) == (['c', 'd'], [[7, 8, 9]] * 2)
    voc = config(type='CheckedDataset', of='PascalVOCDataset')
    names, palette = classes_and_palette(None, {}, voc, 21)
    assert (names[1], palette[1]) == ('aeroplane', [128, 0, 0])
    # A palette that is too short for the network is none.
    assert classes_and_palette(None, meta, cfg, 3)[1] == voc_colors(3)
    assert classes_and_palette(None, {}, Config({}), 2)[0] == ['class 0', 'class 1']
    with pytest.raises(ValueError, match=r'^palette has 3 colors for 4 classes'):
        classes_and_palette(own, {}, cfg, 4)


def test_writing_and_counting(tmp_path):
    masks = torch.tensor([[[0, 1, 1]], [[3, 3, 3]]], dtype=torch.uint8)
    paths = [str(tmp_path / f'{i}.png') for i in range(2)]
    with MaskWriter(trained.PALETTE, 'x.pth') as writer:
        writer.write(paths, masks)
    assert writer.pixels.tolist() == [1, 2, 0, 3]
    assert [read_mask(path).tolist() for path in paths] == masks.tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['0.png', '1.png']


@pytest.mark.parametrize('later', [[], ['1.png']])
def test_an_error_of_the_writer_ends_the_work(tmp_path, later):
    def write():
        with MaskWriter(trained.PALETTE, 'x.pth') as writer:
            for name in ['missing/0.png', *later]:
                writer.write([str(tmp_path / name)], torch.zeros(1, 2, 2, dtype=torch.uint8))

    with pytest.raises(OSError, match=r'0.png cannot be written'):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_mask_of_a_diverged_network_is_not_written(tmp_path):
    mask = torch.full((1, 2, 2), 255, dtype=torch.uint8)
    path = tmp_path / '0.png'
    with (
        pytest.raises(ValueError, match=r'^x.pth predicts values that are not finite for .*0.png'),
        MaskWriter(trained.PALETTE, 'x.pth') as writer,
    ):
        writer.write([str(path)], mask)
    assert not path.exists()
