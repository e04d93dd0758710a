"""tools/make_config.py: what it makes of stock configs of many kinds trains, and what it says."""

import importlib.util
import inspect
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from processes import TOOLS, run_tool

from mmseg_semi.compat import config_root
from mmseg_semi.own_config import METHODS, Made, make_config
from mmseg_semi.own_config.stock import innermost
from mmseg_semi.own_config.text import Code, Extended, assignment, python

STOCK = config_root('mmseg')
SIZE = 64
RESNET = {
    'backbone': {'depth': 18, 'base_channels': 8, 'stem_channels': 8},
    'auxiliary_head': {'in_channels': 32, 'channels': 8},
}
HRNET = {
    f'stage{stage}': {'num_channels': tuple(4 * 2**i for i in range(stage)), 'num_modules': 1}
    for stage in (2, 3, 4)
}
#: Stock configs of different kinds, and of each what makes its network small.
CONFIGS = {
    'deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024.py': {
        **RESNET,
        'decode_head': {'in_channels': 64, 'c1_in_channels': 8, 'channels': 8},
    },
    'pspnet/pspnet_r50-d8_4xb4-20k_voc12aug-512x512.py': {
        **RESNET,
        'decode_head': {'in_channels': 64, 'channels': 8},
    },
    'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py': {
        'backbone': {'embed_dims': 8, 'num_layers': [1, 1, 1, 1], 'num_heads': [1, 1, 1, 1]},
        'decode_head': {'in_channels': [8, 8, 8, 8], 'channels': 8},
    },
    'convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py': {
        'backbone': {'arch': {'depths': [1, 1, 1, 1], 'channels': [8, 8, 8, 8]}},
        'decode_head': {'in_channels': [8, 8, 8, 8], 'channels': 8},
        'auxiliary_head': {'in_channels': 8, 'channels': 8},
    },
    'hrnet/fcn_hr18_4xb2-40k_cityscapes-512x1024.py': {
        'backbone': {'extra': HRNET},
        'decode_head': {'in_channels': [4, 8, 16, 32], 'channels': 8},
    },
    'fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024.py': {},
    'pspnet/pspnet_r50-d8_4xb4-20k_coco-stuff10k-512x512.py': {
        **RESNET,
        'decode_head': {'in_channels': 64, 'channels': 8},
    },
    'deeplabv3plus/deeplabv3plus_r18-d8_4xb4-80k_loveda-512x512.py': {
        **RESNET,
        'decode_head': {'in_channels': 64, 'c1_in_channels': 8, 'channels': 8},
    },
    'pspnet/pspnet_r18-d8_4xb4-80k_potsdam-512x512.py': {
        **RESNET,
        'decode_head': {'in_channels': 64, 'channels': 8},
    },
    'unet/unet-s5-d16_fcn_4xb4-40k_chase-db1-128x128.py': {
        'backbone': {'base_channels': 4},
        'decode_head': {'in_channels': 4, 'channels': 4},
        'auxiliary_head': {'in_channels': 8, 'channels': 4},
    },
    'swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py': {
        'backbone': {'embed_dims': 8, 'depths': [1, 1, 1, 1], 'num_heads': [1, 1, 1, 1]},
        'decode_head': {'in_channels': [8, 16, 32, 64], 'channels': 8},
        'auxiliary_head': {'in_channels': 32, 'channels': 8},
    },
}


