"""tools/make_config.py: what it makes of stock configs of many kinds trains, and what it says."""

import importlib.util
import inspect
import re
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS
from processes import ROOT, TOOLS, run_tool

from mmseg_semi.compat import config_root
from mmseg_semi.datasets.collate import collate_branches
from mmseg_semi.own_config import METHODS, Made, default_method, make_config
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


#: A config of one's own: a small network on small images, from scratch.
MY = """
_base_ = __import__('mmseg_semi').bases(
    'mmseg::_base_/models/fcn_r50-d8.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_20k.py',
)
crop_size = (32, 40)
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=crop_size),
    backbone=dict(depth=18, base_channels=4, stem_channels=4, norm_cfg=norm_cfg),
    decode_head=dict(in_channels=32, channels=8, num_classes=2, norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=16, channels=8, num_classes=2, norm_cfg=norm_cfg),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(64, 32), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 32), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
own = dict(
    type='BaseSegDataset',
    data_root='data',
    metainfo=dict(classes=('background', 'crack'), palette=[[0, 0, 0], [255, 0, 0]]),
)
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        own, data_prefix=dict(img_path='img/train', seg_map_path='ann/train'), pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(own, data_prefix=dict(img_path='img/val', seg_map_path='ann/val'), pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
param_scheduler = [dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=0, end=3, by_epoch=False)]
auto_scale_lr = dict(enable=False, base_batch_size=16)
train_cfg = dict(max_iters=3, val_interval=3)
default_hooks = dict(checkpoint=dict(interval=3, save_best='mIoU'), logger=dict(interval=1))
"""


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
    """Two labeled images in each set of a config, where and named as it has them; returns those of training."""
    init_default_scope('mmseg')
    written = 0
    for stage in ('train', 'val'):
        for config in leaves(cfg[f'{stage}_dataloader'].dataset):
            write_set(config, [f'{stage}{written + i}' for i in range(2)])
            written += 2 * (stage == 'train')
    return written


def leaves(dataset):
    inner = dataset.get('datasets') or [dataset.get('dataset')]
    return [leaf for one in inner for leaf in leaves(one)] if inner[0] else [dataset]


def write_set(config, names):
    """Images of different sizes and masks of the first two classes, for one dataset of a config."""
    known = inspect.signature(DATASETS.get(config.type).__init__).parameters
    suffixes = {
        key: config.get(key) or (known[key].default if key in known else default)
        for key, default in {'img_suffix': '.jpg', 'seg_map_suffix': '.png'}.items()
    }
    root = Path(config.data_root)
    zero = next(
        (t.get('reduce_zero_label') for t in config.pipeline if 'reduce_zero_label' in t), 0
    )
    for name in names:
        generator = np.random.default_rng(sum(map(ord, name)))
        shape = (72, int(generator.integers(70, 90)))
        image = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
        mask = np.full(shape, 1 + bool(zero), np.uint8)
        mask[:20, :30] = bool(zero)
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
    Config(cfg, format_python_code=False).dump(name)
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


@pytest.mark.slow
@pytest.mark.parametrize('stock', CONFIGS)
def test_two_steps_of_stock_configs(make, stock):
    if 'convnext' in stock:
        pytest.importorskip('mmpretrain', reason='mmpretrain is not installed')
    labeled = write_data(Config.fromfile(STOCK / stock))
    printed = make(f'mmseg::{stock}')
    method = default_method(Config.fromfile(STOCK / stock), stock)
    out = f'{method}_{Path(stock).stem}.py'
    assert 'No problem found.' in printed
    assert f'python tools/train.py {out}' in printed
    output = train(out, CONFIGS[stock])
    assert f'{labeled} labeled and 3 unlabeled images' in output
    assert re.search(r'teacher/m(IoU|Dice): +\d', output)
    assert re.search(r'Iter\(train\) \[2/2\].*decode.loss_ce', output)


@pytest.fixture
def my(make):
    """Write the config of one's own, with further lines, and its data; returns its name."""

    def write(more='', name='my.py'):
        Path(name).write_text(MY + more)
        write_data(Config.fromfile(name))
        return name

    return write


@pytest.mark.slow
@pytest.mark.parametrize('method', METHODS)
def test_every_method_trains_it(make, my, method):
    printed = make(my(), '--method', method)
    assert f'method          {METHODS[method]} (settings of ' in printed
    result = run_tool(TOOLS / 'train.py', f'{method}_my.py', cwd=Path.cwd())
    assert result.code == 0, result.output[-3000:]
    assert list(Path('work_dirs').glob(f'{method}_my/**/iter_3.pth'))
    predicts = {'st': '', 'stpp': '', 'cps': 'student1/', 'gps': 'student1/'}
    predicts.update(dict.fromkeys(('corrmatch', 'fixmatch', 'prevmatch', 'unimatch'), 'student/'))
    assert re.search(rf' {predicts.get(method, "teacher/")}mIoU: +\d', result.output)


