"""Every config says what its name says and builds, without any data and without a network connection."""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import functools
import gc
import inspect
import pickle
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from string import Template
from unittest import mock

import pytest
import torch
from mmcv.cnn import ConvModule
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.dataset import Compose
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import FUNCTIONS, init_default_scope
from mmengine.runner import Runner
from networks import needs_timm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import mmseg_semi

init_default_scope('mmseg')

from mmseg.registry import (  # noqa: E402
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    LOOPS,
    METRICS,
    MODEL_WRAPPERS,
    MODELS,
    PARAM_SCHEDULERS,
)

from mmseg_semi.comparison.fairness import dropout_of  # noqa: E402
from mmseg_semi.datasets.partition import fill_partition, numbered  # noqa: E402
from mmseg_semi.datasets.walk import leaf_configs  # noqa: E402
from mmseg_semi.engine.runner.stages import TrainStage, build_stages, stage_seed  # noqa: E402
from mmseg_semi.engine.train_loops import epoch_lengths, epochs_of  # noqa: E402
from mmseg_semi.models.patches import patch_size, whole_patches  # noqa: E402

ROOT = Path(mmseg_semi.__file__).resolve().parent.parent / 'configs'
FILES = sorted(f for f in ROOT.rglob('*.py') if '_base_' not in f.relative_to(ROOT).parts)
BASES = sorted((ROOT / '_base_').rglob('*.py'))
#: {method}_{model}_{schedule}_{dataset}-{crop}.py.
NAME = re.compile(
    r'(?P<method>mean-teacher|cutmix-seg|unimatch-v2|u2pl|[a-z]+4?)'
    r'(-(?P<variant>official|st|des4|all|both|retrain3|dinov2|centercrop|dagger))?_'
    r'(?P<head>deeplabv3plus|pspnet|segformer|upernet|dpt|linear)_(?P<net>[a-z0-9-]+)_'
    r'((?P<gpus>\d+)xb(?P<batch>\d+)-)?(?P<length>\d+)(?P<unit>e|k|iter)_'
    r'(?P<dataset>[a-z0-9]+)-(?P<crop>\d+x\d+)\.py'
)
#: Data sets whose lists tools/evidence_lists.py makes.
EVIDENCE = ('vocanimals', 'nuclei')
#: Images of each kind in a step over all GPUs; in self-training, where a step mixes both kinds, images in all.
STEP = {
    'voc12': 16,
    'cityscapes': 16,
    'camvid': 8,
    'shapes': 8,
    'own': 4,
    **dict.fromkeys(EVIDENCE, 8),
}
#: Methods whose windows on Cityscapes are MMSegmentation's.
WHOLE = ('cps', 'des4', 'esl', 'gps', 'u2pl', 'unimatch-v2')
METHODS = {
    'imas': 'IMAS',
    'esl': 'ESL',
    'des4': 'DeS4',
    'mean-teacher': 'MeanTeacher',
    'cutmix-seg': 'CutMixSeg',
    'fixmatch': 'FixMatch',
    'gps': 'GPS',
    'cps': 'CPS',
    'u2pl': 'U2PL',
    'corrmatch': 'CorrMatch',
    'unimatch': 'UniMatch',
    'prevmatch': 'PrevMatch',
    'unimatch-v2': 'UniMatchV2',
}
#: Share of pixels that a method learns from, which PseudoLabelMonitorHook watches.
WATCHED = {
    **dict.fromkeys(
        ('CorrMatch', 'CutMixSeg', 'FixMatch', 'IMAS', 'PrevMatch', 'UniMatch', 'UniMatchV2'),
        'confident_ratio',
    ),
    'U2PL': 'reliable_ratio',
}
#: Methods that learn from two strong views.
TWO_VIEWS = ('PrevMatch', 'UniMatch', 'UniMatchV2')
#: Training images of each benchmark.
TOTAL = {'voc12': 10582, 'cityscapes': 2975}
#: Networks beside ResNets: decode head, encoder, and sides of its last map and of the logits in their pixels.
NETWORKS = {
    'deeplabv3plus_efficientnet-lite0': (
        'DepthwiseSeparableASPPHead',
        'TIMMBackbone',
        lambda side: (-(-side // 16), -(-side // 4)),
    ),
    'segformer_mit-b0': (
        'SegformerHead',
        'MixVisionTransformer',
        lambda side: (side // 32, side // 4),
    ),
    'segformer_mit-b1': (
        'SegformerHead',
        'MixVisionTransformer',
        lambda side: (side // 32, side // 4),
    ),
    'upernet_convnext-t': ('UPerHead', 'mmpretrain.ConvNeXt', lambda side: (side // 32, side // 4)),
    'dpt_dinov2-s14': (
        'FeatureMapDPTHead',
        'mmpretrain.VisionTransformer',
        lambda side: (side // 14, side // 14 * 8),
    ),
    'dpt_dinov2-b14': (
        'FeatureMapDPTHead',
        'mmpretrain.VisionTransformer',
        lambda side: (side // 14, side // 14 * 8),
    ),
    **dict.fromkeys(
        ('dpt_dinov3-s16', 'dpt_dinov3-b16'),
        ('FeatureMapDPTHead', 'TIMMBackbone', lambda side: (side // 16, side // 16 * 8)),
    ),
    'linear_dinov2-s14': (
        'FCNHead',
        'mmpretrain.VisionTransformer',
        lambda side: (side // 14, side // 14),
    ),
}
HALF_STEP = {**STEP, 'voc12': 8, 'cityscapes': 8}
#: The settings of each method that its configs share, as its paper (or, where a comment says so, its code) has
#: them. Written out, since the classes' defaults are what is tested.
TWO_VIEW_SETTINGS = {
    'tau': 0.95,
    'labeled_weight': 0.5,
    'unlabeled_weight': 0.5,
    'unlabeled_start': 0,
    'unlabeled_start_epochs': 0,
    'unlabeled_start_fraction': 0,
    'unlabeled_end_fraction': 1,
    'ignore_padding': True,
    'joint_forward': False,  # code
    'cutmix': {'adaptive': False, 'per_image': True, 'prob': 0.5, 'style': 'unimatch'},
}
UNIMATCH_SETTINGS = {
    **TWO_VIEW_SETTINGS,
    'feature_weight': 0.5,
    'strong_weight': 0.5,
    'dropout_ratio': 0.5,
    'label_mode': 'train',  # code
}
CONSISTENCY_SETTINGS = {
    'labeled_weight': 1.0,
    'consistency_weight': 1.0,
    'rampup_steps': 0,
    'rampup_epochs': 0,
    'unlabeled_start': 0,
    'unlabeled_start_epochs': 0,
    'unlabeled_start_fraction': 0,
    'unlabeled_end_fraction': 1,
    'class_mean': False,
    'student_view': 'strong',
    'ignore_padding': True,
    'joint_forward': True,
}
PUBLISHED = {
    'MeanTeacher': CONSISTENCY_SETTINGS,
    'CutMixSeg': {
        **CONSISTENCY_SETTINGS,
        'student_view': 'weak',
        'tau': 0.97,
        'confidence_weighting': 'batch',
        'cutmix': {'adaptive': False, 'prob': 1.0, 'style': 'cutmix_seg'},
    },
    'FixMatch': {
        'tau': 0.95,
        'labeled_weight': 1.0,
        'unlabeled_weight': 1.0,
        'unlabeled_start': 0,
        'unlabeled_start_epochs': 0,
        'unlabeled_start_fraction': 0,
        'unlabeled_end_fraction': 1,
        'divisor': 'valid',
        'label_mode': 'train',  # code
        'joint_forward': False,  # code
        'ignore_padding': True,
        'cutmix': {'adaptive': False, 'prob': 0.5, 'style': 'unimatch', 'per_image': True},
    },
    'UniMatch': UNIMATCH_SETTINGS,
    'PrevMatch': {
        **UNIMATCH_SETTINGS,  # all of what follows: code
        'num_models': 8,
        'max_drawn': 3,
        'random_number': True,
        'guidance_tau': 0.9,
        'guidance_weight': 1.0,
        'place': 'host',  # ours
    },
    'UniMatchV2': {
        **TWO_VIEW_SETTINGS,
        'dropout_prob': 0.5,
        'align_distribution': False,
        'adjust_logits': False,
    },
    'CorrMatch': {  # code
        'labeled_weight': 0.25,
        'labeled_correlation_weight': 0.25,
        'unlabeled_weight': 0.5,
        'hard_weight': 0.25,
        'soft_weight': 0.25,
        'feature_weight': 0.25,
        'correlation_weight': 0.25,
        'unlabeled_start': 0,
        'unlabeled_start_epochs': 0,
        'unlabeled_start_fraction': 0,
        'unlabeled_end_fraction': 1,
        'ignore_padding': True,
        'dropout_ratio': 0.5,
        'channels': 256,
        'projector_dropout': 0.1,
        'num_regions': 128,
        'region_threshold': 0.5,
        'tau_start': 0.85,
        'tau_decay': 0.999,
        'cutmix': TWO_VIEW_SETTINGS['cutmix'],
    },
    'U2PL': {
        'labeled_weight': 1.0,
        'unlabeled_weight': 1.0,
        'contrast_weight': 0.1,
        'unlabeled_start': 0,
        'unlabeled_start_epochs': 0,
        'unlabeled_start_fraction': 0,
        'unlabeled_end_fraction': 1,
        'unreliable_share': 0.2,
        'ignore_padding': False,
        'cutmix': {'adaptive': False, 'prob': 0.5, 'style': 'u2pl'},  # code
        'representation': {
            'num_convs': 2,
            'channels': 256,
            'out_channels': 256,
            'dropout_ratio': 0.1,
        },
        'anchor_pixels': 'reliable',
        'negatives': 'paper',
        'anchor_threshold': 0.3,
        'center_pixels': 'anchors',
        'num_anchors': 50,
        'num_negatives': 256,
        'temperature': 0.5,
        'class_average': 'all',
        'low_rank': 3,
        'high_rank': 20,
        'queue_size': 30000,  # code
        'background_queue_size': 50000,  # code
        'keys_per_step': 1024,  # ours
    },
    # The readings of docs/esl.md and docs/des4.md, recommended by the paper or, where it is silent, by us.
    'ESL': {
        'soft_weight': 0.2,
        'contrast_weight': 0.1,
        'unlabeled_start': 0,
        'unlabeled_start_epochs': 0,
        'unlabeled_start_fraction': 0,
        'unlabeled_end_fraction': 1,
        'eta': 0.95,
        'top_classes': None,
        'ignore_padding': True,
        'cutmix': {'adaptive': False, 'prob': 0.5, 'style': 'u2pl'},
        'segmentation_head': {'num_convs': 3, 'channels': 256, 'dropout_ratio': 0.1},
        'tap_after_dropout': False,
        'projector': {'num_convs': 3, 'channels': 512, 'out_channels': 512},
        'projector_last_act': True,
        'num_parts': 5,
        'encoder_index': None,
        'encoder_channels': None,
        'normalize_encoder': True,
        'prototype_decay': 0.99,
        'min_conf_for_parts': 0.0,
        'queue_size': 200,
        'num_negatives': 255,
        'exclude_same_class': False,
        'temperature': 0.5,
        'anchor_threshold': 0.95,
        'anchor_ratio': 0.1,
        'max_anchors': 1000,
    },
    'DeS4': {
        'temperature': 0.1,
        'weight_temperature': None,
        'normalize': True,
        'prototype_init': 'first_batch',
        'prototype_decay': 0.99,
        'sampling': 'multi_entropy',
        'class_ratio': 'inverse',
        'num_zones': 5,
        'alpha': 0.1,
        'labeled_weight': 1.0,
        'unlabeled_weight': 1.5,
        'unlabeled_start': 0,
        'unlabeled_start_epochs': 0,
        'unlabeled_start_fraction': 0,
        'unlabeled_end_fraction': 1,
        'decoupled_training': True,
        'shared_head': True,
        'pixel_reweighting': True,
        'ignore_padding': True,
        'cutmix': {'adaptive': False, 'prob': 1.0, 'style': 'u2pl'},
    },
}


MIXED = {**STEP, 'own': 8}
#: ST++'s strong augmentation with the values of its code, which are the transforms' defaults.
STRONG = ['RandomColorJitter', 'RandomGray', 'RandomGaussianBlur', 'RandomNoiseCutout']
#: Pseudo-labels that each training of a method sees.
LABELS = {
    'st': {'teacher': None, 'student': ['stage://label']},
    'stpp': {
        'teacher': None,
        'student': ['stage://label_reliable'],
        'final': ['stage://label_reliable', 'stage://label_unreliable'],
    },
}
LABELS['st-both'] = LABELS['st-dinov2'] = LABELS['st']
LABELS['stpp-retrain3'] = {**LABELS['stpp'], 'retrain3': ['stage://label_all']}


def settings_of(model) -> dict:
    """All settings of a method but its switches of speed and the class of its CutMix, which no config names."""
    settings = model.cfg.as_dict()
    assert not settings.pop('channels_last')
    assert not settings.pop('compile')
    if isinstance(settings.get('cutmix'), dict):
        assert settings['cutmix'].pop('type') == 'AdaptiveCutMix'
    return settings


def step_of(said: re.Match) -> int:
    if said['method'] == 'unimatch-v2':
        return {**STEP, 'cityscapes': 8}[said['dataset']]
    half = said['method'] in ('corrmatch', 'cps', 'esl', 'fixmatch', 'gps', 'prevmatch', 'unimatch')
    return (HALF_STEP if half else STEP)[said['dataset']]


def ids(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.fixture(scope='module', autouse=True)
def parse_each_file_once():
    """Configs share their bases: mmengine would read them again for each config that names them.

    For this module alone: tests of others change files between two readings.
    """
    parse, parsed = Config.__dict__['_file2dict'].__func__, {}

    def once(filename, *args, **kwargs):
        key = str(Path(filename).resolve())
        if key not in parsed:
            parsed[key] = pickle.dumps(parse(filename, *args, **kwargs))
        return pickle.loads(parsed[key])

    Config._file2dict = staticmethod(once)
    # All models stay, so that a collection would look at millions of objects and free none.
    gc.disable()
    yield parsed
    gc.enable()
    Config._file2dict = staticmethod(parse)


@functools.cache
def load(file: Path) -> Config:
    """The config of a file; tests do not change it."""
    return Config.fromfile(file)


@contextlib.contextmanager
def without_numbers():
    """Build on the meta device: shapes without numbers, so nothing is allocated, drawn or downloaded."""
    # Some encoders read their rates of stochastic depth from a tensor, which so must have numbers.
    linspace = functools.partial(torch.linspace, device='cpu')
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.device('meta'))
        stack.enter_context(mock.patch('torch.linspace', linspace))
        for module in (nn.Conv2d, nn.Linear, _BatchNorm):
            # There are no numbers to draw.
            stack.enter_context(mock.patch.object(module, 'reset_parameters'))
        stack.enter_context(mock.patch.object(ConvModule, 'init_weights'))
        yield


@functools.cache
def build_model(text: str):
    with without_numbers():
        return MODELS.build(ConfigDict(ast.literal_eval(text)))


def model_of(cfg: Config):
    """The config's model, built once for all configs that have the same."""
    backbone = network_config(cfg).backbone
    if backbone.type == 'TIMMBackbone':
        needs_timm(backbone.model_name)
    return build_model(repr(cfg.model.to_dict()))


SIZES: dict[str, tuple] = {}


def _shape_of(config):
    """A part of a network without what changes no shape but that of the last channels."""
    if not isinstance(config, dict):
        return config
    others = (
        'loss_decode',
        'num_classes',
        'dropout_ratio',
        'init_cfg',
        'align_corners',
        'norm_cfg',
    )
    return {key: _shape_of(value) for key, value in config.items() if key not in others}


def map_sizes(cfg: Config):
    """Height and width of the last feature and of the logits for a crop, once for each network."""
    network = network_config(cfg)
    parts = [network.backbone, network.get('neck'), network.decode_head]
    tapped = cfg.model.type if cfg.model.type in ('ESL', 'DeS4', 'U2PL') else None
    key = repr((cfg.crop_size, tapped, *map(_shape_of, parts)))
    if key not in SIZES:
        model = model_of(cfg)
        network = getattr(model, getattr(model, 'networks', ('',))[0], model).eval()
        # Normalization changes no shape, and takes long where there are no numbers.
        kinds = (_BatchNorm, nn.SyncBatchNorm)
        same = [mock.patch.object(kind, 'forward', lambda module, input: input) for kind in kinds]
        with torch.no_grad(), same[0], same[1]:
            features = network.extract_feat(torch.zeros(1, 3, *cfg.crop_size, device='meta'))
            logits = network.decode_head(features)
        SIZES[key] = tuple(features[-1].shape[2:]), tuple(logits.shape[2:])
    return SIZES[key]


def schedules(cfg: Config) -> dict:
    """The lists of schedulers by the optimizer that they are for; one of all optimizers has no name."""
    found = cfg.param_scheduler
    return found if isinstance(found, dict) else {'': found}


def network_config(cfg: Config):
    return cfg.model.get('segmentor', cfg.model)


def labeled_config(cfg: Config):
    dataset = cfg.train_dataloader.dataset
    child = dataset.get('labeled')  # a switch of synthetic shapes, which are not a child
    return child if isinstance(child, dict) else dataset


def unlabeled_config(cfg: Config):
    """The images without labels, which self-training labels by a network; None without any."""
    dataset = cfg.train_dataloader.dataset
    if dataset.type == 'LabeledUnlabeledDataset':
        return dataset.unlabeled
    return (dataset.get('pseudo_labeled') or {}).get('images')


def self_trains(cfg: Config) -> bool:
    """Whether it is a training, or several, of ST or ST++."""
    return cfg.train_dataloader.dataset.type == 'SelfTrainingDataset'


@functools.cache
def stages_of(file: Path):
    """The stages of a config by name."""
    top = copy.deepcopy(load(file))
    top.work_dir = 'work'
    return build_stages(top)


@functools.cache
def training(file: Path, stage: str) -> dict:
    """The config of one training of a staged config, without what every stage has of its own."""
    cfg = stages_of(file)[stage].config().to_dict()
    del cfg['work_dir']
    return cfg


def dataset_class(config):
    return DATASETS.get(config.get('of', config.type))


def pipelines(cfg: Config) -> dict[str, list]:
    """All pipelines of a config by name."""
    found = {
        'labeled': labeled_config(cfg).pipeline,
        'val': cfg.val_dataloader.dataset.pipeline,
        'test': cfg.test_dataloader.dataset.pipeline,
    }
    dataset = cfg.train_dataloader.dataset
    for kind in ('unlabeled', 'pseudo_labeled'):
        if dataset.get(kind):
            found[kind] = dataset[kind].pipeline
    if 'tta_pipeline' in cfg:
        found['tta'] = cfg.tta_pipeline
    return found


def steps(pipeline, *types: str) -> list:
    return [step for step in pipeline if step.type in types]


def _named(pattern: str) -> list[Path]:
    return [file for file in FILES if re.search(pattern, file.name)]


#: What configs must be, by the pattern of their names; of every config where it is empty.
RULES: list[tuple[str, Callable[[Path], None]]] = []


def rule(pattern: str) -> Callable:
    """Hold every config whose name has the pattern to a function."""

    def register(check: Callable[[Path], None]) -> Callable[[Path], None]:
        RULES.append((pattern, check))
        return check

    return register


@pytest.mark.parametrize('file', FILES, ids=ids)
def test_config(file):
    """What its name says, what every config must be and what its paper says: all rules for its name."""
    missing = None
    for pattern, check in RULES:
        if re.search(pattern, file.name):
            try:
                check(file)
            except (
                pytest.skip.Exception
            ) as error:  # a package of its network; others need no network
                missing = error
    if missing is not None:
        raise missing


GEOMETRY = (
    'RandomResize',
    'RandomShrinkOrEnlarge',
    'RandomChoice',
    'Pad',
    'RandomFlip',
    'RandomCrop',
)


def test_there_are_configs():
    methods = {file.parent.name for file in FILES}
    assert {'cps', 'des4', 'esl', 'gps', 'imas', 'suponly', 'st', 'stpp'} <= methods
    assert {'mean_teacher', 'cutmix_seg', 'fixmatch'} <= methods
    assert {'prevmatch', 'u2pl', 'unimatch', 'unimatch_v2'} <= methods
    assert all(NAME.fullmatch(file.name) for file in FILES), (
        'a file name does not follow the pattern'
    )


# ------------------------------------------------------------------------------------ what the name says


@rule('')
def name_tells_method_and_network(file):
    cfg, said = load(file), NAME.fullmatch(file.name)
    assert file.parent.name == said['method'].replace('-', '_')
    windows = 'cityscapes' in file.name and not self_trains(cfg) and said['method'] not in WHOLE
    # Only its windows differ from EncoderDecoder's; ST++ evaluates whole images, those of WHOLE whole windows.
    plain = 'SlideScoreEncoderDecoder' if windows else 'EncoderDecoder'
    assert network_config(cfg).type == plain
    assert cfg.model.type == METHODS.get(said['method'], plain)
    if said['method'] == 'imas':
        official = said['variant'] == 'official'
        assert cfg.model.semi_train_cfg.get('ignore_background', False) == official
    staged = said['method'] in ('st', 'stpp')
    runner = 'StagedRunner' if staged or said['method'] == 'gps' else None
    assert cfg.get('runner_type') == runner
    assert self_trains(cfg) == (staged or said['variant'] == 'st')
    backbone = network_config(cfg).backbone
    model_of(cfg)  # skips where its encoder's package is missing
    features, logits = map_sizes(cfg)
    other = NETWORKS.get(f'{said["head"]}_{said["net"]}')
    if other:
        assert (network_config(cfg).decode_head.type, backbone.type) == other[:2]
        assert (features, logits) == tuple(zip(*map(other[2], cfg.crop_size), strict=True))
        return
    head = {'deeplabv3plus': ('DepthwiseSeparableASPPHead', 'PlainDeepLabV3PlusHead')}
    assert network_config(cfg).decode_head.type in head.get(said['head'], ('PSPHead',))
    depth = re.match(r'r(\d+)', said['net'])
    assert backbone.depth == (int(depth[1]) if depth else 18)
    stem = re.match(r'r\d+([sb]?)-', said['net'])
    stems = {'s': 'CeilPoolResNetV1c', 'b': 'ResNet', '': 'ResNetV1c'}
    assert backbone.type == stems[stem[1] if stem else '']
    stride = re.search(r'-d(\d+)$', said['net'])
    # Synthetic shapes and the small CamVid check name no stride: it is 8.
    expected = int(stride[1]) if stride else 8
    assert features == tuple(-(-side // expected) for side in cfg.crop_size)
    size = 4 if said['head'] == 'deeplabv3plus' else expected
    assert logits == tuple(-(-side // size) for side in cfg.crop_size)


@rule('')
def name_tells_length_and_a_partition_fills_the_lists(file):
    cfg, said = load(file), NAME.fullmatch(file.name)
    dataset = cfg.train_dataloader.dataset
    lists = [leaf.dataset.get('ann_file') for leaf in leaf_configs(dataset)]
    partition = dataset.get('partition')
    if said['dataset'] in ('shapes', 'own') or said['variant'] == 'all':
        assert partition is None
    else:
        root = 'lists' if said['dataset'] in EVIDENCE else 'splits'
        expected = [f'{root}/{partition}/{name}.txt' for name in ('labeled', 'unlabeled')]
        if said['variant'] == 'dagger':
            expected[1] = 'ImageSets/Segmentation/trainaug.txt'
        assert lists == expected[: 1 if said['method'] == 'suponly' else 2]
    for schedulers in schedules(cfg).values():
        assert 'end' not in schedulers[-1], 'the schedule would not follow the length'
    length, unit = int(said['length']), said['unit']
    train_cfg, checkpoint = cfg.train_cfg, cfg.default_hooks.checkpoint
    if unit != 'e':
        assert train_cfg.max_iters == length * (1000 if unit == 'k' else 1)
        assert train_cfg.max_iters >= train_cfg.val_interval
    elif self_trains(cfg):
        # Passes over each training's own list.
        assert (train_cfg.type, train_cfg.max_epochs) == ('WholeStepEpochTrainLoop', length)
        assert 'max_iters' not in train_cfg
        assert length % train_cfg.val_interval == 0
        assert (checkpoint.by_epoch, length % checkpoint.interval) == (True, 0)
    else:
        # Passes over the unlabeled images, which labeled ones alone are counted against.
        assert train_cfg.type == 'UnlabeledEpochTrainLoop'
        assert not {'max_iters', 'val_interval'} & train_cfg.keys()
        assert epochs_of(train_cfg.epochs, partition) == length
        assert length % train_cfg.val_every in (0, 1)  # GPS has 137 on Cityscapes
        assert checkpoint.interval == 'val'
        counted = fill_partition(dataset).get('counted')
        assert (counted is not None) == (said['method'] == 'suponly')
        if counted:
            assert counted.ann_file == f'splits/{partition}/unlabeled.txt'


def test_no_two_configs_differ_by_the_partition_alone():
    found = {}
    for file in FILES:
        cfg = load(file).to_dict()
        cfg['train_dataloader']['dataset'].pop('partition', None)
        found.setdefault(repr(cfg), []).append(ids(file))
    assert [files for files in found.values() if len(files) > 1] == []


@rule('')
def name_tells_crop_and_batch(file):
    cfg, said = load(file), NAME.fullmatch(file.name)
    # Names say width x height, like a dataset's images.
    width, height = map(int, said['crop'].split('x'))
    assert cfg.crop_size == (height, width)
    preprocessor = cfg.model.data_preprocessor
    assert preprocessor.size == cfg.crop_size
    patch = patch_size(model_of(cfg))
    assert preprocessor.get('test_cfg', {}).get('size_divisor') == patch
    assert patch is None or whole_patches(cfg.crop_size, patch)
    found = pipelines(cfg)
    for name in ('labeled', 'unlabeled', 'pseudo_labeled'):
        if name in found:
            (crop,) = steps(found[name], 'RandomCrop')
            assert crop.crop_size == cfg.crop_size
            for pad in steps(found[name], 'Pad'):
                assert pad.size == (width, height)
    loader, sampler = cfg.train_dataloader, cfg.train_dataloader.sampler
    gpus = int(said['gpus'] or 1)
    assert said['batch'] is None or int(said['batch']) == loader.batch_size
    if self_trains(cfg):
        assert gpus * loader.batch_size == MIXED[said['dataset']]
        assert cfg.auto_scale_lr.base_batch_size == gpus * loader.batch_size
    elif said['method'] == 'suponly':
        assert gpus * loader.batch_size == step_of(said)
        assert cfg.auto_scale_lr.base_batch_size == gpus * loader.batch_size
    else:
        assert sampler.labeled + sampler.unlabeled == loader.batch_size
        # Pairs of unlabeled images become one that is learned.
        learned = sampler.unlabeled // getattr(model_of(cfg), 'unlabeled_batches', 1)
        assert gpus * sampler.labeled == gpus * learned == step_of(said)
        streams = sampler.get('unlabeled_streams', 1)
        assert streams == getattr(model_of(cfg), 'unlabeled_batches', 1)
        assert cfg.auto_scale_lr.base_batch_size == gpus * loader.batch_size
    assert cfg.auto_scale_lr.enable is False


# ------------------------------------------------------------------------------------ what every config must be


@rule('')
def model_fits_data(file):
    cfg = load(file)
    model, network = model_of(cfg), network_config(cfg)
    heads = [network.decode_head, network.get('auxiliary_head')]
    assert {head.num_classes for head in heads if head} == {model.num_classes}
    for config in (labeled_config(cfg), cfg.val_dataloader.dataset, cfg.test_dataloader.dataset):
        classes = dataset_class(config).METAINFO.get('classes')
        # Images of one's own: a config on top says the classes, of heads and datasets.
        assert classes is None or len(classes) == model.num_classes
    if 'class_weight' in network.decode_head.loss_decode:
        assert len(network.decode_head.loss_decode.class_weight) == model.num_classes
    outside = 'mmpretrain.' in network.backbone.type
    assert cfg.custom_imports['imports'] == ['mmseg_semi', *['mmpretrain.models'] * outside]
    assert cfg.default_scope == 'mmseg'


@rule('')
def pipelines_build(file):
    cfg = load(file)
    found = pipelines(cfg)
    for pipeline in found.values():
        Compose(copy.deepcopy(pipeline))
    drawn = labeled_config(cfg).type == 'ShapesDataset'
    load_labels = 'LoadShapes' if drawn else 'LoadAnnotations'
    for name in ('labeled', 'val', 'test'):
        assert len(steps(found[name], load_labels)) == 1
        assert found[name][-1].type == 'PackSegInputs'
    assert not steps(found['test'], *GEOMETRY)
    if 'unlabeled' in found:
        unlabeled = found['unlabeled']
        assert not steps(unlabeled, 'LoadAnnotations', 'PackSegInputs')
        assert unlabeled[1].type == 'AddValidMask'
        if cfg.model.type in (
            'ESL',
            'DeS4',
            'CutMixSeg',
            'U2PL',
            'GPS',
            'CPS',
        ):  # CutMix is its only strong augmentation
            assert unlabeled[-1].type == 'PackUnlabeledInputs'
            assert not steps(unlabeled, 'RandomIntensity')
        else:
            assert unlabeled[-1].type == 'MultiBranch'
            views = {'weak', 'strong', *['strong2'] * (cfg.model.type in TWO_VIEWS)}
            assert views == unlabeled[-1].keys() - {'type'}
        # One geometry for all branches, and the same as of labeled images.
        assert steps(unlabeled, *GEOMETRY) == steps(found['labeled'], *GEOMETRY)
    if 'pseudo_labeled' in found:
        first = [dict(type='LoadShapes' if drawn else 'LoadImageFromFile')]
        # Masks are files, also of synthetic images, and the geometry is that of labeled images.
        assert found['pseudo_labeled'] == [
            *first,
            dict(type='LoadAnnotations'),
            *steps(found['labeled'], *GEOMETRY),
            *(dict(type=name) for name in STRONG),
            dict(type='PackSegInputs'),
        ]
    for name in found.keys() - {'pseudo_labeled'}:
        assert not steps(found[name], *STRONG)
    _pads_crops_before_their_colors_change(file)


def _may_exceed(geometry, crop: tuple[int, int]) -> bool:
    """Whether the crop can be larger than an image behind its resize."""
    height, width = crop
    for step in geometry:
        if step.type == 'RandomResize':
            if step.scale[0] == step.scale[1] and step.keep_ratio:
                return True  # the shorter side is the image's own matter
            smallest = [int(side * step.ratio_range[0]) for side in step.scale]
            return smallest[0] < width or smallest[1] < height
        if step.type == 'RandomChoice':
            return True
    return False  # synthetic shapes, as large as the crop


def _pads_crops_before_their_colors_change(file):
    """Autocontrast and equalize see the padding, as in the codes of iMAS, ST++ and UniMatch."""
    cfg = load(file)
    found = pipelines(cfg)
    pipeline = found.get('unlabeled') or found.get('pseudo_labeled') or []
    names = [step.type for step in pipeline]
    views = [step for step in pipeline if step.type == 'MultiBranch']
    changes = [step.type for view in views for step in view.get('strong', ())][:-1]
    changes += [name for name in names if name in STRONG]
    if not changes or not _may_exceed(steps(pipeline, *GEOMETRY), cfg.crop_size):
        return
    (pad,) = steps(pipeline, 'Pad')
    assert pad.size == tuple(cfg.crop_size)[::-1]
    # UniMatch's and ST++'s codes fill with black, iMAS's with the mean color.
    black = re.search(
        r'^(corrmatch|fixmatch|prevmatch|unimatch|st|stpp)[_-].*(_voc12|_cityscapes)', file.name
    )
    assert pad.pad_val == dict(img=0 if black else (104, 116, 124), seg=255)
    behind = min(names.index(name) for name in names if name in (*STRONG, 'MultiBranch'))
    assert names.index('Pad') < behind


@rule('')
def loaders_resolve(file):
    cfg = load(file)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        _binds(DATA_SAMPLERS, loader.sampler, dataset=[])
        if 'collate_fn' in loader:
            assert FUNCTIONS.get(loader.collate_fn.type) is not None
        dataset = loader.dataset
        children = [dataset]
        if dataset.type == 'LabeledUnlabeledDataset':
            children += [dataset.labeled, dataset.unlabeled]
            assert loader.sampler.type == 'LabeledUnlabeledSampler'
        elif dataset.type == 'SelfTrainingDataset':
            children.append(dataset.labeled)
            assert loader.sampler.type == 'ShuffledSampler'
            by_epoch = LOOPS.get(cfg.train_cfg.type).__name__ == 'WholeStepEpochTrainLoop'
            assert loader.sampler.get('endless', False) != by_epoch
            assert loader.get('drop_last', False) == by_epoch
            if dataset.pseudo_labeled:
                children.append(dataset.pseudo_labeled.images)
                assert 'pipeline' not in dataset.pseudo_labeled.images
                # Folders are the stages' to say.
                _binds(DATASETS, ConfigDict(dataset.pseudo_labeled, labels=[]))
        for child in children:
            _binds(DATASETS, child)
            assert dataset_class(child) is not None
        if loader.get('persistent_workers'):
            assert loader.num_workers > 0, 'torch refuses persistent workers without workers'
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        METRICS.build(copy.deepcopy(evaluator))


@rule('')
def engine_resolves(file):
    cfg = load(file)
    semi = 'segmentor' in cfg.model
    hooks = {hook.type: HOOKS.build(copy.deepcopy(hook)) for hook in cfg.custom_hooks}
    assert len(hooks) == len(cfg.custom_hooks)
    assert {
        'ResumableRandomnessHook',
        'StartupCheckHook',
        'ResumeCheckHook',
        'FiniteLossHook',
    } <= hooks.keys()
    # Mean Teacher has no threshold that could choose no pixel.
    watched = semi and cfg.model.type != 'MeanTeacher'
    assert watched == ('PseudoLabelMonitorHook' in hooks)
    if cfg.model.type in WATCHED:
        assert hooks['PseudoLabelMonitorHook'].key == WATCHED[cfg.model.type]
    if semi:
        assert set(model_of(cfg).required_hooks) <= hooks.keys()
    for name, hook in cfg.default_hooks.items():
        if name == 'visualization':  # asks for the runner's visualizer
            assert HOOKS.get(hook.type) is not None
        else:
            HOOKS.build(copy.deepcopy(hook))
    assert cfg.default_hooks.checkpoint.type == 'AtomicCheckpointHook'
    # The last checkpoint is the result; iMAS's official reading keeps the best as its figures were chosen.
    best = 'teacher/mIoU' if file.name.startswith('imas-official') else None
    assert cfg.default_hooks.checkpoint.get('save_best') == best
    assert MODEL_WRAPPERS.get(cfg.model_wrapper_cfg.type) is not None
    by_epoch = '_voc12-' in file.name or '_cityscapes-' in file.name
    by_epoch = by_epoch and self_trains(cfg)
    counts = 'UnlabeledEpochTrainLoop' if 'epochs' in cfg.train_cfg else 'WholeStepIterTrainLoop'
    loop = 'WholeStepEpochTrainLoop' if by_epoch else counts
    assert LOOPS.get(cfg.train_cfg.type).__name__ == loop
    # Checkpoints, the log and the learning rate count what the loop counts.
    assert cfg.default_hooks.checkpoint.by_epoch == by_epoch
    assert cfg.default_hooks.logger.log_metric_by_epoch == by_epoch
    assert cfg.log_processor.by_epoch == by_epoch
    found = [one for schedulers in schedules(cfg).values() for one in schedulers]
    assert {scheduler.by_epoch for scheduler in found} == {by_epoch}
    for stage in ('Val', 'Test'):
        loop = LOOPS.get(cfg[f'{stage.lower()}_cfg'].type)
        assert loop.__name__ == f'TeacherStudent{stage}Loop'
    assert all(PARAM_SCHEDULERS.get(scheduler.type) is not None for scheduler in found)
    assert cfg.randomness.seed == 0


def _kind(file: Path) -> tuple[str, ...]:
    said = NAME.fullmatch(file.name)
    return tuple(str(said[key]) for key in ('method', 'variant', 'head', 'dataset'))


#: One config of each method, head and data set, of which others differ in numbers.
KINDS = list({_kind(file): file for file in FILES}.values())


@pytest.mark.parametrize('file', KINDS, ids=ids)
def test_dumped_config_is_the_config(file):
    """Resuming reads the dump."""
    cfg = load(file)
    again = Config.fromstring(cfg.pretty_text, '.py')
    assert again.to_dict() == cfg.to_dict()


@pytest.mark.parametrize('method', ['gps', 'stpp'])
def test_laid_out_dump_is_the_config(method, laid_out_configs):
    cfg = load(next(file for file in FILES if file.parent.name == method))
    assert Config.fromstring(cfg.pretty_text, '.py').to_dict() == cfg.to_dict()


def _binds(registry, config, **given):
    """The config's keys are arguments of its class."""
    kind = registry.get(config.type)
    assert kind is not None, f'{config.type} is not registered'
    arguments = {key: value for key, value in config.items() if key != 'type'}
    inspect.signature(kind).bind(**arguments, **given)


# ------------------------------------------------------------------------------------ what the papers say


@rule('^(imas|suponly_).*(_voc12-|_cityscapes-)')
def imas_benchmarks_follow_the_paper(file):
    """The published hyper-parameters of iMAS."""
    cfg, voc = load(file), '_voc12-' in file.name
    network = network_config(cfg)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.momentum) == ('SGD', 0.9)
    assert (optimizer.lr, optimizer.weight_decay) == ((0.001, 1e-4) if voc else (0.01, 5e-4))
    assert cfg.param_scheduler == [
        dict(type='NonzeroPolyLR', power=0.9, eta_min=0.0, begin=0, by_epoch=False)
    ]
    rates, grid = (
        ((1, 6, 12, 18), (2, 4, 8)) if '-d16_' in file.name else ((1, 12, 24, 36), (4, 8, 16))
    )
    assert network.decode_head.dilations == rates
    assert network.backbone.multi_grid == grid
    assert network.decode_head.align_corners
    assert network.decode_head.dropout_ratio == 0
    # Whole images or windows at the images' own size.
    assert not steps(cfg.test_dataloader.dataset.pipeline, 'Resize')
    if voc:
        assert network.test_cfg.mode == 'whole'
        assert network.auxiliary_head is None
        assert 'ohem' not in network.decode_head.loss_decode
    else:
        ohem = dict(threshold=0.7, min_kept=100000)
        assert network.test_cfg == dict(mode='slide', crop_size=(769, 769), stride=(512, 512))
        assert network.decode_head.loss_decode.ohem == ohem
        assert network.auxiliary_head.loss_decode == dict(
            type='PixelCrossEntropyLoss', loss_weight=0.4, ohem=ohem
        )
    if cfg.model.type == 'IMAS':
        settings = settings_of(model_of(cfg))
        assert settings['tau'] == (0.95 if voc else 0.7)
        assert settings['unlabeled_weight'] == 3.0
        assert settings['joint_forward'] is True
        assert settings['unlabeled_start'] == 0
        (teacher,) = [hook for hook in cfg.custom_hooks if hook.type == 'MeanTeacherHook']
        schedule = ('ratio', 1) if file.name.startswith('imas-official') else ('none', 0)
        assert (teacher.decay, teacher.buffers) == (0.996, 'average')
        assert (teacher.warmup, teacher.get('copy_epochs', 0)) == schedule


@rule('^imas')
def first_line_of_imas_tells_its_reading(file):
    """What the paper and its code do differently, and what the first line says of it."""
    cfg, official = load(file), file.name.startswith('imas-official')
    first = file.read_text(encoding='utf-8').splitlines()[0]
    reading = 'official' if official else 'paper'
    assert first.startswith(f'# iMAS, {reading} reading')
    settings = settings_of(model_of(cfg))
    assert settings['ignore_background'] is official
    assert settings['ignore_padding'] is not official
    assert settings['weak_in_joint_forward'] is official
    assert settings['untriggered'] == 'official'
    (views,) = steps(unlabeled_config(cfg).pipeline, 'MultiBranch')
    (intensity,) = steps(views.strong, 'RandomIntensity')
    assert intensity.ranges == reading


@rule('^imas.*_r(50|101)s-')
def the_published_network_has_its_stem_and_decoder(file):
    cfg = load(file)
    backbone, head = network_config(cfg).backbone, network_config(cfg).decode_head
    assert (backbone.type, backbone.stem_channels) == ('CeilPoolResNetV1c', 128)
    assert backbone.init_cfg.checkpoint == f'data/pretrained/resnet{backbone.depth}_v1s.pth'
    assert network_config(cfg).pretrained is None
    assert backbone.zero_init_residual is True
    assert (head.type, head.channels, head.c1_channels) == ('PlainDeepLabV3PlusHead', 256, 48)
    if file.name.startswith('imas-official'):
        assert cfg.train_cfg.val_every == 1, 'every epoch is a candidate for the best'


@rule('')
def padding_is_learned_where_the_methods_code_learns_it(file):
    """In iMAS's official reading, CPS, GPS, which is read as CPS, and U2PL; never on images of one's own."""
    cfg = load(file)
    method = MODELS.get(cfg.model.type)
    if not hasattr(method, 'Settings'):
        return
    settings = method.Settings(cfg.model.get('semi_train_cfg')).as_dict()
    learned = re.match(r'(imas-official|cps|gps|gps-dagger|u2pl)_', file.name) and not re.search(
        '_own-', file.name
    )
    assert settings['ignore_padding'] is not bool(learned)


@rule('^(cps|gps|gps-dagger)_')
def networks_that_teach_each_other_share_statistics_except_in_the_papers_configs(file):
    """The code of CPS runs labeled and unlabeled images separately, which collapses on few images."""
    published = bool(re.search('_(voc12|cityscapes)-', file.name))
    assert settings_of(model_of(load(file)))['joint_forward'] is not published


@rule('^esl.*(_voc12-|_cityscapes-)')
def esl_benchmarks_follow_the_paper(file):
    """Sec. 4.1 of ESL, and U2PL's network where it is silent."""
    cfg, voc = load(file), '_voc12-' in file.name
    network, model = network_config(cfg), model_of(cfg)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.weight_decay) == ((0.001, 1e-4) if voc else (0.01, 5e-4))
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys == dict(head=dict(lr_mult=10.0))
    assert cfg.param_scheduler[0].power == 0.9
    # What is published and what is recommended are the defaults.
    assert settings_of(model) == {'labeled_weight': 1.0, **PUBLISHED[cfg.model.type]}
    assert model.contrast.bank.rows.shape == (model.num_classes * 5 * 200 + 1, 512)
    assert model.contrast.prototypes.vectors.shape == (model.num_classes, 5, 2048)
    assert len(model.student.decode_head.classifier_convs) == 3
    assert len(model.student.decode_head.projector) == 3
    (teacher,) = [hook for hook in cfg.custom_hooks if hook.type == 'MeanTeacherHook']
    assert (teacher.decay, teacher.warmup) == (0.99, 'ratio')
    assert cfg.env_cfg.dist_cfg == dict(backend='nccl', timeout=7200)
    ohem = None if voc else dict(threshold=0.7, min_kept=100000)
    assert network.decode_head.loss_decode.get('ohem') == ohem
    if voc:
        assert network.auxiliary_head is None
        assert network.test_cfg.mode == 'whole'
        crops = steps(cfg.test_dataloader.dataset.pipeline, 'EvaluationCenterCrop')
        assert [crop.crop_size for crop in crops] == [(513, 513)] * ('-centercrop' in file.name)
    else:
        assert network.auxiliary_head.loss_decode.ohem == ohem
        assert network.test_cfg == dict(mode='slide', crop_size=(769, 769), stride=(513, 513))


@rule('^des4.*(_voc12-|_cityscapes-)')
def des4_benchmarks_follow_the_paper(file):
    """Sec. 4.1 of DeS4, and U2PL's network where it is silent."""
    cfg, voc = load(file), '_voc12-' in file.name
    network, model = network_config(cfg), model_of(cfg)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.momentum) == ('SGD', 0.9)
    assert (optimizer.lr, optimizer.weight_decay) == ((0.001, 1e-4) if voc else (0.01, 6e-4))
    assert ('paramwise_cfg' in cfg.optim_wrapper) == voc
    assert cfg.param_scheduler[0].power == 0.9
    # What is published and what is recommended are the defaults.
    assert settings_of(model) == {'labeled_weight': 1.0, **PUBLISHED[cfg.model.type]}
    assert model.prototypes.vectors.shape == (model.num_classes, 256)
    (teacher,) = [hook for hook in cfg.custom_hooks if hook.type == 'MeanTeacherHook']
    assert (teacher.decay, teacher.warmup, teacher.buffers) == (0.99, 'none', 'average')
    ohem = None if voc else dict(threshold=0.7, min_kept=100000)
    assert network.decode_head.loss_decode.get('ohem') == ohem
    assert (network.auxiliary_head is None) == voc
    rates, grid = (
        ((1, 6, 12, 18), (2, 4, 8)) if '-d16_' in file.name else ((1, 12, 24, 36), (4, 8, 16))
    )
    assert network.decode_head.dilations == rates
    assert network.backbone.multi_grid == grid


@rule('^(prevmatch|unimatch)')
def both_strong_views_are_drawn_alike(file):
    views = unlabeled_config(load(file)).pipeline[-1]
    assert [step.type for step in views.strong] == [*STRONG[:3], 'PackUnlabeledInputs']
    assert views.strong2 == views.strong
    assert views.weak == [dict(type='PackUnlabeledInputs')]
    # The transforms' defaults are the published values.
    assert all(step.keys() == {'type'} for step in views.strong)


@rule('^(prevmatch|unimatch)_.*(_voc12-|_cityscapes-)')
def unimatch_benchmarks_follow_the_paper(file):
    """The paper's hyper-parameters, and those of its code."""
    cfg, voc = load(file), '_voc12-' in file.name
    network, model = network_config(cfg), model_of(cfg)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.momentum) == ('SGD', 0.9)
    assert (optimizer.lr, optimizer.weight_decay) == (0.001 if voc else 0.005, 1e-4)
    paramwise = dict(custom_keys=dict(head=dict(lr_mult=10.0))) if voc else None
    assert cfg.optim_wrapper.get('paramwise_cfg') == paramwise
    assert cfg.param_scheduler[0].power == 0.9
    settings = settings_of(model)
    assert settings == {**PUBLISHED[cfg.model.type], 'tau': 0.95 if voc else 0.0}
    # 1/2 (L_x + 1/4 s1 + 1/4 s2 + 1/2 fp) of the released code.
    unlabeled = settings['unlabeled_weight']
    assert settings['labeled_weight'] == 0.5
    assert unlabeled * settings['feature_weight'] == 0.5 / 2
    assert unlabeled * settings['strong_weight'] / 2 == 0.25 / 2
    assert (model.cutmix.prob, model.cutmix.style, model.cutmix.per_image) == (
        0.5,
        'unimatch',
        True,
    )
    assert model.networks == ('student',)
    assert network.backbone.get('multi_grid') is None
    assert network.decode_head.dilations == (1, 6, 12, 18)
    assert network.decode_head.dropout_ratio == 0
    assert network.auxiliary_head is None
    ohem = None if voc else dict(threshold=0.7, min_kept=200000)
    assert network.decode_head.loss_decode.get('ohem') == ohem
    if not voc:
        assert network.test_cfg == dict(mode='slide', crop_size=(801, 801), stride=(534, 534))


@rule('^prevmatch_')
def earlier_models_are_chosen_by_the_code_on_voc_and_without_labels_elsewhere(file):
    cfg = load(file)
    (hook,) = [hook for hook in cfg.custom_hooks if hook.type == 'EarlierModelHook']
    if '_voc12-' in file.name:
        assert hook == dict(type='EarlierModelHook')
        assert cfg.train_cfg.val_every == 1
    else:
        assert 12 <= cfg.train_cfg.max_iters / hook.interval <= 14


@rule('^corrmatch_.*_voc12-')
def corrmatch_on_voc_follows_its_code(file):
    cfg = load(file)
    network, model = network_config(cfg), model_of(cfg)
    assert settings_of(model) == PUBLISHED['CorrMatch']
    assert (cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.optimizer.weight_decay) == (
        1e-3,
        1e-4,
    )
    assert cfg.optim_wrapper.paramwise_cfg == dict(custom_keys=dict(head=dict(lr_mult=10.0)))
    assert network.backbone.get('multi_grid') is None
    assert network.decode_head.dilations == (1, 12, 24, 36)
    assert network.decode_head.dropout_ratio == 0
    assert network.auxiliary_head is None


@rule('^unimatch-v2_.*(_voc12-|_cityscapes-)')
def unimatch_v2_benchmarks_follow_the_paper(file):
    cfg, voc = load(file), '_voc12-' in file.name
    network, model = network_config(cfg), model_of(cfg)
    assert cfg.optim_wrapper.optimizer == dict(
        type='AdamW', lr=5e-6, betas=(0.9, 0.999), weight_decay=0.01
    )
    wrapper = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper))
    rates = {id(p): g['lr'] for g in wrapper.optimizer.param_groups for p in g['params']}
    for key, parameter in model.student.named_parameters():
        factor = 1 if key.startswith(('backbone.', 'neck.')) else 40
        assert rates[id(parameter)] == pytest.approx(5e-6 * factor)
    assert settings_of(model) == {'labeled_weight': 1.0, **PUBLISHED[cfg.model.type]}
    (teacher,) = [hook for hook in cfg.custom_hooks if hook.type == 'MeanTeacherHook']
    assert (teacher.decay, teacher.warmup, teacher.buffers) == (0.996, 'ratio', 'average')
    assert cfg.model.semi_test_cfg.predict_on == 'teacher'
    ohem = None if voc else dict(threshold=0.7, min_kept=200000)
    assert network.decode_head.loss_decode.get('ohem') == ohem
    slide = dict(mode='slide', crop_size=(798, 798), stride=(532, 532))
    assert network.test_cfg == (dict(mode='whole') if voc else slide)


BASELINES = ('mean-teacher', 'cutmix-seg', 'fixmatch')


@rule('^(mean-teacher|cutmix-seg)_.*(_voc12-|_cityscapes-)')
def consistency_baselines_stand_in_the_frame_of_imas(file):
    """The same network, images and schedule, and so those of the supervised baselines."""
    method = next(name for name in BASELINES if file.name.startswith(name))
    cfg, twin = load(file), load(ROOT / 'imas' / file.name.replace(method, 'imas'))
    for key in (
        'train_cfg',
        'optim_wrapper',
        'param_scheduler',
        'auto_scale_lr',
        'val_dataloader',
        'test_dataloader',
    ):
        assert cfg[key] == twin[key]
    for key in ('segmentor', 'data_preprocessor', 'semi_test_cfg'):
        assert cfg.model[key] == twin.model[key]
    assert cfg.train_dataloader.sampler == twin.train_dataloader.sampler
    mine, theirs = cfg.train_dataloader.dataset, twin.train_dataloader.dataset
    assert mine.labeled == theirs.labeled
    assert mine.unlabeled.ann_file == theirs.unlabeled.ann_file
    assert mine.partition == theirs.partition
    assert mine.unlabeled.pipeline[:-1] == theirs.unlabeled.pipeline[:-1]
    (teacher,) = [hook for hook in cfg.custom_hooks if hook.type == 'MeanTeacherHook']
    settings = settings_of(model_of(cfg))
    if method == 'cutmix-seg':
        # The paper's code does not warm its teacher up.
        assert (teacher.decay, teacher.warmup, teacher.buffers) == (0.99, 'none', 'average')
        assert settings == PUBLISHED[cfg.model.type]
    else:
        assert (teacher.decay, teacher.warmup, teacher.buffers) == (0.99, 'ratio', 'average')
        assert settings == {**PUBLISHED[cfg.model.type], 'rampup_epochs': 3}


@rule('^fixmatch_.*(_voc12-|_cityscapes-)')
def fixmatch_benchmarks_follow_the_re_run(file):
    """LiheYoung/UniMatch: configs/pascal.yaml, configs/cityscapes.yaml, fixmatch.py, dataset/."""
    cfg, voc = load(file), '_voc12-' in file.name
    network, model = network_config(cfg), model_of(cfg)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.momentum, optimizer.weight_decay) == ('SGD', 0.9, 1e-4)
    assert optimizer.lr == (0.001 if voc else 0.005)
    assert (
        'paramwise_cfg' in cfg.optim_wrapper
    ) == voc  # ten times the rate for the heads, or once
    assert cfg.param_scheduler[0].power == 0.9
    assert settings_of(model) == {
        **PUBLISHED[cfg.model.type],
        'tau': 0.95 if voc else 0.0,
        'labeled_weight': 0.5,
        'unlabeled_weight': 0.5,
    }
    assert cfg.model.semi_test_cfg.predict_on == 'student'
    assert network.backbone.multi_grid is None
    assert network.decode_head.dilations == (1, 6, 12, 18)
    assert network.auxiliary_head is None
    ohem = None if voc else dict(threshold=0.7, min_kept=200000)
    assert network.decode_head.loss_decode.get('ohem') == ohem
    side = 321 if voc else 801
    if voc:
        assert network.test_cfg.mode == 'whole'
    else:
        assert network.test_cfg == dict(mode='slide', crop_size=(801, 801), stride=(534, 534))
    scale = (500, 500) if voc else (2048, 1024)
    assert steps(labeled_config(cfg).pipeline, *GEOMETRY) == [
        dict(type='RandomResize', scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type='Pad', size=(side, side), pad_val=dict(img=0, seg=255)),
        dict(type='RandomCrop', crop_size=(side, side)),
        dict(type='RandomFlip', prob=0.5),
    ]


# FixMatch on synthetic shapes has iMAS's milder view.
@rule('^(mean-teacher_|fixmatch_(?!.*shapes))')
def strong_view_is_color_and_blur(file):
    (views,) = steps(unlabeled_config(load(file)).pipeline, 'MultiBranch')
    assert [step.type for step in views.weak] == ['PackUnlabeledInputs']
    # With UniMatch's values, which are ST++'s and the transforms' defaults; without its Cutout.
    assert views.strong == [
        *(dict(type=name) for name in STRONG[:3]),
        dict(type='PackUnlabeledInputs'),
    ]


@rule('^u2pl.*(_voc12-|_cityscapes-)')
def u2pl_benchmarks_follow_the_paper(file):
    """U2PL's settings, and two numbers of its authors' code."""
    cfg, voc = load(file), '_voc12-' in file.name
    network, model = network_config(cfg), model_of(cfg)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.momentum) == ('SGD', 0.9)
    assert (optimizer.lr, optimizer.weight_decay) == ((0.001, 1e-4) if voc else (0.01, 5e-4))
    assert ('paramwise_cfg' in cfg.optim_wrapper) == voc
    assert cfg.param_scheduler[0].power == 0.9
    # One pass over the unlabeled images without them on VOC, none on Cityscapes.
    assert settings_of(model) == {
        **PUBLISHED[cfg.model.type],
        'num_anchors': 256,
        'num_negatives': 50,
        'unlabeled_start_epochs': 1 if voc else 0,
    }
    rows = 50000 + 30000 * (model.num_classes - 1)
    assert model.contrast.bank.entries.shape == (rows, 256)
    (teacher,) = [hook for hook in cfg.custom_hooks if hook.type == 'MeanTeacherHook']
    # A copy during the pass without unlabeled images and the first one with them; no warm-up is left behind it.
    assert (teacher.decay, teacher.warmup) == (0.99, 'none')
    assert teacher.copy_epochs == (2 if voc else 1)
    scale = (500, 500) if voc else (2048, 1024)
    for child in (labeled_config(cfg), unlabeled_config(cfg)):
        (resize,) = steps(child.pipeline, 'RandomResize', 'RandomShrinkOrEnlarge')
        assert resize == dict(
            type='RandomShrinkOrEnlarge', scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True
        )
    ohem = None if voc else dict(threshold=0.7, min_kept=100000)
    assert network.decode_head.loss_decode.get('ohem') == ohem
    assert (network.auxiliary_head is None) == voc
    rates, grid = (
        ((1, 6, 12, 18), (2, 4, 8)) if '-d16_' in file.name else ((1, 12, 24, 36), (4, 8, 16))
    )
    assert network.decode_head.dilations == rates
    assert network.backbone.multi_grid == grid


@rule('^(gps|gps-dagger|cps)_.*(_voc12-|_cityscapes-)')
def gps_and_cps_benchmarks_follow_the_paper(file):
    """Sec. 4 of GPS, and CPS's code where it is silent."""
    cfg, voc, gps = load(file), '_voc12-' in file.name, file.name.startswith('gps')
    network, model, optimizer = network_config(cfg), model_of(cfg), cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.momentum) == ('SGD', 0.9)
    assert (optimizer.lr, optimizer.weight_decay) == (0.01 if voc else 0.02, 1e-4)
    wrapper = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper))
    wrapper = wrapper['students'] if gps else wrapper
    groups = {id(p): g for g in wrapper.optimizer.param_groups for p in g['params']}
    for name in ('student1', 'student2'):
        for parameter in getattr(model, name).parameters():
            # Vectors are normalization's and biases.
            decay = 1e-4 if parameter.ndim > 1 else 0
            group = groups[id(parameter)]
            assert (group['lr'], group['weight_decay']) == (optimizer.lr, decay)
    published = dict(alpha=0.5, beta=1.5, gamma=0.5) if voc else dict(alpha=1, beta=5, gamma=1)
    if not gps:
        published = dict(cps_weight=1.0 if voc else 5.0)  # of its code with CutMix
    assert model.cfg == type(model).Settings(published)
    assert model.cfg.cutmix == 'pair'
    poly = [dict(type='NonzeroPolyLR', power=0.9, eta_min=0.0, begin=0, by_epoch=False)]
    teacher = [dict(type='FinalPolyLR', power=0.9, by_epoch=False)]
    assert cfg.param_scheduler == (dict(students=poly, teacher=teacher) if gps else poly)
    assert network.decode_head.dilations == (1, 6, 12, 18)
    assert network.backbone.multi_grid == (2, 4, 8)
    assert network.decode_head.dropout_ratio == 0
    assert network.auxiliary_head is None
    # GPS prints plain cross-entropy; CPS's code keeps 50000 pixels for each of a GPU's labeled images.
    labeled = cfg.train_dataloader.sampler.labeled
    ohem = None if voc or gps else dict(threshold=0.7, min_kept=50000 * labeled)
    assert network.decode_head.loss_decode.get('ohem') == ohem
    slide = dict(mode='slide', crop_size=(800, 800), stride=(534, 534))
    assert network.test_cfg == (dict(mode='whole') if voc else slide)
    (scales,) = steps(unlabeled_config(cfg).pipeline, 'RandomChoice')
    factors = [transforms[0].scale_factor for transforms in scales.transforms]
    assert factors == [0.5, 0.75, 1.0, 1.5, 1.75, 2.0]


#: Of CPS's table: iterations of each partition, epochs times whole batches of 8 unlabeled images.
CPS_LENGTHS = {
    'voc12': {662: 32 * 1240, 1323: 34 * 1157, 2646: 40 * 992, 5291: 60 * 661},
    'cityscapes': {186: 128 * 348, 372: 137 * 325, 744: 160 * 278, 1488: 240 * 185},
}


@rule('^(gps|cps)_.*_4xb6-')
def gps_and_cps_train_each_partition_for_its_own_epochs(file):
    cfg, name = load(file), NAME.fullmatch(file.name)['dataset']
    found = {}
    for partition in cfg.train_cfg.epochs:
        labeled = numbered(partition)
        epochs = epochs_of(cfg.train_cfg.epochs, partition)
        found[labeled] = epoch_lengths(TOTAL[name] - labeled, 8, 1, epochs, 1).max_iters
    assert found == CPS_LENGTHS[name]


@rule('^gps-dagger_')
def gps_dagger_is_gps_with_longer_passes_over_all_images(file):
    cfg = load(file).to_dict()
    twin = load(file.with_name(file.name.replace('-dagger', ''))).to_dict()
    for config in (cfg, twin):
        del config['train_dataloader']['dataset']['unlabeled']['ann_file']
    assert cfg == twin
    epochs = cfg['train_cfg']['epochs']
    assert epoch_lengths(10582, 8, 1, epochs['blender-cps/1323'], 1).max_iters == 34 * 1322


def scaled_rate(cfg: Config, gpus: int) -> float:
    """The learning rate of the optimizer under --auto-scale-lr on so many GPUs."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    wrapper = OptimWrapper(torch.optim.SGD([parameter], lr=cfg.optim_wrapper.optimizer.lr))
    runner = mock.Mock(world_size=gpus, _train_dataloader=cfg.train_dataloader, param_schedulers=[])
    Runner.scale_lr(runner, wrapper, dict(cfg.auto_scale_lr, enable=True))
    return wrapper.optimizer.param_groups[0]['lr']


@rule('^(gps|cps)_.*_4xb6-')
def printed_rates_hold_for_8_and_8_images_on_any_number_of_gpus(file):
    for gpus in (1, 2, 4, 8):
        _printed_rate_holds(file, gpus)


def _printed_rate_holds(file, gpus):
    cfg = copy.deepcopy(load(file))
    printed = 0.01 if '_voc12-' in file.name else 0.02
    assert cfg.optim_wrapper.optimizer.lr == printed
    # The second half of the unlabeled images is pasted into the first.
    cfg.train_dataloader.batch_size = (8 + 2 * 8) // gpus
    assert scaled_rate(cfg, gpus) == pytest.approx(printed)
    cfg.train_dataloader.batch_size *= 2
    assert scaled_rate(cfg, gpus) == pytest.approx(2 * printed)


def test_rows_of_gps_ablation_build():
    """The block of docs/gps.md as it stands: Table 4 without CutMix, then orders of the updates."""
    text = (ROOT.parent / 'docs' / 'gps.md').read_text(encoding='utf-8')
    block = re.search(r'```bash\n(.*?)```', text[text.index('\n### Ablations\n') :], re.DOTALL)[1]
    names, rows = {}, []
    for line in block.replace('\\\n', ' ').splitlines():
        words = shlex.split(Template(line).substitute(names), comments=True)
        if words and words[0] == 'bash':
            rows.append(words)
        elif words:
            name, _, names[name] = ' '.join(words).partition('=')
    switches = []
    for _, script, config, gpus, flag, *options in rows:
        assert (script, gpus, flag) == ('tools/dist_train.sh', '4', '--cfg-options')
        cfg = copy.deepcopy(load(ROOT.parent / config))
        parser = argparse.ArgumentParser()
        parser.add_argument('--cfg-options', nargs='+', action=DictAction)
        cfg.merge_from_dict(parser.parse_args(['--cfg-options', *options]).cfg_options)
        sampler = cfg.train_dataloader.sampler
        settings = MODELS.get('GPS').Settings(cfg.model.semi_train_cfg)
        assert settings.cutmix is None
        # As many images are learned as with CutMix, so epochs are as long.
        assert (sampler.labeled, sampler.unlabeled, cfg.train_dataloader.batch_size) == (2, 2, 4)
        assert sampler.unlabeled_streams == 1
        assert scaled_rate(cfg, gpus=4) == pytest.approx(0.01)
        assert epochs_of(cfg.train_cfg.epochs, cfg.train_dataloader.dataset.partition) == 34
        switches.append(tuple(getattr(settings, key) for key in ('gps', 'cps', 'fps', 'update')))
    on, off, two = True, False, 'alternating'
    assert switches == [
        (on, off, off, two),
        (off, off, on, two),
        (on, off, on, two),
        (off, on, on, two),
        (on, on, off, two),
        (on, on, on, two),
        (on, on, on, 'merged'),
    ]


@pytest.mark.parametrize(
    ('method', 'logged'),
    [
        ('CPS', ['loss_cps']),
        ('GPS', ['ramp_up_weight', 'epoch_ce_teacher', 'labeled_ce_students', 'loss_fps']),
    ],
)
def test_pages_of_gps_and_cps_have_every_diagnostic(method, logged):
    text = (ROOT.parent / 'docs' / f'{method.lower()}.md').read_text(encoding='utf-8')
    for name in [*logged, 'agreement_students', 'pseudo_label_entropy']:
        assert f'`{name}`' in text, name


@rule('^(gps|corrmatch|cps|fixmatch|prevmatch|unimatch)(_|-dagger)')
def networks_that_label_in_train_mode_have_no_dropout(file):
    cfg, network = load(file), network_config(load(file))
    if getattr(model_of(cfg).cfg, 'label_mode', 'train') == 'eval':
        return
    # Auxiliary heads label nothing.
    assert network.decode_head.dropout_ratio == 0


@rule('^gps[_-]')
def stages_of_gps_are_its_teacher_and_itself(file):
    stages, top = stages_of(file), load(file)
    for stage in stages.values():
        stage.check()
    assert list(stages) == ['teacher', 'joint']
    reference = 'stage://teacher/last_checkpoint'
    joint = stages['joint'].config()
    assert joint.model.semi_train_cfg.pop('teacher_checkpoint') == reference
    assert joint.model == top.model
    teacher = stages['teacher'].config()
    assert teacher.train_cfg == top.train_cfg
    assert teacher.param_scheduler == top.param_scheduler.students
    assert teacher.model.decode_head == top.model.segmentor.decode_head
    assert teacher.train_dataloader.batch_size == top.train_dataloader.sampler.labeled
    assert teacher.train_dataloader.dataset.labeled == top.train_dataloader.dataset.labeled
    model_of(teacher)
    _binds(DATASETS, teacher.train_dataloader.dataset)
    _binds(DATA_SAMPLERS, teacher.train_dataloader.sampler, dataset=[])


@pytest.mark.parametrize('name', ['voc12', 'cityscapes'])
def test_head_learns_faster_on_voc_alone(name):
    file = next(file for file in _named(f'imas_.*_{name}-') if '-official' not in file.name)
    cfg = load(file)
    model = model_of(cfg)
    wrapper = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper))
    rates = {id(p): g['lr'] for g in wrapper.optimizer.param_groups for p in g['params']}
    factor = 10 if name == 'voc12' else 1
    for key, parameter in model.student.named_parameters():
        assert rates[id(parameter)] == pytest.approx(
            cfg.optim_wrapper.optimizer.lr * (factor if 'head' in key else 1)
        )
    assert not any(id(parameter) in rates for parameter in model.teacher.parameters())


@rule('^(st|stpp|suponly-st)[_-].*(_voc12-|_cityscapes-)')
def self_training_follows_the_paper(file):
    """The published hyper-parameters of ST and ST++."""
    cfg, voc = load(file), '_voc12-' in file.name
    optimizer, head = cfg.optim_wrapper.optimizer, cfg.model.decode_head
    assert optimizer == dict(
        type='SGD', lr=0.001 if voc else 0.004, momentum=0.9, weight_decay=1e-4
    )
    assert cfg.param_scheduler == [
        dict(
            type='NonzeroPolyLR',
            power=0.9,
            eta_min=0.0,
            begin=0,
            by_epoch=True,
            convert_to_iter_based=True,
        )
    ]
    depth = cfg.model.backbone.depth
    assert cfg.model.pretrained == f'torchvision://resnet{depth}'
    assert cfg.model.backbone.norm_cfg.type == head.norm_cfg.type == 'BN'
    assert head.loss_decode == dict(type='PixelCrossEntropyLoss', loss_weight=1.0)
    assert cfg.model.auxiliary_head is None
    assert head.align_corners
    assert head.dropout_ratio == 0.1
    if head.type == 'PSPHead':
        assert head.pool_scales == (1, 2, 3, 6)
    else:
        assert head.dilations == (1, 12, 24, 36)
        assert (head.channels, head.c1_channels) == (256, 48)
    assert cfg.model.test_cfg.mode == 'whole'
    assert not steps(cfg.test_dataloader.dataset.pipeline, 'Resize')
    crop = 321 if voc else 721
    scale = (400, 400) if voc else (2048, 1024)
    assert steps(labeled_config(cfg).pipeline, *GEOMETRY) == [
        dict(type='RandomResize', scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type='Pad', size=(crop, crop), pad_val=dict(img=0, seg=255)),
        dict(type='RandomCrop', crop_size=(crop, crop)),
        dict(type='RandomFlip', prob=0.5),
    ]
    assert cfg.train_dataloader.dataset.get('double_below', 200) == 200
    assert cfg.train_dataloader.batch_size == (8 if voc else 4)


@rule('^suponly-st.*_(voc12|cityscapes)-')
def every_head_learns_ten_times_faster_in_self_training(file):
    cfg = load(file)
    model = model_of(cfg)
    wrapper = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper))
    rates = {id(p): g['lr'] for g in wrapper.optimizer.param_groups for p in g['params']}
    for key, parameter in model.named_parameters():
        assert rates[id(parameter)] == pytest.approx(
            cfg.optim_wrapper.optimizer.lr * (10 if 'head' in key else 1)
        )


@rule('^(st|stpp)[_-]')
def stages_are_the_methods(file):
    said = NAME.fullmatch(file.name)
    method = f'{said["method"]}-{said["variant"]}' if said['variant'] else said['method']
    stages = stages_of(file)
    for stage in stages.values():
        stage.check()
    trainings = {name for name, stage in stages.items() if isinstance(stage, TrainStage)}
    assert trainings == LABELS[method].keys()
    others = {
        name: {key: value for key, value in stage.items() if not key.startswith('batch_size')}
        for name, stage in load(file).stages.items()
        if name not in trainings
    }
    label = dict(type='LabelStage', checkpoint='last')
    expected = {'label': dict(label, model='teacher')}
    if said['method'] == 'stpp':
        expected = {
            'select': dict(type='SelectStage', model='teacher', ratio=0.5),
            'label_reliable': dict(label, model='teacher', subset='stage://select/reliable.txt'),
            'label_unreliable': dict(
                label, model='student', subset='stage://select/unreliable.txt'
            ),
        }
    if said['variant'] == 'retrain3':
        expected['label_all'] = dict(label, model='final')
    assert others == expected
    labelers = [stage for name, stage in stages.items() if name.startswith('label')]
    assert {(stage.scales, stage.flip) for stage in labelers} == {
        ((0.5, 0.75, 1.0, 1.5, 2.0), True)
    }


@rule('^(st|stpp)[_-](?!both|dinov2)')
def trainings_differ_in_their_pseudo_labels_alone(file):
    said, top = NAME.fullmatch(file.name), load(file).to_dict()
    method = f'{said["method"]}-{said["variant"]}' if said['variant'] else said['method']
    for key in ('runner_type', 'stages'):
        del top[key]
    for name, labels in LABELS[method].items():
        cfg = dict(training(file, name))
        expected = copy.deepcopy(top)
        dataset = expected['train_dataloader']['dataset']
        if labels is None:
            dataset['pseudo_labeled'] = None
        else:
            dataset['pseudo_labeled']['labels'] = labels
        if name == 'teacher' and said['method'] == 'stpp':
            hook = dict(type='ReliableSelectionHook', num_checkpoints=3)
            expected['custom_hooks'].append(hook)
            HOOKS.build(dict(hook))
        # Each training begins from an initialization of its own.
        expected['randomness'] = {'seed': stage_seed(top['randomness']['seed'], name)}
        assert cfg == expected


@rule('^st-dinov2_')
def the_teacher_is_the_baseline_of_its_own_network(file):
    teacher, student = training(file, 'teacher'), training(file, 'student')
    expected = load(_named('^suponly_dpt_dinov2-s14.*_own-')[0]).to_dict()
    expected['randomness'] = {'seed': stage_seed(expected['randomness']['seed'], 'teacher')}
    # Plus what configs without a launcher leave to MMEngine.
    assert {key: teacher[key] for key in expected} == expected
    top = load(file).to_dict()
    for key in ('runner_type', 'stages', 'teacher'):
        del top[key]
    top['train_dataloader']['dataset']['pseudo_labeled']['labels'] = ['stage://label']
    top['randomness'] = {'seed': stage_seed(top['randomness']['seed'], 'student')}
    assert student == top


@rule('^(st|stpp)[_-](?!both)')
def baseline_is_the_first_stage(file):
    said = NAME.fullmatch(file.name)
    twin = ROOT / 'suponly' / file.name.replace(file.name.partition('_')[0], 'suponly-st', 1)
    if said['dataset'] == 'own':
        assert not twin.exists()
        return
    teacher = dict(training(file, 'teacher'))
    if said['method'] == 'stpp':
        teacher['custom_hooks'] = teacher['custom_hooks'][:-1]
    baseline = load(twin).to_dict()
    # A stage draws an initialization of its own.
    baseline['randomness'] = {'seed': stage_seed(baseline['randomness']['seed'], 'teacher')}
    assert teacher == baseline


@rule('^suponly_')
def baseline_differs_in_the_unlabeled_images_alone(file):
    batch = re.search(r'(\d+)xb(\d+)-', file.name)
    name = file.name.removeprefix('suponly')
    if batch:
        name = name.replace(batch[0], f'{batch[1]}xb{2 * int(batch[2])}-')
    twins = [ROOT / 'imas' / f'imas{name}', ROOT / 'unimatch_v2' / f'unimatch-v2{name}']
    twin = next((path for path in twins if path.exists()), None)
    if twin is None:
        # The baseline of U2PL, ESL and DeS4.
        assert '_r101-d8_8xb2-240e_cityscapes' in file.name, f'{twins[0].name} is missing'
        return
    cfg, semi = load(file), load(twin)
    network = cfg.model.to_dict()
    preprocessor = network.pop('data_preprocessor')
    segmentor = semi.model.segmentor.to_dict()
    segmentor.pop('data_preprocessor')
    assert network == segmentor
    theirs = semi.model.data_preprocessor.to_dict()
    assert {**preprocessor, 'type': theirs['type']} == theirs
    labeled, also = labeled_config(cfg), labeled_config(semi)
    assert labeled.pipeline == also.pipeline
    assert labeled.get('ann_file') == also.get('ann_file')
    both = (one.train_dataloader.dataset.get('partition') for one in (cfg, semi))
    assert len(set(both)) == 1
    assert cfg.train_dataloader.batch_size == semi.train_dataloader.sampler.labeled
    for key in (
        'train_cfg',
        'optim_wrapper',
        'param_scheduler',
        'val_dataloader',
        'test_dataloader',
    ):
        assert cfg[key] == semi[key]


def _baseline_of(file: Path) -> Path:
    """The supervised config whose network a config of DeS4 trains, which may not exist."""
    name = re.sub(
        r'(\d+)xb(\d+)-', lambda said: f'{said[1]}xb{int(said[2]) // 2}-', file.name
    ).removeprefix('des4')
    own = ROOT / 'suponly' / f'suponly-des4{name}'
    return own if own.exists() else ROOT / 'suponly' / f'suponly{name}'


@rule('^des4_')
def baseline_of_des4_has_its_network(file):
    """Also in what is built: DeS4 takes the dropout out of its heads."""
    if not _baseline_of(file).exists():
        return
    cfg, semi = load(_baseline_of(file)), load(file)
    network, segmentor = cfg.model.to_dict(), semi.model.segmentor.to_dict()
    for config in (network, segmentor):
        config.pop('data_preprocessor')
        config['decode_head'].pop('dropout_ratio')
    assert network == segmentor
    with without_numbers():
        assert dropout_of(cfg.model) == dropout_of(semi.model) == {}
    assert labeled_config(cfg).pipeline == labeled_config(semi).pipeline
    assert cfg.train_dataloader.batch_size == semi.train_dataloader.sampler.labeled
    for key in ('train_cfg', 'optim_wrapper', 'param_scheduler', 'val_dataloader'):
        assert cfg[key] == semi[key]


def test_des4_has_a_baseline_wherever_there_is_one_with_dropout():
    own = [
        file for file in _named('^des4_') if re.search('camvid|shapes|nuclei|animals', file.name)
    ]
    assert sorted(map(_baseline_of, own)) == _named('^suponly-des4_')


@rule('^imas-official.*_r(50|101)-')
def official_reading_differs_in_what_the_code_does(file):
    """From the paper reading of the same network and lists, in nothing else."""
    cfg = load(file).to_dict()
    lead = load(file.with_name(file.name.replace('-official', ''))).to_dict()
    for config in (cfg, lead):
        for key in ('ignore_background', 'ignore_padding', 'weak_in_joint_forward'):
            del config['model']['semi_train_cfg'][key]
        for pipeline in (
            config['unlabeled_pipeline'],
            config['train_dataloader']['dataset']['unlabeled']['pipeline'],
        ):
            del pipeline[-1]['strong'][0]['ranges']
        assert config['custom_hooks'].pop()['type'] == 'MeanTeacherHook'
        # Evaluated after each pass, of which the best is kept.
        config['default_hooks']['checkpoint'].pop('save_best', None)
        del config['train_cfg']['val_every']
    assert cfg == lead


def test_camvid_class_weights():
    weights = load(
        _named('^suponly_.*r18-tiny.*camvid-')[0]
    ).model.decode_head.loss_decode.class_weight
    share = torch.tensor(
        [16.845, 23.259, 0.983, 31.658, 4.486, 9.724, 1.173, 1.127, 5.866, 0.639, 0.292],
        dtype=torch.float64,
    )
    weights = torch.tensor(weights, dtype=torch.float64)
    # Proportional to frequency^-0.5, and 1 for the average pixel.
    torch.testing.assert_close(weights / weights[0], (share / share[0]) ** -0.5, rtol=1e-3, atol=0)
    torch.testing.assert_close(
        (weights * share).sum() / share.sum(), torch.tensor(1.0).double(), rtol=1e-4, atol=0
    )


def test_ten_lines_of_self_training_on_images_of_your_own():
    """The block of docs/configs.md as it stands."""
    text = (ROOT.parent / 'docs' / 'configs.md').read_text(encoding='utf-8')
    section = text[text.index('### Self-training on images of your own\n') :]
    block = re.search(r'```python\n(.*?)```', section, re.DOTALL)[1]
    assert len(block.splitlines()) <= 10
    cfg = Config.fromstring(block, '.py')
    model = model_of(cfg)
    assert model.num_classes == model.auxiliary_head.num_classes == 2
    labeled, images = labeled_config(cfg), unlabeled_config(cfg)
    for dataset in (labeled, cfg.val_dataloader.dataset, cfg.test_dataloader.dataset):
        assert dataset.data_root == 'data/cracks'
        assert len(dataset.metainfo.classes) == 2
        _binds(DATASETS, dataset)
    assert images.data_root == 'data/cracks'
    _binds(DATASETS, images)
    cfg.work_dir = 'work'
    assert {'teacher', 'select', 'final'} <= build_stages(cfg).keys()


@pytest.mark.parametrize(
    ('size', 'width', 'depth', 'layers', 'head'),
    [
        ('base', 768, 12, [2, 5, 8, 11], ([96, 192, 384, 768], 128)),
        ('large', 1024, 24, [4, 11, 17, 23], ([256, 512, 1024, 1024], 256)),
    ],
)
def test_larger_dinov2_as_unimatch_v2_has_it(size, width, depth, layers, head):
    """The configs of B, and the block of docs/unimatch_v2.md on L as it stands."""
    if size == 'base':
        cfg = load(ROOT / 'unimatch_v2/unimatch-v2_dpt_dinov2-b14_4xb8-60e_voc12-518x518.py')
    else:
        text = (ROOT.parent / 'docs' / 'unimatch_v2.md').read_text(encoding='utf-8')
        section = text[text.index('### DINOv2-B and -L\n') :]
        cfg = Config.fromstring(re.search(r'```python\n(.*?)```', section, re.DOTALL)[1], '.py')
    network = model_of(cfg).student
    assert (network.backbone.embed_dims, network.backbone.num_layers) == (width, depth)
    assert network.backbone.out_indices == layers
    assert network.neck.weight.shape == (width,)
    segmentor = cfg.model.segmentor
    assert (segmentor.decode_head.post_process_channels, segmentor.decode_head.channels) == head
    assert segmentor.decode_head.num_classes == 21
    assert map_sizes(cfg) == ((37, 37), (296, 296))
    for part in (segmentor.backbone, segmentor.neck):
        assert f'vit-{size}-p14_dinov2' in part.init_cfg.checkpoint
        assert part.init_cfg.type == 'Pretrained'
    # A plain base of the same name is the same network.
    base = Config.fromfile(ROOT / f'_base_/models/dpt_dinov2-{size[0]}14.py').model
    assert base.backbone == segmentor.backbone
    assert base.neck == segmentor.neck


@pytest.mark.parametrize(
    ('size', 'width', 'depth', 'layers', 'head', 'millions'),
    [
        ('small', 384, 12, (2, 5, 8, 11), ([48, 96, 192, 384], 64), 21.586176),
        ('base', 768, 12, (2, 5, 8, 11), ([96, 192, 384, 768], 128), 85.63968),
        ('large', 1024, 24, (4, 11, 17, 23), ([256, 512, 1024, 1024], 256), 303.077376),
    ],
)
def test_dinov3_as_timm_has_it(size, width, depth, layers, head, millions):
    cfg = Config.fromfile(ROOT / f'_base_/models/dpt_dinov3-{size[0]}16.py')
    network = model_of(cfg)
    encoder = network.backbone.timm_model
    assert network.backbone.timm_model.out_indices == list(layers)
    assert (encoder.model.embed_dim, len(encoder.model.blocks)) == (width, depth)
    assert encoder.feature_info.reduction() == [16] * 4
    assert encoder.model.reg_token.shape == (1, 4, width)
    assert sum(p.numel() for p in network.backbone.parameters()) == round(millions * 1e6)
    assert network.neck.weight.shape == (width,)
    assert network.neck.eps == encoder.model.blocks[0].norm1.eps == 1e-5
    assert (cfg.model.decode_head.post_process_channels, cfg.model.decode_head.channels) == head
    assert patch_size(network) == cfg.model.data_preprocessor.test_cfg.size_divisor == 16
    file = f'data/pretrained/vit_{size}_patch16_dinov3.pth'
    assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint=file)
    prefix = 'timm_model.model.norm.'
    assert cfg.model.neck.init_cfg == dict(type='Pretrained', checkpoint=file, prefix=prefix)
    with torch.no_grad():
        maps = network.extract_feat(torch.zeros(1, 3, 64, 96, device='meta'))
    assert [tuple(one.shape) for one in maps] == [(1, width, 4, 6)] * 4


def test_encoders_of_the_docs():
    """The table of docs/encoders.md, which has all sizes of the DINOs."""
    text = (ROOT.parent / 'docs' / 'encoders.md').read_text(encoding='utf-8')
    rows = re.findall(r'^\| `(\w\S+\.py)` \| ([\d.]+) \| ([\d.]+) \| ([\d, ]+) \|', text, re.M)
    assert {name for name, *_ in rows} >= {base.name for base in BASES if 'dpt_dino' in base.name}
    for name, *millions, sizes in rows:
        cfg = load(ROOT / '_base_' / 'models' / name)
        network = model_of(cfg)
        counts = [sum(p.numel() for p in part.parameters()) for part in (network.backbone, network)]
        assert [f'{count / 1e6:.1f}' for count in counts] == millions, name
        if ', ' not in sizes:
            assert patch_size(network) == int(sizes), name
            continue
        with torch.no_grad():
            maps = network.eval().extract_feat(torch.zeros(1, 3, 256, 256, device='meta'))
        assert [str(256 // one.shape[-1]) for one in maps] == sizes.split(', '), name


@pytest.mark.parametrize(
    ('size', 'widths', 'millions'),
    [
        ('tiny', [96, 192, 384, 768], 27.818592),
        ('small', [96, 192, 384, 768], 49.453152),
        ('base', [128, 256, 512, 1024], 87.564416),
        ('large', [192, 384, 768, 1536], 196.227264),
    ],
)
def test_convnext_of_timm(size, widths, millions):
    """The block of docs/encoders.md as it stands, with each size."""
    text = (ROOT.parent / 'docs' / 'encoders.md').read_text(encoding='utf-8')
    section = text[text.index('### ConvNeXt\n') :]
    block = re.search(r'```python\n(.*?)```', section, re.DOTALL)[1]
    cfg = Config.fromstring(block.replace('.convnext_b', f'.convnext_{size[0]}'), '.py')
    model = model_of(cfg)
    backbone = model.student.backbone
    assert (
        cfg.model.segmentor.backbone.init_cfg.checkpoint == f'data/pretrained/convnext_{size}.pth'
    )
    assert sum(p.numel() for p in backbone.parameters()) == round(millions * 1e6)
    assert cfg.model.segmentor.decode_head.in_channels == widths
    assert cfg.model.segmentor.auxiliary_head.in_channels == widths[2]
    with torch.no_grad():
        maps = model.student.extract_feat(torch.zeros(1, 3, 64, 96, device='meta'))
    sides = [(16, 24), (8, 12), (4, 6), (2, 3)]
    expected = [(1, width, *side) for width, side in zip(widths, sides, strict=True)]
    assert [tuple(one.shape) for one in maps] == expected
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    assert {group['lr'] for group in groups} == {2.5e-5}
    decays = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    norm = backbone.timm_model.stem_1.weight
    assert (decays[id(norm)], decays[id(backbone.timm_model.stem_0.weight)]) == (0, 0.05)


def test_other_method_on_another_network():
    """The block of docs/configs.md as it stands."""
    text = (ROOT.parent / 'docs' / 'configs.md').read_text(encoding='utf-8')
    section = text[text.index('## Other networks\n') :]
    cfg = Config.fromstring(re.search(r'```python\n(.*?)```', section, re.DOTALL)[1], '.py')
    model = model_of(cfg)
    assert type(model).__name__ == 'ESL'
    assert type(model.student.backbone).__name__ == 'MixVisionTransformer'
    assert type(model.student.decode_head).__name__ == 'SegformerHead'
    assert set(model.required_hooks) <= {hook.type for hook in cfg.custom_hooks}
    (rate,) = {
        group['lr']
        for group in build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
        if any(p is model.student.decode_head.projector[0].conv.weight for p in group['params'])
    }
    # 6e-5 for 32 images per step, of which there are 8 here; heads ten times that.
    assert rate == pytest.approx(6e-5 / 4 * 10)
    assert cfg.auto_scale_lr.base_batch_size == cfg.train_dataloader.batch_size == 8
    # The table above it has every config for images of one's own.
    listed = re.findall(r'^\| `(imas_\S+?)_\*_(own-\S+)`', section, re.MULTILINE)
    own = [file.stem for file in _named('^imas.*_own-')]
    assert sorted('_1xb8-20k_'.join(parts) for parts in listed) == own
    baselines = [file.stem for file in _named('^suponly_.*_own-')]
    assert baselines == [re.sub('^imas(.*)1xb8', r'suponly\g<1>1xb4', name) for name in own]


OWN = [file.stem for file in FILES if file.parent.name == 'imas' and '_own-' in file.name]


@pytest.mark.parametrize('name', OWN)
def test_ten_lines_of_the_readme_go_on_top_of_any_network(name):
    text = (ROOT.parent / 'README.md').read_text(encoding='utf-8')
    block = re.search(r'```python\n(.*?)```', text[text.index('## Your own data\n') :], re.DOTALL)[
        1
    ]
    default = 'unimatch_v2/unimatch-v2_deeplabv3plus_r50-d8_1xb8-20k_own-512x512'
    assert default in block
    block = block.replace(default, f'imas/{name}')
    if network_config(load(ROOT / 'imas' / f'{name}.py')).get('auxiliary_head') is None:
        block = block.replace(', auxiliary_head=dict(num_classes=2)', '')
    cfg = Config.fromstring(block, '.py')
    assert model_of(cfg).num_classes == 2
    for dataset in (labeled_config(cfg), unlabeled_config(cfg), cfg.val_dataloader.dataset):
        assert dataset.data_root == 'data/cracks'
        crops = [step.crop_size for step in steps(dataset.pipeline, 'RandomCrop')]
        assert set(crops) <= {cfg.model.data_preprocessor.size}


def test_every_base_is_used(parse_each_file_once):
    """By a config, or on a page of the documentation for the reader's own."""
    for file in FILES:
        load(file)
    pages = ''.join(
        page.read_text(encoding='utf-8') for page in (ROOT.parent / 'docs').glob('*.md')
    )
    unused = [
        ids(base)
        for base in BASES
        if str(base) not in parse_each_file_once and base.name not in pages
    ]
    assert not unused


def test_shapes_validate_on_other_images():
    cfg = load(_named('^imas.*shapes')[0])
    data = cfg.train_dataloader.dataset
    sets = [data.labeled, data.unlabeled, cfg.val_dataloader.dataset]
    drawn = [range(one.start, one.start + one.num_images) for one in sets]
    assert len({one.seed for one in sets}) == 1
    assert len(set().union(*drawn)) == sum(map(len, drawn)) == 740
