"""A dataset's images as they are, for passes that look at all of them once."""

from __future__ import annotations

import copy

from mmengine.dataset import Compose

from .children import pipeline_transforms
from .walk import leaves, map_leaves

_KEPT = ('Load', 'Check', 'Resize', 'Pack')


def unaugmented(dataset, pipeline: list | None = None):
    """Return a shallow copy of a dataset whose pipeline loads, checks and packs: nothing random, no crop.

    A fixed ``Resize`` stays, since it makes the scale that the network is trained for.

    Args:
        dataset: any mmseg dataset with a pipeline, or a wrapper of some; it is not changed.
        pipeline (list, optional): Configs of the transforms to use. Default: those of the dataset whose
            names begin with Load, Check, Resize or Pack.

    Raises:
        ValueError: There is no pipeline, or nothing of it that loads an image.
    """
    return map_leaves(dataset, lambda leaf: _unaugmented(leaf.dataset, pipeline))


def _unaugmented(dataset, pipeline: list | None):
    dataset = copy.copy(dataset)
    if pipeline is None:
        transforms = pipeline_transforms(dataset)
        pipeline = [t for t in transforms if type(t).__name__.startswith(_KEPT)]
    names = [t['type'] if isinstance(t, dict) else type(t).__name__ for t in pipeline]
    if not any(name.startswith('Load') for name in names) or not names[-1].startswith('Pack'):
        raise ValueError(
            f'the pipeline of the labeled {type(dataset).__name__} leaves {names} without its augmentation, '
            'which does not load and pack an image. Give a `pipeline` that does.'
        )
    dataset.pipeline = Compose(copy.copy(pipeline))
    return dataset


def crop_size(dataset) -> tuple[int, int] | None:
    """Return (height, width) of the crops that a dataset's pipeline makes, in pixels; None without a crop.

    Args:
        dataset: any mmseg dataset with a pipeline, or a wrapper of some, whose largest crop counts.
    """
    sizes = []
    for leaf in leaves(dataset):
        transforms = pipeline_transforms(leaf.dataset)
        # Of several crops in a row, the last one makes the size.
        sizes += [tuple(t.crop_size) for t in transforms if hasattr(t, 'crop_size')][-1:]
    return tuple(map(max, zip(*sizes, strict=True))) if sizes else None
