"""From single samples to a batch whose images lie stacked, branch by branch, as uint8."""

from collections.abc import Mapping, Sequence

import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import FUNCTIONS
from mmengine.structures import BaseDataElement
from torch.utils.data import default_collate


class PinnableSamples(list):
    """A list of data samples whose tensors a pinning DataLoader pins.

    torch leaves unknown objects such as data samples in pageable memory, and copying those to a
    GPU waits for everything that is queued there.
    """

    def pin_memory(self) -> 'PinnableSamples':
        """The samples, with every tensor in pinned memory."""
        return PinnableSamples(_pinned(sample) for sample in self)


def _pinned(element: BaseDataElement) -> BaseDataElement:
    pinned = element.new()
    for name, value in element.items():
        if isinstance(value, torch.Tensor):
            value = value.pin_memory()
        elif isinstance(value, BaseDataElement):
            value = _pinned(value)
        pinned.set_data({name: value})
    return pinned


@FUNCTIONS.register_module()
def collate_branches(samples: Sequence[dict]) -> dict:
    """Group samples by branch and stack their images.

    Args:
        samples: each ``{'inputs': {branch: (C, H, W) uint8}, 'data_samples': {branch: sample}}``,
            as ``LabeledUnlabeledDataset`` gives them; samples of one batch may have different
            branches. Samples without branches are collated as mmengine's default does, so
            that the loader can stay as it is when the dataset is a plain one.

    Returns:
        ``{'inputs': {branch: (n, C, H, W) uint8}, 'data_samples': {branch: n samples}}``, branches
        and samples in the order in which they first occur; a list of (C, H, W) instead of a
        tensor where shapes differ. A branch that no sample has is absent.
    """
    if not isinstance(samples[0]['inputs'], Mapping):
        return pseudo_collate(samples)
    images: dict[str, list] = {}
    metas: dict[str, PinnableSamples] = {}
    for sample in samples:
        for branch, image in sample['inputs'].items():
            images.setdefault(branch, []).append(image)
            metas.setdefault(branch, PinnableSamples()).append(sample['data_samples'][branch])
    return dict(
        inputs={branch: _stacked(tensors) for branch, tensors in images.items()},
        data_samples=metas,
    )


def _stacked(tensors: list[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
    if len({(tensor.shape, tensor.dtype) for tensor in tensors}) > 1:
        return tensors
    return default_collate(tensors)  # in a worker it stacks right into shared memory
