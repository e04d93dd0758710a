"""Forward passes without gradients, which must not fill autocast's cache of weights.

``torch.autocast`` casts a trained weight to half precision once and caches it for later forward passes. Up to
torch 2.9, a forward pass without gradients caches a weight without a graph. A later forward pass with gradients
in the same region reuses it, and the weight silently gets no gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def without_gradients() -> Iterator[None]:
    """Replacement of ``torch.no_grad()`` for forward passes, as a context manager or decorator."""
    with torch.no_grad(), no_stale_casts():
        yield


@contextmanager
def no_stale_casts() -> Iterator[None]:
    """Disable autocast's cache of weights inside the ``with`` block if gradients are disabled."""
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(enabled and torch.is_grad_enabled())
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)
