"""CutMix for all methods. A random plan is created once per batch and mixes all its maps in the same way.

mix = cutmix.plan(len(weak), batch.size, weak.device)
images = mix(images)
label, confidence, valid = mix(label, confidence, valid)
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS
from torch import Tensor

from ..functional.mixing import hard_easy_partners, paste, sample_boxes
from ..functional.resizing import resize_nearest

#: Styles of :func:`mmseg_semi.functional.mixing.sample_boxes` with one box per image.
BOX_STYLES = ('imas', 'unimatch', 'u2pl', 'cutmix_seg')


@dataclasses.dataclass(frozen=True)
class CutMixPlan:
    """Boxes and partners that mix M images into N images. The default plan mixes nothing.

    N is M, or M / 2 if the second half of the batch is only the source of pasted boxes.

    Attributes:
        partner (Tensor, optional): int64 (N,), index of the image that is pasted into image i. None mixes
            nothing.
        boxes (Tensor, optional): int64 (N, 4) or (N, K, 4), half-open x1, y1, x2, y2 in pixels. The boxes of
            unmixed images are empty.
        size (tuple[int, int], optional): (H, W) of the images that the boxes belong to.
        triggered (Tensor, optional): bool scalar, or (N,) with one random choice per image. None if all images
            are always mixed.
        inside (Tensor, optional): bool (N, h, w), the boxes at another resolution, see :meth:`on`.
    """

    partner: Tensor | None = None
    boxes: Tensor | None = None
    size: tuple[int, int] | None = None
    triggered: Tensor | None = None
    inside: Tensor | None = None

    def __call__(self, *maps: Tensor) -> Any:
        """Mix images (M, C, H, W) or maps (M, H, W).

        Returns:
            Tensor | tuple[Tensor, ...]: (N, ...), one per argument, or the arguments themselves if nothing is
            mixed. A single argument gives a single tensor.
        """
        mixed = tuple(map(self._mixed, maps))
        return mixed[0] if len(mixed) == 1 else mixed

    def _mixed(self, maps: Tensor) -> Tensor:
        if self.partner is None:
            return maps
        base, patch = maps[: len(self.partner)], maps[self.partner]
        if self.inside is None:
            return paste(base, patch, self.boxes)
        inside = self.inside if maps.dim() == 3 else self.inside[:, None]
        return torch.where(inside, patch, base)

    def on(self, grid: tuple[int, int], align_corners: bool = False) -> CutMixPlan:
        """Return the plan for maps of another size (h, w), by nearest-neighbor interpolation.

        Args:
            grid (tuple[int, int]): (h, w).
            align_corners (bool): ``align_corners`` of the network.
        """
        if self.partner is None:
            return self
        outside = torch.zeros(
            len(self.partner), *self.size, dtype=torch.bool, device=self.partner.device
        )
        inside = resize_nearest(paste(outside, ~outside, self.boxes), grid, align_corners)
        return dataclasses.replace(self, inside=inside)

    def reverse(self) -> CutMixPlan:
        """Return the plan that pastes each image into its former partner (second view of UniMatch)."""
        if self.partner is None:
            return self
        return dataclasses.replace(self, partner=self.partner.argsort())

    @property
    def log(self) -> dict[str, Tensor]:
        """Fraction of mixed images for the log, if the plan is random."""
        return {} if self.triggered is None else {'cutmix_rate': self.triggered.float().mean()}


class NoCutMix:
    """Mixing that does nothing and uses no random numbers."""

    def plan(
        self,
        num: int,
        size: tuple[int, int],
        device: torch.device,
        hardness: Tensor | None = None,
    ) -> CutMixPlan:
        return CutMixPlan()


class CutMix:
    """Paste a box of the next image of the batch into each image, with a fixed probability.

    Args:
        prob (float): Probability that a batch is mixed.
        style (str): How boxes are sampled, see :func:`mmseg_semi.functional.mixing.sample_boxes`.
        per_image (bool): Decide randomly for each image instead of once per batch (FixMatch, UniMatch).

    Raises:
        ValueError: An argument is out of range or unknown.
    """

    def __init__(self, prob: float = 1.0, style: str = 'imas', per_image: bool = False) -> None:
        if isinstance(prob, bool) or not isinstance(prob, (int, float)) or not 0 <= prob <= 1:
            raise ValueError(f'cutmix.prob must be in [0, 1], got {prob!r}.')
        if style not in BOX_STYLES:
            raise ValueError(f'cutmix.style must be one of {", ".join(BOX_STYLES)}, got {style!r}.')
        if not isinstance(per_image, bool):
            raise ValueError(f'cutmix.per_image must be True or False, got {per_image!r}.')
        self.prob = prob
        self.style = style
        self.per_image = per_image

    def plan(self, num: int, size: tuple[int, int], device: torch.device) -> CutMixPlan:
        """Sample a plan on the host for ``num`` images of ``size`` (H, W)."""
        boxes, uniform = self._draw(num, size, device)
        partner = torch.arange(num, device=device).roll(-1)
        return _triggered(partner, boxes, size, uniform < self.prob)

    def _draw(self, num: int, size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Sample boxes (num, 4), then uniform numbers: a scalar, or (num,) with ``per_image``."""
        boxes = sample_boxes(num, size, style=self.style)
        uniform = torch.rand((num,) if self.per_image else ())
        return boxes.to(device, non_blocking=True), uniform.to(device, non_blocking=True)


