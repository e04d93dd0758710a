"""Compressed class distributions of pixels: the most probable classes, and their probabilities in 8 bits."""

from __future__ import annotations

import torch
from torch import Tensor

#: Stored value of probability 1.
_FULL = 255


@torch.no_grad()
def compress_probs(probs: Tensor, k: int) -> Tensor:
    """Keep the `k` most probable classes of every pixel and their probabilities, in steps of 1/255.

    The probabilities of other classes are dropped; `expand_probs` divides by the sum of the stored ones.

    Args:
        probs: (N, C, H, W) probabilities, any floating dtype.
        k: Number of classes to keep, from 1 to C.

    Returns:
        (N, 2 k, H, W) uint8: k class indices by decreasing probability, then round(255 p) of each.

    Raises:
        ValueError: if `probs` is not (N, C, H, W) with at most 255 classes, or `k` is out of range.
    """
    if probs.dim() != 4 or not 1 <= probs.shape[1] <= _FULL:
        raise ValueError(
            f'probs has shape {tuple(probs.shape)}, but must be (N, C, H, W) with 1 to {_FULL} classes.'
        )
    if not 1 <= k <= probs.shape[1]:
        raise ValueError(f'k is {k}, but must be from 1 to the {probs.shape[1]} classes.')
    values, classes = probs.float().topk(k, dim=1)
    values = (values * _FULL).round_().clamp_(0, _FULL)
    return torch.cat((classes.to(torch.uint8), values.to(torch.uint8)), dim=1)


@torch.no_grad()
def expand_probs(stored: Tensor, num_classes: int) -> Tensor:
    """Restore the distributions stored by `compress_probs`, divided by their sum.

    Args:
        stored: (N, 2 k, H, W) uint8.
        num_classes: C, larger than every stored class index.

    Returns:
        (N, C, H, W) float32. Each pixel sums to 1, or is 0 in all classes if all stored values are 0.

    Raises:
        ValueError: if `stored` does not have pairs of channels.
    """
    if stored.dim() != 4 or stored.shape[1] % 2 or stored.shape[1] == 0:
        raise ValueError(f'stored has shape {tuple(stored.shape)}, but must be (N, 2 k, H, W).')
    classes, values = stored.chunk(2, dim=1)
    values = values.float()
    values = values / values.sum(dim=1, keepdim=True).clamp(min=1)
    shape = len(stored), num_classes, *stored.shape[2:]
    # Add instead of assigning, since pixels filled in by transforms have one class several times.
    return values.new_zeros(shape).scatter_add_(1, classes.long(), values)
