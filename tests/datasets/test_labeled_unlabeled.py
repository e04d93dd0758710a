"""LabeledUnlabeledDataset: branches, randomness, checks, in real loaders."""

import copy
import multiprocessing
import random
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_semi.datasets import LabeledUnlabeledDataset
from mmseg_semi.datasets.orientation import displayed


def build(config, **settings):
    return DATASETS.build({**config, **settings})


def tensors(sample):
    """All tensors of a sample or a batch, by name."""
    found = {}
    for branch, image in sample['inputs'].items():
        found[f'{branch} image'] = image
        data = sample['data_samples'][branch]
        for i, one in enumerate(data if isinstance(data, list) else [data]):
            found[f'{branch} {i}'] = (
                one.gt_sem_seg.data if 'gt_sem_seg' in one else one.valid_mask.data
            )
    return found


def equal(first, second):
    first, second = tensors(first), tensors(second)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_children_become_branches(config):
    dataset = build(config)
    assert (len(dataset), dataset.num_labeled, dataset.num_unlabeled) == (10, 4, 6)
    labeled, unlabeled = dataset[3], dataset[4]
    assert list(labeled['inputs']) == ['labeled']
    assert list(unlabeled['inputs']) == ['weak', 'strong']
    assert labeled['inputs']['labeled'].dtype == torch.uint8
    sample = labeled['data_samples']['labeled']
    assert sample.gt_sem_seg.data.dtype == torch.int64
    assert sample.img_path.endswith('l3.jpg')
    weak = unlabeled['data_samples']['weak']
    assert weak.valid_mask.data.dtype == torch.bool
    assert weak.valid_mask.data.shape == (1, *unlabeled['inputs']['weak'].shape[1:])
    assert weak.img_path.endswith('u0.jpg')
    assert dataset.metainfo['classes'] == ('ground', 'sky', 'tree')
    assert [p[-6:] for p in dataset.labeled_paths()] == ['l0.jpg', 'l1.jpg', 'l2.jpg', 'l3.jpg']
    assert dataset.unlabeled_paths()[5].endswith('sub/u5.jpg')
    assert dataset.get_data_info(9)['img_path'] == dataset.unlabeled_paths()[5]


def test_unlabeled_pipeline_without_branches_is_weak(config):
    config['unlabeled']['pipeline'][-1] = dict(type='PackUnlabeledInputs')
    assert list(build(config)[4]['inputs']) == ['weak']


def test_trains_without_annotations_of_the_unlabeled(config, data_root):
    """All masks but the labeled ones' are gone; nothing notices."""
    config['labeled']['ann_file'] = 'one.txt'
    (data_root / 'one.txt').write_text('l0\n')
    config['unlabeled'].update(img_dir='img_dir', ann_file='rest.txt')
    (data_root / 'rest.txt').write_text('l1\nl2\nl3\n')
    for i in (1, 2, 3):
        (data_root / f'ann_dir/l{i}.png').unlink()
    dataset = build(config)
    assert [len(dataset[i]['inputs']) for i in range(4)] == [1, 2, 2, 2]
    shutil.rmtree(data_root / 'ann_dir')
    assert len(dataset[3]['inputs']) == 2


def test_position_decides_the_randomness(config):
    dataset, again = build(config), build(config)
    for index in (1, 7):
        assert equal(dataset[index, 5], again[index, 5])
        assert not equal(dataset[index, 5], dataset[index, 6])
        assert not equal(dataset[index, 5], build(config, seed=1)[index, 5])


def test_kinds_have_streams_of_their_own(config):
    """A labeled and an unlabeled sample of the same position do not share their draws."""
    drawn = []
    draw = [lambda results: drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))]
    for kind in ('labeled', 'unlabeled'):
        pipeline = config[kind]['pipeline']
        pipeline[-1:] = [lambda results: draw[0](results) or results, pipeline[-1]]
    dataset = build(config)
    for key in ((0, 0), (4, 0), (4, 1), (5, 0), (0, 0)):
        dataset[key]
    values = [value for triple in drawn[:3] for value in triple]
    assert len(set(values)) == 9
    assert drawn[3] == drawn[1]  # the image does not matter, the position does
    assert drawn[4] == drawn[0]


