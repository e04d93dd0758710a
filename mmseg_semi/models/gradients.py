"""Passes of a network without gradients, which must leave nothing in autocast's cache of weights.

Inside ``torch.autocast`` a trained weight is cast to half precision once and kept for the passes that follow.
Up to torch 2.9 a pass without gradients keeps a cast that has no graph, and a later pass with gradients in the
same region reuses it: that weight gets no gradient, without an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def without_gradients() -> Iterator[None]:
    """Use in place of ``torch.no_grad()`` around a pass of a network, as a context or as a decorator."""
    with torch.no_grad(), no_stale_casts():
        yield


@contextmanager
def no_stale_casts() -> Iterator[None]:
    """Switch autocast's cache of weights off inside the ``with`` block if gradients are off."""
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(enabled and torch.is_grad_enabled())
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)
