"""DistributedDataParallel that also runs on CPU, and lets a method make several updates per step."""

from __future__ import annotations

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

    It differs from MMEngine's in three ways. Without a GPU it drops ``device_ids`` and turns SyncBN, which
    exists on GPUs only, into BN, so that training on CPU with gloo works. Running statistics of plain BN
    are sent from rank 0 after each step instead of before each forward, which would break steps of several
    forwards: so that student and teacher are the same on all ranks, and a resumed run finds what it left.
    A method's ``train_step`` is handed this wrapper as ``call``: each forward that carries gradients goes
    through it, or they would silently not be averaged.

    Args:
        module (nn.Module): The model.
        device_ids (list[int], optional): MMEngine passes the local rank; ignored without a GPU.
        broadcast_buffers (bool): Also broadcast rank 0's buffers before each forward.
        find_unused_parameters (bool): Methods with several updates per step need it and always have it.
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
        # One update leaves the parameters of the other without gradients.
        several = isinstance(module, SemiSegmentor) and len(module.optimized) > 1
        super().__init__(
            module=module,
            device_ids=device_ids,
            broadcast_buffers=broadcast_buffers,
            find_unused_parameters=find_unused_parameters or several,
            **kwargs,
        )

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
