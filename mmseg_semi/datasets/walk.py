"""Traverse nested datasets, built or as configs, and nested transforms.

Wrappers of any class are followed by attribute: ``datasets`` (``ConcatDataset``), ``dataset``
(``RepeatDataset``, ``ClassBalancedDataset``, ``MultiImageMixDataset``), and the named children of this
package's datasets.

for leaf in leaves(runner.train_dataloader.dataset):
    print(leaf.key, leaf.kind, len(leaf.dataset))
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from mmcv.transforms import BaseTransform
from mmengine.dataset import Compose
from torch.utils.data import Dataset

from .partition import fill_partition

TRAINING = 'train_dataloader.dataset'
KINDS = ('labeled', 'unlabeled', 'pseudo_labeled')
"""Names of the children of this package's datasets; they define the kind of all datasets below."""


class Leaf(NamedTuple):
    """A dataset that contains no other, or its config.

    Attributes:
        dataset: Built dataset, or config.
        key (str): Config key, such as ``train_dataloader.dataset.labeled.datasets[0]``.
        kind (str, optional): 'labeled', 'unlabeled' or 'pseudo_labeled'; None outside of these.
    """

    dataset: Any
    key: str
    kind: str | None


def leaves(dataset, key: str = TRAINING, kind: str | None = None) -> list[Leaf]:
    """Return the datasets that load samples, in the order of their images; a repeated dataset is one leaf.

    A ``PseudoLabeledDataset`` is a leaf, since its own pipeline loads its images.

    Args:
        dataset: Built dataset.
        key: Its config key.
        kind: Its kind, if no key within it tells.
    """
    return list(_walk(Leaf(dataset, key, kind), _held))


def nodes(dataset, key: str = TRAINING, kind: str | None = None) -> list[Leaf]:
    """Return a built dataset and all datasets within it, including wrappers."""
    node = Leaf(dataset, key, kind)
    inner = [_below(node, place, child) for place, child in _held(dataset)]
    return [node, *(found for child in inner for found in nodes(*child))]


def leaf_configs(config: Mapping, key: str = TRAINING, kind: str | None = None) -> list[Leaf]:
    """Same as :func:`leaves`, for a config, which is neither built nor changed.

    For a ``PseudoLabeledDataset``, the leaves are the configs below its ``images``, which name the files.
    ``partition`` is filled into the lists.

    Raises:
        ValueError: See :func:`~mmseg_semi.datasets.partition.fill_partition`.
    """
    return list(_walk(Leaf(fill_partition(config), key, kind), _held_configs))


def sample_infos(dataset) -> list[dict]:
    """Return the infos of a built dataset's samples before loading; a repeated sample is listed once.

    The list is empty for datasets without ``get_data_info``.
    """
    return [
        leaf.dataset.get_data_info(index)
        for leaf in leaves(dataset)
        if hasattr(leaf.dataset, 'get_data_info')
        for index in range(len(leaf.dataset))
    ]


def image_files(dataset) -> list[str]:
    """Return the image paths of a dataset, each repeated sample once; samples without a file are skipped."""
    return [info['img_path'] for info in sample_infos(dataset) if 'img_path' in info]


def first_branch(config: Mapping) -> list[Mapping]:
    """Return the configs from a dataset down to a leaf, following the first dataset in each wrapper."""
    inner = next((child for _, child in _held_configs(config)), None)
    return [config, *(first_branch(inner) if inner else ())]


def transforms_within(pipeline: Any) -> Iterator[BaseTransform]:
    """Yield the built transforms of a pipeline and those within them, as in MultiBranch and RandomApply.

    Args:
        pipeline: A ``Compose``, a transform, or a list or dict of these; other objects are skipped.
    """
    if isinstance(pipeline, Compose):
        pipeline = pipeline.transforms
    if isinstance(pipeline, dict):
        pipeline = list(pipeline.values())
    if isinstance(pipeline, (list, tuple)):
        for item in pipeline:
            yield from transforms_within(item)
    elif isinstance(pipeline, BaseTransform):
        yield pipeline
        yield from transforms_within(list(vars(pipeline).values()))


def concatenated(dataset, key: str) -> list[Leaf]:
    """Return the sets that ``ConcatDataset`` joins, built or as configs; otherwise the dataset itself.

    Concatenations within concatenations are split too; those within other wrappers belong to one set.
    """
    held = _held_configs if isinstance(dataset, Mapping) else _held
    parts = [(place, child) for place, child in held(dataset) if place[0] == 'datasets']
    if not parts:
        return [Leaf(dataset, key, None)]
    return [part for place, child in parts for part in concatenated(child, key + _said(place))]


def map_leaves(dataset, change: Callable[[Leaf], Any], key: str = TRAINING, kind=None):
    """Return a shallow copy of a built dataset with each leaf replaced by ``change(leaf)``."""
    return _map(Leaf(dataset, key, kind), change, _held, setattr)


