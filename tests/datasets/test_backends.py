"""Images, masks and lists behind MMEngine's file backends: in memory, in LMDB, behind HTTP."""

import functools
import http.server
import json
import threading

import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmengine.fileio import LocalBackend
from mmengine.logging import MMLogger
from mmseg.registry import DATASETS
from stored import BlindBackend, MemoryBackend, store

from mmseg_semi.datasets import UnlabeledDataset, check_data_paths, check_files_exist
from mmseg_semi.datasets import backends as of_package
from mmseg_semi.datasets.backends import (
    backend_of,
    backend_of_loader,
    is_local,
    local_copy,
    look_for,
    read_bytes,
    spread,
)
from mmseg_semi.datasets.labels import survey_masks


def behind(config, args, key='backend_args'):
    """The config with ``args`` in all its loaders; lists stay on the local disk."""
    for child in ('labeled', 'unlabeled'):
        for transform in config[child]['pipeline']:
            if transform['type'].startswith('Load'):
                transform[key] = args
    return config


def samples(dataset):
    return [dataset[index, index] for index in range(len(dataset))]


def assert_same(one, other):
    for a, b in zip(samples(one), samples(other), strict=True):
        assert a['inputs'].keys() == b['inputs'].keys()
        assert all(np.array_equal(a['inputs'][k], b['inputs'][k]) for k in a['inputs'])


def remote(config):
    """The config with all its files and the unlabeled list in memory; labeled images in a folder."""
    for child in ('labeled', 'unlabeled'):
        config[child]['data_root'] = 'mem://'
    config['labeled'].update(
        ann_file='', data_prefix=dict(img_path='img_dir', seg_map_path='ann_dir')
    )
    return config


def test_all_files_in_memory_by_their_prefix(config, data_root):
    local = DATASETS.build(config)
    store(data_root)
    config = remote(config)
    config['unlabeled']['img_suffix'] = '.jpg'
    assert_same(local, DATASETS.build(config))
    config['unlabeled'].update(ann_file='')
    paths = DATASETS.build(config).unlabeled_paths()
    assert paths == ['mem://pool/sub/u5.jpg', *(f'mem://pool/u{i}.jpg' for i in range(5))]


@pytest.mark.parametrize('name', ['img_dir/l2.jpg', 'ann_dir/l2.png', 'pool/u3.jpg'])
def test_a_file_that_the_backend_does_not_have_is_said(config, data_root, name):
    store(data_root)
    del MemoryBackend.files[f'mem://{name}']
    config = remote(config)
    config['unlabeled']['img_suffix'] = '.jpg'
    if name.startswith('img'):
        (data_root / 'labeled.txt').write_text('l0\nl1\nl2\nl3\n')
        config['labeled'].update(data_root='', ann_file=str(data_root / 'labeled.txt'))
        config['labeled']['data_prefix'] = dict(
            img_path='mem://img_dir', seg_map_path='mem://ann_dir'
        )
    with pytest.raises(FileNotFoundError, match=rf'1 of \d .*the first is mem://{name}'):
        DATASETS.build(config)


def test_a_list_that_the_backend_does_not_have_is_said(data_root):
    MemoryBackend.files.clear()
    with pytest.raises(FileNotFoundError, match=r'mem://none\.txt'):
        UnlabeledDataset(data_root='mem://', ann_file='none.txt', img_dir='pool', img_suffix='.jpg')


@pytest.mark.parametrize('key', ['backend_args', 'file_client_args'])
def test_loaders_that_read_keys_of_a_database_while_lists_are_local(
    config, data_root, tmp_path, key, caplog
):
    local = DATASETS.build(config)
    lists = tmp_path / 'lists'
    lists.mkdir()
    for name in ('labeled', 'unlabeled'):
        (lists / f'{name}.txt').write_text((data_root / f'{name}.txt').read_text())
        config[name].update(data_root='', ann_file=str(lists / f'{name}.txt'))
    config['unlabeled']['img_suffix'] = '.jpg'
    args = dict(backend='blind')
    store(data_root, BlindBackend, prefix='')
    if key == 'file_client_args':
        from mmengine.fileio import FileClient

        FileClient.register_backend('blind', BlindBackend, force=True)
        config = behind(config, dict(backend='blind'))
        for child in ('labeled', 'unlabeled'):
            loader = config[child]['pipeline'][0]
            loader[key] = loader.pop('backend_args')
    else:
        config = behind(config, args)
    logger = MMLogger.get_instance(key, logger_name=key)
    logger.addHandler(caplog.handler)
    database = DATASETS.build(config)
    assert_same(local, database)
    said = [r.getMessage() for r in caplog.records if 'BlindBackend' in r.getMessage()]
    assert len(said) == 3  # labeled images, masks, unlabeled images
    assert all('cannot tell whether a file exists, so none was checked' in line for line in said)


