"""Finds, without a GPU, what would make the host wait for one."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class ReadsByTheHost(TorchDispatchMode):
    """Count the operations after which the host must know a value of the tensors."""

    names = ('_local_scalar_dense', 'nonzero', 'masked_select', 'unique', 'bincount', 'equal')

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        by_mask = name in ('index', 'index_put', 'index_put_') and any(
            x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1]
        )
        if by_mask or any(name.startswith(read) for read in self.names):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))