def test_what_is_kept(make, my):
    """Everything of the training that is not about unlabeled images is the one of the config."""
    printed = make(my())
    old, new = Config.fromfile('my.py'), Config.fromfile('imas_my.py')
    assert Path('imas_my.py').read_text().splitlines()[3] == "_base_ = './my.py'"
    assert len(Path('imas_my.py').read_text().splitlines()) < 80
    assert new.model.segmentor == old.model
    preprocessor = dict(old.model.data_preprocessor, type='MultiBranchDataPreprocessor')
    assert new.model.data_preprocessor == preprocessor
    loader = new.train_dataloader
    assert loader.dataset.labeled == old.train_dataloader.dataset
    assert (loader.batch_size, loader.sampler.labeled, loader.sampler.unlabeled) == (4, 2, 2)
    assert loader.num_workers == 0
    for key in ('param_scheduler', 'val_dataloader', 'test_dataloader', 'val_evaluator'):
        assert new[key] == old[key]
    assert new.optim_wrapper.optimizer == old.optim_wrapper.optimizer
    assert (new.train_cfg.max_iters, new.train_cfg.val_interval) == (3, 3)
    # 16 labeled images per step are 32 with the unlabeled ones.
    assert new.auto_scale_lr.base_batch_size == 32
    assert new.default_hooks.checkpoint == dict(
        type='AtomicCheckpointHook', by_epoch=False, interval=3, save_best='teacher/mIoU'
    )
    assert '2 labeled + 2 unlabeled images per GPU (labeled ones as before' in printed
    assert '32x40 (height x width)' in printed
    assert '3 iterations (as before)' in printed
    assert 'PolyLR' in printed


def test_advice_on_networks_from_scratch(my):
    cfg = Config.fromfile(my())
    for method, advised in (('fixmatch', True), ('imas', False), ('unimatch_v2', False)):
        advice = [d.what for d in make_text(cfg, method).decisions if d.topic == 'advice']
        assert len(advice) == advised
        assert all('tau=0.5, unlabeled_start_fraction=0.33' in what for what in advice)


def test_the_default_method_depends_on_pretrained_weights(my):
    cfg = Config.fromfile(my())
    assert default_method(cfg, 'my.py') == 'imas'
    for key in ('load_from', 'model.pretrained', 'model.backbone.pretrained'):
        loaded = cfg.copy()
        loaded.merge_from_dict({key: 'weights.pth'})
        assert default_method(loaded, 'my.py') == 'unimatch_v2'
    init = {'model.backbone.init_cfg': {'type': 'Pretrained', 'checkpoint': 'weights.pth'}}
    cfg.merge_from_dict(init)
    assert default_method(cfg, 'my.py') == 'unimatch_v2'
    with pytest.raises(ValueError, match=r'my\.py already trains with unlabeled images'):
        default_method(Config(dict(model=dict(segmentor={})), filename='my.py'), 'my.py')


def test_class_shares_are_aligned_from_scratch_and_adjusted_otherwise(my):
    cfg = Config.fromfile(my())
    made = make_text(cfg, 'unimatch_v2')
    assert 'align_distribution=True' in made.text
    assert 'adjust_logits' not in made.text
    # The summary has the settings that are written.
    (method,) = (d for d in made.decisions if d.topic == 'method')
    assert 'adjust_logits' not in method.why
    assert 'align_distribution=True' in method.why
    cfg.load_from = 'weights.pth'
    made = make_text(cfg, 'unimatch_v2')
    assert 'align_distribution' not in made.text
    assert 'adjust_logits=True' in made.text
    assert 'adjust_logits=True' in [d.what for d in made.decisions if d.topic == 'class shares']


@pytest.mark.parametrize('method', ['cps', 'gps'])
def test_two_students_do_not_start_from_one_checkpoint(my, method):
    cfg = Config.fromfile(my())
    cfg.load_from = 'weights.pth'
    with pytest.raises(
        ValueError, match=f"load_from='weights.pth', but .* of {method.upper()} need"
    ):
        make_text(cfg, method)


def test_geometry_of_unlabeled_images(make, my):
    """That of the labeled ones, without what reads labels or changes colors, padded with the mean color."""
    make(my())
    pipeline = Config.fromfile('imas_my.py').train_dataloader.dataset.unlabeled.pipeline
    assert [dict(transform) for transform in pipeline[:-1]] == [
        dict(type='LoadImageFromFile'),
        dict(type='AddValidMask'),
        dict(type='RandomResize', scale=(64, 32), ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type='RandomCrop', crop_size=(32, 40)),
        dict(type='RandomFlip', prob=0.5),
        # Width, height; blue, green, red.
        dict(type='Pad', size=(40, 32), pad_val=dict(img=(104, 116, 124), seg=255)),
    ]
    assert pipeline[-1].strong[0].type == 'RandomIntensity'
    make('my.py', '--method', 'unimatch_v2')
    assert len(Path('unimatch_v2_my.py').read_text().splitlines()) < 95
    views = Config.fromfile('unimatch_v2_my.py').train_dataloader.dataset.unlabeled.pipeline[-1]
    assert views.strong == views.strong2
    assert views.strong[0].type == 'RandomColorJitter'