def test_lmdb(config, data_root, tmp_path):
    lmdb = pytest.importorskip('lmdb', reason='needs lmdb: pip install lmdb')
    local = DATASETS.build(config)
    path = tmp_path / 'database'
    with lmdb.open(str(path)) as environment, environment.begin(write=True) as transaction:
        for folder in ('img_dir', 'ann_dir', 'pool'):
            for file in sorted((data_root / folder).rglob('*.*')):
                transaction.put(file.relative_to(data_root).as_posix().encode(), file.read_bytes())
    for name in ('labeled', 'unlabeled'):
        config[name].update(data_root='', ann_file=str(data_root / f'{name}.txt'))
    config['unlabeled']['img_suffix'] = '.jpg'
    database = DATASETS.build(behind(config, dict(backend='lmdb', db_path=str(path))))
    assert_same(local, database)
    mask = database.labeled.get_data_info(0)['seg_map_path']
    loader = next(
        t for t in database.labeled.pipeline.transforms if 'Annotations' in type(t).__name__
    )
    survey = survey_masks([mask] * 9, quiet=True, backend=backend_of_loader(loader, mask))
    assert survey.problems == {}
    assert survey.pixels[:, 255].tolist() == [2 * 32] * 9


def test_http_needs_a_list(config, data_root):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(data_root))
    handler.func.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        root = f'http://127.0.0.1:{server.server_port}'
        unlabeled = {**config['unlabeled'], 'data_root': root, 'img_suffix': '.jpg'}
        found = DATASETS.build(unlabeled)
        assert len(found) == 6
        assert set(found[0]['inputs']) == {'weak', 'strong'}
        unlabeled['ann_file'] = ''
        with pytest.raises(
            ValueError,
            match=r"^img_dir='http.*/pool' is read through HTTPBackend, which cannot list",
        ):
            DATASETS.build(unlabeled)
        labeled = {**config['labeled'], 'data_root': root, 'ann_file': ''}
        with pytest.raises(
            ValueError, match='Leave data_root out and write whole addresses in data_prefix'
        ):
            check_data_paths(labeled)
        prefix = dict(img_path=f'{root}/img_dir', seg_map_path=f'{root}/ann_dir')
        labeled.update(data_root='', data_prefix=prefix)
        with pytest.raises(
            ValueError, match=r'cannot list a folder\. Set ann_file to a list of the images'
        ):
            check_data_paths(labeled)
        labeled['ann_file'] = str(data_root / 'labeled.txt')
        check_data_paths(labeled)
        label = DATASETS.build(labeled)[3]['data_samples'].gt_sem_seg.data
        assert {0, 1, 2} & set(label.unique().tolist())
        server.shutdown()


def test_a_stock_dataset_reads_its_list_from_the_local_disk_alone(config):
    labeled = {**config['labeled'], 'data_root': 'mem://', 'ann_file': 'labeled.txt'}
    with pytest.raises(
        ValueError, match=r'BaseSegDataset only reads lists from the local disk\. Copy the list'
    ):
        check_data_paths(labeled)


def test_an_unknown_backend_or_prefix_is_said():
    for path, args in (('x://a.jpg', None), ('a.jpg', dict(backend='x'))):
        with pytest.raises(ValueError, match=rf"{path}' needs the file backend 'x', which is not"):
            backend_of(path, args)


