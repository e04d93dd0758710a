"""Every method with every setting that decides how it labels, one training step of it, and who watches it."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from mmseg.registry import MODELS
from tiny import NUM_CLASSES, collated_batch, tiny_segmentor, unlabeled_sample
from tiny_run import METHODS
from torch.overrides import TorchFunctionMode

import mmseg_semi.engine  # noqa: F401  registers the optimizer wrappers
from mmseg_semi.models.clock import Clock
from mmseg_semi.models.segmentors.base import SemiSegmentor

GPS_TERMS = [
    dict.fromkeys(terms, False) for terms in (('gps',), ('cps',), ('fps',), ('gps', 'cps'))
]
#: What leaves the contrasts little to draw, so that a rounding error does not change the draw.
FEW_DRAWS = {
    'ESL': {
        'projector': {'num_convs': 1, 'channels': 8, 'out_channels': 8},
        'queue_size': 1,
        'anchor_ratio': 1.0,
        'num_negatives': 64,
    },
    'U2PL': {
        'low_rank': 1,
        'queue_size': 4000,
        'background_queue_size': 4000,
        'keys_per_step': 4000,
        'num_anchors': 4000,
        'num_negatives': 256,
    },
}
#: By method, what differs from its defaults (and from what METHODS makes small).
SETTINGS = {
    'IMAS': [
        {},
        {'joint_forward': False},
        {'weak_in_joint_forward': False},
        {'intensity': None},
        {'cutmix': None},
    ],
    'MeanTeacher': [{}, {'joint_forward': False}, {'student_view': 'weak'}],
    'CutMixSeg': [{}, {'joint_forward': False}, {'confidence_weighting': 'pixel'}],
    'FixMatch': [
        {'label_mode': mode, 'joint_forward': joint, 'cutmix': cutmix}
        for mode in ('train', 'eval')
        for joint in (True, False)
        for cutmix in (None, {})
    ],
    'UniMatch': [
        {'label_mode': mode, 'joint_forward': joint}
        for mode in ('train', 'eval')
        for joint in (True, False)
    ],
    'PrevMatch': [{}, {'label_mode': 'eval', 'joint_forward': True}],
    'CorrMatch': [{}, {'cutmix': None}],
    'UniMatchV2': [{'joint_forward': True}, {'joint_forward': False}, {'cutmix': None}],
    'ESL': [
        {},
        {'num_parts': 0},
        {'segmentation_head': None},
        {'cutmix': None},
        {'top_classes': 1},
    ],
    'U2PL': [
        {},
        {'contrast_weight': 0.0},
        {'cutmix': None},
        {'anchor_pixels': 'surest', 'negatives': 'code', 'center_pixels': 'all'},
    ],
    'DeS4': [
        {},
        {'shared_head': False},
        {'decoupled_training': False, 'pixel_reweighting': False},
        {'decoupled_training': False, 'pixel_reweighting': False, 'shared_head': False},
        {'pixel_reweighting': False},
        {'cutmix': None},
    ],
    'CPS': [
        *({'cutmix': cutmix} for cutmix in ('pair', 'in_batch', None)),
        {'cutmix': None, 'cps_on_labeled': False},
        {'cutmix': 'pair', 'recompute': True},
    ],
    'GPS': [
        *(
            {'cutmix': cutmix, 'update': update}
            for cutmix in ('pair', 'in_batch', None)
            for update in ('alternating', 'merged')
        ),
        *({'cutmix': cutmix, **terms} for cutmix in ('pair', None) for terms in GPS_TERMS),
        {'cutmix': 'pair', 'recompute': True},
        {'cutmix': None, 'recompute': True},
    ],
}
#: Parameters whose gradient is 0 but for rounding: a softmax over the keys does not see what all keys share.
ROUNDING_ALONE = ('student.decode_head.correlator.key.bias',)
CASES = [(method, settings) for method, several in SETTINGS.items() for settings in several]


def name_of(value) -> str:
    """The id of a case."""
    if isinstance(value, str):
        return value
    return ','.join(f'{key}={one}' for key, one in value.items()) or 'defaults'


def build(method: str, settings: dict) -> SemiSegmentor:
    """A small method in train mode whose networks differ and are sure of several classes."""
    torch.manual_seed(0)
    known = {**copy.deepcopy(METHODS[method][0]), **FEW_DRAWS.get(method, {}), **settings}
    known['unlabeled_start'] = 0
    known = {key: known[key] for key in known.keys() & MODELS.get(method).Settings._settings.keys()}
    # BN: a GroupNorm behind a layer that has lost its gradient can crash the process on a CPU.
    network = tiny_segmentor('BN', auxiliary=True)
    # Shallow, so that bfloat16's rounding errors do not pile up.
    stages = {'num_stages': 2, 'strides': (1, 2), 'dilations': (1, 1), 'out_indices': (0, 1)}
    network['backbone'].update(type='ResNet', base_channels=8, **stages)
    network['decode_head'].update(in_channels=16, in_index=1)
    network['auxiliary_head'].update(in_channels=8, in_index=0)
    model = MODELS.build({'type': method, 'segmentor': network, 'semi_train_cfg': known})
    with torch.no_grad():
        for name in model.networks:
            classifier = getattr(model, name).decode_head.conv_seg
            if hasattr(classifier, 'weight'):
                classifier.weight.normal_(std=2.0)
    if hasattr(model, 'equalizer'):
        model.equalizer.class_counts.fill_(1)
    if method == 'ESL' and known.get('num_parts') != 0:
        shape = model.contrast.prototypes.vectors.shape[1:]
        for label in range(NUM_CLASSES):
            model.contrast.prototypes.start(label, torch.randn(shape))
    if method == 'PrevMatch':
        model.keep_student()
        model.clock = Clock(1, 4)
    return model.train()


def batch() -> dict:
    """Two labeled and four unlabeled images of a few colors, each of the latter with another padding."""
    data = collated_batch(2, 4)
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, NUM_CLASSES, (6, 1, 4, 4), generator=generator)
    label = coarse.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    colors = torch.tensor([[250, 20, 20], [20, 250, 20], [20, 20, 250], [250, 250, 20]])
    images = colors[label[:, 0]].permute(0, 3, 1, 2).to(torch.uint8)
    for branch, inputs in data['inputs'].items():
        shown = images[:2] if branch == 'labeled' else images[2:]
        noise = torch.randint(0, 5, inputs.shape, dtype=torch.uint8, generator=generator)
        data['inputs'][branch] = shown + noise
    for sample, one in zip(data['data_samples']['labeled'], label, strict=False):
        sample.gt_sem_seg.data = one
    for branch in ('weak', 'strong', 'strong2'):
        valid = [torch.arange(32).expand(32, 32) < 32 - 3 * i for i in range(4)]
        data['data_samples'][branch] = [unlabeled_sample(one) for one in valid]
    return data


def step(model: SemiSegmentor, autocast: bool = True) -> None:
    """Make one training step at a rate of 0 and leave the gradients in place."""
    wrapper = build_optim_wrapper(
        model,
        {
            'type': 'AutocastOptimWrapper' if autocast else 'OptimWrapper',
            'constructor': 'NetworkOptimWrapperConstructor',
            'optimizer': {'type': 'SGD', 'lr': 0.0},
        },
    )
    for one in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
        one.zero_grad = lambda **kwargs: None
    wrapper.initialize_count_status(model, 1, 4)
    torch.manual_seed(1)
    model.train_step(batch(), wrapper)


def backward(model: SemiSegmentor, autocast: bool = True) -> None:
    """Leave the gradients of all losses, of two updates as well, from one region of autocast."""
    torch.manual_seed(1)
    data = model.data_preprocessor(batch(), True)
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        losses = model.loss(**data)
    model.parse_losses(losses)[0].backward()


class StaleCasts(TorchFunctionMode):
    """Watch the weights of convolutions and linear layers, on any version of torch.

    Attributes:
        reused (list[Tensor]): Weights that a pass with gradients used after one without gradients had used them
            while autocast's cache was on. Up to torch 2.9 they get no gradient under autocast.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reused, self._kept = [], {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (F.conv2d, F.conv_transpose2d, F.linear):
            weight = args[1] if len(args) > 1 else kwargs['weight']
            if weight.is_leaf and weight.requires_grad:
                if torch.is_grad_enabled() and id(weight) in self._kept:
                    self.reused.append(weight)
                elif torch.is_autocast_cache_enabled() and not torch.is_grad_enabled():
                    self._kept[id(weight)] = weight
        return func(*args, **(kwargs or {}))
