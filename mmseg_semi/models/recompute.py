"""Forward passes that recompute their activations in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import checkpoint


def recomputed(function: Callable, modules: Sequence[nn.Module], *inputs):
    """Call ``function`` without storing activations. The backward pass recomputes them.

    Gradients and running statistics are the same as those of an ordinary call. This uses torch's non-reentrant
    checkpointing, which supports several forward passes under DistributedDataParallel.

    Args:
        function (callable): Function that only uses ``modules``.
        modules (sequence[nn.Module]): Modules whose running statistics the recomputation must not change.
        *inputs: Arguments of the function.
    """
    # PyTorch before 2.4 looks for a device only in the arguments, not in lists of tensors. Without it, the
    # recomputation on a GPU would draw another dropout.
    leaves, structure = tree_flatten(inputs)

    def contexts():
        return nullcontext(), statistics_kept(modules)

    def run(*leaves):
        return function(*tree_unflatten(list(leaves), structure))

    return checkpoint(run, *leaves, use_reentrant=False, context_fn=contexts)


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
    # Copies instead of None, since both forward passes must save the same number of tensors.
    for layer in layers:
        layer._buffers.update({name: b.clone() for name, b in layer._buffers.items()})
    try:
        yield
    finally:
        for layer, buffers in zip(layers, kept, strict=True):
            layer._buffers.update(buffers)
