"""Masks in which a class is missing because its value is void, as 255 in masks that hold 0 and 255."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from mmcv.transforms import LoadAnnotations as BaseLoadAnnotations
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations

from .backends import backend_of_loader, spread
from .children import pipeline_transforms, void_value
from .labels import ClassCount, count_classes, survey_masks, values_beyond
from .transforms.loading import LoadAnnotations as TurningLoadAnnotations
from .walk import Leaf

_LOADERS = (BaseLoadAnnotations, LoadAnnotations, TurningLoadAnnotations)
MOST_READ = 200
LEAST_VOID = 0.01
"""Share of the pixels above which void may be a class."""
FEW = 20
_READ_AT_ONCE = 20
_SHOWN = 4


class Masks(NamedTuple):
    """The masks of one dataset, counted.

    Attributes:
        key (str): Where the config has the dataset.
        classes (Sequence[str]): Names.
        pixels (np.ndarray): int64 (N, 256), pixels of each value, a row per mask.
        reduce_zero_label (bool): As of the dataset.
        label_map (dict, optional): As of the dataset.
        void (int): Value of void, 255 unless the dataset has another ``ignore_index``.
        plain (bool): Whether `MappedSegDataset` can take the dataset's place.
    """

    key: str
    classes: Sequence[str]
    pixels: np.ndarray
    reduce_zero_label: bool
    label_map: dict[int, int] | None
    void: int
    plain: bool

    def counts(self) -> ClassCount:
        """Pixels of each class, of void and of neither."""
        return count_classes(
            self.pixels, len(self.classes), self.reduce_zero_label, self.label_map, self.void
        )

    def beyond(self) -> dict[int, int]:
        """Values that are neither a class nor void: value = number of masks that have it."""
        return values_beyond(
            self.pixels, len(self.classes), self.reduce_zero_label, self.label_map, self.void
        )


def check_some_masks(sets: Sequence[Leaf]) -> None:
    """Read at most :data:`MOST_READ` masks of these datasets, spread evenly, until every class is found.

    Only masks that MMSegmentation's own ``LoadAnnotations`` reads are looked at: what another loader makes of
    their values is its own affair. Masks that cannot be read are left to the loader's errors.

    Args:
        sets: datasets that are trained, or evaluated, on together, with the same classes.

    Raises:
        ValueError: as :func:`missing_class` says it.
    """
    readable = [leaf for leaf in sets if annotation_loader(leaf) is not None]
    places = [(leaf, index) for leaf in readable for index in range(len(leaf.dataset))]
    chosen = [places[i] for i in spread(len(places), MOST_READ)] if places else []
    found: dict[str, Masks] = {}
    # Read in strides over the whole list, so that the first ones tell as much as possible.
    step = -(-len(chosen) // _READ_AT_ONCE)
    for start in range(step):
        for leaf in readable:
            part = [index for owner, index in chosen[start::step] if owner is leaf]
            if part:
                _add(found, leaf, part)
        if not _absent(list(found.values())):
            return
    read = f'{len(chosen)} of {len(places)} masks were read' if len(chosen) < len(places) else ''
    sentence = missing_class(list(found.values()), read)
    if sentence:
        raise ValueError(sentence)


def missing_class(masks: Sequence[Masks], read: str = '') -> str | None:
    """The sentence for a class that no mask shows while a value that counts as void holds more than 1 %.

    It is said where all classes but one are absent. Where several are there, 255 can be but one more, and as
    such the last one (0, 1, 255) or the first (1, 2, 255): said for :data:`FEW` masks or more, since of several
    classes one is easily absent from fewer. Masks with values beyond the classes have another fault, which is
    said where they are loaded.

    Args:
        masks: of datasets with the same classes.
        read: says that only some of the masks were read.
    """
    absent = _absent(masks)
    beyond = any(part.beyond() for part in masks)
    if not absent or not masks or beyond:
        return None
    first = masks[0]
    if len(first.classes) - len(absent) > 1:
        many = sum(len(part.pixels) for part in masks) >= FEW
        if not many or absent not in ([0], [len(first.classes) - 1]):
            return None
    values = sum(part.pixels.sum(0) for part in masks)
    total = max(1, int(values.sum()))
    index = absent[0]
    name = first.classes[index]
    said = f' ({read})' if read else ''
    if (
        any(first.void not in (part.label_map or {}) for part in masks)
        and values[first.void] > LEAST_VOID * total
    ):
        there = np.flatnonzero(values).tolist()
        shown = (
            '/'.join(map(str, there))
            if len(there) <= _SHOWN
            else f'such that {first.void} is a class'
        )
        return (
            f'{first.key}: class {name} has no pixel and {first.void} holds '
            f'{_percent(values[first.void], total)}{said}: are your masks {shown}? {_remedy(first, index)}'
        )
    if first.reduce_zero_label and values[0] > LEAST_VOID * total:
        return (
            f'{first.key}: class {name} has no pixel and 0, which reduce_zero_label=True makes void, holds '
            f'{_percent(values[0], total)}{said}: do your masks count from 0? Then set '
            f'reduce_zero_label=False. {_ON_PURPOSE}'
        )
    return None


_ON_PURPOSE = 'If it is void, set StartupCheckHook check_masks=False.'


def _remedy(first: Masks, index: int) -> str:
    if first.plain and not first.reduce_zero_label:
        line = f"type='MappedSegDataset', label_map={{{first.void}: {index}}}"
        return f'Then set {line} in {first.key} and in each dataset with such masks. {_ON_PURPOSE}'
    return (
        'Then write masks of class indices: tools/dataset_converters/folders.py IMAGES MASKS DST --ids '
        f'{first.void}={index} and VALUE=CLASS for each other value. {_ON_PURPOSE}'
    )


def _percent(part, total) -> str:
    return f'{100 * part / total:.2g} %' if part < 0.995 * total else '100 %'


def _absent(masks: Sequence[Masks]) -> list[int]:
    """Indices of the classes without a pixel."""
    if not masks:
        return []
    counts = np.sum([part.counts().pixels.sum(0) for part in masks], axis=0)
    return np.flatnonzero(counts == 0).tolist()


def _add(found: dict[str, Masks], leaf: Leaf, indices: Sequence[int]) -> None:
    infos = [leaf.dataset.get_data_info(index) for index in indices]
    paths = [info['seg_map_path'] for info in infos]
    loader = annotation_loader(leaf)
    survey = survey_masks(paths, quiet=True, backend=backend_of_loader(loader, paths[0]))
    new = masks_of(leaf, survey.pixels, infos[0])
    old = found.get(leaf.key)
    found[leaf.key] = (
        new if old is None else new._replace(pixels=np.concatenate([old.pixels, new.pixels]))
    )


def masks_of(leaf: Leaf, pixels: np.ndarray, info: dict) -> Masks:
    """What was read of a dataset, with how it reads values.

    Args:
        leaf: the dataset and its key.
        pixels: (N, 256), of a :class:`~mmseg_semi.datasets.labels.MaskSurvey`.
        info: of one of its samples.
    """
    return Masks(
        leaf.key,
        leaf.dataset.metainfo['classes'],
        pixels,
        bool(info.get('reduce_zero_label')),
        info.get('label_map'),
        void_value(leaf.dataset),
        type(leaf.dataset) is BaseSegDataset,
    )


def annotation_loader(leaf: Leaf):
    """mmseg's loader of a dataset's masks; None where there are no masks, no classes or another loader."""
    classes = (getattr(leaf.dataset, 'metainfo', None) or {}).get('classes')
    loaders = [t for t in pipeline_transforms(leaf.dataset) if isinstance(t, BaseLoadAnnotations)]
    usual = len(loaders) == 1 and type(loaders[0]) in _LOADERS
    if not usual or not classes or not len(leaf.dataset):
        return None
    return loaders[0] if leaf.dataset.get_data_info(0).get('seg_map_path') else None