@pytest.mark.parametrize(
    ('more', 'pad'),
    [
        ("model['data_preprocessor'].update(bgr_to_rgb=False)", (124, 116, 104)),
        (
            "model['data_preprocessor'].update(mean=[9.0], std=[2.0], bgr_to_rgb=False, pad_val=3)",
            15,
        ),
        (
            "model['data_preprocessor'].update(mean=[1.0] * 5, std=[1.0] * 5, bgr_to_rgb=False)",
            None,
        ),
        ("train_pipeline.insert(2, dict(type='Pad', size=(64, 64)))", None),
    ],
)
def test_padding(my, more, pad):
    cfg = Config.fromfile(
        my(f'\n{more}\ntrain_dataloader["dataset"]["pipeline"] = train_pipeline\n')
    )
    text = make_text(cfg).text
    found = re.findall(r'pad_val=dict\(img=(.*?), seg=255\)', text)
    assert found == ([] if pad is None else [repr(pad)])


GRAY = """
del train_pipeline[5]  # PhotoMetricDistortion is for color images
for _pipeline in (train_pipeline, test_pipeline):
    _pipeline[0]['color_type'] = 'grayscale'
model['data_preprocessor'].update(mean=[114.0], std=[58.0], bgr_to_rgb=False)
model['backbone'].update(in_channels=1)
train_dataloader['dataset']['pipeline'] = train_pipeline
val_dataloader['dataset']['pipeline'] = test_pipeline
"""


@pytest.mark.parametrize('method', ['unimatch_v2', 'imas', 'st', 'esl'])
def test_gray_images_have_other_strong_views(make, my, method):
    """The samples that the tool loads, and those of this test, pass the pipeline."""
    printed = ' '.join(make(my(GRAY), '--method', method).split())
    strong = method != 'esl'
    operations = 'identity, autocontrast, gaussian_blur, brightness, contrast'
    assert (f'RandomIntensity with {operations} (the strong' in printed) == strong
    cfg = Config.fromfile(f'{method}_my.py')
    dataset = cfg.train_dataloader.dataset
    if method == 'st':
        pipeline = dataset.pseudo_labeled.pipeline
        assert [t.type for t in pipeline][-3:] == ['Pad', 'RandomIntensity', 'PackSegInputs']
        return
    built = DATASETS.build(dataset)
    batch = collate_branches([built[index] for index in range(len(built))])
    images = [image for images in batch['inputs'].values() for image in images]
    assert len(images) == 2 + 3 * {'esl': 1, 'imas': 2, 'unimatch_v2': 3}[method]
    assert {image.shape[0] for image in images} == {1}
    assert dataset.unlabeled.pipeline[-2].pad_val.img == 114


def test_four_channels_have_other_strong_views(my):
    more = "\nmodel['data_preprocessor'].update(mean=[1.0] * 4, std=[1.0] * 4, bgr_to_rgb=False)\n"
    Path('made.py').write_text(make_text(Config.fromfile(my(more)), 'unimatch_v2').text)
    views = Config.fromfile('made.py').train_dataloader.dataset.unlabeled.pipeline[-1]
    assert [t.type for t in views.strong] == ['RandomIntensity', 'PackUnlabeledInputs']
    assert 'color' not in views.strong[0].operations
    assert views.strong == views.strong2


@pytest.mark.parametrize(('method', 'filled'), [('imas', 255), ('st', 200)])
def test_filled_pixels_of_valid_masks_are_padding_for_any_void_value(my, method, filled):
    more = """
train_pipeline[4:4] = [
    dict(type='Pad', size=(40, 32), pad_val=dict(img=7, seg=200)),
    dict(type='RandomRotate', prob=0.5, degree=9, pad_val=0, seg_pad_val=200),
    dict(type='RandomApply', transforms=[dict(type='RandomRotate', prob=1, degree=9, seg_pad_val=200)]),
    dict(type='RandomChoice', transforms=[[dict(type='RandomRotate', prob=1, degree=9, seg_pad_val=200)]]),
]
train_dataloader['dataset']['pipeline'] = train_pipeline
"""
    text = make_text(Config.fromfile(my(more)), method).text
    Path('made.py').write_text(text)
    pad, rotate = (
        t for t in Config.fromfile('made.py').shared if t.type in ('Pad', 'RandomRotate')
    )
    assert (pad.pad_val.to_dict(), rotate.seg_pad_val) == ({'img': 7, 'seg': filled}, filled)
    assert len(re.findall('seg_pad_val=200', text)) == 3 * (filled == 200)


