"""DistributedDataParallel that also runs on CPU, and lets a method make several updates per step."""

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


# In MMEngine's registry, because the Runner looks there alone and not in that of the default scope.
@MODEL_WRAPPERS.register_module()
class SemiDistributedDataParallel(MMDistributedDataParallel):
    """The wrapper of all configs: ``model_wrapper_cfg=dict(type='SemiDistributedDataParallel')``.

    It differs from MMEngine's in four ways. Without a GPU it drops ``device_ids`` and turns SyncBN, which
    exists on GPUs only, into BN, so that training on CPU with gloo works. Running statistics of plain BN
    are sent from rank 0 after each step, so that all ranks hold the same networks and a resumed run continues
    unchanged. Sending them before each forward, as usual, would break steps of several forwards.
    A method's ``train_step`` is handed this wrapper as ``call``: each forward that carries gradients goes
    through it, or they would silently not be averaged.

    A method that makes several updates per step has a reducer of gradients for each, of the parameters of its
    networks alone: one for all would average the networks that an update leaves out as well, and look for
    them in each step's graph. This wrapper is that of the first update and of what belongs to none;
    :meth:`of_update` gives the others.

    Args:
        module (nn.Module): The model.
        device_ids (list[int], optional): MMEngine passes the local rank; ignored without a GPU.
        broadcast_buffers (bool): Also broadcast rank 0's buffers before each forward.
        find_unused_parameters (bool): For networks with parameters that their loss does not reach.
        **kwargs: Of :class:`torch.nn.parallel.DistributedDataParallel`.
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
        # In a dict, for a submodule would have the weights once more in every checkpoint.
        self._later_updates = {}
        for name, share in shares.items():
            with _ignoring(module, everything - share):
                self._later_updates[name] = MMDistributedDataParallel(module=module, **options)

    def of_update(self, name: str) -> MMDistributedDataParallel:
        """What the forwards of an update, a key of the method's ``optimized``, go through."""
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
        """Set the running statistics that differ between ranks to those of rank 0."""
        statistics = [
            tensor
            for module in self.module.modules()
            # SyncBN computes the same statistics everywhere.
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
    """Names of the parameters of each update of a method but the first."""
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
    """Let a DistributedDataParallel that is built inside the ``with`` block leave these parameters out."""
    if not names:
        yield
        return
    module._ddp_params_and_buffers_to_ignore = names
    try:
        yield
    finally:
        del module._ddp_params_and_buffers_to_ignore
