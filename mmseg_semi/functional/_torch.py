"""What PyTorch 2.1, the oldest that is supported, lacks. Nothing else asks for the version of PyTorch."""

import torch

knows_uint16 = hasattr(torch, 'uint16')
"""Whether arrays of unsigned integers of more than 8 bits become tensors, since 2.3."""

if hasattr(torch.amp, 'is_autocast_available'):  # since 2.4
    is_autocast_available = torch.amp.is_autocast_available
else:

    def is_autocast_available(device_type: str) -> bool:
        """Whether `torch.autocast` takes a type of device ('cuda', 'cpu', ...); others make it raise."""
        return device_type not in ('meta', 'mps')
