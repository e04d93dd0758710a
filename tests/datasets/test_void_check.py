"""Masks in which 255 is a class: said from at most 200 of them, and only where a class is missing."""

import numpy as np
import pytest
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from PIL import Image

from mmseg_semi.datasets import MappedSegDataset
from mmseg_semi.datasets.void_check import check_some_masks
from mmseg_semi.datasets.walk import leaves

LOAD = [dict(type='LoadAnnotations')]


def write(folder, masks):
    """Masks by name, with empty image files of their names."""
    for i, mask in enumerate(masks):
        for kind in ('img', 'ann'):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        (folder / f'img/{i:03d}.jpg').touch()
        Image.fromarray(np.asarray(mask, np.uint8)).save(folder / f'ann/{i:03d}.png')


def dataset(folder, classes=('background', 'crack'), kind=BaseSegDataset, **settings):
    settings = {'pipeline': LOAD, **settings}
    return kind(
        data_root=str(folder),
        data_prefix=dict(img_path='img', seg_map_path='ann'),
        metainfo=dict(classes=classes),
        serialize_data=False,
        **settings,
    )


def check(*sets):
    check_some_masks([leaf for data in sets for leaf in leaves(data, 'KEY')])


def half(first, second, share=0.5):
    """A mask of 100 pixels of two values."""
    mask = np.full((10, 10), first)
    mask.ravel()[: round(100 * share)] = second
    return mask


def test_masks_of_0_and_255_for_two_classes(tmp_path):
    write(tmp_path, [half(0, 255, 0.05), half(0, 255, 0.09)])
    with pytest.raises(ValueError, match='KEY: class crack has no pixel') as error:
        check(dataset(tmp_path))
    assert str(error.value) == (
        'KEY: class crack has no pixel and 255 holds 7 %: are your masks 0/255? Then set '
        "type='MappedSegDataset', label_map={255: 1} in KEY and in each dataset with such masks. If it is "
        'void, set StartupCheckHook check_masks=False.'
    )


def test_the_line_that_it_gives_maps_them(tmp_path):
    write(tmp_path, [half(0, 255, 0.07)])
    config = Config(dict(kind='MappedSegDataset', label_map={255: 1}))
    config.dump(str(tmp_path / 'config.py'))
    label_map = Config.fromfile(tmp_path / 'config.py').label_map
    mapped = dataset(tmp_path, kind=MappedSegDataset, label_map=label_map)
    check(mapped)
    assert np.bincount(mapped[0]['gt_seg_map'].ravel()).tolist() == [93, 7]
    assert mapped.metainfo['label_map'] == {255: 1}


@pytest.mark.parametrize('label_map', [{}, {256: 1}, {255: -1}])
def test_a_map_that_maps_nothing_or_elsewhere_is_refused(tmp_path, label_map):
    with pytest.raises(ValueError, match='must map values of masks'):
        dataset(tmp_path, kind=MappedSegDataset, label_map=label_map)


def test_a_map_beside_reduce_zero_label_is_refused(tmp_path):
    with pytest.raises(ValueError, match='Leave it out and say so in label_map'):
        dataset(tmp_path, kind=MappedSegDataset, label_map={255: 1}, reduce_zero_label=True)


def test_an_object_of_1_on_a_background_of_255(tmp_path):
    write(tmp_path, [half(255, 1, 0.04)])
    with pytest.raises(
        ValueError,
        match=r'background has no pixel and 255 holds 96 %: are your masks 1/255\?.*\{255: 0\}',
    ):
        check(dataset(tmp_path))


def test_masks_from_0_with_reduce_zero_label(tmp_path):
    write(tmp_path, [half(0, 1, 0.04)])
    with pytest.raises(
        ValueError,
        match=r'class crack has no pixel and 0, .* holds 96 %.*Then set reduce_zero_label=False',
    ):
        check(dataset(tmp_path, reduce_zero_label=True))


def test_little_void_and_a_class_in_a_single_mask_or_another_set_train(tmp_path):
    write(tmp_path / 'little', [half(0, 255, 0.01)])
    check(dataset(tmp_path / 'little'))
    write(tmp_path / 'many', [half(0, 255)] * 40 + [half(0, 1)])
    check(dataset(tmp_path / 'many'))
    write(tmp_path / 'one', [half(0, 255)])
    check(dataset(tmp_path / 'one'), dataset(tmp_path / 'many'))


@pytest.mark.parametrize(('number', 'refused'), [(19, False), (20, True)])
@pytest.mark.parametrize('present', [(0, 1), (1, 2)])
def test_of_three_classes_the_first_or_the_last_may_be_255_from_20_masks_on(
    tmp_path, present, number, refused
):
    mask = half(*present)
    mask[0] = 255
    write(tmp_path, [mask] * number)
    data = dataset(tmp_path, classes=('a', 'b', 'c'))
    if not refused:
        check(data)
        return
    with pytest.raises(ValueError, match=f'class {"c" if present[0] == 0 else "a"} has no pixel'):
        check(data)


def test_of_many_classes_some_are_absent_from_any_list(tmp_path):
    mask = half(0, 1)
    mask[0] = 255
    write(tmp_path, [mask] * 20)
    check(dataset(tmp_path, classes=('a', 'b', 'c', 'd')))
    mask[1] = 3
    write(tmp_path, [mask] * 20)
    check(dataset(tmp_path, classes=('a', 'b', 'c', 'd')))


def test_values_beyond_the_classes_are_another_fault(tmp_path):
    mask = half(1, 2)
    mask[0] = 255
    write(tmp_path, [mask])
    check(dataset(tmp_path))


def test_at_most_200_masks_are_read_evenly_spread(tmp_path, monkeypatch):
    write(tmp_path, [half(0, 255)] * 401)
    read = []
    from mmseg_semi.datasets import labels

    values = labels.read_values
    monkeypatch.setattr(
        labels, 'read_values', lambda path, *a: read.append(path) or values(path, *a)
    )
    with pytest.raises(
        ValueError, match=r'255 holds 50 % \(200 of 401 masks were read\): are your'
    ):
        check(dataset(tmp_path))
    assert len(read) == len(set(read)) == 200
    names = sorted(int(path[-7:-4]) for path in read)
    assert names[0] == 0
    assert names[-1] == 400
    assert set(np.diff(names)) <= {2, 3}


def test_masks_that_another_loader_reads_are_its_affair(tmp_path):
    write(tmp_path, [half(0, 255)])
    check(dataset(tmp_path, pipeline=[]))
