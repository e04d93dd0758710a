"""Image sizes that fit the patches of a vision transformer."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from mmcv.cnn.bricks.transformer import PatchEmbed
from mmseg.models.utils.embed import PatchEmbed as SegPatchEmbed
from torch import nn

#: Hierarchical encoders have patches of at most 4 pixels and round up sizes like convolutions.
SMALLEST = 8


def patch_size(network: nn.Module) -> int | None:
    """Return the patch size of a plain vision transformer in pixels; None for other encoders.

    Such an encoder silently pads images to whole patches. Its features then have the padded size, and the
    logits are distorted when they are resized to the size of the image.
    """
    for projection in _projections(network):
        if projection.kernel_size == projection.stride and projection.stride[0] >= SMALLEST:
            return projection.stride[0]
    return None


def _projections(network: nn.Module) -> Iterator[nn.Conv2d]:
    """Yield the convolutions that cut images into patches, in the libraries with such encoders."""
    timm = sys.modules.get('timm')  # not imported: no network is from timm
    of_timm = () if timm is None else (timm.layers.PatchEmbed,)
    for module in network.modules():
        if isinstance(module, (PatchEmbed, SegPatchEmbed)):
            yield module.projection
        elif isinstance(module, of_timm):
            yield module.proj


def whole_patches(size: int | Sequence[int], patch: int) -> bool:
    """Whether a size, an int or (height, width), is a multiple of the patch."""
    sides = size if isinstance(size, Sequence) else (size,)
    return all(side % patch == 0 for side in sides)


def nearest(size: int | Sequence[int] | None, patch: int) -> tuple[int, int]:
    """Return the (height, width) of whole patches nearest to a size. None means 512 x 512."""
    height, width = (
        size if isinstance(size, Sequence) else (512, 512) if size is None else (size, size)
    )
    return tuple(max(1, round(side / patch)) * patch for side in (height, width))
