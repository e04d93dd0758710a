"""Several views of one unlabeled image that share its geometry."""

import copy

from mmcv.transforms import BaseTransform
from mmengine.dataset import Compose
from mmseg.registry import TRANSFORMS


@TRANSFORMS.register_module()
class MultiBranch(BaseTransform):
    """Run the transforms of each branch on a copy of the results, and return all branches.

    Place it last, after the resize, crop, flip and padding that all views share. Branches do not affect each
    other. Each branch ends with ``PackUnlabeledInputs``::

        dict(type='MultiBranch',
             weak=[dict(type='PackUnlabeledInputs')],
             strong=[dict(type='RandomIntensity'), dict(type='PackUnlabeledInputs')])

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
        for name, pipeline in self.branches.items():
            view = pipeline(copy.deepcopy(results))
            if view is None:
                return None
            if 'inputs' not in view or 'data_samples' not in view:
                raise ValueError(
                    f'MultiBranch branch {name} does not pack its results. '
                    "End it in dict(type='PackUnlabeledInputs')."
                )
            packed['inputs'][name] = view['inputs']
            packed['data_samples'][name] = view['data_samples']
        return packed

    def __repr__(self) -> str:
        return f'{type(self).__name__}({", ".join(self.branches)})'
