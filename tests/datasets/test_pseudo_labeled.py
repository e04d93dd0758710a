"""PseudoLabeledDataset and SelfTrainingDataset: whose mask it is, how the list is made and seeded."""

import copy
import json

import numpy as np
import pytest
import torch
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_semi.datasets import (
    PseudoLabeledDataset,
    SelfTrainingDataset,
    ShapesDataset,
    UnlabeledDataset,
    image_ids,
)

PALETTE = [[90, 60, 30], [90, 160, 250], [30, 140, 40]]
GEOMETRY = [
    dict(type='RandomResize', scale=(32, 24), ratio_range=(0.8, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(20, 24)),
]
LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
PACK = [dict(type='PackSegInputs')]


def write_masks(folder, masks, finished=True):
    """`{id: class}` as palette PNG files of one class each, 24 x 32."""
    for name, value in masks.items():
        path = folder / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(np.full((24, 32), value, dtype=np.uint8), mode='P')
        # All 256 colors: Pillow cuts values to as many bits as the palette needs.
        image.putpalette(np.resize(np.array(PALETTE, dtype=np.uint8), 768).tolist())
        image.save(path)
    folder.mkdir(parents=True, exist_ok=True)
    if finished:
        (folder / 'pseudo_labels.json').write_text(json.dumps({'num_images': len(masks)}))
    return str(folder)


class OneImage:
    def __init__(self, folder, image):
        self.data_prefix, self._image = dict(img_path=str(folder)), str(image)

    def get_data_info(self, index):
        return dict(img_path=self._image)

    def __len__(self):
        return 1


@pytest.fixture
def images(data_root):
    return dict(
        type='UnlabeledDataset', data_root=str(data_root), img_dir='pool', ann_file='unlabeled.txt'
    )


@pytest.fixture
def labeled(config):
    return dict(config['labeled'], pipeline=[*LOAD, *GEOMETRY, *PACK])


def pseudo(images, *folders, pipeline=(*LOAD, *PACK)):
    return dict(
        type='PseudoLabeledDataset', images=images, labels=list(folders), pipeline=list(pipeline)
    )


# ------------------------------------------------------------------------------------ ids


def test_ids_are_paths_in_the_folder_without_ending(data_root):
    dataset = UnlabeledDataset(img_dir='pool', data_root=str(data_root))
    assert image_ids(dataset) == ['sub/u5', 'u0', 'u1', 'u2', 'u3', 'u4']


def test_ids_of_drawn_images_are_their_numbers():
    dataset = ShapesDataset(labeled=False, image_size=(16, 16), start=41, num_images=2, pipeline=[])
    assert image_ids(dataset) == ['000041', '000042']


@pytest.mark.parametrize(
    ('name', 'match'),
    [
        ('x\ny.png', r"x\\ny\.png' has a line break, or bytes that are not UTF-8"),
        ('caf\udce9.png', r"udce9\.png' has a line break, or bytes that are not UTF-8"),
        ('.cam/x.png', r'\.cam/x\.png is hidden, since a name begins with a dot'),
    ],
)
def test_names_that_no_list_or_folder_shows(tmp_path, name, match):
    image = tmp_path / name
    image.parent.mkdir(exist_ok=True)
    Image.new('RGB', (8, 8)).save(image, format='PNG')
    with pytest.raises(ValueError, match=match):
        image_ids(OneImage(tmp_path, image))


def test_masks_are_class_indices_and_void_is_that_of_the_labeled_images(images, labeled, tmp_path):
    """A loader that makes 0 void, as for ADE20K, and labels with 254 for void do not change them."""
    folder = write_masks(tmp_path / 'labels', {'u0': 0, 'u1': 255})
    load = [LOAD[0], dict(LOAD[1], reduce_zero_label=True)]
    dataset = SelfTrainingDataset(
        dict(labeled, ignore_index=254), pseudo(images, folder, pipeline=[*load, *PACK])
    )
    start = dataset.copies * dataset.num_labeled
    values = [dataset[start + i]['data_samples'].gt_sem_seg.data.unique().tolist() for i in (0, 1)]
    assert values == [[0], [254]]
    plain = SelfTrainingDataset(labeled, pseudo(images, folder))
    assert plain[start + 1]['data_samples'].gt_sem_seg.data.unique().tolist() == [255]


def test_two_files_of_one_name_are_refused(data_root):
    (data_root / 'pool' / 'u0.png').write_bytes(b'')
    dataset = UnlabeledDataset(img_dir='pool', data_root=str(data_root))
    with pytest.raises(ValueError, match=r'u0\.png and .*u0\.jpg have one name, and pseudo-labels'):
        image_ids(dataset)


def test_an_image_listed_twice_is_refused(data_root, images):
    (data_root / 'unlabeled.txt').write_text('u0\nu1\nu0\n')
    with pytest.raises(ValueError, match=r'u0\.jpg is listed twice'):
        image_ids(DATASETS.build(images))


def test_an_image_outside_of_the_folder_is_refused(data_root, images):
    (data_root / 'unlabeled.txt').write_text('u0\n../img_dir/l0\n')
    with pytest.raises(ValueError, match=r'l0\.jpg lies outside of .*pool'):
        image_ids(DATASETS.build(images))


# ------------------------------------------------------------------------------------ PseudoLabeledDataset


def test_images_with_masks_in_the_order_of_the_list(tmp_path, images):
    first = write_masks(tmp_path / 'first', {'u4': 1, 'sub/u5': 2})
    second = write_masks(tmp_path / 'second', {'u1': 0})
    dataset = PseudoLabeledDataset(images, [first, second], [*LOAD, *PACK])
    assert [dataset.get_data_info(i)['img_path'][-6:] for i in range(3)] == [
        'u1.jpg',
        'u4.jpg',
        'u5.jpg',
    ]
    labels = [sample['data_samples'].gt_sem_seg.data for sample in dataset]
    assert [label.unique().tolist() for label in labels] == [[0], [1], [2]]
    assert labels[0].shape == (1, 24, 32)
    assert len(dataset) == 3


def test_an_unfinished_folder_is_refused(tmp_path, images):
    folder = write_masks(tmp_path / 'half', {'u0': 1}, finished=False)
    with pytest.raises(FileNotFoundError, match=r'half is not a finished folder of pseudo-labels'):
        PseudoLabeledDataset(images, folder)
    with pytest.raises(FileNotFoundError, match=r'nothing is not a finished folder'):
        PseudoLabeledDataset(images, str(tmp_path / 'nothing'))


def test_a_folder_that_lost_a_mask_is_refused(tmp_path, images):
    folder = write_masks(tmp_path / 'masks', {'u0': 1, 'u1': 1})
    (tmp_path / 'masks/.partial.u2.png').touch()  # left by a kill: no mask
    assert len(PseudoLabeledDataset(images, folder)) == 2
    (tmp_path / 'masks/u1.png').unlink()
    with pytest.raises(
        FileNotFoundError, match=r'has 1 masks and pseudo_labels\.json in it says 2'
    ):
        PseudoLabeledDataset(images, folder)


def test_labels_must_be_named(images):
    with pytest.raises(
        ValueError, match=r'PseudoLabeledDataset has no labels. Set them to the folder'
    ):
        PseudoLabeledDataset(images)


def test_a_mask_of_no_image_is_refused(tmp_path, images):
    folder = write_masks(tmp_path / 'masks', {'u0': 1, 'other': 1})
    with pytest.raises(ValueError, match=r'other\.png is the mask of no image'):
        PseudoLabeledDataset(images, folder)


def test_two_masks_of_one_image_are_refused(tmp_path, images):
    folders = [write_masks(tmp_path / name, {'u0': 1}) for name in ('first', 'second')]
    with pytest.raises(ValueError, match=r'u0 has two pseudo-labels, .*first.* and .*second'):
        PseudoLabeledDataset(images, folders)


def test_pseudo_labels_are_not_reduced(tmp_path, images):
    """A network of a `reduce_zero_label` dataset predicts classes that are reduced already."""
    dataset = PseudoLabeledDataset(images, write_masks(tmp_path / 'm', {'u0': 0}), [*LOAD, *PACK])
    assert dataset[0]['data_samples'].gt_sem_seg.data.unique().tolist() == [0]


def test_true_labels_of_drawn_images_are_not_drawn(tmp_path):
    images = dict(
        type='ShapesDataset', labeled=False, image_size=(24, 32), start=3, num_images=2, pipeline=[]
    )
    folder = write_masks(tmp_path / 'masks', {'000003': 1, '000004': 2})
    pipeline = [dict(type='LoadShapes'), dict(type='LoadAnnotations'), *PACK]
    dataset = PseudoLabeledDataset(images, folder, pipeline)
    labels = [sample['data_samples'].gt_sem_seg.data.unique().tolist() for sample in dataset]
    assert labels == [[1], [2]]


# ------------------------------------------------------------------------------------ SelfTrainingDataset


@pytest.mark.parametrize(('num_pseudo', 'copies'), [(0, 1), (1, 1), (3, 1), (4, 1), (5, 2), (6, 2)])
def test_labeled_images_are_repeated(tmp_path, images, labeled, num_pseudo, copies):
    """ST++ Sec. 2.2 with 4 labeled images: ceil(Nu / 4) copies, at least one."""
    names = ['u0', 'u1', 'u2', 'u3', 'u4', 'sub/u5'][:num_pseudo]
    folder = write_masks(tmp_path / 'masks', dict.fromkeys(names, 1))
    dataset = SelfTrainingDataset(labeled, pseudo(images, folder))
    assert (dataset.num_labeled, dataset.num_pseudo_labeled, dataset.copies) == (
        4,
        num_pseudo,
        copies,
    )
    paths = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
    assert paths == dataset.labeled_paths() * copies + dataset.pseudo_labeled_paths()
    assert len(paths) == 4 * copies + num_pseudo


@pytest.mark.parametrize(('double_below', 'copies'), [(200, 2), (5, 2), (4, 1), (0, 1)])
def test_a_short_list_without_pseudo_labels_is_doubled(labeled, double_below, copies):
    dataset = SelfTrainingDataset(labeled, double_below=double_below)
    assert len(dataset) == 4 * copies
    assert dataset.metainfo['classes'] == ('ground', 'sky', 'tree')


def test_samples_depend_on_seed_and_position_alone(tmp_path, images, labeled):
    folder = write_masks(tmp_path / 'masks', {'u0': 1})
    child = pseudo(images, folder, pipeline=[*LOAD, *GEOMETRY, *PACK])

    def draw(position, seed=0, index=2):
        dataset = SelfTrainingDataset(copy.deepcopy(labeled), child, seed=seed)
        return dataset[index, position]['inputs']

    assert torch.equal(draw(7), draw(7))
    assert not torch.equal(draw(7), draw(8))
    assert not torch.equal(draw(7), draw(7, seed=1))
    assert torch.equal(draw(7, index=4), draw(7, index=4))


def test_sampling_leaves_the_random_states_alone(labeled):
    dataset = SelfTrainingDataset(labeled)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    dataset[0, 3]
    assert np.array_equal(before[0], np.random.get_state()[1])
    assert torch.equal(before[1], torch.get_rng_state())


def test_a_mask_beyond_the_classes_is_refused(tmp_path, images, labeled):
    folder = write_masks(tmp_path / 'masks', {'u0': 3})
    dataset = SelfTrainingDataset(labeled, pseudo(images, folder))
    with pytest.raises(ValueError, match=r'u0\.png .*3'):
        dataset[4]


def test_void_in_pseudo_labels_is_allowed(tmp_path, images, labeled):
    folder = write_masks(tmp_path / 'masks', {'u0': 255})
    dataset = SelfTrainingDataset(labeled, pseudo(images, folder))
    assert dataset[4]['data_samples'].gt_sem_seg.data.unique().tolist() == [255]


def test_bad_settings(labeled):
    with pytest.raises(ValueError, match=r'double_below=-1 must be'):
        SelfTrainingDataset(labeled, double_below=-1)
    with pytest.raises(ValueError, match=r'SelfTrainingDataset seed=-1 must be'):
        SelfTrainingDataset(labeled, seed=-1)
    with pytest.raises(IndexError, match='index 8 is not in a dataset of 8'):
        SelfTrainingDataset(labeled)[8]


def test_an_image_with_both_labels_is_reported(tmp_path, data_root, labeled, capsys):
    images = dict(type='UnlabeledDataset', data_root=str(data_root), img_dir='img_dir')
    folder = write_masks(tmp_path / 'masks', {'l1': 1})
    SelfTrainingDataset(labeled, pseudo(images, folder))
    assert '1 image(s) are in the labeled' in capsys.readouterr().out


@pytest.mark.parametrize('said', [{}, {'drawn_on': 'displayed'}, {'drawn_on': 'stored'}], ids=str)
def test_masks_belong_to_the_view_that_the_network_saw(images, data_root, tmp_path, said):
    """Whatever the pipeline says of masks that people drew; older folders were made of displayed images."""
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(data_root / 'pool/u0.jpg').save(data_root / 'pool/u0.jpg', exif=exif)
    mask = np.zeros((24, 32), np.uint8)
    mask[0] = 1
    write_masks(tmp_path / 'labels', {'u0': 0})
    Image.fromarray(mask).save(tmp_path / 'labels/u0.png')
    (tmp_path / 'labels/pseudo_labels.json').write_text(json.dumps({'num_images': 1, **said}))
    load = [LOAD[0], dict(type='LoadAnnotations', drawn_on='stored'), *PACK]
    dataset = DATASETS.build(pseudo(images, str(tmp_path / 'labels'), pipeline=load))
    expected = mask[::-1] if said.get('drawn_on') == 'stored' else mask
    assert np.array_equal(dataset[0]['data_samples'].gt_sem_seg.data[0], expected)