def map_leaf_configs(config: Mapping, change: Callable[[Leaf], Mapping], key: str = TRAINING):
    """Return a shallow copy of a config with each leaf replaced by ``change(leaf)``."""

    def put(copied, name, value):
        copied[name] = value

    return _map(Leaf(config, key, None), change, _held_configs, put)


class NamedSet(NamedTuple):
    """A set in a whole config; it may consist of several datasets.

    Attributes:
        role (str): 'labeled', 'unlabeled', 'training' (for training without such children), 'validation' or
            'test'.
        number (int): Index of the loader within its stage, from 0.
        key (str): Config key, such as ``train_dataloader.dataset.labeled``.
        config: Config of the dataset.
    """

    role: str
    number: int
    key: str
    config: Any


def named_sets(cfg: Mapping) -> list[NamedSet]:
    """Return the training, validation and test sets of a config; a set that it names twice is listed twice.

    Images with pseudo-labels are an unlabeled set. ``partition`` is filled into the lists.

    Raises:
        ValueError: See :func:`~mmseg_semi.datasets.partition.fill_partition`.
    """
    found = []
    train = (cfg.get('train_dataloader') or {}).get('dataset')
    if train is not None:
        train = fill_partition(train)
        labeled, unlabeled = train.get('labeled'), train.get('unlabeled')
        images = (train.get('pseudo_labeled') or {}).get('images')
        if isinstance(labeled, Mapping):
            found.append(NamedSet('labeled', 0, f'{TRAINING}.labeled', labeled))
            if isinstance(unlabeled, Mapping):
                found.append(NamedSet('unlabeled', 0, f'{TRAINING}.unlabeled', unlabeled))
            if images:
                place = f'{TRAINING}.pseudo_labeled.images'
                found.append(NamedSet('unlabeled', 0, place, images))
        else:
            found.append(NamedSet('training', 0, TRAINING, train))
    for role, stage in (('validation', 'val'), ('test', 'test')):
        for index, (key, loader) in enumerate(loader_configs(cfg, stage)):
            if loader.get('dataset') is not None:
                found.append(NamedSet(role, index, f'{key}.dataset', loader['dataset']))
    return found


def loader_configs(cfg: Mapping, stage: str) -> list[tuple[str, Mapping]]:
    """Return key and config of each data loader of a config; a stage may have a list of loaders.

    Args:
        cfg: Config of a training or a test.
        stage: 'train', 'val' or 'test'.
    """
    key = f'{stage}_dataloader'
    loaders = cfg.get(key)
    if isinstance(loaders, (list, tuple)):
        return [(f'{key}[{i}]', loader) for i, loader in enumerate(loaders)]
    return [(key, loaders)] if loaders else []


def stage_leaves(cfg: Mapping, stage: str) -> list[Leaf]:
    """Return :func:`leaf_configs` of all datasets in the loaders of a stage."""
    return [
        leaf
        for key, loader in loader_configs(cfg, stage)
        if loader.get('dataset') is not None
        for leaf in leaf_configs(loader['dataset'], f'{key}.dataset')
    ]


_Place = tuple[str, int | None]


def _walk(node: Leaf, held: Callable) -> Iterator[Leaf]:
    inner = list(held(node.dataset))
    if not inner:
        yield node
    for place, child in inner:
        yield from _walk(_below(node, place, child), held)


def _map(node: Leaf, change: Callable, held: Callable, put: Callable):
    inner = list(held(node.dataset))
    if not inner:
        return change(node)
    copied = copy.copy(node.dataset)
    lists: dict[str, list] = {}
    for (name, index), child in inner:
        new = _map(_below(node, (name, index), child), change, held, put)
        if index is None:
            put(copied, name, new)
        else:
            lists.setdefault(name, []).append(new)
    for name, values in lists.items():
        put(copied, name, values)
    return copied


def _below(node: Leaf, place: _Place, child) -> Leaf:
    kind = place[0] if place[0] in KINDS else node.kind
    return Leaf(child, node.key + _said(place), kind)


def _said(place: _Place) -> str:
    name, index = place
    return f'.{name}' if index is None else f'.{name}[{index}]'


def _held(dataset) -> Iterator[tuple[_Place, Any]]:
    """Yield the datasets within a built dataset, with the attribute and, for lists, the index."""
    for name in (*KINDS, 'dataset'):
        child = getattr(dataset, name, None)
        if _is_dataset(child):
            yield (name, None), child
    for index, child in enumerate(getattr(dataset, 'datasets', None) or ()):
        yield ('datasets', index), child


def _is_dataset(value) -> bool:
    # `labeled` of ShapesDataset is a bool; `dataset` of a user's dataset may be a name.
    return isinstance(value, Dataset) or hasattr(value, 'get_data_info')


def _held_configs(config: Mapping) -> Iterator[tuple[_Place, Mapping]]:
    for name in (*KINDS, 'dataset', 'images'):
        if isinstance(config.get(name), Mapping):
            yield (name, None), config[name]
    datasets = config.get('datasets')
    for index, child in enumerate(datasets if isinstance(datasets, (list, tuple)) else ()):
        if isinstance(child, Mapping):
            yield ('datasets', index), child
