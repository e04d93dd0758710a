"""Blending of the intensity view with the weak view in iMAS.

It is registered as a transform of MMSegmentation. It depends on predictions and therefore runs in the training
step on a batch of tensors. It does not edit its arguments.
"""

from __future__ import annotations

from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from ..functional.mixing import mix_intensity


@TRANSFORMS.register_module()
class IntensityMix(BaseTransform):
    """Blend the intensity view with the weak view by hardness (iMAS, Eq. 7).

    Text and printed formula of the paper contradict each other. This follows the text, in which harder images
    are distorted less: ``(1 - hardness) * strong + hardness * weak``.

    Required keys: ``strong`` and ``weak`` (N, C, H, W), ``hardness`` (N,) in [0, 1]. Modified: ``strong``.

    Args:
        adaptive (bool): False keeps the intensity view unchanged (the paper's standard augmentation).

    Raises:
        ValueError: ``adaptive`` is neither True nor False.
    """

    def __init__(self, adaptive: bool = True) -> None:
        if not isinstance(adaptive, bool):
            raise ValueError(f'intensity.adaptive must be True or False, got {adaptive!r}.')
        self.adaptive = adaptive

    def transform(self, results: dict) -> dict:
        if not self.adaptive:
            return dict(results)
        strong = mix_intensity(results['strong'], results['weak'], results['hardness'])
        return dict(results, strong=strong)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(adaptive={self.adaptive})'