@pytest.mark.parametrize(
    ('preprocessor', 'inserted', 'size'),
    [
        # As the preprocessor of supervised training pads a crop of 32 x 40.
        ('size=None, size_divisor=32', '', (32, 64)),
        ('size=None, size_divisor=16', '', (32, 48)),
        # Images are at least as large as Pad, and after a crop exactly.
        ('size=None', "dict(type='Pad', size=(56, 24))", (32, 56)),
        ('size=None', "dict(type='Pad', size_divisor=24)", (48, 48)),
    ],
)
def test_size_of_the_training_images(my, preprocessor, inserted, size):
    more = f"""
model['data_preprocessor'].update({preprocessor})
train_pipeline[4:4] = [{inserted}]
train_dataloader['dataset']['pipeline'] = train_pipeline
"""
    Path('made.py').write_text(make_text(Config.fromfile(my(more))).text)
    preprocessor = Config.fromfile('made.py').model.data_preprocessor
    assert (tuple(preprocessor.size), preprocessor.get('size_divisor')) == (size, None)


@pytest.mark.parametrize(('divisor', 'size'), [(None, (48, 56)), (32, None)])
def test_size_without_a_crop(my, divisor, size):
    """Pad does not crop, so that it gives the size only if nothing else does."""
    more = f"""
model['data_preprocessor'].update(size=None, size_divisor={divisor})
train_pipeline[3] = dict(type='Pad', size=(56, 48))
train_dataloader['dataset']['pipeline'] = train_pipeline
"""
    Path('made.py').write_text(make_text(Config.fromfile(my(more))).text)
    preprocessor = Config.fromfile('made.py').model.data_preprocessor
    assert (preprocessor.get('size'), preprocessor.size_divisor) == (size, divisor)


@pytest.mark.parametrize(
    ('more', 'strong'),
    [
        ("model['data_preprocessor'].update(mean=[9.0], std=[2.0])", 'RandomColorJitter'),
        (
            "model['data_preprocessor'].update(mean=None, std=None, bgr_to_rgb=False)\n"
            "model['backbone'].update(in_channels=1)",
            'RandomIntensity',
        ),
    ],
)
def test_channels_are_those_of_the_network(my, more, strong):
    """One value of the mean is that of all channels."""
    text = make_text(Config.fromfile(my(f'\n{more}\n')), 'unimatch_v2').text
    Path('made.py').write_text(text)
    views = Config.fromfile('made.py').train_dataloader.dataset.unlabeled.pipeline[-1]
    assert views.strong[0].type == strong


@pytest.mark.parametrize('method', ['imas', 'stpp'])
@pytest.mark.parametrize('key', ['out_channels', 'num_classes'])
def test_one_channel_for_an_object_and_its_background(my, method, key):
    cfg = Config.fromfile(my(f"\nmodel['decode_head']['{key}'] = 1\n"))
    with pytest.raises(
        ValueError, match=rf'my.py has decode_head.{key}=1, .* Set num_classes=2 and'
    ):
        make_text(cfg, method)


def make_text(cfg, method='imas', name='my.py', **options) -> Made:
    return make_config(
        cfg,
        name,
        out=f'{method}_my.py',
        method=method,
        unlabeled='more',
        num_unlabeled=3,
        **options,
    )


def test_transforms_that_are_not_known(my):
    """They move pixels or not; unlabeled images pass them, and the reader is told."""
    more = "\ntrain_pipeline.insert(2, dict(type='Wobble', by=3))\n"
    more += "train_dataloader['dataset']['pipeline'] = train_pipeline\n"
    made = make_text(Config.fromfile(my(more)))
    assert "dict(type='Wobble', by=3)" in made.text
    assert next(d for d in made.decisions if d.topic == 'please check').what == 'Wobble'


def test_settings_of_the_training_that_carry_over(my):
    more = """
optim_wrapper = dict(
    type='AmpOptimWrapper', loss_scale='dynamic', constructor='LearningRateDecayOptimizerConstructor',
    paramwise_cfg=dict(decay_rate=0.9, decay_type='stage_wise', num_layers=6),
)
custom_hooks = [
    dict(type='mmengine.EMAHook'),
    dict(type='mmengine.EarlyStoppingHook', monitor='mIoU'),
]
custom_imports = dict(imports='os.path', allow_failed_imports=False)
work_dir = 'work_dirs/precious'
randomness = dict(seed=5)
find_unused_parameters = True
"""
    name = my(more)
    made = make_text(Config.fromfile(name))
    Path('made.py').write_text(made.text)
    new = Config.fromfile('made.py')
    assert new.optim_wrapper.type == 'AmpOptimWrapper'
    assert new.optim_wrapper.loss_scale == 'dynamic'
    assert new.optim_wrapper.constructor == 'NetworkOptimWrapperConstructor'
    assert new.optim_wrapper.network_constructor == 'LearningRateDecayOptimizerConstructor'
    assert new.optim_wrapper.paramwise_cfg.decay_rate == 0.9
    hooks = {hook.type: hook for hook in new.custom_hooks}
    assert hooks['mmengine.EarlyStoppingHook'].monitor == 'teacher/mIoU'
    assert 'mmengine.EMAHook' not in hooks
    assert {'MeanTeacherHook', 'StartupCheckHook', 'ResumableRandomnessHook'} <= hooks.keys()
    assert new.custom_imports.imports == ['os.path', 'mmseg_semi']
    assert new.work_dir == str(Path('work_dirs/imas_my'))
    assert new.randomness.seed == 5
    assert new.model_wrapper_cfg.find_unused_parameters is True
    left = next(d for d in made.decisions if d.topic == 'not taken over').what
    assert 'EMAHook' in left
    assert 'work_dir=work_dirs/precious' in left