def load_tool():
    spec = importlib.util.spec_from_file_location('make_config_tool', TOOLS / 'make_config.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = load_tool()


@pytest.fixture
def make(tmp_path, monkeypatch, capsys):
    """Run the tool in a folder of its own; returns what it printed."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / 'more')

    def run(config, *options, unlabeled='more'):
        TOOL.main([str(config), '--unlabeled', unlabeled, '--workers', '1', *options])
        return capsys.readouterr().out

    return run


def write_images(folder, number=3, suffix='.jpg', start=0):
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(start)
    for i in range(start, start + number):
        image = generator.integers(0, 256, (72, 80 + 4 * i, 3), dtype=np.uint8)
        assert cv2.imwrite(str(folder / f'image{i}{suffix}'), image)


def write_data(cfg):
    """Two labeled images in each set of a stock config, where and named as it has them."""
    init_default_scope('mmseg')
    for number, stage in enumerate(('train', 'val')):
        config = innermost(cfg[f'{stage}_dataloader'].dataset)[-1]
        known = inspect.signature(DATASETS.get(config.type).__init__).parameters
        suffixes = {
            key: config.get(key) or (known[key].default if key in known else default)
            for key, default in {'img_suffix': '.jpg', 'seg_map_suffix': '.png'}.items()
        }
        root = Path(config.data_root)
        generator = np.random.default_rng(10 + number)
        names = [f'{stage}{i}' for i in range(2)]
        for i, name in enumerate(names):
            shape = (72, 76 + 8 * i)
            image = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
            mask = np.full(shape, 1, np.uint8)
            mask[:20, :30] = 0
            for array, key, suffix in (
                (image, 'img_path', suffixes['img_suffix']),
                (mask, 'seg_map_path', suffixes['seg_map_suffix']),
            ):
                path = root / config.data_prefix[key] / f'{name}{suffix}'
                path.parent.mkdir(parents=True, exist_ok=True)
                assert cv2.imwrite(str(path), array)
        if config.get('ann_file'):
            (root / config.ann_file).parent.mkdir(parents=True, exist_ok=True)
            (root / config.ann_file).write_text('\n'.join(names) + '\n')


def small(out, network, **changes):
    """The made config with a network, crops and a length that take a second; returns the file's name."""
    cfg = Config.fromfile(out).to_dict()
    shrink(cfg)
    model = cfg['model'].get('segmentor', cfg['model'])
    model['pretrained'] = None
    update(model, network)
    for name in ('train', 'val', 'test'):
        cfg[f'{name}_dataloader'].update(num_workers=0, persistent_workers=False)
    if 'max_iters' in cfg['train_cfg']:
        cfg['train_cfg'].update(max_iters=2, val_interval=2)
    schedules = cfg['param_scheduler']
    for schedule in schedules['students'] if isinstance(schedules, dict) else schedules:
        schedule.update({key: min(schedule[key], 2) for key in ('begin', 'end') if key in schedule})
        if schedule['type'] == 'LinearLR':
            schedule['end'] = 1
        elif schedule['begin']:
            schedule['begin'] = 1
    if cfg['optim_wrapper']['type'] == 'AmpOptimWrapper':  # for GPUs alone
        cfg['optim_wrapper']['type'] = 'AutocastOptimWrapper'
        del cfg['optim_wrapper']['loss_scale']
    cfg['default_hooks']['checkpoint'].update(interval=2)
    cfg['default_hooks']['logger'].update(interval=1)
    update(cfg, changes)
    name = f'small_{Path(out).stem}.py'
    Config(cfg).dump(name)
    return name


def shrink(node):
    """Crops of 64 pixels, batch normalization of one process, no weights to download."""
    for key, value in list(node.items()) if isinstance(node, dict) else enumerate(node):
        if key in ('crop_size', 'size') and isinstance(value, (list, tuple)):
            node[key] = (SIZE, SIZE)
        elif key == 'stride' and isinstance(value, tuple):
            node[key] = (SIZE * 2 // 3, SIZE * 2 // 3)
        elif key == 'scale':
            node[key] = (2 * SIZE, SIZE)
        elif value == 'SyncBN':
            node[key] = 'BN'
        elif key == 'init_cfg' and isinstance(value, dict) and value['type'] == 'Pretrained':
            node[key] = None
        elif isinstance(value, (dict, list)):
            shrink(value)


def update(node, changes):
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(node.get(key), dict):
            update(node[key], value)
        else:
            node[key] = value


def train(out, network, **changes):
    result = run_tool(TOOLS / 'train.py', small(out, network, **changes), cwd=Path.cwd())
    assert result.code == 0, result.output[-3000:]
    return result.output


@pytest.mark.parametrize('stock', CONFIGS)
def test_two_steps_of_stock_configs(make, stock):
    write_data(Config.fromfile(STOCK / stock))
    printed = make(f'mmseg::{stock}')
    out = f'imas_{Path(stock).stem}.py'
    assert 'No problem found.' in printed
    assert f'python tools/train.py {out}' in printed
    output = train(out, CONFIGS[stock])
    assert '2 labelled and 3 unlabelled images' in output
    assert re.search(r'teacher/m(IoU|Dice): +\d', output)
    assert re.search(r'Iter\(train\) \[2/2\].*decode.loss_ce', output)
