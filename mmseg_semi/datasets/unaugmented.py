"""Images of a dataset without augmentation, for passes that use each image once."""

from __future__ import annotations

import copy

from mmengine.dataset import Compose
from mmseg.datasets import MultiImageMixDataset

from .children import pipeline_transforms
from .walk import leaves, map_leaves

_KEPT = ('Load', 'Check', 'Resize', 'Pack')


def unaugmented(dataset, pipeline: list | None = None):
    """Return a shallow copy of a dataset whose pipeline only loads, checks and packs, without augmentation.

    A fixed ``Resize`` remains, since it sets the scale that the network is trained for. Of a
    ``MultiImageMixDataset``, which mixes images, the dataset within it remains.

    Args:
        dataset: Any mmseg dataset with a pipeline, or a wrapper; it does not change.
        pipeline (list, optional): Configs of the transforms to use. Default: the dataset's transforms whose
            names begin with Load, Check, Resize or Pack.

    Raises:
        ValueError: There is no pipeline, or it has no transform that loads an image.
    """
    after: list = []
    while isinstance(dataset, MultiImageMixDataset):
        after = [t for t in dataset.pipeline if type(t).__name__.startswith(_KEPT)] + after
        dataset = dataset.dataset
    return map_leaves(dataset, lambda leaf: _unaugmented(leaf.dataset, pipeline, after))


def _unaugmented(dataset, pipeline: list | None, after: list):
    dataset = copy.copy(dataset)
    if pipeline is None:
        transforms = [*pipeline_transforms(dataset), *after]
        pipeline = [t for t in transforms if type(t).__name__.startswith(_KEPT)]
    names = [t['type'] if isinstance(t, dict) else type(t).__name__ for t in pipeline]
    if not any(name.startswith('Load') for name in names) or not names[-1].startswith('Pack'):
        raise ValueError(
            f'the pipeline of the labeled {type(dataset).__name__} leaves {names} without its augmentation, '
            'which does not load and pack an image. Set `pipeline` of the hook in custom_hooks that reads the '
            'labeled images once (ClassCountHook, PrototypeInitHook or PrototypeMeanHook).'
        )
    dataset.pipeline = Compose(copy.copy(pipeline))
    return dataset


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
