"""DistributedDataParallel that also runs on CPU and supports several updates per step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import MODEL_WRAPPERS
from torch import distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .segmentors.base import SemiSegmentor


# In MMEngine's registry, because the Runner does not search the registry of the default scope.
@MODEL_WRAPPERS.register_module()
class SemiDistributedDataParallel(MMDistributedDataParallel):
    """The wrapper of all configs: ``model_wrapper_cfg=dict(type='SemiDistributedDataParallel')``.

    It differs from MMEngine's wrapper in four ways. (1) Without a GPU it ignores ``device_ids`` and replaces
    SyncBN, which needs GPUs, by BN, so that training works on CPU with the gloo backend. (2) Rank 0 broadcasts
    the running statistics of plain BN after each step, so that all ranks have the same networks and a resumed
    run continues unchanged. The usual broadcast before each forward pass would break steps with several forward
    passes. (3) A method's ``train_step`` gets this wrapper as ``call``. Each forward pass with gradients must
    go through it; otherwise its gradients would silently not be averaged.

    (4) A method with several updates per step has one gradient reducer for each update. It only handles the
    parameters of the networks of this update. A common reducer would also average the other networks and search
    for them in the graph. This wrapper is the reducer of the first update and of parameters without an update.
    :meth:`of_update` returns the others.

    Args:
        module (nn.Module): The model.
        device_ids (list[int], optional): MMEngine passes the local rank; ignored without a GPU.
        broadcast_buffers (bool): Also broadcast the buffers of rank 0 before each forward pass.
        find_unused_parameters (bool): Set it for networks with parameters that do not affect the loss.
        **kwargs: Arguments of :class:`torch.nn.parallel.DistributedDataParallel`.
    """

    def __init__(
        self,
        module: nn.Module,
        device_ids: list[int] | None = None,
        broadcast_buffers: bool = False,
        find_unused_parameters: bool = False,
        **kwargs,
    ) -> None:
        if not torch.cuda.is_available():
            device_ids = None
            module = revert_sync_batchnorm(module)
        options = {
            'device_ids': device_ids,
            'broadcast_buffers': broadcast_buffers,
            'find_unused_parameters': find_unused_parameters,
            **kwargs,
        }
        shares = _shares_of_updates(module)
        everything = {name for name, _ in module.named_parameters()}
        later = set().union(*shares.values())
        with _ignoring(module, later):
            super().__init__(module=module, **options)
        # In a dict, since a submodule would duplicate the weights in every checkpoint.
        self._later_updates = {}
        for name, share in shares.items():
            with _ignoring(module, everything - share):
                self._later_updates[name] = MMDistributedDataParallel(module=module, **options)

    def of_update(self, name: str) -> MMDistributedDataParallel:
        """Return the wrapper for the forward passes of an update, a key of the method's ``optimized``."""
        return self._later_updates.get(name, self)

    def train_step(self, data: dict, optim_wrapper: OptimWrapper | OptimWrapperDict) -> dict:
        if isinstance(self.module, SemiSegmentor):
            log_vars = self.module.train_step(data, optim_wrapper, call=self)
        else:
            log_vars = super().train_step(data, optim_wrapper)
        self._share_statistics()
        return log_vars

    @torch.no_grad()
    def _share_statistics(self) -> None:
        """Copy the running statistics of rank 0 to all ranks, if they can differ."""
        statistics = [
            tensor
            for module in self.module.modules()
            # SyncBN has the same statistics on all ranks.
            if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
            if module.training and module.track_running_stats
            for tensor in (module.running_mean, module.running_var)
        ]
        if not statistics:
            return
        flat = torch.cat([tensor.flatten() for tensor in statistics])
        dist.broadcast(flat, src=0, group=self.process_group)
        parts = flat.split([tensor.numel() for tensor in statistics])
        torch._foreach_copy_(
            statistics, [part.view_as(t) for part, t in zip(parts, statistics, strict=True)]
        )


def _shares_of_updates(module: nn.Module) -> dict[str, set[str]]:
    """Return the names of the parameters of each update of a method except the first."""
    if not isinstance(module, SemiSegmentor):
        return {}
    return {
        update: {
            f'{network}.{name}'
            for network in module.optimized[update]
            for name, _ in getattr(module, network).named_parameters()
        }
        for update in list(module.optimized)[1:]
    }


@contextmanager
def _ignoring(module: nn.Module, names: set[str]) -> Iterator[None]:
    """Let a DistributedDataParallel that is built inside the ``with`` block ignore these parameters."""
    if not names:
        yield
        return
    module._ddp_params_and_buffers_to_ignore = names
    try:
        yield
    finally:
        del module._ddp_params_and_buffers_to_ignore
