"""A network, a batch and configs so small that a training step takes milliseconds."""

from __future__ import annotations

import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

from mmseg_semi.models.cutmix import AdaptiveCutMix
from mmseg_semi.models.memory import OncePerStep

# What a Runner does first: MMEngine's own builders then find MMSegmentation's registries.
init_default_scope('mmseg')

NUM_CLASSES = 4


class FixedCutMix(AdaptiveCutMix):
    """A CutMix whose draw is given as ``fixed``, a CutMixPlan, so that a reference can replay it."""

    fixed = None

    def plan(self, num, size, device, hardness=None):
        return self.fixed


def loss_and_commit(model, batch: dict) -> dict:
    """The losses of a batch, then what follows the optimizer step: prototypes move; with all scalars."""
    scalars = model.loss(**batch)
    for module in model.modules():
        if isinstance(module, OncePerStep):
            scalars.update(module.commit())
    return scalars


def tiny_segmentor(norm: str = 'BN', auxiliary: bool = False, **head) -> dict:
    """Config of a ResNet-18 with 4 base channels and an FCN head of 8 channels."""
    norm_cfg = {'type': norm, 'requires_grad': True}
    if norm == 'GN':
        norm_cfg['num_groups'] = 2
    config = {
        'type': 'EncoderDecoder',
        'data_preprocessor': {
            'type': 'SegDataPreProcessor',
            'mean': [123.675, 116.28, 103.53],
            'std': [58.395, 57.12, 57.375],
            'bgr_to_rgb': True,
            'pad_val': 0,
            'seg_pad_val': 255,
        },
        'backbone': {
            'type': 'ResNetV1c',
            'depth': 18,
            'stem_channels': 8,
            'base_channels': 4,
            'strides': (1, 1, 2, 1),
            'norm_cfg': norm_cfg,
        },
        'decode_head': {
            'type': 'FCNHead',
            'in_channels': 32,
            'in_index': 3,
            'channels': 8,
            'num_convs': 1,
            'concat_input': False,
            'dropout_ratio': 0,
            'num_classes': NUM_CLASSES,
            'norm_cfg': norm_cfg,
            'loss_decode': {'type': 'PixelCrossEntropyLoss'},
            **head,
        },
        'train_cfg': {},
        'test_cfg': ConfigDict(mode='whole'),
    }
    if auxiliary:
        config['auxiliary_head'] = {
            **config['decode_head'],
            'in_channels': 16,
            'in_index': 2,
            'loss_decode': {'type': 'PixelCrossEntropyLoss', 'loss_weight': 0.4},
        }
    return config


def build_plain(**kwargs) -> nn.Module:
    """The network itself, without a preprocessor, which needs MMEngine's default scope."""
    return MODELS.build({**tiny_segmentor(**kwargs), 'data_preprocessor': None})


def labeled_sample(label: torch.Tensor) -> SegDataSample:
    """A data sample with a label map (H, W)."""
    size = tuple(label.shape)
    sample = SegDataSample(
        metainfo={'img_path': 'labeled.png', 'img_shape': size, 'ori_shape': size}
    )
    sample.gt_sem_seg = PixelData(data=label[None])
    return sample


def unlabeled_sample(valid: torch.Tensor) -> SegDataSample:
    """A data sample with a valid mask (H, W)."""
    sample = SegDataSample(metainfo={'img_path': 'unlabeled.png', 'img_shape': tuple(valid.shape)})
    sample.valid_mask = PixelData(data=valid[None])
    return sample


def collated_batch(
    num_labeled: int = 2, num_unlabeled: int = 2, size: int = 32, seed: int = 0
) -> dict:
    """A batch as the loader makes it: uint8 images by branch, with their samples."""
    generator = torch.Generator().manual_seed(seed)

    def images(num: int) -> torch.Tensor:
        shape = (num, 3, size, size)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)

    labels = torch.randint(0, NUM_CLASSES, (num_labeled, size, size), generator=generator)
    labels[:, :2] = 255
    valid = torch.ones(size, size, dtype=torch.bool)
    weak = images(num_unlabeled)
    return {
        'inputs': {
            'labeled': images(num_labeled),
            'weak': weak,
            'strong': 255 - weak,
            'strong2': weak ^ 85,
        },
        'data_samples': {
            'labeled': [labeled_sample(label) for label in labels],
            'weak': [unlabeled_sample(valid) for _ in range(num_unlabeled)],
            'strong': [unlabeled_sample(valid) for _ in range(num_unlabeled)],
            'strong2': [unlabeled_sample(valid) for _ in range(num_unlabeled)],
        },
    }
