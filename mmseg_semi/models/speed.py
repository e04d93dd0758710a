"""How networks compute faster with the same results to rounding."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def use_channels_last(model: nn.Module) -> None:
    """Let convolutions compute with channels last (NHWC).

    The weights alone are converted: a convolution whose weights have this format returns maps that have it.
    Names and values stay.
    """
    model.to(memory_format=torch.channels_last)


def compile_networks(networks: Iterable[nn.Module]) -> None:
    """Let torch.compile run the parts of networks: encoder, neck, decode head and auxiliary heads.

    Each part is compiled in place when it is first called, so the names of the weights stay. Copies of a
    network and exports are not compiled.

    Args:
        networks (Iterable[nn.Module]): Segmentors, on the device on which they will run.

    Raises:
        ValueError: torch.compile does not work on this machine.
    """
    for network in networks:
        _check_compiler(next(network.parameters()).device)
        for part in _parts(network):
            part.compile()


def _parts(network: nn.Module) -> list[nn.Module]:
    auxiliary = getattr(network, 'auxiliary_head', None)
    auxiliary = list(auxiliary) if isinstance(auxiliary, nn.ModuleList) else [auxiliary]
    parts = [network.backbone, getattr(network, 'neck', None), network.decode_head, *auxiliary]
    return [part for part in parts if part is not None]


def _check_compiler(device: torch.device) -> None:
    """Compile and run the smallest function, since torch.compile itself fails in the first iteration only."""
    try:
        torch.compile(_double)(torch.ones(2, device=device))
    except Exception as error:  # of Dynamo, of Inductor or of the compiler of the system
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')
        raise ValueError(
            f'semi_train_cfg.compile=True cannot compile on {device.type} ({reason}). Install a C++ compiler '
            '(on CUDA also Triton), or set compile=False.'
        ) from error


def _double(values: torch.Tensor) -> torch.Tensor:
    return values * 2
