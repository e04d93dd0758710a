"""iMAS's blending of the intensity view with the weak one, which needs predictions.

A transform of MMSegmentation's registry, so that any code base can name it in a config. It works on a batch of
tensors, on its device, within the training step, and edits neither the tensors nor the dict that it is given.
"""

from __future__ import annotations

from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from ..functional.mixing import mix_intensity


@TRANSFORMS.register_module()
class IntensityMix(BaseTransform):
    """Blend the intensity view with the weak one by hardness (iMAS, Eq. 7).

    The text of the paper rules over its printed formula: the harder an instance, the less it is distorted,
    ``(1 - hardness) * strong + hardness * weak``.

    Required keys: ``strong`` and ``weak`` (N, C, H, W), ``hardness`` (N,) in [0, 1]. Modified: ``strong``.

    Args:
        adaptive (bool): False keeps the intensity view as it is (the paper's standard augmentation).

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
