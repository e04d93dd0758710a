"""iMAS's two augmentations that need predictions: they work on a batch of tensors, on its device.

Both are transforms of MMSegmentation's registry, with the results dict as their interface, so that any
code base can name them in a config: ``MODELS``-side code builds them with ``TRANSFORMS.build`` and calls
them inside the training step. Neither edits the tensors or the dict that it is given.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS
from torch import Tensor

from ..functional.mixing import hard_easy_partners, mix_intensity, paste, sample_boxes

BOX_STYLES = ('imas', 'unimatch', 'u2pl', 'cutmix_seg')


class CutMixPlan(NamedTuple):
    """What :class:`AdaptiveCutMix` has drawn for one batch of N images.

    Attributes:
        partner (Tensor): int64 (N,), the image that is pasted into image i.
        boxes (Tensor): int64 (N, 4), half-open x1, y1, x2, y2; empty boxes when not triggered.
        triggered (Tensor): bool scalar, or (N,) where each image is drawn for itself.
    """

    partner: Tensor
    boxes: Tensor
    triggered: Tensor


@TRANSFORMS.register_module()
class IntensityMix(BaseTransform):
    """Blend the intensity view with the weak one by hardness (iMAS, Eq. 7).

    The text of the paper rules over its printed formula: the harder an instance, the less it is distorted,
    ``(1 - hardness) * strong + hardness * weak``.

    Required keys: ``strong`` and ``weak`` (N, C, H, W), ``hardness`` (N,) in [0, 1]. Modified: ``strong``.

    Args:
        adaptive (bool): False keeps the intensity view as it is (the paper's standard augmentation).
    """

    def __init__(self, adaptive: bool = True) -> None:
        self.adaptive = adaptive

    def transform(self, results: dict) -> dict:
        if not self.adaptive:
            return dict(results)
        strong = mix_intensity(results['strong'], results['weak'], results['hardness'])
        return dict(results, strong=strong)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(adaptive={self.adaptive})'


@TRANSFORMS.register_module()
class AdaptiveCutMix(BaseTransform):
    """CutMix of hard-easy pairs, triggered more often the easier the batch is (iMAS, Eq. 8-9).

    The k-th easiest image exchanges a box with the k-th hardest. The whole batch is mixed when a uniform
    number exceeds its mean hardness, so with probability ``1 - mean(hardness)`` (the paper's text and
    code; its Eq. 9 prints the complement). Untriggered batches get empty boxes instead of a branch, so
    that the step neither waits for the device nor differs between ranks.

    Required keys: ``img`` (N, C, H, W), ``label`` and ``confidence`` (N, H, W), ``hardness`` (N,).
    Modified: ``img``, ``label``, ``confidence``. Added: ``triggered``, bool scalar or (N,).

    Args:
        adaptive (bool): False takes the batch's next image as the partner and the fixed ``prob``.
        prob (float): Probability of mixing a batch when not adaptive.
        per_image (bool): When not adaptive, draw for each image whether it is mixed (FixMatch, UniMatch).
        style (str): How boxes are drawn, see :func:`mmseg_semi.functional.mixing.sample_boxes`.
    """

    mixed_keys = ('img', 'label', 'confidence')

    def __init__(
        self,
        adaptive: bool = True,
        prob: float = 1.0,
        style: str = 'imas',
        per_image: bool = False,
    ) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f'prob={prob} is no probability: give a number in [0, 1].')
        if adaptive and per_image:
            raise ValueError(
                'per_image=True and adaptive=True contradict each other, since the mean hardness decides for '
                'the whole batch: set adaptive=False.'
            )
        if style not in BOX_STYLES:
            raise ValueError(f"style='{style}' draws no box per image: choose one of {BOX_STYLES}.")
        self.adaptive = adaptive
        self.prob = prob
        self.style = style
        self.per_image = per_image

    def sample(
        self, hardness: Tensor, size: tuple[int, int], generator: torch.Generator | None = None
    ) -> CutMixPlan:
        """Draw partners, boxes and the trigger for images of ``size`` (H, W)."""
        num, device = len(hardness), hardness.device
        boxes = sample_boxes(num, size, style=self.style, generator=generator)
        where = 'cpu' if generator is None else generator.device
        uniform = torch.rand((num,) if self.per_image else (), generator=generator, device=where)
        # Drawn on the host, unless the generator is the device's, and sent without blocking.
        boxes = boxes.to(device, non_blocking=True)
        uniform = uniform.to(device, non_blocking=True)
        if self.adaptive:
            partner = hard_easy_partners(hardness)
            triggered = uniform > hardness.mean()
        else:
            partner = torch.arange(num, device=device).roll(-1)
            triggered = uniform < self.prob
        return CutMixPlan(partner, boxes * triggered.view(-1, 1), triggered)

    def apply(self, results: dict, plan: CutMixPlan) -> dict:
        """Paste, into image i, the box of image ``plan.partner[i]``, all read from the unmixed tensors."""
        mixed = {
            key: paste(results[key], results[key][plan.partner], plan.boxes)
            for key in self.mixed_keys
        }
        return dict(results, triggered=plan.triggered, **mixed)

    def transform(self, results: dict) -> dict:
        size = tuple(results['img'].shape[-2:])
        return self.apply(results, self.sample(results['hardness'], size))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(adaptive={self.adaptive}, prob={self.prob}, style='{self.style}', "
            f'per_image={self.per_image})'
        )


def build_mixer(default: str, cfg: dict | None) -> BaseTransform | None:
    """The transform of a setting, whose type need not be repeated to change an option; None for None."""
    return None if cfg is None else TRANSFORMS.build({'type': default, **cfg})
