"""How many images pass a network together, which batch normalization of single pixels depends on."""

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
    """Refuse single images where batch normalization sees maps of one pixel, as behind a global pooling.

    Args:
        runner (Runner): Before its first iteration.

    Raises:
        ValueError: A network in train mode sees one image at a time, and normalizes one value per channel.
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
            continue  # cascades, whose heads need the output of others
        layer = _normalizes_single_pixels(model, network, model.data_preprocessor.size)
        if layer is not None:
            where = f'{name}.{layer}' if name else layer
            raise ValueError(
                f'A process has {batch}, of which one alone passes {where}, a batch normalization of maps of '
                f'one pixel, which needs two. {remedy}'
            )


@torch.no_grad()
def _normalizes_single_pixels(model: nn.Module, network: nn.Module, size) -> str | None:
    """Name of the first batch normalization in train mode that sees one pixel of an image of this size."""
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
    """Whether a layer has the statistics of several processes, whose images count together."""
    return isinstance(layer, nn.SyncBatchNorm) and get_world_size() > 1
