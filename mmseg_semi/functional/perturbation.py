"""Feature perturbation: some functions draw masks of channels, another applies them.

A mask is drawn once per image and applied to all tensors that must drop the same channels. Tests of applying
need no seed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sample_channel_masks(
    num_images: int,
    widths: Sequence[int],
    ratio: float = 0.5,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str = 'cpu',
) -> list[Tensor]:
    """Draw masks for dropout of whole channels (UniMatch, feature perturbation).

    A channel is dropped with probability `ratio`; the others are divided by 1 - `ratio`, which keeps the
    expected value. Images and stages are drawn independently.

    Args:
        num_images: N.
        widths: Channels C of each stage.
        ratio: Probability in [0, 1).
        generator: Source of randomness, which also sets the device. Default: torch's.
        device: Device of the masks without a generator.

    Returns:
        One float32 (N, C) per stage, with values 0 and 1 / (1 - ratio).

    Raises:
        ValueError: if `ratio` is out of range.
    """
    if not 0 <= ratio < 1:
        raise ValueError(f'ratio is {ratio}, but a share of dropped channels lies in [0, 1).')
    device = device if generator is None else generator.device
    return [
        (torch.rand(num_images, width, generator=generator, device=device) >= ratio) / (1 - ratio)
        for width in widths
    ]


def sample_complementary_masks(
    num_images: int,
    widths: Sequence[int],
    prob: float = 0.5,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str = 'cpu',
) -> list[Tensor]:
    """Draw masks of channels for two views, in which each view drops what the other keeps (UniMatch V2).

    With M ~ Bernoulli(0.5) for each channel of an image, its first view is multiplied by 2 M and its second by
    2 (1 - M). In the released code (LiheYoung/UniMatch-V2, model/semseg/dpt.py) this applies to the fraction
    `prob` of the images, rounded up and drawn without replacement, and an image has one M for all stages, which
    have the same width. Here stages of equal width share M.

    Args:
        num_images: N, pairs of views.
        widths: Channels C of each stage.
        prob: Fraction of images with dropped channels, in [0, 1].
        generator: Source of randomness, which also sets the device. Default: torch's.
        device: Device of the masks without a generator.

    Returns:
        One float32 (2 N, C) per stage, with values 0, 1 and 2: the rows of the first views, then the second
        views.

    Raises:
        ValueError: if `prob` is out of range.
    """
    if not 0 <= prob <= 1:
        raise ValueError(f'prob is {prob}, but a share of images lies in [0, 1].')
    device = device if generator is None else generator.device

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    # A random permutation selects an exact number of images.
    whole = (draw(num_images).argsort() < int(num_images * (1 - prob)))[:, None]
    by_width = {}
    for width in dict.fromkeys(widths):
        first = 2.0 * (draw(num_images, width) < 0.5)
        pair = [first.masked_fill(whole, 1), (2 - first).masked_fill(whole, 1)]
        by_width[width] = torch.cat(pair)
    return [by_width[width] for width in widths]


def scale_channels(features: Tensor, mask: Tensor) -> Tensor:
    """Multiply each channel of each image by its factor.

    Args:
        features: (N, C, ...), any floating dtype.
        mask: (N, C).

    Returns:
        Like `features`; gradients flow to the channels that are not dropped.

    Raises:
        ValueError: if N or C differ.
    """
    if features.shape[:2] != mask.shape:
        raise ValueError(
            f'mask has shape {tuple(mask.shape)}, but features of shape {tuple(features.shape)} need '
            f'{tuple(features.shape[:2])}.'
        )
    return features * mask.to(features.dtype).view(*mask.shape, *[1] * (features.dim() - 2))
