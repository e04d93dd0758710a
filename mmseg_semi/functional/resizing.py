"""Resize label maps and masks to the resolution of features."""

from __future__ import annotations

import torch
from torch import Tensor

from ._common import check_map


def resize_nearest(maps: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Resize label maps or masks to a smaller size by nearest neighbor at the pixel centers (ESL, Sec. 3.2).

    Args:
        maps: (N, H, W) of any dtype.
        size: (h, w).
        align_corners: `align_corners` of the bilinear upsampling from (h, w); True aligns the corner pixels.

    Returns:
        (N, h, w) of the same dtype.
    """
    check_map(maps, 'maps')
    rows, columns = (
        _nearest(full, small, align_corners, maps.device)
        for full, small in zip(maps.shape[1:], size, strict=True)
    )
    return maps[:, rows[:, None], columns]


def _nearest(full: int, small: int, align_corners: bool, device: torch.device) -> Tensor:
    place = torch.arange(small, dtype=torch.float64, device=device)
    if align_corners:
        return (place * ((full - 1) / max(1, small - 1)) + 0.5).long()
    return ((place + 0.5) * (full / small)).long().clamp_(max=full - 1)