def test_local_files_are_all_looked_for_and_others_up_to_200(tmp_path, monkeypatch):
    paths = [str(tmp_path / f'{i}.jpg') for i in range(500)]
    assert look_for(paths, LocalBackend()) == (paths, 500)
    asked = []
    monkeypatch.setattr(MemoryBackend, 'exists', lambda self, path: asked.append(path) is None)
    assert look_for(paths, MemoryBackend()) == ([], 200)
    assert (asked[0], asked[-1]) == (paths[0], paths[-1])
    assert spread(3, 200) == [0, 1, 2]
    assert look_for(paths, BlindBackend()) == ([], 0)


def test_what_a_loader_reads_by():
    assert is_local(backend_of_loader(LoadImageFromFile(), 'a.jpg'))
    assert is_local(backend_of_loader(dict(file_client_args=dict(backend='disk')), 'a.jpg'))
    assert type(backend_of_loader(LoadImageFromFile(), 'mem://a.jpg')) is MemoryBackend
    loader = dict(type='LoadImageFromFile', backend_args=dict(backend='blind'))
    assert type(backend_of_loader(loader, 'a.jpg')) is BlindBackend


def test_contents_and_copies(tmp_path):
    BlindBackend.files.clear()
    BlindBackend.files['a/b.png'] = b'content'
    with local_copy('a/b.png', BlindBackend()) as path:
        assert path.endswith('b.png')
        assert read_bytes(path) == b'content'
    with pytest.raises(FileNotFoundError, match=r'a/c\.png is not in BlindBackend'):
        read_bytes('a/c.png', BlindBackend())
    assert of_package.MOST_ASKED_FOR == 200


def test_masks_of_a_validation_set_are_looked_for(config, data_root):
    store(data_root)
    labeled = {**remote(config)['labeled'], 'pipeline': config['labeled']['pipeline'][:2]}
    dataset = DATASETS.build(labeled)
    check_files_exist(dataset, 'validation', 'val_dataloader.dataset')
    del MemoryBackend.files['mem://ann_dir/l1.png']
    with pytest.raises(
        FileNotFoundError, match='1 of 4 masks of the validation dataset do not exist'
    ):
        check_files_exist(dataset, 'validation', 'val_dataloader.dataset')


def test_pseudo_labels_and_their_images(config, data_root):
    masks = {
        f'mem://labels/{n}.png': (data_root / 'ann_dir/l0.png').read_bytes()
        for n in ('u0', 'sub/u5')
    }
    store(data_root)
    MemoryBackend.files.update(masks)
    MemoryBackend.files['mem://labels/.ipynb_checkpoints/u0-checkpoint.png'] = b''
    images = {**config['unlabeled'], 'data_root': 'mem://', 'img_suffix': '.jpg'}
    del images['pipeline']
    pseudo = dict(
        type='PseudoLabeledDataset',
        images=images,
        labels='mem://labels',
        pipeline=config['labeled']['pipeline'][:2],
    )
    with pytest.raises(FileNotFoundError, match=r'mem://labels is not a finished folder'):
        DATASETS.build(pseudo)
    summary = json.dumps(dict(num_images=2, settings={})).encode()
    MemoryBackend.files['mem://labels/pseudo_labels.json'] = summary
    dataset = DATASETS.build(pseudo)
    assert [dataset[i]['gt_seg_map'].shape for i in range(len(dataset))] == [(24, 32)] * 2


def test_the_images_of_pseudo_labels_in_a_database(config, data_root):
    """The pipeline of the pseudo-labels says where the images are."""
    store(data_root, BlindBackend, prefix='')
    labels = data_root / 'labels'
    labels.mkdir()
    (labels / 'u0.png').write_bytes((data_root / 'ann_dir/l0.png').read_bytes())
    (labels / 'pseudo_labels.json').write_text(json.dumps(dict(num_images=1, settings={})))
    images = {**config['unlabeled'], 'data_root': '', 'img_suffix': '.jpg'}
    images.update(ann_file=str(data_root / 'unlabeled.txt'))
    del images['pipeline']
    load = dict(type='LoadImageFromFile', backend_args=dict(backend='blind'))
    dataset = DATASETS.build(
        dict(
            type='PseudoLabeledDataset',
            images=images,
            labels=str(labels),
            pipeline=[load, dict(type='LoadAnnotations')],
        )
    )
    assert dataset[0]['img'].shape == (24, 32, 3)