def test_hooks_of_the_config_stay(my):
    made = make_text(Config.fromfile(my("custom_hooks = [dict(type='EmptyCacheHook')]\n")))
    Path('made.py').write_text(made.text)
    assert Config.fromfile('made.py').custom_hooks[0] == dict(type='EmptyCacheHook')
    # None is there twice, as on the baselines of this package.
    made = make_text(Config.fromfile(my("custom_hooks = [dict(type='StartupCheckHook')]\n")))
    Path('made.py').write_text(made.text)
    kinds = [hook.type for hook in Config.fromfile('made.py').custom_hooks]
    assert kinds[:2] == ['StartupCheckHook', 'ResumableRandomnessHook']
    assert len(set(kinds)) == len(kinds)


def test_another_batch(make, my):
    printed = make(my(), '--batch-size', '1', '3')
    assert '1 labeled + 3 unlabeled images per GPU (labeled ones before: 2' in printed
    assert 'though it was chosen for 2 labeled images per GPU' in ' '.join(printed.split())
    cfg = Config.fromfile('imas_my.py')
    assert (cfg.train_dataloader.batch_size, cfg.train_dataloader.sampler.unlabeled) == (4, 3)
    # Of the 64 images of 16 GPUs 16 are labeled, as many as the learning rate is for.
    assert cfg.auto_scale_lr.base_batch_size == 64


@pytest.mark.parametrize(('classes', 'rank'), [(2, 1), (3, 1), (4, None), (19, None)])
def test_ranks_of_u2pl_follow_the_classes(my, classes, rank):
    cfg = Config.fromfile(my())
    cfg.model.decode_head.num_classes = classes
    found = re.findall(r'low_rank=(\d+)', make_text(cfg, 'u2pl').text)
    assert found == ([] if rank is None else [str(rank)])


def test_no_dropout_in_a_head_that_labels_in_train_mode(my):
    cfg = Config.fromfile(my())
    for method, ratio in (('fixmatch', 0), ('imas', 0.1)):
        Path('made.py').write_text(make_text(cfg, method).text)
        assert Config.fromfile('made.py').model.segmentor.decode_head.dropout_ratio == ratio


BY_EPOCH = """
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=2, val_interval=1)
param_scheduler = [dict(type='PolyLR', power=0.9, begin=0, end=2, by_epoch=True)]
default_hooks = dict(checkpoint=dict(by_epoch=True, interval=1), logger=dict(log_metric_by_epoch=True))
log_processor = dict(by_epoch=True)
"""


@pytest.mark.parametrize('method', ['imas', 'st'])
def test_training_by_epochs(make, my, method):
    batch = ['--batch-size', '2', '1'] if method == 'imas' else []
    printed = make(my(BY_EPOCH), '--method', method, *batch)
    assert 'epochs' in printed
    assert 'an epoch is one pass over' in printed
    # Three unlabeled images: three steps of one, or one step of two, in each of two epochs.
    steps = {'imas': 6, 'unimatch_v2': 2}.get(method)
    assert steps is None or f'so the training has {steps} optimizer steps' in ' '.join(
        printed.split()
    )
    result = run_tool(TOOLS / 'train.py', f'{method}_my.py', cwd=Path.cwd())
    assert result.code == 0, result.output[-3000:]
    # Three unlabeled images, one a step; ST: its own list.
    assert re.search(r'Epoch\(train\) +\[2\]\[\d/\d\]', result.output)
    assert list(Path('work_dirs').glob(f'{method}_my/**/epoch_2.pth'))


def test_a_schedule_of_another_length_than_the_epochs_is_named(make, my):
    steps = BY_EPOCH.replace('end=2, by_epoch=True', 'end=1000, by_epoch=False')
    printed = ' '.join(make(my(steps), '--method', 'imas', '--batch-size', '2', '1').split())
    assert 'please check the last scheduler ends at step 1,000, and the training at 6' in printed
    assert 'please check' not in make(my(BY_EPOCH), '--method', 'imas', '--overwrite')


@pytest.mark.parametrize('method', ['unimatch_v2', 'imas'])
@pytest.mark.parametrize(
    ('length', 'decay'),
    [
        ("train_cfg['max_iters'] = 2999", 0.99),
        ("train_cfg['max_iters'] = 3000", 0.996),
        ("train_cfg['max_iters'] = 1200", 0.99),
        ("train_cfg['max_iters'] = 600", 0.98),
        ("train_cfg['max_iters'] = 150", 0.92),
        # Two iterations per step: 2,999 steps.
        ("train_cfg['max_iters'] = 5998\noptim_wrapper = dict(accumulative_counts=2)", 0.99),
        # Three unlabeled images are one batch of two.
        (BY_EPOCH.replace('max_epochs=2', 'max_epochs=2999'), 0.99),
        (BY_EPOCH.replace('max_epochs=2', 'max_epochs=3000'), 0.996),
    ],
)
def test_the_teacher_of_a_short_training_averages_over_fewer_steps(my, method, length, decay):
    made = make_text(Config.fromfile(my(f'\n{length}\n')), method, batch=(2, 2))
    Path('made.py').write_text(made.text)
    (teacher,) = [h for h in Config.fromfile('made.py').custom_hooks if h.type == 'MeanTeacherHook']
    assert teacher.decay == decay
    said = [d.what for d in made.decisions if d.topic == 'teacher']
    assert said == ([f'decay={decay}'] if decay < 0.996 else [])


