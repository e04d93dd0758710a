"""Find masks in which a class is missing because its value is void, such as 255 in masks with 0 and 255."""

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
"""Fraction of void pixels above which void may be a class."""
FEW = 20
_READ_AT_ONCE = 20
_SHOWN = 4


class Masks(NamedTuple):
    """Pixel counts of the masks of one dataset.

    Attributes:
        key (str): Config key of the dataset.
        classes (Sequence[str]): Class names.
        pixels (np.ndarray): int64 (N, 256), pixels of each value, one row per mask.
        reduce_zero_label (bool): Setting of the dataset.
        label_map (dict, optional): Setting of the dataset.
        void (int): Void value, 255 unless the dataset has another ``ignore_index``.
        plain (bool): Whether `MappedSegDataset` can replace the dataset.
    """

    key: str
    classes: Sequence[str]
    pixels: np.ndarray
    reduce_zero_label: bool
    label_map: dict[int, int] | None
    void: int
    plain: bool

    def counts(self) -> ClassCount:
        """Pixels of each class, of void and of other values."""
        return count_classes(
            self.pixels, len(self.classes), self.reduce_zero_label, self.label_map, self.void
        )

    def beyond(self) -> dict[int, int]:
        """Values that are neither a class nor void: value = number of masks that contain it."""
        return values_beyond(
            self.pixels, len(self.classes), self.reduce_zero_label, self.label_map, self.void
        )


def check_some_masks(sets: Sequence[Leaf]) -> None:
    """Read at most :data:`MOST_READ` masks of these datasets, spread evenly, until every class is found.

    Only masks read by MMSegmentation's own ``LoadAnnotations`` are checked, since other loaders may map values
    differently. Masks that cannot be read are skipped; the loader reports them.

    Args:
        sets: Datasets that are used together for training or evaluation, with the same classes.

    Raises:
        ValueError: A class seems to be stored as void, see :func:`missing_class`.
    """
    readable = [leaf for leaf in sets if annotation_loader(leaf) is not None]
    places = [(leaf, index) for leaf in readable for index in range(len(leaf.dataset))]
    chosen = [places[i] for i in spread(len(places), MOST_READ)] if places else []
    found: dict[str, Masks] = {}
    # Read in strides over the whole list, so that a few masks cover it.
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
    """Return an error message if a class has no pixel while a value counted as void has more than 1 %.

    The check applies if all classes but one are absent. If fewer are absent, 255 can only be the last class (0,
    1, 255) or the first (1, 2, 255). This is reported only for at least :data:`FEW` masks, since in fewer masks
    a class is easily absent. Masks with values beyond the classes have another error, which loading reports.

    Args:
        masks: Masks of datasets with the same classes.
        read: Note for the message if only some of the masks were read.
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
    """Return the indices of the classes without a pixel."""
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
    """Combine the pixel counts of a dataset's masks with the settings that map their values.

    Args:
        leaf: The dataset and its key.
        pixels: Counts of a :class:`~mmseg_semi.datasets.labels.MaskSurvey`, (N, 256).
        info: Sample info of one of its samples.
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
    """Return mmseg's mask loader of a dataset; None without masks or classes, or with another loader."""
    classes = (getattr(leaf.dataset, 'metainfo', None) or {}).get('classes')
    loaders = [t for t in pipeline_transforms(leaf.dataset) if isinstance(t, BaseLoadAnnotations)]
    usual = len(loaders) == 1 and type(loaders[0]) in _LOADERS
    if not usual or not classes or not len(leaf.dataset):
        return None
    return loaders[0] if leaf.dataset.get_data_info(0).get('seg_map_path') else None
