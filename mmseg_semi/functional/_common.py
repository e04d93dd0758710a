"""What every module of the functional floor needs: exact dtypes, no autocast, one way to upsample.

Private to the floor. Half precision is good enough for a network and not for what is computed from
its output: a float16 confidence of 0.95 rounds to 0.9502, float16 counts overflow above 65504.
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
"""The label of a pixel that has no class: VOC borders, crop padding, Cutout."""

CHUNK_ELEMENTS = 4 << 20
"""Elements of a full-resolution (n, C, H, W) block that the per-image kernels hold at once.

One VOC crop (21 classes, 513×513) is 5.5 million, so large images go one by one; small ones are
taken several at a time, because their cost is the number of kernel calls.
"""

CACHED_ELEMENTS = 1 << 19
"""Elements of such a block that the CPU takes at once, so that its cache holds them."""


def exact_float(x: Tensor) -> Tensor:
    """Return float16 and bfloat16 as float32; every other dtype as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def no_autocast(device: torch.device) -> AbstractContextManager:
    """Context in which an enclosing autocast region does not lower the precision."""
    kind = torch.device(device).type
    # Not available on the meta device, where tensors are shapes without numbers.
    if not is_autocast_available(kind):
        return nullcontext()
    return torch.autocast(device_type=kind, enabled=False)


def to_size(size: int | Sequence[int]) -> tuple[int, int]:
    """Read a size: (H, W), or an int for a square."""
    sides = size if isinstance(size, Sequence) else 2 * (operator.index(size),)
    height, width = (int(side) for side in sides)
    if height < 1 or width < 1:
        raise ValueError(f'size is {(height, width)}, but both sides must be at least 1.')
    return height, width


def upsample(logits: Tensor, size: int | Sequence[int], align_corners: bool = False) -> Tensor:
    """Resize (N, C, h, w) maps bilinearly to `size`; maps that have it come back untouched."""
    size = to_size(size)
    if tuple(logits.shape[-2:]) == size:
        return logits
    return F.interpolate(logits, size=size, mode='bilinear', align_corners=align_corners)


def image_chunks(num_images: int, elements_per_image: int) -> list[slice]:
    """Cut a batch into slices of at most `CHUNK_ELEMENTS` elements, at least one image each."""
    step = max(1, CHUNK_ELEMENTS // max(1, elements_per_image))
    return [slice(start, start + step) for start in range(0, num_images, step)]


def row_strips(block: Tensor) -> list[slice]:
    """Cut the rows of an (n, C, H, W) block: on the CPU to what its cache holds, else not at all."""
    num_images, num_classes, height, width = block.shape
    if block.device.type != 'cpu':
        return [slice(None)]
    step = max(1, CACHED_ELEMENTS // max(1, num_images * num_classes * width))
    return [slice(start, start + step) for start in range(0, height, step)]


def unit(x: Tensor, dim: int) -> Tensor:
    """Scale vectors along `dim` to length 1; a zero vector stays zero and its gradient finite.

    `F.normalize` divides a zero vector by 1e-12, so that its gradient is 1e12 times the incoming
    one; a projector that ends in ReLU does produce zero vectors.
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
    """Raise unless both are logits, of any size, of the same images and classes."""
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
    """Raise unless the two have one shape."""
    if x.shape != other.shape:
        raise ValueError(
            f'{name} has shape {tuple(x.shape)}, but must have that of {other_name}, '
            f'{tuple(other.shape)}.'
        )


def check_tau(tau: float) -> None:
    """Raise unless `tau` is in [0, 1]; a tensor is not read, which would wait for its device."""
    if not isinstance(tau, Tensor) and not 0 <= tau <= 1:
        raise ValueError(f'tau is {tau}, but a confidence threshold lies in [0, 1].')
