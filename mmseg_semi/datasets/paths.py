"""Clear errors for missing datasets: the path, and where the documentation explains its preparation.

The stock dataset classes fail with a bare assertion or an error from inside a file backend.
:func:`check_data_paths` checks a dataset's config before it is built. :func:`build_checked` is the same as a
registered type, for configs that the stock tools run.
"""

import os.path as osp
from collections.abc import Mapping

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from .backends import is_local, join_path, kind_of_backend, require_listing
from .partition import counted_images, fill_lists
from .split_lists import check_list_text
from .walk import leaf_configs

# Dataset class -> its common name and its section of docs/datasets.md.
KNOWN = {
    'PascalVOCDataset': ('Pascal VOC 2012', 'pascal-voc-2012'),
    'CityscapesDataset': ('Cityscapes', 'cityscapes'),
    'CamVidDataset': ('CamVid', 'camvid'),
    'NucleiDataset': ('Nuclei', 'nuclei'),
    'VOCAnimalsDataset': ('VOC animals', 'voc-animals'),
}
UNKNOWN = ('The dataset', 'your-own-images')
LISTS = ('.txt', '.lst', '')  # endings of image lists; other files are not checked


def check_data_paths(dataset, title=None):
    """Check that the files and folders in a dataset config exist, and that its list is text.

    Args:
        dataset (dict): Config of a dataset; wrapped datasets are checked too. It does not change. Paths behind
            a file backend (``backend_args`` of the dataset or its loaders, ``s3://...``) are not looked up.
            ``{partition}`` is replaced by the dataset's ``partition``.
        title (str, optional): Class name to look up in ``KNOWN`` if the config's type is not in it, such as for
            the unlabeled images of a known dataset.

    Raises:
        FileNotFoundError: A path does not exist; the message has the dataset, the key and the remedy.
        ValueError: The list is not UTF-8, or has a byte order mark that the dataset would read as a name; the
            backend of a folder to search cannot list folders; or an MMSegmentation dataset has its list behind
            a backend, which MMSegmentation does not support.
    """
    found = leaf_configs(dataset)
    # The dataset type of unlabeled images does not name the dataset.
    labeled = [_class_name(leaf.dataset) for leaf in found if leaf.kind == 'labeled']
    for leaf in found:
        known_by = (_class_name(leaf.dataset), *labeled, title)
        _check_leaf(leaf.dataset, next((name for name in known_by if name in KNOWN), None))


def _check_leaf(dataset, name):
    root = dataset.get('data_root') or ''
    if not hasattr(kind_of_backend(root), 'join_path') and not _is_unlabeled(dataset):
        raise ValueError(
            f'data_root={root} is read through {kind_of_backend(root).__name__}, for which MMEngine '
            'cannot join paths. Leave data_root out and write whole addresses in data_prefix.'
        )
    own, listed = dataset.get('backend_args'), dataset.get('ann_file')
    for key, path, exists in _paths(dataset):
        backend = kind_of_backend(path, own)
        behind = key == 'ann_file' and not is_local(backend)
        if behind and ('://' in path or exists(path)) and _reads_lists_locally(dataset):
            raise ValueError(
                f'ann_file={path} is read through {backend.__name__}, and {_class_name(dataset)} only reads '
                'lists from the local disk. Copy the list there, and set backend_args in LoadImageFromFile and '
                'LoadAnnotations, not in the dataset.'
            )
        if key in ('img_dir', 'data_prefix.img_path') and not listed:
            require_listing(backend, path, key)
        if key.startswith(('img_dir', 'data_')) and (listed or 'img' not in key):
            # With a list, only the loader opens files of the folder.
            backend = kind_of_backend(path, own or _loader_args(dataset, key))
        if not is_local(backend):
            continue
        if not exists(path):
            raise FileNotFoundError(missing(name, key, path))
        if key == 'ann_file' and osp.isfile(path) and osp.splitext(path)[1] in LISTS:
            check_list_text(path, marked=_is_unlabeled(dataset))


def missing(name, key, path):
    """Return the error message for a missing ``path`` under config key ``key`` of dataset class ``name``.

    Returns:
        str: The sentence. Datasets that check themselves use it too, such as :class:`ListedSegDataset`.
    """
    title, anchor = KNOWN.get(name, UNKNOWN)
    return (
        f'{title}: {path} (from {key}) does not exist. Prepare it as docs/datasets.md#{anchor} describes, or '
        'set data_root to the folder that contains it.'
    )


@DATASETS.register_module(name='CheckedDataset')
def build_checked(of, partition=None, counted=None, counted_batch=None, **settings):
    """Build dataset type ``of`` from ``settings`` after :func:`check_data_paths`.

    In a config, ``dict(type='CheckedDataset', of='PascalVOCDataset', data_root=..., ...)`` is the same as
    ``dict(type='PascalVOCDataset', data_root=..., ...)``, with clear errors for missing files and the settings
    that supervised training needs.

    Args:
        of: Type of the dataset.
        partition (str, optional): Replaces ``{partition}`` in lists, see :mod:`~mmseg_semi.datasets.partition`.
        counted (dict, optional): Config of the unlabeled images of the compared semi-supervised method. They
            define the length of an epoch, and are counted but never loaded. ``data_root`` defaults to the
            dataset's.
        counted_batch (int, optional): How many of them that method has per batch. Default: the batch size.
        **settings: Settings of the dataset.

    Raises:
        FileNotFoundError: A file or folder is missing.
        ValueError: A list needs a partition but none is set, or one is set but no list needs it.
    """
    config = fill_lists(dict(settings, type=of, counted=counted), partition)
    counted = counted_images(config)
    del config['counted']
    check_data_paths(config)
    dataset = DATASETS.build(config)
    dataset.partition, dataset.counted = partition, counted
    dataset.counted_batch = counted_batch
    return dataset


def _is_unlabeled(dataset):
    return _class_name(dataset) == 'UnlabeledDataset'


def _loader_args(dataset, key):
    """Return ``backend_args`` of the loader config that opens files below ``key``."""
    wanted = 'LoadAnnotations' if key == 'data_prefix.seg_map_path' else 'LoadImageFromFile'
    for transform in dataset.get('pipeline') or ():
        kind = transform.get('type') if isinstance(transform, Mapping) else None
        if kind is not None and _name_of(kind) == wanted:
            args = dict(transform.get('backend_args') or transform.get('file_client_args') or {})
            return None if args.get('backend') == 'disk' else args
    return None


def _reads_lists_locally(dataset):
    """Whether MMSegmentation reads the list, which it expects on the local disk."""
    kind = dataset.get('of') or dataset.get('type')
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    return isinstance(kind, type) and issubclass(kind, BaseSegDataset)


def _class_name(dataset):
    return _name_of(dataset.get('of') or dataset.get('type') or '')


def _name_of(kind):
    return (kind if isinstance(kind, str) else kind.__name__).rsplit('.', 1)[-1]


def _paths(dataset):
    """Yield ``(key, path, test)`` of everything that must exist, joined as in mmengine's datasets."""
    root = dataset.get('data_root') or ''
    if root:
        yield 'data_root', root, osp.isdir
    if dataset.get('ann_file'):
        yield 'ann_file', join_path(root, dataset['ann_file']), osp.exists
    if dataset.get('img_dir'):
        yield 'img_dir', join_path(root, dataset['img_dir']), osp.isdir
    for key, path in (dataset.get('data_prefix') or {}).items():
        if path:
            yield f'data_prefix.{key}', join_path(root, path), osp.isdir