@TRANSFORMS.register_module()
class AdaptiveCutMix(CutMix, BaseTransform):
    """CutMix of hard and easy images, more often for easy batches (iMAS, Eq. 8-9).

    The k-th easiest image exchanges a box with the k-th hardest. The whole batch is mixed if a uniform random
    number exceeds its mean hardness, that is with probability ``1 - mean(hardness)``, as in the text and code
    of the paper; its Eq. 9 prints the complement. An unmixed batch has empty boxes and takes the same code
    path, so that the step neither waits for the device nor differs between ranks.

    As a transform it works on a dict of tensors. Required keys: ``img`` (N, C, H, W), ``label`` and
    ``confidence`` (N, H, W), ``hardness`` (N,) in [0, 1]. Modified: ``img``, ``label``, ``confidence``. Added:
    ``triggered``, bool scalar or (N,).

    Args:
        adaptive (bool): False ignores the hardness. The partner is then the next image, and ``prob`` is fixed.
        prob (float): Probability that a batch is mixed, without ``adaptive``.
        style (str): Same as in :class:`CutMix`.
        per_image (bool): Same as in :class:`CutMix`, without ``adaptive``.

    Raises:
        ValueError: An argument is out of range or unknown, or ``adaptive`` and ``per_image`` are both True.
    """

    def __init__(
        self,
        adaptive: bool = True,
        prob: float = 1.0,
        style: str = 'imas',
        per_image: bool = False,
    ) -> None:
        super().__init__(prob, style, per_image)
        if not isinstance(adaptive, bool):
            raise ValueError(f'cutmix.adaptive must be True or False, got {adaptive!r}.')
        if adaptive and per_image:
            raise ValueError(
                'cutmix.per_image=True contradicts adaptive=True, since the mean hardness decides for the '
                'whole batch. Set adaptive=False.'
            )
        self.adaptive = adaptive

    def plan(
        self,
        num: int,
        size: tuple[int, int],
        device: torch.device,
        hardness: Tensor | None = None,
    ) -> CutMixPlan:
        """Same as :meth:`CutMix.plan`. With ``adaptive``, it depends on the hardness (num,) of the images.

        Raises:
            ValueError: ``adaptive`` is True and ``hardness`` is missing.
        """
        if not self.adaptive:
            return super().plan(num, size, device)
        if hardness is None:
            raise ValueError(
                'cutmix.adaptive=True needs the hardness of the images, which this method does not measure. '
                'Set adaptive=False and a prob.'
            )
        boxes, uniform = self._draw(num, size, device)
        return _triggered(hard_easy_partners(hardness), boxes, size, uniform > hardness.mean())

    def transform(self, results: dict) -> dict:
        images = results['img']
        size = tuple(images.shape[-2:])
        mix = self.plan(len(images), size, images.device, results['hardness'])
        keys = ('img', 'label', 'confidence')
        mixed = dict(zip(keys, mix(*(results[key] for key in keys)), strict=True))
        return dict(results, triggered=mix.triggered, **mixed)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(adaptive={self.adaptive}, prob={self.prob}, style='{self.style}', "
            f'per_image={self.per_image})'
        )


class ThreeBoxCutMix:
    """CutMix with three boxes in every iteration, as in the code of CPS.

    Args:
        pairs (bool): Paste the second half of the batch into the first half, and return the first half.
            False pastes the next image of the batch into each image.
    """

    def __init__(self, pairs: bool) -> None:
        self.pairs = pairs

    def plan(self, num: int, size: tuple[int, int], device: torch.device) -> CutMixPlan:
        """Sample the boxes on the host for ``num`` images of ``size`` (H, W), including pasted images.

        Raises:
            ValueError: ``num`` is odd with ``pairs``, or 1 without.
        """
        if self.pairs and num % 2:
            raise ValueError(
                f"cutmix='pair' needs an even number of unlabeled images on a process, got {num}. Make "
                'train_dataloader.sampler.unlabeled even.'
            )
        if not self.pairs and num < 2:
            raise ValueError(
                f"cutmix='in_batch' needs at least 2 unlabeled images on a process, got {num}. Raise "
                'train_dataloader.sampler.unlabeled.'
            )
        kept = num // 2 if self.pairs else num
        boxes = sample_boxes(kept, size, style='cps').to(device, non_blocking=True)
        every = torch.arange(num, device=device)
        return CutMixPlan(every[kept:] if self.pairs else every.roll(-1), boxes, size)


def _triggered(
    partner: Tensor, boxes: Tensor, size: tuple[int, int], triggered: Tensor
) -> CutMixPlan:
    """Return a plan with empty boxes for images that are not mixed."""
    return CutMixPlan(partner, boxes * triggered.view(-1, 1), size, triggered)
