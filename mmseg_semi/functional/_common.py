"""Helpers of all functional modules: exact dtypes, no autocast, upsampling, checks.

Half precision is good enough for a network, but not for computations on its output: a float16 confidence of
0.95 rounds to 0.9502, and float16 counts overflow above 65504.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from ._torch import is_autocast_available

VOID = 255
"""Label of void pixels: VOC borders, crop padding, Cutout."""

CHUNK_ELEMENTS = 4 << 20
"""Maximum number of elements of a full-resolution (n, C, H, W) block in memory.

One VOC crop (21 classes, 513×513) has 5.5 million, so large images are processed one by one. Small images are
processed together, since their cost is the number of kernel calls.
"""

CACHED_ELEMENTS = 1 << 19
"""Maximum number of elements of such a block that the CPU processes at once, to fit its cache."""


def exact_float(x: Tensor) -> Tensor:
    """Convert float16 and bfloat16 to float32; other dtypes do not change."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def no_autocast(device: torch.device) -> AbstractContextManager:
    """Return a context that disables autocast, which would lower the precision."""
    kind = torch.device(device).type
    # The meta device has no autocast.
    if not is_autocast_available(kind):
        return nullcontext()
    return torch.autocast(device_type=kind, enabled=False)


def to_size(size: int | Sequence[int]) -> tuple[int, int]:
    """Convert a size to (H, W); an int is a square."""
    sides = size if isinstance(size, Sequence) else 2 * (operator.index(size),)
    height, width = (int(side) for side in sides)
    if height < 1 or width < 1:
        raise ValueError(f'size is {(height, width)}, but both sides must be at least 1.')
    return height, width


def upsample(logits: Tensor, size: int | Sequence[int], align_corners: bool = False) -> Tensor:
    """Resize (N, C, h, w) maps bilinearly to `size`; maps of this size are returned unchanged."""
    size = to_size(size)
    if tuple(logits.shape[-2:]) == size:
        return logits
    return F.interpolate(logits, size=size, mode='bilinear', align_corners=align_corners)


def image_chunks(num_images: int, elements_per_image: int) -> list[slice]:
    """Split a batch into slices of at most `CHUNK_ELEMENTS` elements, at least one image each."""
    step = max(1, CHUNK_ELEMENTS // max(1, elements_per_image))
    return [slice(start, start + step) for start in range(0, num_images, step)]


def row_strips(block: Tensor) -> list[slice]:
    """Split the rows of an (n, C, H, W) block to fit the CPU's cache; one slice on other devices."""
    num_images, num_classes, height, width = block.shape
    if block.device.type != 'cpu':
        return [slice(None)]
    step = max(1, CACHED_ELEMENTS // max(1, num_images * num_classes * width))
    return [slice(start, start + step) for start in range(0, height, step)]


def unit(x: Tensor, dim: int) -> Tensor:
    """Scale vectors along `dim` to length 1; zero vectors remain zero and have finite gradients.

    `F.normalize` divides a zero vector by 1e-12, so its gradient is 1e12 times the incoming one. A projector
    that ends in ReLU can return zero vectors.
    """
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return x / norm.masked_fill(norm == 0, 1)


def check_logits(logits: Tensor) -> None:
    """Raise unless `logits` is a floating (N, C, h, w) tensor."""
    if logits.dim() != 4 or not logits.is_floating_point():
        raise ValueError(
            f'logits is a {logits.dtype} tensor of shape {tuple(logits.shape)}, but must be '
            'floating point and (N, C, h, w).'
        )


def check_teacher_logits(teacher_logits: Tensor, logits: Tensor) -> None:
    """Raise unless both are logits, of any size, for the same images and classes."""
    check_logits(logits)
    check_logits(teacher_logits)
    if logits.shape[:2] != teacher_logits.shape[:2]:
        raise ValueError(
            f'teacher_logits has shape {tuple(teacher_logits.shape)} and logits {tuple(logits.shape)}, '
            'but both must be of the same images and classes.'
        )


def check_map(x: Tensor, name: str) -> None:
    """Raise unless `x` is (N, H, W)."""
    if x.dim() != 3:
        raise ValueError(f'{name} has shape {tuple(x.shape)}, but must be (N, H, W).')


def check_same_shape(x: Tensor, other: Tensor, name: str, other_name: str) -> None:
    """Raise unless both have the same shape."""
    if x.shape != other.shape:
        raise ValueError(
            f'{name} has shape {tuple(x.shape)}, but must have that of {other_name}, '
            f'{tuple(other.shape)}.'
        )


def check_tau(tau: float) -> None:
    """Raise unless `tau` is in [0, 1]; a tensor is not checked, since reading it would wait for its device."""
    if not isinstance(tau, Tensor) and not 0 <= tau <= 1:
        raise ValueError(f'tau is {tau}, but a confidence threshold lies in [0, 1].')
