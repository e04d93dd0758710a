"""ESL's dynamic soft label: keep the classes that together are probable enough, drop the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from ._common import exact_float, no_autocast

_CACHED_PIXELS = 1 << 13
"""Pixels that the CPU takes at once, so that what is computed of them stays in its cache."""


@torch.no_grad()
def dominant_soft_label(probs: Tensor, eta: float) -> Tensor:
    """Soft label over the dominant classes of each pixel (ESL, Eq. 3-5).

    With a pixel's probabilities sorted in falling order, C* is the smallest number whose sum reaches
    `eta` and δ the C*-th of them; every class with p ≥ δ is dominant, so that all classes tied at δ
    are in. Eq. 4's p_{C*,j} is read as the C*-th of the sorted vector. If rounding keeps
    the sum of all classes below `eta`, all are dominant.

    Images do not influence each other: it may be called image by image to save memory. On a device
    nothing waits for the host. On the CPU only the pixels whose largest probability is below `eta`
    are sorted, which changes no result.

    Args:
        probs: (N, C, H, W) probabilities, any floating dtype.
        eta: share of the probability that the dominant classes must reach, in (0, 1].

    Returns:
        (N, C, H, W), each pixel summing to 1 and 0 outside its dominant classes, float32 (float64
        for float64 probabilities), without a gradient: it is a target.

    Raises:
        ValueError: if `probs` is not a floating (N, C, H, W) tensor or `eta` lies outside (0, 1].
    """
    if probs.dim() != 4 or not probs.is_floating_point():
        raise ValueError(
            f'probs is a {probs.dtype} tensor of shape {tuple(probs.shape)}, but must be floating '
            'point and (N, C, H, W).'
        )
    if not 0 < eta <= 1:
        raise ValueError(f'eta is {eta}, but a share of probability to reach lies in (0, 1].')
    on_cpu = probs.device.type == 'cpu'
    with no_autocast(probs.device):
        probs = exact_float(probs)
        soft = torch.empty_like(probs, memory_format=torch.contiguous_format)
        for image, target in zip(probs.flatten(2), soft.flatten(2), strict=True):
            pixels = _CACHED_PIXELS if on_cpu else max(1, image.shape[1])
            for p, y in zip(image.split(pixels, 1), target.split(pixels, 1), strict=True):
                delta = _delta_on_cpu(p, eta) if on_cpu else _delta(p.neg().sort(dim=0).values, eta)
                # A comparison into floats is several times faster than one into booleans.
                torch.ge(p, delta, out=y)
                y.mul_(p).div_(y.sum(dim=0))
    return soft


def _delta_on_cpu(probs: Tensor, eta: float) -> Tensor:
    """δ of (C, M) probabilities, sorting only the pixels that need more than one class."""
    delta = probs.amax(dim=0)
    undecided = (delta < eta).nonzero().squeeze(1)
    if len(undecided):
        # numpy sorts short vectors five times faster than torch does on the CPU.
        falling = probs.index_select(1, undecided).neg_().numpy()
        falling.sort(axis=0)
        delta[undecided] = _delta(torch.from_numpy(falling), eta)
    return delta


def _delta(negated: Tensor, eta: float) -> Tensor:
    """δ (M,) from (C, M) probabilities with their sign turned, in rising order."""
    # The classes before the C*-th: those whose sum is still below eta.
    before = negated.T.cumsum(dim=1).gt_(-eta).sum(dim=1)
    last = before.long().clamp_(max=len(negated) - 1)
    return negated.gather(0, last[None]).squeeze(0).neg_()
