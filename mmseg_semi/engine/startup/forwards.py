"""Check the number of images per forward pass, for batch normalization of single pixels."""

from __future__ import annotations

import torch
from mmengine.dist import get_world_size
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...datasets import LabeledUnlabeledSampler
from ...models.patches import nearest, patch_size
from ...models.segmentors.base import SINGLE_IMAGE_REMEDY, SemiSegmentor
from ...models.segmentors.networks import auxiliary_heads, evaluating
from ..hooks._common import unwrap


def check_single_images(runner) -> None:
    """Reject single images if batch normalization has inputs of one pixel, as after global pooling.

    Args:
        runner (Runner): Runner before its first iteration.

    Raises:
        ValueError: A network in train mode processes single images and normalizes one value per channel.
    """
    model, loader = unwrap(runner.model), runner.train_dataloader
    if isinstance(model, SemiSegmentor):
        if not isinstance(loader.sampler, LabeledUnlabeledSampler):
            return
        labeled, unlabeled = loader.sampler.labeled, loader.sampler.unlabeled
        fewest = model.fewest_images(labeled, unlabeled)
        batch, remedy = f'labeled={labeled} and unlabeled={unlabeled} images', SINGLE_IMAGE_REMEDY
    else:
        fewest, batch = (
            {'': loader.batch_size or 1},
            f'train_dataloader.batch_size={loader.batch_size}',
        )
        remedy = (
            'Set train_dataloader.batch_size to at least 2, or use SyncBN on several processes.'
        )
    for name, number in fewest.items():
        if number > 1:
            continue
        network = getattr(model, name) if name else model
        if not isinstance(getattr(network, 'decode_head', None), BaseDecodeHead):
            continue  # heads of cascades need the output of other heads
        layer = _normalizes_single_pixels(model, network, model.data_preprocessor.size)
        if layer is not None:
            where = f'{name}.{layer}' if name else layer
            raise ValueError(
                f'A process has {batch}, so that {where}, a batch normalization with inputs of one pixel, '
                f'gets one image but needs two. {remedy}'
            )


@torch.no_grad()
def _normalizes_single_pixels(model: nn.Module, network: nn.Module, size) -> str | None:
    """Return the name of the first batch normalization in train mode with an input of one pixel per image."""
    before = model.training
    model.train()
    layers = {
        layer: name
        for name, layer in network.named_modules()
        if isinstance(layer, _BatchNorm) and layer.training and not _is_shared(layer)
    }
    model.train(before)
    found: list[str] = []

    def look(layer: nn.Module, inputs: tuple) -> None:
        if inputs[0].shape[2:].numel() == 1:
            found.append(layers[layer])

    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    first = next((one for one in network.backbone.modules() if isinstance(one, nn.Conv2d)), None)
    if first is None:
        return None
    height, width = nearest(size, patch_size(network) or 1)
    image = first.weight.new_zeros(1, first.in_channels, height, width)
    try:
        with evaluating(network):
            features = network.extract_feat(image)
            for head in (network.decode_head, *auxiliary_heads(network).values()):
                head.forward(features)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _is_shared(layer: nn.Module) -> bool:
    """Whether a layer shares its statistics over several processes."""
    return isinstance(layer, nn.SyncBatchNorm) and get_world_size() > 1