@pytest.mark.parametrize(('epochs', 'decay'), [(2999, 0.99), (3000, 0.996)])
def test_an_epoch_drops_its_last_incomplete_step(my, epochs, decay):
    length = BY_EPOCH.replace('max_epochs=2', f'max_epochs={epochs}')
    cfg = Config.fromfile(my(f'{length}\noptim_wrapper = dict(accumulative_counts=2)\n'))
    # Three batches of one unlabeled image are one step of two.
    Path('made.py').write_text(make_text(cfg, 'imas', batch=(2, 1)).text)
    (teacher,) = [h for h in Config.fromfile('made.py').custom_hooks if h.type == 'MeanTeacherHook']
    assert teacher.decay == decay


def test_accumulated_schedules_count_steps(make, my):
    changed = "\ntrain_cfg['max_iters'] = 5998\noptim_wrapper = dict(accumulative_counts=2)\n"
    printed = ' '.join(make(my(changed)).split())
    assert 'The schedulers count optimizer steps: the training has 2,999, since accumul' in printed


def test_gps_needs_iterations(my):
    with pytest.raises(
        ValueError, match=r'trains by epochs \(max_epochs=2\), but the two stages of GPS'
    ):
        make_text(Config.fromfile(my(BY_EPOCH)), 'gps')


def test_a_config_of_a_checkout(make, tmp_path):
    """Its bases are its own, and the made config stands beside it."""
    folder = tmp_path / 'checkout' / 'configs'
    name = 'fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py'
    shutil.copytree(STOCK / '_base_', folder / '_base_')
    for file in (name, 'fcn/fcn_r50-d8_4xb2-80k_cityscapes-512x1024.py'):
        (folder / file).parent.mkdir(exist_ok=True)
        shutil.copy(STOCK / file, folder / file)
    base = folder / '_base_' / 'schedules' / 'schedule_80k.py'
    base.write_text(base.read_text().replace('max_iters=80000', 'max_iters=77'))
    labeled = write_data(Config.fromfile(folder / name))
    printed = make(folder / name)
    assert '77 iterations' in printed
    out = folder / 'fcn' / f'unimatch_v2_{Path(name).name}'
    assert f"_base_ = './{Path(name).name}'" in out.read_text()
    network = {**RESNET, 'decode_head': {'in_channels': 64, 'channels': 8}}
    assert f'{labeled} labeled and 3 unlabeled images' in train(out, network)


def test_names_of_the_config(my):
    cfg = Config.fromfile(my())
    assert (
        "_base_ = '../my.py'"
        in make_config(
            cfg, 'my.py', out='deep/imas.py', method='imas', unlabeled='more', num_unlabeled=3
        ).text
    )
    text = make_text(cfg, name='mmseg::fcn/x.py').text
    assert "_base_ = __import__('mmseg_semi').bases('mmseg::fcn/x.py')" in text


def test_a_folder_with_several_data_sets(make, my):
    more = """
again = dict(own, data_prefix=dict(img_path='img/again', seg_map_path='ann/again'), pipeline=train_pipeline)
one = train_dataloader['dataset']
train_dataloader['dataset'] = dict(
    type='RepeatDataset', times=50, dataset=dict(type='ConcatDataset', datasets=[one, again])
)
"""
    printed = make(my(more))
    assert '2 data sets' in printed
    assert 'RepeatDataset (the sampler repeats the labeled images)' in printed
    result = run_tool(TOOLS / 'train.py', 'imas_my.py', cwd=Path.cwd())
    assert result.code == 0, result.output[-3000:]
    assert '4 labeled and 3 unlabeled images' in result.output


def test_data_to_mend(make, my, capsys):
    """The config is there, the report says what is wrong, and the status tells scripts so."""
    name = my()
    mask = next(Path('data/ann/train').glob('*.png'))
    cv2.imwrite(str(mask), np.full_like(cv2.imread(str(mask), 0), 7))
    with pytest.raises(SystemExit, match=r'imas_my\.py is written\. Fix the data'):
        make(name)
    assert 'values that are none of the 2 classes' in capsys.readouterr().out
    assert Path('imas_my.py').is_file()


