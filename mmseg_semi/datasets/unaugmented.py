"""Images of a dataset without augmentation, for passes that use each image once."""

from __future__ import annotations

import copy
import logging

from mmengine.dataset import Compose
from mmengine.logging import print_log
from mmseg.datasets import MultiImageMixDataset

from .children import pipeline_transforms
from .walk import leaves, map_leaves

_KEPT = ('Load', 'Check', 'Resize', 'Pack')
#: Transforms of MMCV and MMSegmentation that change the values of all images alike.
_VALUES = ('AdjustGamma', 'CLAHE', 'Normalize', 'Rerange', 'RGB2Gray')


def unaugmented(dataset, pipeline: list | None = None):
    """Return a shallow copy of a dataset whose pipeline only loads, checks and packs, without augmentation.

    A fixed ``Resize`` and transforms such as ``Normalize`` remain, since the network is trained for this scale
    and these values. If a transform of another package is left out, a warning names it. Of a
    ``MultiImageMixDataset``, which mixes images, the dataset within it remains.

    Args:
        dataset: Any mmseg dataset with a pipeline, or a wrapper; it does not change.
        pipeline (list, optional): Configs of the transforms to use. Default: the dataset's transforms whose
            names begin with Load, Check, Resize or Pack, and those that change the values of all images alike.

    Raises:
        ValueError: There is no pipeline, or it has no transform that loads an image.
    """
    after: list = []
    while isinstance(dataset, MultiImageMixDataset):
        after = [t for t in dataset.pipeline if _is_kept(t)] + after
        dataset = dataset.dataset
    return map_leaves(dataset, lambda leaf: _unaugmented(leaf.dataset, pipeline, after))


def _unaugmented(dataset, pipeline: list | None, after: list):
    dataset = copy.copy(dataset)
    if pipeline is None:
        transforms = [*pipeline_transforms(dataset), *after]
        pipeline = [t for t in transforms if _is_kept(t)]
        left_out = [type(t) for t in transforms if not _is_kept(t)]
        known = ('mmcv', 'mmseg', 'mmseg_semi')
        unknown = [
            kind.__name__ for kind in left_out if kind.__module__.partition('.')[0] not in known
        ]
        if unknown:
            print_log(
                f'The pass over the labeled images without augmentation leaves out {", ".join(unknown)}. If '
                'the network needs it to see the values that it is trained on, set `pipeline` of the hook.',
                logger='current',
                level=logging.WARNING,
            )
    names = [t['type'] if isinstance(t, dict) else type(t).__name__ for t in pipeline]
    if not any(name.startswith('Load') for name in names) or not names[-1].startswith('Pack'):
        raise ValueError(
            f'the pipeline of the labeled {type(dataset).__name__} leaves {names} without its augmentation, '
            'which does not load and pack an image. Set `pipeline` of the hook in custom_hooks that reads the '
            'labeled images once (ClassCountHook, PrototypeInitHook or PrototypeMeanHook).'
        )
    dataset.pipeline = Compose(copy.copy(pipeline))
    return dataset


def _is_kept(transform) -> bool:
    name = type(transform).__name__
    return name.startswith(_KEPT) or name in _VALUES


def crop_size(dataset) -> tuple[int, int] | None:
    """Return (height, width) in pixels of the crops in a dataset's pipeline; None without a crop.

    Args:
        dataset: Any mmseg dataset with a pipeline, or a wrapper; the largest crop counts.
    """
    sizes = []
    for leaf in leaves(dataset):
        transforms = pipeline_transforms(leaf.dataset)
        # Of several crops in a row, the last one sets the size.
        sizes += [tuple(t.crop_size) for t in transforms if hasattr(t, 'crop_size')][-1:]
    return tuple(map(max, zip(*sizes, strict=True))) if sizes else None
