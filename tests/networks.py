"""The networks of the configs, so narrow that a step on 56 x 56 pixels takes a fraction of a second."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import pytest
from mmengine.config import Config

from mmseg_semi import bases

BASES = Path(__file__).parents[1] / 'configs' / '_base_' / 'models'
NUM_CLASSES = 6
SIZE = (56, 56)
VIT = {'embed_dims': 16, 'num_layers': 4, 'num_heads': 2, 'feedforward_channels': 32}


def _resnet(depth: int) -> dict:
    wide = 4 if depth > 34 else 1
    return {
        'backbone.depth': depth,
        'backbone.base_channels': 4,
        'backbone.stem_channels': 8,
        'decode_head.in_channels': 32 * wide,
        'decode_head.channels': 8,
        'auxiliary_head.in_channels': 16 * wide,
        'auxiliary_head.channels': 8,
    }


def _deeplab(depth: int) -> dict:
    low = 16 if depth > 34 else 4
    return {**_resnet(depth), 'decode_head.c1_in_channels': low, 'decode_head.c1_channels': 4}


def _convnext() -> dict:
    backbone = Config.fromfile(BASES / 'convnext_sizes.py').convnext_t.backbone.to_dict()
    del backbone['_delete_']
    return backbone


#: The config of the model, and what is narrower here.
NETWORKS = {
    'deeplabv3plus_r18': ('deeplabv3plus_r50_own', _deeplab(18)),
    'deeplabv3plus_r50': ('deeplabv3plus_r50_own', _deeplab(50)),
    'deeplabv3plus_r101': ('deeplabv3plus_r50_own', _deeplab(101)),
    'pspnet_r50': ('pspnet_r50_own', _resnet(50)),
    'segformer_mit-b1': (
        'segformer_mit-b1',
        {
            'backbone.embed_dims': 4,
            'backbone.num_layers': [1, 1, 1, 1],
            'decode_head.in_channels': [4, 8, 20, 32],
            'decode_head.channels': 8,
        },
    ),
    'upernet_convnext-t': (
        'upernet_convnext-t',
        {
            'backbone.arch': {'depths': [1, 1, 2, 1], 'channels': [4, 8, 16, 32]},
            'decode_head.in_channels': [4, 8, 16, 32],
            'decode_head.channels': 8,
            'auxiliary_head.in_channels': 16,
            'auxiliary_head.channels': 8,
        },
    ),
    'linear_dinov2-s14': (
        'linear_dinov2-s14',
        {
            'backbone.arch': VIT,
            'backbone.img_size': 56,
            'backbone.out_indices': [3],
            'decode_head.in_channels': 16,
            'decode_head.channels': 16,
        },
    ),
    'dpt_dinov2-s14': (
        'dpt_dinov2-s14',
        {
            'backbone.arch': VIT,
            'backbone.img_size': 56,
            'backbone.out_indices': [0, 1, 2, 3],
            'neck.channels': 16,
            'neck.init_cfg': None,
            'decode_head.in_channels': (16,) * 4,
            'decode_head.embed_dims': 16,
            'decode_head.post_process_channels': [4, 8, 16, 16],
            'decode_head.channels': 8,
        },
    ),
    'dpt_dinov3-s16': (
        'dpt_dinov3-s16',
        {
            'backbone.embed_dim': 16,
            'backbone.depth': 4,
            'backbone.num_heads': 2,
            'backbone.patch_size': 14,
            'backbone.out_indices': (0, 1, 2, 3),
            'neck.channels': 16,
            'neck.init_cfg': None,
            'decode_head.in_channels': (16,) * 4,
            'decode_head.embed_dims': 16,
            'decode_head.post_process_channels': [4, 8, 16, 16],
            'decode_head.channels': 8,
            'data_preprocessor.test_cfg': {'size_divisor': 14},
        },
    ),
    'upernet_convnext-t_timm': (
        'upernet_convnext-t',
        {
            'backbone': dict(_convnext(), depths=[1, 1, 2, 1], dims=[4, 8, 16, 32]),
            'decode_head.in_channels': [4, 8, 16, 32],
            'decode_head.channels': 8,
            'auxiliary_head.in_channels': 16,
            'auxiliary_head.channels': 8,
        },
    ),
    # MMSegmentation's own pair, whose encoder hands out class tokens.
    'dpt_vit': (
        'mmseg::_base_/models/dpt_vit-b16.py',
        {
            'backbone.embed_dims': 16,
            'backbone.num_layers': 4,
            'backbone.num_heads': 2,
            'backbone.img_size': 56,
            'backbone.patch_size': 14,
            'backbone.out_indices': (0, 1, 2, 3),
            'decode_head.in_channels': (16,) * 4,
            'decode_head.embed_dims': 16,
            'decode_head.post_process_channels': [4, 8, 16, 16],
            'decode_head.channels': 8,
            'data_preprocessor.test_cfg': {'size_divisor': 14},
        },
    ),
}


def needs_timm(name: str) -> None:
    """Skip a test where timm is not installed, or has no network of this name."""
    timm = pytest.importorskip(
        'timm', reason="timm is not installed: pip install 'mmseg_semi[timm]'"
    )
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}: pip install 'mmseg_semi[timm]'")


@functools.cache
def _base(name: str) -> dict:
    (path,) = bases(name) if '::' in name else (BASES / f'{name}.py',)
    return Config.fromfile(path).model.to_dict()


def narrow(name: str, **changes) -> dict:
    """The config of a narrow network that starts from random weights.

    Args:
        name (str): One of :data:`NETWORKS`.
        **changes: Settings by their dotted keys, with ``__`` for each dot.
    """
    base, settings = NETWORKS[name]
    model = copy.deepcopy(_base(base))
    settings = {**settings, **{key.replace('__', '.'): value for key, value in changes.items()}}
    backbone = settings.get('backbone', model['backbone'])
    if backbone['type'] == 'TIMMBackbone':
        needs_timm(backbone['model_name'])
    elif backbone['type'].startswith('mmpretrain.'):
        pytest.importorskip('mmpretrain.models')
    settings |= {'pretrained': None, 'backbone.init_cfg': None, 'data_preprocessor.size': SIZE}
    for head in ('decode_head', 'auxiliary_head'):
        if model.get(head):
            settings[f'{head}.num_classes'] = NUM_CLASSES
    for key, value in settings.items():
        *path, last = key.split('.')
        functools.reduce(dict.__getitem__, path, model)[last] = copy.deepcopy(value)
    return model