@pytest.mark.parametrize(
    ('more', 'said'),
    [
        (
            "train_pipeline.insert(2, dict(type='Rerange'))\n"
            "train_dataloader['dataset']['pipeline'] = train_pipeline",
            r'image0.jpg does not pass the pipeline of train_dataloader.dataset.unlabeled \(',
        ),
        (
            "model['data_preprocessor'].update(mean=[1.0] * 4, std=[1.0] * 4, bgr_to_rgb=False)",
            'has 3 channel.* data_preprocessor.mean and std have 4',
        ),
    ],
)
def test_samples_are_tried(make, my, more, said):
    """What would stop the first step is said now, though the files are sound."""
    with pytest.raises(SystemExit, match=said):
        make(my(more))


def test_the_commands_of_the_pages(make, my):
    """Those of README and of docs/your_own_data.md, as they stand, for a network with pretrained weights."""
    cfg = Config.fromfile(my("load_from = 'weights.pth'\n", name='my_config.py'))
    init_default_scope('mmseg')
    torch.save({'state_dict': MODELS.build(cfg.model).state_dict()}, 'weights.pth')
    for page, heading in (
        ('README.md', 'Your own data'),
        ('docs/your_own_data.md', 'From the config'),
    ):
        text = (ROOT / page).read_text()
        block = re.search(rf'## {heading}.*?```bash\n(.*?)```', text, re.DOTALL)[1]
        made, trained = (shlex.split(line, comments=True) for line in block.splitlines())
        write_images(Path(made[4]))
        for words in ([*made, '--overwrite'], trained):
            result = run_tool(ROOT / words[1], *words[2:], cwd=Path.cwd())
            assert result.code == 0, result.output[-3000:]
        assert re.search(r'teacher/mIoU: +\d', result.output)
    listed = re.search(r'\| `--method NAME` \| (.*?):', text)[1]
    assert re.findall(r'`(\w+)`', listed) == list(METHODS)


# ---------------------------------------------------------------- what cannot be made
def refused(make, capsys, *arguments, **options):
    before = sorted(Path().rglob('*.py'))
    with pytest.raises(SystemExit) as error:
        make(*arguments, **options)
    assert sorted(Path().rglob('*.py')) == before, 'something was left behind'
    assert '\n' not in str(error.value)
    return str(error.value)


#: Texts that are not a supervised training of MMSegmentation, and what is said of each.
NO_TRAINING = {
    "not a config of MMSegmentation (default_scope='mmdet')": (
        "default_scope = 'mmdet'\nmodel = dict(type='FasterRCNN')"
    ),
    'not a config of MMSegmentation (it has no model)': 'answer = 42',
    "model.type='UNet' has no decode_head": "model = dict(type='UNet')",
    'has no training. Set train_dataloader and train_cfg and optim_wrapper, or give': (
        MY + 'train_dataloader = None\ntrain_cfg = None\noptim_wrapper = None'
    ),
    'has no length. Set train_cfg.max_iters, or': MY
    + "train_cfg = dict(_delete_=True, type='IterBasedTrainLoop')",
    'has no train_dataloader.dataset. Set it.': MY + "train_dataloader.pop('dataset')",
    "already trains with unlabeled images (model.type='IMAS')": (
        "model = dict(type='IMAS', segmentor=dict(type='EncoderDecoder'))"
    ),
    'my.py is not a config: ': 'model = dict(',
    'my.py is written with read_base(), and': (
        'from mmengine.config import read_base\nwith read_base():\n    from .other import *'
    ),
    "model.data_preprocessor.type='ImgDataPreprocessor'. Set a SegDataPreProcessor": (
        MY + "model['data_preprocessor'] = dict(_delete_=True, type='ImgDataPreprocessor')"
    ),
    'have no common size. Set': (
        MY + "model['data_preprocessor'].update(size=None)\n"
        "train_dataloader['dataset']['pipeline'] = test_pipeline"
    ),
    'has no transform that loads an image': MY + "train_dataloader['dataset']['pipeline'] = []",
    'has a train_dataloader.batch_sampler': MY
    + "train_dataloader['batch_sampler'] = dict(type='X')",
}


@pytest.mark.parametrize(('said', 'text'), NO_TRAINING.items())
def test_configs_that_are_no_training(make, capsys, said, text):
    Path('my.py').write_text(text)
    Path('other.py').write_text('model = dict(decode_head=dict())')
    assert said in refused(make, capsys, 'my.py')


@pytest.mark.slow
def test_names_that_do_not_exist(make, my, capsys):
    name = my()
    said = refused(make, capsys, name, '--method', 'imsa')
    assert said.startswith(
        'error: --method imsa is unknown. Did you mean imas? Choose one of unimatch_v2,'
    )
    assert 'Did you mean my.py?' in refused(make, capsys, 'mi.py')
    said = refused(make, capsys, name, unlabeled='nowhere')
    assert said == (
        'error: --unlabeled nowhere is not a folder. Give the folder of the images without masks.'
    )
    Path('empty').mkdir()
    assert '--unlabeled empty is empty' in refused(make, capsys, name, unlabeled='empty')
    write_images(Path('odd'), suffix='.ppm')
    said = refused(make, capsys, name, unlabeled='odd')
    assert 'odd has no image that ends in .jpg, ' in said
    assert 'its files end in .ppm (3)' in said
    said = refused(make, capsys, name, '--img-suffix', '.tif')
    assert 'more has no image that ends in .tif; its files end in .jpg (3)' in said
    assert '3 images of odd' in make(name, '--img-suffix', '.ppm', unlabeled='odd')


