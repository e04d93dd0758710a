"""Several views of one unlabeled image that share its geometry."""

import copy
from functools import lru_cache

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.dataset import Compose
from mmseg.registry import TRANSFORMS

from .formatting import FILLED, REAL


@TRANSFORMS.register_module()
class MultiBranch(BaseTransform):
    """Run the transforms of each branch on a copy of the results, and return all branches.

    Place it last, after the resize, crop, flip and padding that all views share. Branches do not affect each
    other. Each branch ends with ``PackUnlabeledInputs``::

        dict(type='MultiBranch',
             weak=[dict(type='PackUnlabeledInputs')],
             strong=[dict(type='RandomIntensity'), dict(type='PackUnlabeledInputs')])

    A transform in a branch may still move pixels, such as a random crop or rotation. Two values in the meta
    information of each view tell so: ``lies_on``, the first branch whose pixels have the same places in the
    image, and ``moved_by``, the names of the transforms that moved pixels. The methods refuse views that do
    not lie on each other (:class:`~mmseg_semi.models.batch.Batch`).

    Args:
        branches: Branch name = list of transforms (configs or callables). The branches run in this order.

    Returns of a call: ``{'inputs': {branch: (C, H, W) tensor}, 'data_samples': {branch: sample}}``, or None if
    a branch returns None. The dataset then loads another image.

    Raises:
        ValueError: There is no branch, a branch has no transforms, or does not pack its results.
    """

    def __init__(self, **branches) -> None:
        if not branches:
            raise ValueError(
                'MultiBranch has no branch. Give at least one, such as '
                "weak=[dict(type='PackUnlabeledInputs')]."
            )
        for name, transforms in branches.items():
            if not isinstance(transforms, (list, tuple)) or not transforms:
                raise ValueError(
                    f'MultiBranch branch {name}={transforms!r} is not a list of transforms. '
                    "End it at least in dict(type='PackUnlabeledInputs')."
                )
        self.branches = {
            name: Compose([TRANSFORMS.build(t) if isinstance(t, dict) else t for t in transforms])
            for name, transforms in branches.items()
        }

    def transform(self, results: dict) -> dict | None:
        """Run all branches on copies of ``results``, which does not change."""
        packed: dict = dict(inputs={}, data_samples={})
        places: dict[str, np.ndarray | None] = {}
        for name, pipeline in self.branches.items():
            view, places[name], moved_by = _run(pipeline, results)
            if view is None:
                return None
            if 'inputs' not in view or 'data_samples' not in view:
                raise ValueError(
                    f'MultiBranch branch {name} does not pack its results. '
                    "End it in dict(type='PackUnlabeledInputs')."
                )
            lies_on = next(other for other in places if _same_places(places[other], places[name]))
            view['data_samples'].set_metainfo(dict(lies_on=lies_on, moved_by=moved_by))
            packed['inputs'][name] = view['inputs']
            packed['data_samples'][name] = view['data_samples']
        return packed

    def __repr__(self) -> str:
        return f'{type(self).__name__}({", ".join(self.branches)})'


def _run(pipeline: Compose, results: dict) -> tuple[dict | None, np.ndarray | None, list[str]]:
    """Run a branch on a copy of ``results`` and watch where its pixels go.

    The real pixels of the valid mask get random numbers, which move with them. ``PackUnlabeledInputs`` reads
    every number but 0 and 255 as a real pixel.

    Returns:
        The packed view (or None), the numbers of its pixels before they were packed (None without a valid
        mask), and the names of the transforms that moved pixels.
    """
    view = copy.deepcopy(results)
    mask = view.get('gt_seg_map')
    if mask is not None:
        mask = view['gt_seg_map'] = np.where(mask == REAL, _numbers(mask.shape), np.uint8(FILLED))
    places = None if mask is None else mask.copy()
    moved_by: list[str] = []
    for transform in pipeline.transforms:
        view = transform(view)
        if view is None:
            return None, places, moved_by
        mask = view.get('gt_seg_map')
        if mask is not None and not _same_places(places, mask):
            moved_by.append(type(transform).__name__)
            places = mask.copy()
    return view, places, moved_by


@lru_cache(maxsize=4)
def _numbers(shape: tuple[int, int]) -> np.ndarray:
    """Random numbers from 1 to 254, uint8."""
    return np.random.default_rng(0).integers(1, FILLED, shape, dtype=np.uint8)


def _same_places(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    """Whether the pixels that are real in both maps have the same numbers."""
    if first is None or second is None:
        return first is second
    if first.shape != second.shape:
        return False
    filled = [(places == 0) | (places == FILLED) for places in (first, second)]
    return bool(((first == second) | filled[0] | filled[1]).all())
