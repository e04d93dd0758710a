"""Forwards whose activations are not kept but computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recomputed(function: Callable, modules: Sequence[nn.Module], *inputs):
    """Call ``function`` without keeping activations: its backward pass computes them again.

    Gradients and running statistics are those of an ordinary call. The checkpointing is torch's
    non-reentrant one, which serves several forwards under DistributedDataParallel.

    Args:
        function (callable): Of these modules alone.
        modules (sequence[nn.Module]): Whose running statistics the second forward leaves as the first one left
            them.
        *inputs: Of the function.
    """

    def contexts():
        return nullcontext(), statistics_kept(modules)

    return checkpoint(function, *inputs, use_reentrant=False, context_fn=contexts)


@contextmanager
def statistics_kept(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Let batch normalization update copies of its running statistics inside the ``with`` block."""
    layers = [
        layer
        for module in modules
        for layer in module.modules()
        if isinstance(layer, _BatchNorm) and layer.training and layer.track_running_stats
    ]
    kept = [dict(layer._buffers) for layer in layers]
    # Copies, not none at all: the second forward must save as many tensors as the first.
    for layer in layers:
        layer._buffers.update({name: b.clone() for name, b in layer._buffers.items()})
    try:
        yield
    finally:
        for layer, buffers in zip(layers, kept, strict=True):
            layer._buffers.update(buffers)
