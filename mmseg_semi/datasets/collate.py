"""Collate samples into a batch: one stacked uint8 image tensor per branch."""

from collections.abc import Mapping, Sequence

import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import FUNCTIONS
from mmengine.structures import BaseDataElement
from torch.utils.data import default_collate


class PinnableSamples(list):
    """A list of data samples whose tensors a DataLoader with ``pin_memory=True`` pins.

    torch does not pin the tensors of unknown objects such as data samples. Copying pageable memory to a GPU
    waits for all queued GPU work.
    """

    def pin_memory(self) -> 'PinnableSamples':
        """Return the samples with every tensor in pinned memory."""
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
        samples: Samples ``{'inputs': {branch: (C, H, W) uint8}, 'data_samples': {branch: sample}}``, as
            returned by ``LabeledUnlabeledDataset``. Samples of a batch may have different branches. Samples
            without branches are collated with mmengine's default function, so plain datasets can use the same
            loader.

    Returns:
        ``{'inputs': {branch: (n, C, H, W) uint8}, 'data_samples': {branch: n samples}}``, with branches and
        samples in order of first occurrence. Images of different shapes are a list of (C, H, W) tensors. A
        branch without samples is absent.
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
    return default_collate(tensors)  # in a worker, this stacks directly into shared memory