@pytest.mark.slow
def test_files_are_not_overwritten(make, my, capsys):
    name = my()
    Path('imas_my.py').write_text('mine = 1')
    assert 'imas_my.py exists. Give --overwrite' in refused(make, capsys, name)
    assert Path('imas_my.py').read_text() == 'mine = 1'
    assert 'is the config that it would inherit' in refused(make, capsys, name, '--out', './my.py')
    assert 'x.txt is not a config' in refused(make, capsys, name, '--out', 'x.txt')
    make(name, '--overwrite')
    assert 'IMAS' in Path('imas_my.py').read_text()
    make(name, '--out', 'deep/er.py')
    assert "_base_ = '../my.py'" in Path('deep/er.py').read_text()


HEAD = 'in_channels=32, in_index=3, channels=8, num_classes=2, norm_cfg=norm_cfg'


@pytest.mark.parametrize(
    ('method', 'model', 'said'),
    [
        (
            'imas',
            f"decode_head=dict(_delete_=True, type='DAHead', pam_channels=4, {HEAD})",
            'IMAS cannot train this network: DAHead returns tuple in training',
        ),
        (
            'esl',
            "decode_head=dict(_delete_=True, type='SegmenterMaskTransformerHead', num_layers=1, num_heads=1, "
            'in_channels=32, embed_dims=8, channels=8, num_classes=2)',
            'ESL cannot train this network: ',
        ),
        (
            'des4',
            f"decode_head=dict(_delete_=True, type='DAHead', pam_channels=4, {HEAD})",
            'DeS4 cannot train this network: ',
        ),
        (
            'imas',
            "decode_head=dict(type='NoSuchHead')",
            'The model cannot be built here (KeyError: ',
        ),
    ],
)
def test_networks_that_a_method_refuses(make, my, capsys, method, model, said):
    """At once, and with the method's own sentence."""
    name = my(f'model.update({model})\n')
    assert said in refused(make, capsys, name, '--method', method)


def test_a_network_that_fails_without_values_is_told(make, my):
    """The supervised training of this one fails, too."""
    unet = "backbone=dict(_delete_=True, type='UNet', base_channels=4, num_stages=5)"
    printed = make(my(f'model.update({unet}, data_preprocessor=dict(size=(36, 40)))\n'))
    told = ' '.join(printed.split())
    assert 'not tried' in told
    assert 'AssertionError: The input image size (36, 40) should be divisible' in told


@pytest.mark.slow
def test_ocrnet(make, capsys):
    """Its cascade of heads is not a decode head that methods can read; ST and ST++ train it."""
    stock = 'ocrnet/ocrnet_hr18_4xb2-40k_cityscapes-512x1024.py'
    write_data(Config.fromfile(STOCK / stock))
    said = refused(make, capsys, f'mmseg::{stock}')
    assert (
        'UniMatchV2 cannot train this network: CascadeEncoderDecoder with ModuleList cannot be'
        in said
    )
    assert 'ST and ST++ take any network: --method stpp.' in said
    make(f'mmseg::{stock}', '--method', 'st', '--out', 'st.py')
    heads = [{'in_channels': [4, 8, 16, 32], 'channels': 8}] * 2
    cfg = Config.fromfile('st.py').to_dict()
    shrink(cfg)
    heads = [{**old, **new} for old, new in zip(cfg['model']['decode_head'], heads, strict=True)]
    heads[1].update(ocr_channels=4)
    network = {'backbone': {'extra': HRNET}, 'decode_head': heads}
    output = train('st.py', network)
    assert 'CascadeEncoderDecoder' in Path('st.py').read_text() or 'decode_0.loss_ce' in output


# ---------------------------------------------------------------- the text
@pytest.mark.parametrize(
    ('value', 'text'),
    [
        ({'type': 'A', 'n': (1,), 'm': (1, 2)}, "dict(type='A', n=(1,), m=(1, 2))"),
        ({'a.b': 1, 'c': None}, "{'a.b': 1, 'c': None}"),
        ({'lambda': 1}, "{'lambda': 1}"),
        ([Code('*shared'), 0.5], '[*shared, 0.5]'),
        (Extended('_base_.x', {'y': Extended('_base_.z', {'n': 0})}), 'dict(_base_.x, y=dict(_base_.z, n=0))'),
        ({}, 'dict()'),
        ([], '[]'),
    ],
)  # fmt: skip
def test_python_text(value, text):
    assert python(value) == text


def test_long_text_is_broken_into_lines():
    value = {
        'pipeline': [{'type': 'T' * 30, 'scale': (1, 2)} for _ in range(3)],
        'one': ('x' * 90,),
    }
    text = assignment('name', value)
    assert max(map(len, text.splitlines())) <= 110
    found = {}
    exec(text, found)
    assert found['name'] == value
