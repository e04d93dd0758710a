"""Faster networks with the same results up to rounding."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def use_channels_last(model: nn.Module) -> None:
    """Let convolutions use the channels-last (NHWC) memory format.

    Only the weights are converted. A convolution with weights in this format also returns its output in this
    format. Names and values do not change.
    """
    model.to(memory_format=torch.channels_last)


def compile_networks(networks: Iterable[nn.Module]) -> None:
    """Let torch.compile run the parts of networks: encoder, neck, decode head and auxiliary heads.

    Each part is compiled in place at its first call, so the names of the weights do not change. Copies of a
    network and exports are not compiled.

    Args:
        networks (Iterable[nn.Module]): Segmentors, on the device for training.

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
    """Compile and run a tiny function. torch.compile alone only fails in the first iteration."""
    try:
        torch.compile(_double)(torch.ones(2, device=device))
    except Exception as error:  # from Dynamo, Inductor or the compiler of the system
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')
        raise ValueError(
            f'semi_train_cfg.compile=True cannot compile on {device.type} ({reason}). Install a C++ compiler '
            '(on CUDA also Triton), or set compile=False.'
        ) from error


def _double(values: torch.Tensor) -> torch.Tensor:
    return values * 2
