"""The meaning of class indices in a dataset, and whether two datasets agree.

A network learns indices. If training and validation use an index for different classes, or map mask values
differently, training runs but its results mean nothing.
"""

from __future__ import annotations

import inspect
import json
import os.path as osp
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from mmseg.registry import DATASETS

from .backends import read_bytes
from .pseudo_labeled import LABELS_SUMMARY, PseudoLabeledDataset
from .walk import Leaf, leaves, stage_leaves

READINGS = ('reduce_zero_label', 'label_map')
"""Settings that map mask values; sets may differ in them on purpose."""


class Meaning(NamedTuple):
    """Meaning of the class indices of one dataset; unknown fields are None and not compared.

    Attributes:
        key (str): Config key of the dataset, or the file that defines the meaning.
        classes (tuple[str, ...]): Class names in the order of their indices.
        reduce_zero_label (bool, optional): Whether mask value 0 is void and 1 the first class.
        label_map (dict[int, int], optional): Mask value = class index; empty without a map.
        palette (list, optional): RGB color of each class. It changes only pictures.
    """

    key: str
    classes: tuple[str, ...]
    reduce_zero_label: bool | None = None
    label_map: dict[int, int] | None = None
    palette: list | None = None


class Difference(NamedTuple):
    """A difference between two meanings.

    Attributes:
        of (str): 'classes', 'reduce_zero_label', 'label_map' or 'palette'.
        sentence (str): Both keys, both values and the remedy.
    """

    of: str
    sentence: str


def meanings_of(dataset, key: str, kind: str | None = None) -> list[Meaning]:
    """Return the meanings of a built dataset and all datasets within it that name classes.

    Unlabeled images have no meaning. Pseudo-labels have the meaning in their ``pseudo_labels.json``.
    """
    return [
        meaning
        for leaf in leaves(dataset, key, kind)
        if leaf.kind != 'unlabeled'
        for meaning in _of_leaf(leaf)
    ]


def meanings_of_config(cfg: Mapping, stage: str) -> list[Meaning]:
    """Same as :func:`meanings_of`, for the unbuilt datasets of a stage ('train', 'val', 'test')."""
    found = []
    for leaf in stage_leaves(cfg, stage):
        # The images of a pseudo-labeled dataset are a leaf.
        if leaf.kind not in ('unlabeled', 'pseudo_labeled'):
            found += _of_config(leaf)
    return found


def meaning_of_checkpoint(checkpoint: Mapping, path: str) -> Meaning | None:
    """Return the meaning in ``meta.dataset_meta`` of an MMEngine checkpoint; None if it has none."""
    meta = (checkpoint.get('meta') or {}).get('dataset_meta') or {}
    if not meta.get('classes'):
        return None
    reduced = meta.get('reduce_zero_label')
    return Meaning(
        f'the checkpoint {path}',
        tuple(map(str, meta['classes'])),
        None if reduced is None else bool(reduced),
        (meta['label_map'] or {}) if 'label_map' in meta else None,
    )


def differences(first: Meaning, second: Meaning) -> list[Difference]:
    """Return the differences between two meanings; if the classes differ, only that difference."""
    if first.classes != second.classes:
        return [Difference('classes', _of_classes(first, second))]
    found = []
    for of in ('reduce_zero_label', 'label_map', 'palette'):
        one, other = getattr(first, of), getattr(second, of)
        if one is None or other is None or one == other:
            continue
        name = 'metainfo.palette' if of == 'palette' else of
        remedy = (
            'The pictures of one class have two colors. Give both one palette.'
            if of == 'palette'
            else 'A mask value means different classes in them. Give both the same one; if the masks are '
            'stored in two ways on purpose, set StartupCheckHook same_masks=False.'
        )
        where = _key(first, name), _key(second, name)
        found.append(
            Difference(of, f'{where[0]}={_shown(one)} but {where[1]}={_shown(other)}. {remedy}')
        )
    return found


