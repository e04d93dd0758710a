"""Run a function on several gloo processes and collect what each returns."""

from __future__ import annotations

import os
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def _demand_contiguous(name: str) -> None:
    """Make a collective refuse what NCCL refuses and gloo accepts."""
    collective = getattr(dist, name)

    def checked(*args, **kwargs):
        for one in args:
            for tensor in one if isinstance(one, list) else [one]:
                assert not isinstance(tensor, torch.Tensor) or tensor.is_contiguous(), name
        return collective(*args, **kwargs)

    setattr(dist, name, checked)


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]


def _entry(rank: int, world_size: int, port: int, out_dir: str, function, args: tuple) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    for name in ('all_gather', 'all_reduce', 'broadcast', 'reduce'):
        _demand_contiguous(name)
    dist.init_process_group('gloo', rank=rank, world_size=world_size)
    torch.save(function(rank, *args), os.path.join(out_dir, f'rank{rank}.pth'))
    dist.barrier()
    # Destroying the group deadlocks in PyTorch 2.4 and before where its threads still release tensors.
    os._exit(0)


def run_on_ranks(function, world_size: int, out_dir, *args) -> list:
    """Call ``function(rank, *args)``, importable by name, on every rank and return all results."""
    mp.spawn(_entry, (world_size, _free_port(), str(out_dir), function, args), nprocs=world_size)
    paths = [os.path.join(out_dir, f'rank{rank}.pth') for rank in range(world_size)]
    return [torch.load(path, weights_only=False) for path in paths]
