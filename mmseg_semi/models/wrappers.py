"""DistributedDataParallel that also runs on CPU, and lets a method make several updates per step."""

from __future__ import annotations

import torch
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmseg.registry import MODEL_WRAPPERS
from torch import nn

from .segmentors.base import SemiSegmentor


@MODEL_WRAPPERS.register_module()
class SemiDistributedDataParallel(MMDistributedDataParallel):
    """The wrapper of all configs: ``model_wrapper_cfg=dict(type='SemiDistributedDataParallel')``.

    It differs from MMEngine's in three ways. Without a GPU it drops ``device_ids`` and turns SyncBN, which
    exists on GPUs only, into BN, so that training on CPU with gloo works. Buffers are not broadcast by
    default, since every rank computes them alike. A method's ``train_step`` is handed this wrapper as
    ``call``: each forward that carries gradients goes through it, or they would silently not be averaged.

    Args:
        module (nn.Module): The model.
        device_ids (list[int], optional): MMEngine passes the local rank; ignored without a GPU.
        broadcast_buffers (bool): Broadcast rank 0's buffers before each forward.
        find_unused_parameters (bool): Needed by methods with several updates per step.
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
        super().__init__(
            module=module,
            device_ids=device_ids,
            broadcast_buffers=broadcast_buffers,
            find_unused_parameters=find_unused_parameters,
            **kwargs,
        )

    def train_step(self, data: dict, optim_wrapper: OptimWrapper | OptimWrapperDict) -> dict:
        if isinstance(self.module, SemiSegmentor):
            return self.module.train_step(data, optim_wrapper, call=self)
        return super().train_step(data, optim_wrapper)