def compare_all(meanings: Sequence[Meaning]) -> list[Difference]:
    """Return the differences of each meaning from the first one."""
    return [d for other in meanings[1:] for d in differences(meanings[0], other)]


def check_checkpoint(checkpoint: Mapping, path: str, cfg: Mapping) -> None:
    """Compare the class names of a checkpoint with those of the datasets of a config.

    Raises:
        ValueError: The class names differ in number, name or order.
    """
    saved = meaning_of_checkpoint(checkpoint, path)
    if saved is None:
        return
    for stage in ('test', 'val', 'train'):
        for meaning in meanings_of_config(cfg, stage):
            if meaning.classes != saved.classes:
                raise ValueError(_of_classes(saved, meaning))


def _of_leaf(leaf: Leaf) -> list[Meaning]:
    if isinstance(leaf.dataset, PseudoLabeledDataset):
        return meanings_of_labels(leaf.dataset.labels)
    meta = getattr(leaf.dataset, 'metainfo', None) or {}
    if not meta.get('classes'):
        return []
    reduced = getattr(leaf.dataset, 'reduce_zero_label', None)
    label_map = getattr(leaf.dataset, 'label_map', None) or {}
    return [_meaning(leaf.key, meta, reduced, label_map)]


def meanings_of_labels(folders: Iterable[str]) -> list[Meaning]:
    """Return the meanings in the summaries of finished pseudo-label folders."""
    found = []
    for folder in folders:
        path = osp.join(folder, LABELS_SUMMARY)
        classes = json.loads(read_bytes(path)).get('classes')
        # Skip placeholder names, from a network without class names.
        if classes and list(classes) != [f'class {c}' for c in range(len(classes))]:
            found.append(Meaning(path, tuple(map(str, classes))))
    return found


def _of_config(leaf: Leaf) -> list[Meaning]:
    config = leaf.dataset
    kind = config.get('of') or config.get('type')
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    meta = {**(getattr(kind, 'METAINFO', None) or {}), **(config.get('metainfo') or {})}
    if not meta.get('classes') or isinstance(meta['classes'], str):  # a file of names
        return []
    usual = inspect.signature(kind).parameters.get('reduce_zero_label') if kind else None
    reduced = config.get('reduce_zero_label', None if usual is None else usual.default)
    label_map = config.get('label_map')
    if label_map is None and hasattr(kind, 'get_label_map'):
        label_map = kind.get_label_map(meta['classes'])
    # The palette is only known after the dataset is built.
    return [_meaning(leaf.key, {'classes': meta['classes']}, reduced, label_map or {})]


def _meaning(key: str, meta: Mapping, reduced, label_map: dict) -> Meaning:
    palette = meta.get('palette')
    return Meaning(
        key,
        tuple(map(str, meta['classes'])),
        None if reduced is None else bool(reduced),
        {int(value): int(index) for value, index in label_map.items()},
        [list(map(int, color)) for color in palette] if palette is not None else None,
    )


def _of_classes(first: Meaning, second: Meaning) -> str:
    where = _key(first, 'metainfo.classes'), _key(second, 'metainfo.classes')
    pairs = enumerate(zip(first.classes, second.classes, strict=False))
    index, (one, other) = next(
        ((i, pair) for i, pair in pairs if pair[0] != pair[1]), (None, (None, None))
    )
    counts = len(first.classes), len(second.classes)
    said = (
        f'{where[0]} names {counts[0]} classes but {where[1]} names {counts[1]}'
        if counts[0] != counts[1]
        else f'{where[0]} and {where[1]} differ'
    )
    at = (
        ''
        if index is None
        else f' (index {index} is {one!r} in the former and {other!r} in the latter)'
    )
    return f'{said}{at}. Give both the same classes in the same order.'


def _key(meaning: Meaning, name: str) -> str:
    """Return the config key of a setting, or its name and the file that defines it."""
    is_key = '_dataloader' in meaning.key
    return f'{meaning.key}.{name}' if is_key else f'{name.rpartition(".")[2]} of {meaning.key}'


def _shown(value) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f'{text[:70]}...'
