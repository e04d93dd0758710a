"""Replacements for features that PyTorch 2.1, the oldest supported version, lacks."""

import torch

knows_uint16 = hasattr(torch, 'uint16')
"""Whether torch accepts arrays of unsigned integers of more than 8 bits (since 2.3)."""

if hasattr(torch.amp, 'is_autocast_available'):  # since 2.4
    is_autocast_available = torch.amp.is_autocast_available
else:

    def is_autocast_available(device_type: str) -> bool:
        """Whether `torch.autocast` supports a device type ('cuda', 'cpu', ...)."""
        return device_type not in ('meta', 'mps')