def test_random_states_are_restored_even_after_an_error(config):
    def states():
        numpy_state = np.random.get_state()
        return (
            random.getstate(),
            tuple(numpy_state[1]),
            numpy_state[2:],
            torch.get_rng_state().tolist(),
        )

    dataset = build(config)
    np.random.randn()
    before = states()
    dataset[4, 3]
    assert states() == before
    dataset.unlabeled.pipeline.transforms.append(lambda results: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        dataset[4, 3]
    assert states() == before
    dataset.unlabeled.pipeline.transforms.pop()
    dataset[4]
    assert states() != before  # a bare index uses the process's randomness


def loader_config(config, **settings):
    return {
        **dict(
            dataset=config,
            sampler=dict(type='LabeledUnlabeledSampler', labeled=2, unlabeled=3),
            batch_size=5,
            num_workers=0,
            collate_fn=dict(type='collate_branches'),
        ),
        **settings,
    }


def loaded(loader, count):
    iterator = iter(loader)
    return [next(iterator) for _ in range(count)]


def test_workers_do_not_matter(config):
    config['unlabeled']['pipeline'][2]['ratio_range'] = (1.0, 1.0)
    alone = loaded(Runner.build_dataloader(loader_config(config), seed=0), 6)
    workers = Runner.build_dataloader(
        loader_config(config, num_workers=2, persistent_workers=True), seed=0
    )
    together = loaded(workers, 6)
    assert alone[0]['inputs']['weak'].shape == (3, 3, 20, 24)
    assert all(equal(a, b) for a, b in zip(alone, together, strict=True))
    workers.sampler.skip(4 * 5)
    assert all(equal(a, b) for a, b in zip(alone[4:], loaded(workers, 2), strict=True))


def test_two_ranks_see_what_one_sees(config):
    def batches(rank, world_size, labeled, unlabeled):
        made = loader_config(config, batch_size=labeled + unlabeled)
        made['sampler'].update(labeled=labeled, unlabeled=unlabeled)
        loader = Runner.build_dataloader(made, seed=0)
        loader.sampler.rank, loader.sampler.world_size = rank, world_size
        return loaded(loader, 4)

    for whole, *halves in zip(
        batches(0, 1, 2, 4), batches(0, 2, 1, 2), batches(1, 2, 1, 2), strict=True
    ):
        for branch in ('labeled', 'weak', 'strong'):
            both = [image for half in halves for image in half['inputs'][branch]]
            assert len(both) == len(whole['inputs'][branch])
            for one, other in zip(whole['inputs'][branch], both, strict=True):
                assert torch.equal(one, other)


def error_of(loader, kind):
    """The error that the first batch ends in."""
    iterator = iter(loader)
    with pytest.raises(kind) as raised:
        next(iterator)
    for worker in multiprocessing.active_children():
        worker.terminate()  # torch waits five seconds for each after an error
    return str(raised.value)


@pytest.mark.parametrize('workers', [0, 2])
def test_errors_reach_the_user_as_one_sentence(config, data_root, workers):
    """Not swallowed, not retried with another image, and the last line of a worker's traceback."""
    for i in range(6):
        path = data_root / ('pool/sub' if i == 5 else 'pool') / f'u{i}.jpg'
        path.write_bytes(path.read_bytes()[:-300])
    loader = Runner.build_dataloader(loader_config(config, num_workers=workers), seed=0)
    last = error_of(loader, ValueError).strip().splitlines()[-1].removeprefix('ValueError: ')
    assert last.startswith(str(data_root / 'pool'))
    assert last.endswith('is truncated. Copy it again, or take it out of the list.')


def test_missing_file_in_a_worker(config, data_root):
    loader = Runner.build_dataloader(loader_config(config, num_workers=1), seed=0)
    shutil.rmtree(data_root / 'img_dir')
    last = error_of(loader, FileNotFoundError).strip().splitlines()[-1]
    assert 'does not exist. Restore the image' in last


def test_checks_are_inserted_and_the_config_is_not_edited(config):
    before = copy.deepcopy(config)
    dataset = build(config)
    assert config == before
    kinds = [type(t).__name__ for t in dataset.labeled.pipeline.transforms]
    assert kinds[:4] == ['CheckImageFile', 'LoadImageFromFile', 'LoadAnnotations', 'CheckLabels']
    assert type(dataset.unlabeled.pipeline.transforms[0]).__name__ == 'CheckImageFile'
    unchecked = build(config, check_files=False)
    assert 'CheckImageFile' not in str(unchecked.labeled.pipeline)


def test_labels_that_count_from_one(config, data_root):
    mask = np.tile(np.array([0, 1, 2, 3], np.uint8), (24, 8))
    for i in range(4):
        cv2.imwrite(str(data_root / f'ann_dir/l{i}.png'), mask)
    with pytest.raises(ValueError, match=r'has the value 3, .*reduce_zero_label=True'):
        build(config)[0, 0]
    config['labeled']['reduce_zero_label'] = True
    label = build(config)[0, 0]['data_samples']['labeled'].gt_sem_seg.data
    assert set(label.unique().tolist()) == {0, 1, 2, 255}


def test_any_class_can_be_the_unlabeled_child(config, data_root):
    config['unlabeled'].update(type='BaseSegDataset', data_prefix=dict(img_path='pool'))
    config['unlabeled'].pop('img_dir')
    assert list(build(config)[4]['inputs']) == ['weak', 'strong']
    (data_root / 'pool/u2.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r'1 of 6 images of the unlabeled .*u2\.jpg'):
        build(config)


def test_built_children_are_not_changed(config):
    labeled, unlabeled = DATASETS.build(config['labeled']), DATASETS.build(config['unlabeled'])
    count = len(labeled.pipeline.transforms)
    dataset = LabeledUnlabeledDataset(
        ConcatDataset([labeled, labeled]), RepeatDataset(unlabeled, 2)
    )
    assert (dataset.num_labeled, dataset.num_unlabeled) == (8, 12)
    assert len(labeled.pipeline.transforms) == count
    inner = dataset.labeled.datasets[1]
    assert inner is not labeled
    assert len(inner.pipeline.transforms) == count + 2
    assert len(dataset.unlabeled.dataset.pipeline.transforms) > len(unlabeled.pipeline.transforms)
    assert list(dataset[7]['inputs']) == ['labeled']
    assert list(dataset[19]['inputs']) == ['weak', 'strong']


def test_checks_can_be_turned_off(config, data_root):
    path = str(data_root / 'pool/u0.jpg')
    cv2.imwrite(path, cv2.imread(path, cv2.IMREAD_GRAYSCALE))
    with pytest.raises(ValueError, match=r'u0\.jpg is gray'):
        build(config)[4]
    assert build(config, check_files=False)[4]['inputs']['weak'].shape[0] == 3
    assert build(config, check_files='complete')[4]['inputs']['weak'].shape[0] == 3
    with open(path, 'r+b') as file:
        file.truncate(200)
    with pytest.raises(ValueError, match=r'u0\.jpg (is truncated|cannot be read)'):
        build(config, check_files='complete')[4]
    with pytest.raises(ValueError, match="check_files='some' must be True, 'complete'"):
        build(config, check_files='some')


def test_procedural_images_need_no_files():
    shapes = dict(type='ShapesDataset', num_images=4, image_size=(32, 32))
    load = [dict(type='LoadShapes')]
    dataset = LabeledUnlabeledDataset(
        labeled=dict(pipeline=[*load, dict(type='PackSegInputs')], **shapes),
        unlabeled=dict(
            shapes,
            labeled=False,
            start=4,
            pipeline=[*load, dict(type='AddValidMask'), dict(type='PackUnlabeledInputs')],
        ),
    )
    assert dataset[0]['data_samples']['labeled'].gt_sem_seg.shape == (32, 32)
    assert dataset[4]['data_samples']['weak'].valid_mask.data.all()
    assert 'CheckLabels' in str(dataset.labeled.pipeline)


@pytest.fixture
def log(caplog):
    logger = MMLogger.get_instance('data', logger_name='data')
    logger.addHandler(caplog.handler)
    return caplog


def test_overlap_is_a_warning(config, data_root, log):
    (data_root / 'links').mkdir()
    (data_root / 'links/other_name.jpg').symlink_to(data_root / 'img_dir/l2.jpg')
    shutil.copy(data_root / 'img_dir/l0.jpg', data_root / 'links/l0.jpg')  # a copy is another file
    config['unlabeled'] = dict(
        type='UnlabeledDataset', img_dir=str(data_root / 'links'), pipeline=[]
    )
    build(config)
    record = next(r for r in log.records if 'in the labeled and in the unlabeled set' in r.message)
    assert record.levelname == 'WARNING'
    assert '1 image(s)' in record.message
    assert 'other_name.jpg' in record.message


def test_no_overlap_no_warning(config, log):
    build(config)
    assert 'unlabeled set' not in log.text


def test_children_without_a_pipeline_are_said_to_be_unchecked(config, log):
    class Bare:
        metainfo = dict(classes=('a', 'b'))

        def __len__(self):
            return 1

        def get_data_info(self, index):
            return {}

    LabeledUnlabeledDataset(Bare(), config['unlabeled'])
    assert 'File checks of the labeled Bare leave out all files' in log.text


def remove(*names):
    def act(root, config):
        for name in names:
            (root / name).unlink()

    return act


def write(name, content):
    return lambda root, config: (root / name).write_text(content)


def image(name, pixels):
    return lambda root, config: cv2.imwrite(str(root / name), pixels)


def settings(kind, **values):
    return lambda root, config: config[kind].update(values)


GRAY = np.full((24, 32), 1, dtype=np.uint8)


@pytest.mark.parametrize(
    ('spoil', 'error', 'said'),
    [
        (
            write('labeled.txt', ''),
            ValueError,
            r"labeled dataset has no image \(.*ann_file='.*labeled\.txt'",
        ),
        (write('unlabeled.txt', '\n'), ValueError, r'no image in the list .*unlabeled\.txt'),
        (settings('labeled', ann_file='no.txt'), FileNotFoundError, r'no\.txt'),
        (settings('unlabeled', ann_file='no.txt'), FileNotFoundError, r'no\.txt'),
        (settings('labeled', data_root='/no/where'), FileNotFoundError, '/no/where'),
        (settings('unlabeled', img_dir='nowhere'), FileNotFoundError, 'nowhere'),
        (
            write('labeled.txt', 'l0\nl9\n'),
            FileNotFoundError,
            r'1 of 2 images of the labeled .*l9\.jpg',
        ),
        (remove('img_dir/l1.jpg'), FileNotFoundError, r'1 of 4 images of the labeled .*l1\.jpg'),
        (remove('ann_dir/l1.png'), FileNotFoundError, r'1 of 4 masks of the labeled .*l1\.png'),
        (remove('pool/u3.jpg'), FileNotFoundError, r'1 of 6 images of .*unlabeled\.txt .*u3\.jpg'),
    ],
)
def test_bad_input_at_start(config, data_root, spoil, error, said):
    spoil(data_root, config)
    with pytest.raises(error, match=said) as raised:
        build(config)
    assert str(raised.value).count('. ') <= 1  # what is wrong, what to do


@pytest.mark.parametrize(
    ('spoil', 'index', 'said'),
    [
        (image('img_dir/l0.jpg', GRAY), 0, r'l0\.jpg is gray'),
        (
            image('ann_dir/l0.png', GRAY[:20]),
            0,
            r'l0\.png is 20x32 .* its image .*l0\.jpg is 24x32',
        ),
        (
            image('ann_dir/l0.png', GRAY + 2),
            0,
            r'l0\.png has the value 3, but the dataset has 3 classes',
        ),
        (image('ann_dir/l0.png', np.stack([GRAY] * 3, -1)), 0, r'l0\.png is a color image'),
        (image('pool/u0.jpg', GRAY), 4, r'u0\.jpg is gray'),
    ],
)
def test_bad_input_while_loading(config, data_root, spoil, index, said):
    spoil(data_root, config)
    with pytest.raises(ValueError, match=said):
        build(config)[index, 0]


@pytest.mark.parametrize('orientation', range(1, 9))
def test_turned_photographs(config, data_root, orientation):
    """Labeled images and their masks, and unlabeled images, are as they are displayed."""
    pixels, mask = np.zeros((24, 32, 3), np.uint8), np.zeros((24, 32), np.uint8)
    pixels[:8, :10], mask[:8, :10] = 200, 1
    exif = Image.Exif()
    exif[0x0112] = orientation
    for path in ('img_dir/l0.jpg', 'pool/u0.jpg'):
        Image.fromarray(pixels).save(data_root / path, exif=exif, quality=100)
    Image.fromarray(mask).save(data_root / 'ann_dir/l0.png')
    load = dict(type='LoadImageFromFile')
    masks = dict(type='LoadAnnotations', drawn_on='stored')
    config['labeled']['pipeline'] = [load, masks, dict(type='PackSegInputs')]
    config['unlabeled']['pipeline'] = [
        load,
        dict(type='AddValidMask'),
        dict(type='PackUnlabeledInputs'),
    ]
    dataset = build(config)
    expected = displayed(mask, orientation)
    labeled, unlabeled = dataset[0], dataset[4]
    label = labeled['data_samples']['labeled'].gt_sem_seg.data[0].numpy()
    assert np.array_equal(label, expected)
    for image in (labeled['inputs']['labeled'], unlabeled['inputs']['weak']):
        assert ((image[0].numpy() > 100) != expected).mean() < 0.01


@pytest.mark.parametrize(
    ('kind', 'pipeline', 'said'),
    [
        (
            'labeled',
            slice(0, -1),
            r'dataset\.labeled does not pack its results. End it in PackSegInputs',
        ),
        (
            'unlabeled',
            slice(0, -1),
            r'dataset\.unlabeled does not pack its results. End it in MultiBranch',
        ),
    ],
)
def test_pipeline_that_does_not_pack(config, kind, pipeline, said):
    config[kind]['pipeline'] = config[kind]['pipeline'][pipeline]
    with pytest.raises(ValueError, match=said):
        build(config)[0 if kind == 'labeled' else 4]


def test_pipelines_of_the_wrong_kind(config):
    load = dict(type='LoadImageFromFile')
    config['labeled']['pipeline'] = [load, dict(type='PackSegInputs')]
    config['unlabeled']['pipeline'] = [load, dict(type='PackSegInputs')]
    dataset = build(config)
    with pytest.raises(ValueError, match=r'l0\.jpg has no label map. Load annotations'):
        dataset[0]
    with pytest.raises(ValueError, match=r"'labeled' no gt_sem_seg\. Load annotations"):
        build(config, check_files=False)[0]
    with pytest.raises(ValueError, match=r"'weak' no valid_mask\. Add AddValidMask"):
        dataset[4]
    pack = [dict(type='PackUnlabeledInputs')]
    config['unlabeled']['pipeline'] = [
        load,
        dict(type='AddValidMask'),
        dict(type='MultiBranch', labeled=pack),
    ]
    with pytest.raises(ValueError, match="makes a branch 'labeled'"):
        build(config)[4]


def test_empty_serialized_child(config, data_root):
    """mmengine's default storage fails on an empty list before its length can be asked for."""
    (data_root / 'labeled.txt').write_text('')
    config['labeled'].update(serialize_data=True)
    with pytest.raises(ValueError, match='labeled dataset has no image'):
        build(config)


def test_bad_settings(config):
    with pytest.raises(ValueError, match='seed=-1'):
        build(config, seed=-1)
    with pytest.raises(ValueError, match=r'dataset\.labeled=3 is not a dataset'):
        build(config, labeled=3)
    with pytest.raises(IndexError, match='index 10'):
        build(config)[10]
