"""Run training steps of every method and setting, to check that a code change keeps all numbers.

Capture the steps before and after the change, then compare them bit for bit::

    PYTHONPATH=OLD python benchmarks/same_steps.py capture old.pt
    PYTHONPATH=NEW python benchmarks/same_steps.py capture new.pt
    python benchmarks/same_steps.py compare old.pt new.pt

OLD and NEW are checkouts. Use the same copy of this file for both, on the same machine. It compares the
logged values and their order, the gradients of each optimizer step, and the states of the random generators
after each of three iterations, and all weights and buffers after the last one. A capture takes a few minutes
on one core.

``fingerprint`` writes sums in float64, which agree to 6 digits on all machines. A test compares them with
tests/benchmarks/same_steps.json. If numbers change on purpose, write the file again::

    python benchmarks/same_steps.py fingerprint tests/benchmarks/same_steps.json

Each image of each branch has a different padding, so that a swapped mask changes the numbers.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import traceback
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

import mmseg_semi

NUM_CLASSES, SIZE, ITERATIONS, LENGTH = 4, 32, 3, 10

#: Prefixes of weights and buffers that a refactoring has renamed: new = old.
RENAMED: dict[str, str] = {
    'contrast.prototypes.': 'prototypes.',
    'contrast.bank.': 'bank.',
    'equalizer.class_counts': 'class_counts',
    'ramp_up.': '',
}
#: Prefixes of tensors that only one of the two versions has, such as new buffers, under their old names.
ONLY_IN_ONE: tuple[str, ...] = ()


@dataclass
class Case:
    """One method with some settings.

    Attributes:
        method (str): Registered name.
        settings (dict): Its ``semi_train_cfg``.
        unlabeled (int): Unlabeled images in the batch, beside 2 labeled ones.
        accumulate (int): Iterations of one optimizer step.
        reduced (bool): The case is part of the reduced form.
    """

    method: str
    settings: dict = field(default_factory=dict)
    unlabeled: int = 3
    accumulate: int = 1
    reduced: bool = False


MIX = {'prob': 1.0}
HALF = {'prob': 0.5}
ONE_BY_ONE = {'prob': 0.5, 'per_image': True}
FIXED = {'adaptive': False, 'prob': 0.5}
EACH_BOX = {
    style: {'prob': 1.0, 'style': style} for style in ('imas', 'unimatch', 'u2pl', 'cutmix_seg')
}
FIX = {'tau': 0.6}
ESL = {
    'segmentation_head': {'channels': 6, 'dropout_ratio': 0.0},
    'projector': {'channels': 6, 'out_channels': 4},
    'num_parts': 3,
    'queue_size': 4,
    'num_negatives': 8,
    'anchor_threshold': 0.5,
}
U2PL = {
    'representation': {'channels': 6, 'out_channels': 4, 'dropout_ratio': 0.0},
    'num_anchors': 8,
    'num_negatives': 6,
    'low_rank': 1,
    'high_rank': 3,
    'queue_size': 20,
    'background_queue_size': 30,
    'keys_per_step': 5,
    'cutmix': MIX,
    # Upsampling makes groups of equal pixels, whose entropies each machine rounds differently. With this share,
    # the threshold is in none of them.
    'unreliable_share': 0.28,
}
DES4 = {'temperature': 0.2, 'num_zones': 3}
CORR_MATCH = {
    'channels': 8,
    'projector_dropout': 0.0,
    'num_regions': 6,
    'tau_start': 0.4,
    'tau_decay': 0.9,
}

CASES = {
    'fixmatch': Case('FixMatch', FIX, reduced=True),
    'fixmatch-mixed': Case('FixMatch', {**FIX, 'cutmix': {**MIX, 'per_image': False}}),
    'fixmatch-unmixed': Case('FixMatch', {**FIX, 'cutmix': None}),
    **{
        f'fixmatch-{style}': Case('FixMatch', {**FIX, 'cutmix': EACH_BOX[style]})
        for style in EACH_BOX
    },
    'fixmatch-eval': Case('FixMatch', {'tau': 0.4, 'label_mode': 'eval'}),
    'fixmatch-eval-joint': Case(
        'FixMatch',
        {'tau': 0.4, 'label_mode': 'eval', 'joint_forward': True, 'divisor': 'confident'},
        reduced=True,
    ),
    'fixmatch-train-joint': Case('FixMatch', {**FIX, 'joint_forward': True, 'divisor': 'area'}),
    'fixmatch-padding': Case('FixMatch', {**FIX, 'ignore_padding': False, 'unlabeled_weight': 2}),
    'fixmatch-start': Case('FixMatch', {**FIX, 'unlabeled_start': 2, 'labeled_weight': 0.5}),
    'fixmatch-accumulate': Case('FixMatch', {**FIX, 'unlabeled_start': 1}, accumulate=2),
    'unimatch': Case('UniMatch', FIX, reduced=True),
    'unimatch-mixed': Case('UniMatch', {**FIX, 'cutmix': {**MIX, 'per_image': False}}),
    'unimatch-unmixed': Case('UniMatch', {**FIX, 'cutmix': None}),
    'unimatch-eval': Case('UniMatch', {'tau': 0.4, 'label_mode': 'eval'}),
    'unimatch-eval-joint': Case(
        'UniMatch', {'tau': 0.4, 'label_mode': 'eval', 'joint_forward': True}, reduced=True
    ),
    'unimatch-train-joint': Case('UniMatch', {**FIX, 'joint_forward': True}),
    'unimatch-features': Case(
        'UniMatch', {**FIX, 'feature_weight': 1.5, 'strong_weight': 0.0, 'dropout_ratio': 0.25}
    ),
    'unimatch-padding': Case('UniMatch', {**FIX, 'ignore_padding': False}),
    'unimatch-start': Case('UniMatch', {**FIX, 'unlabeled_start': 2, 'labeled_weight': 2.0}),
    'unimatch-accumulate': Case('UniMatch', FIX, accumulate=2),
    'unimatch_v2': Case('UniMatchV2', FIX, reduced=True),
    'unimatch_v2-mixed': Case('UniMatchV2', {**FIX, 'cutmix': {**MIX, 'per_image': False}}),
    'unimatch_v2-unmixed': Case('UniMatchV2', {**FIX, 'cutmix': None}),
    'unimatch_v2-joint': Case('UniMatchV2', {**FIX, 'joint_forward': True, 'dropout_prob': 1.0}),
    'unimatch_v2-whole': Case('UniMatchV2', {**FIX, 'dropout_prob': 0.0}),
    'unimatch_v2-padding': Case('UniMatchV2', {**FIX, 'ignore_padding': False}),
    'unimatch_v2-start': Case('UniMatchV2', {**FIX, 'unlabeled_start': 2}),
    'unimatch_v2-accumulate': Case('UniMatchV2', FIX, accumulate=2),
    'prevmatch': Case('PrevMatch', {**FIX, 'guidance_tau': 0.3}, reduced=True),
    'prevmatch-all': Case('PrevMatch', {**FIX, 'guidance_tau': 0.0, 'random_number': False}),
    'prevmatch-device': Case(
        'PrevMatch', {**FIX, 'num_models': 1, 'place': 'device', 'guidance_tau': 0.3}
    ),
    'prevmatch-accumulate': Case('PrevMatch', {**FIX, 'guidance_tau': 0.5}, accumulate=2),
    'corrmatch': Case('CorrMatch', CORR_MATCH, reduced=True),
    'corrmatch-mixed': Case('CorrMatch', {**CORR_MATCH, 'cutmix': {**MIX, 'per_image': False}}),
    'corrmatch-unmixed': Case('CorrMatch', {**CORR_MATCH, 'cutmix': None}),
    'corrmatch-dropout': Case(
        'CorrMatch', {**CORR_MATCH, 'projector_dropout': 0.2, 'dropout_ratio': 0.25}
    ),
    'corrmatch-no_regions': Case('CorrMatch', {**CORR_MATCH, 'num_regions': 0}),
    'corrmatch-weights': Case(
        'CorrMatch',
        {
            **CORR_MATCH,
            'labeled_correlation_weight': 0.0,
            'soft_weight': 0.5,
            'feature_weight': 0.0,
            'region_threshold': 0.3,
        },
    ),
    'corrmatch-padding': Case('CorrMatch', {**CORR_MATCH, 'ignore_padding': False}),
    'corrmatch-start': Case(
        'CorrMatch', {**CORR_MATCH, 'unlabeled_start': 2, 'labeled_weight': 0.5}, reduced=True
    ),
    'corrmatch-accumulate': Case('CorrMatch', CORR_MATCH, accumulate=2),
    'mean_teacher': Case('MeanTeacher', reduced=True),
    'mean_teacher-weak': Case('MeanTeacher', {'student_view': 'weak', 'class_mean': True}),
    'mean_teacher-separate': Case('MeanTeacher', {'joint_forward': False}),
    'mean_teacher-padding': Case('MeanTeacher', {'ignore_padding': False}),
    'mean_teacher-ramp_up': Case(
        'MeanTeacher', {'rampup_steps': 3, 'unlabeled_start': 1}, reduced=True
    ),
    'mean_teacher-accumulate': Case('MeanTeacher', {'rampup_steps': 3}, accumulate=2),
    'cutmix_seg': Case('CutMixSeg', {'tau': 0.6}, reduced=True),
    'cutmix_seg-pixel': Case('CutMixSeg', {'tau': 0.6, 'confidence_weighting': 'pixel'}),
    'cutmix_seg-strong': Case('CutMixSeg', {'tau': 0.6, 'student_view': 'strong'}),
    'cutmix_seg-per_image': Case(
        'CutMixSeg', {'tau': 0.6, 'cutmix': ONE_BY_ONE, 'class_mean': True}
    ),
    'cutmix_seg-separate': Case('CutMixSeg', {'tau': 0.6, 'joint_forward': False}),
    'cutmix_seg-padding': Case('CutMixSeg', {'tau': 0.6, 'ignore_padding': False}),
    'cutmix_seg-start': Case('CutMixSeg', {'tau': 0.6, 'unlabeled_start': 1, 'rampup_steps': 2}),
    'cutmix_seg-accumulate': Case('CutMixSeg', {'tau': 0.6}, accumulate=2),
    'imas': Case('IMAS', FIX, reduced=True),
    'imas-unmixed': Case('IMAS', {**FIX, 'cutmix': None}),
    'imas-no_intensity': Case('IMAS', {**FIX, 'intensity': None}),
    'imas-weak': Case('IMAS', {**FIX, 'intensity': None, 'cutmix': None}),
    'imas-plain': Case(
        'IMAS',
        {**FIX, 'intensity': {'adaptive': False}, 'cutmix': FIXED, 'adaptive_loss': False},
        reduced=True,
    ),
    'imas-per_image': Case('IMAS', {**FIX, 'cutmix': {**FIXED, 'per_image': True}}),
    'imas-literal': Case(
        'IMAS',
        {**FIX, 'untriggered': 'literal', 'weak_in_joint_forward': True, 'ignore_background': True},
    ),
    'imas-official': Case(
        'IMAS', {**FIX, 'weak_in_joint_forward': True, 'ignore_padding': False}, reduced=True
    ),
    'imas-separate': Case('IMAS', {**FIX, 'joint_forward': False}),
    'imas-start': Case('IMAS', {**FIX, 'unlabeled_start': 2}),
    'imas-accumulate': Case('IMAS', FIX, accumulate=2),
    'esl': Case('ESL', {**ESL, 'cutmix': MIX}, reduced=True),
    'esl-half': Case('ESL', {**ESL, 'cutmix': HALF}),
    'esl-per_image': Case('ESL', {**ESL, 'cutmix': ONE_BY_ONE}),
    'esl-unmixed': Case('ESL', {**ESL, 'cutmix': None}),
    'esl-no_contrast': Case('ESL', {**ESL, 'num_parts': 0}, reduced=True),
    'esl-no_contrast-unmixed': Case('ESL', {**ESL, 'num_parts': 0, 'cutmix': None}),
    'esl-options': Case(
        'ESL',
        {
            **ESL,
            'top_classes': 2,
            'exclude_same_class': True,
            'normalize_encoder': False,
            'min_conf_for_parts': 0.4,
            'projector_last_act': False,
            'max_anchors': 5,
            'anchor_ratio': 0.5,
        },
    ),
    'esl-padding': Case('ESL', {**ESL, 'ignore_padding': False}),
    'esl-stock': Case('ESL', {**ESL, 'segmentation_head': None, 'tap_after_dropout': True}),
    'esl-dropout': Case('ESL', {**ESL, 'segmentation_head': {'channels': 6, 'dropout_ratio': 0.2}}),
    'esl-stage': Case('ESL', {**ESL, 'encoder_index': 1, 'encoder_channels': 8, 'cutmix': MIX}),
    'esl-start': Case('ESL', {**ESL, 'unlabeled_start': 2}, reduced=True),
    'esl-accumulate': Case('ESL', {**ESL, 'cutmix': MIX}, accumulate=2),
    'u2pl': Case('U2PL', U2PL, reduced=True),
    'u2pl-code': Case(
        'U2PL',
        {
            **U2PL,
            'anchor_pixels': 'surest',
            'negatives': 'code',
            'center_pixels': 'all',
            'class_average': 'present',
            'ignore_padding': False,
        },
        reduced=True,
    ),
    **{
        f'u2pl-{name}-{value}': Case('U2PL', {**U2PL, name: value})
        for name, value in (
            ('anchor_pixels', 'surest'),
            ('negatives', 'code'),
            ('center_pixels', 'all'),
            ('class_average', 'present'),
        )
    },
    'u2pl-half': Case('U2PL', {**U2PL, 'cutmix': HALF, 'low_rank': 0}),
    'u2pl-unmixed': Case('U2PL', {**U2PL, 'cutmix': None}),
    'u2pl-no_contrast': Case('U2PL', {**U2PL, 'contrast_weight': 0.0}),
    'u2pl-dropout': Case('U2PL', {**U2PL, 'representation': {'channels': 6, 'out_channels': 4}}),
    'u2pl-unreliable': Case('U2PL', {**U2PL, 'unreliable_share': 0.8, 'anchor_threshold': 0.1}),
    'u2pl-start': Case('U2PL', {**U2PL, 'unlabeled_start': 2}),
    'u2pl-accumulate': Case('U2PL', U2PL, accumulate=2),
    'des4': Case('DeS4', DES4, reduced=True),
    'des4-quantity': Case('DeS4', {**DES4, 'sampling': 'quantity'}),
    'des4-confidence': Case('DeS4', {**DES4, 'sampling': 'confidence', 'class_ratio': 'literal'}),
    'des4-literal': Case('DeS4', {**DES4, 'class_ratio': 'literal', 'alpha': 0.5}),
    'des4-own_heads': Case('DeS4', {**DES4, 'shared_head': False}, reduced=True),
    'des4-coupled': Case('DeS4', {**DES4, 'decoupled_training': False, 'pixel_reweighting': False}),
    'des4-coupled-own_heads': Case(
        'DeS4',
        {**DES4, 'decoupled_training': False, 'pixel_reweighting': False, 'shared_head': False},
    ),
    'des4-plain_mean': Case('DeS4', {**DES4, 'pixel_reweighting': False}),
    'des4-labeled_set': Case('DeS4', {**DES4, 'prototype_init': 'labeled_set'}, reduced=True),
    'des4-letter': Case('DeS4', {**DES4, 'normalize': False, 'temperature': 1.0}),
    'des4-half': Case('DeS4', {**DES4, 'cutmix': HALF}),
    'des4-unmixed': Case('DeS4', {**DES4, 'cutmix': None}),
    'des4-padding': Case('DeS4', {**DES4, 'ignore_padding': False}),
    'des4-start': Case('DeS4', {**DES4, 'unlabeled_start': 2, 'labeled_weight': 0.5}),
    'des4-accumulate': Case('DeS4', DES4, accumulate=2),
    'cps': Case('CPS', unlabeled=4, reduced=True),
    'cps-in_batch': Case('CPS', {'cutmix': 'in_batch'}),
    'cps-unmixed': Case('CPS', {'cutmix': None}, reduced=True),
    'cps-unlabeled_only': Case('CPS', {'cutmix': None, 'cps_on_labeled': False}),
    'cps-padding': Case('CPS', {'cutmix': None, 'ignore_padding': False}),
    'cps-mixed-padding': Case('CPS', {'ignore_padding': False}, unlabeled=4),
    'cps-recompute': Case('CPS', {'recompute': True}, unlabeled=4),
    'cps-start': Case('CPS', {'unlabeled_start': 2}, unlabeled=4),
    'cps-accumulate': Case('CPS', unlabeled=4, accumulate=2),
    'gps': Case('GPS', unlabeled=4, reduced=True),
    'gps-in_batch': Case('GPS', {'cutmix': 'in_batch'}),
    'gps-unmixed': Case('GPS', {'cutmix': None}, reduced=True),
    'gps-merged': Case('GPS', {'update': 'merged'}, unlabeled=4),
    'gps-merged-unmixed': Case('GPS', {'update': 'merged', 'cutmix': None}),
    **{
        f'gps-{"".join(left_out)}_off{"" if cutmix else "-unmixed"}{"-merged" if merged else ""}': Case(
            'GPS',
            {
                **dict.fromkeys(left_out, False),
                'cutmix': cutmix,
                'update': 'merged' if merged else 'alternating',
            },
        )
        for left_out in (
            ('gps',),
            ('cps',),
            ('fps',),
            ('gps', 'cps'),
            ('gps', 'fps'),
            ('cps', 'fps'),
            ('gps', 'cps', 'fps'),
        )
        for cutmix in ('in_batch', None)
        for merged in (False, True)
        if not (merged and 'fps' in left_out)
    },
    'gps-padding': Case('GPS', {'ignore_padding': False}, unlabeled=4),
    'gps-recompute': Case('GPS', {'recompute': True, 'cutmix': 'in_batch'}),
    'gps-teacher_lr': Case('GPS', {'teacher_lr_scale': 0.1, 'beta': 3, 'gamma': 1}, unlabeled=4),
    'gps-start': Case('GPS', {'unlabeled_start': 2}, unlabeled=4),
    'gps-accumulate': Case('GPS', unlabeled=4, accumulate=2),
    'gps-accumulate-unmixed': Case('GPS', {'cutmix': None}, accumulate=2),
}


# ---------------------------------------------------------------------- network and batch
def segmentor(norm: str, dropout_ratio: float) -> dict:
    """A ResNet-18 of 4 base channels with an FCN head of 8 and an auxiliary head."""
    norm_cfg = {'type': norm, 'requires_grad': True}
    if norm == 'GN':
        norm_cfg['num_groups'] = 2
    head = {
        'type': 'FCNHead',
        'in_channels': 32,
        'in_index': 3,
        'channels': 8,
        'num_convs': 1,
        'concat_input': False,
        'dropout_ratio': dropout_ratio,
        'num_classes': NUM_CLASSES,
        'norm_cfg': norm_cfg,
        'loss_decode': {'type': 'PixelCrossEntropyLoss'},
    }
    auxiliary_loss = {'type': 'PixelCrossEntropyLoss', 'loss_weight': 0.4}
    return {
        'type': 'EncoderDecoder',
        'data_preprocessor': {
            'type': 'SegDataPreProcessor',
            'mean': [123.675, 116.28, 103.53],
            'std': [58.395, 57.12, 57.375],
        },
        'backbone': {
            'type': 'ResNetV1c',
            'depth': 18,
            'stem_channels': 8,
            'base_channels': 4,
            'strides': (1, 1, 2, 1),
            'norm_cfg': norm_cfg,
        },
        'decode_head': head,
        'auxiliary_head': {**head, 'in_channels': 16, 'in_index': 2, 'loss_decode': auxiliary_loss},
        'train_cfg': {},
        'test_cfg': {'mode': 'whole'},
    }


def batch(iteration: int, num_unlabeled: int) -> dict:
    """A collated batch; every image of every branch has other padding, and so have the labels."""
    generator = torch.Generator().manual_seed(100 + iteration)

    def images(num: int) -> Tensor:
        shape = (num, 3, SIZE, SIZE)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)

    def samples(branch: int, key: str, maps: Tensor, fill: int) -> list[SegDataSample]:
        result = []
        for index, one in enumerate(maps):
            one[:, SIZE - (3 * index + 5 * branch + 2 * iteration) % 17 :] = fill
            sample = SegDataSample(metainfo={'img_shape': (SIZE, SIZE), 'img_path': f'{index}.png'})
            sample.set_data({key: PixelData(data=one[None])})
            result.append(sample)
        return result

    label = torch.randint(0, NUM_CLASSES, (2, SIZE, SIZE), generator=generator)
    weak = images(num_unlabeled)
    inputs = {'labeled': images(2), 'weak': weak, 'strong': 255 - weak, 'strong2': weak ^ 85}
    data_samples = {'labeled': samples(0, 'gt_sem_seg', label, 255)}
    for index, branch in enumerate(('weak', 'strong', 'strong2'), start=1):
        valid = torch.ones(num_unlabeled, SIZE, SIZE, dtype=torch.bool)
        data_samples[branch] = samples(index, 'valid_mask', valid, False)
    return {'inputs': inputs, 'data_samples': data_samples}


# ---------------------------------------------------------------------- what differs between versions
def old_name(name: str) -> str:
    """The name that a weight or buffer had before the refactoring."""
    for new, old in RENAMED.items():
        if name.startswith(new):
            return old + name[len(new) :]
    return name


def part(model: nn.Module, *names: str) -> Any:
    """The module of one of these names that holds a method's state, or else the model itself."""
    return next((getattr(model, name) for name in names if hasattr(model, name)), model)


def start_state(model: nn.Module, case: Case) -> None:
    """Set the state that hooks set before the first iteration."""
    contrast = part(model, 'contrast')
    if case.method == 'ESL' and hasattr(contrast, 'prototypes'):
        draw(contrast.prototypes.vectors, 'prototypes.vectors')
        contrast.prototypes.valid.fill_(True)
    if case.method == 'DeS4':
        counts = part(model, 'equalizer').class_counts
        counts.copy_(torch.arange(1, NUM_CLASSES + 1) * 10)
        if case.settings.get('prototype_init') == 'labeled_set':
            classifier = model.teacher.decode_head.conv_seg
            draw(classifier.vectors, 'classifier.vectors')
            classifier.seen.fill_(True)
    if case.method == 'GPS':
        ramp_up = part(model, 'ramp_up')
        setattr(ramp_up, 'ramp_up_weight' if ramp_up is model else 'weight', 0.7)


def after_step(model: nn.Module) -> None:
    """Make the updates that hooks make after an optimizer step."""
    if hasattr(model, 'update_teacher'):
        model.update_teacher(0.9)
    if hasattr(model, 'keep_student'):
        model.keep_student()


# ---------------------------------------------------------------------- capturing
def draw(tensor: Tensor, name: str, scale: float = 1.0) -> None:
    """Fill a tensor in place with numbers in [-scale, scale) that its name decides, equal on any machine."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    numbers = torch.randint(-(2**15), 2**15, tensor.shape, generator=generator)
    with torch.no_grad():
        tensor.copy_(numbers.double() / 2**15 * scale)


def draw_weights(model: nn.Module, everything: bool) -> None:
    """Draw the classifiers, so that networks differ and are sure of something; or all weights."""
    for name, weight in model.named_parameters():
        network, _, rest = name.partition('.')
        own = old_name(name) if network != 'teacher' or 'conv_seg' in rest else f'student.{rest}'
        if rest == 'decode_head.conv_seg.weight':
            draw(weight, own, 3.0 if network == 'teacher' else 2.0)
        elif everything and weight.dim() > 1:
            draw(weight, own, (6 / weight[0].numel()) ** 0.5)


def build(case: Case, norm: str, float64: bool) -> nn.Module:
    """The model of a case in train mode, initialized from fixed seeds."""
    # Dropout draws different numbers on different machines.
    network = segmentor(norm, dropout_ratio=0.0 if float64 else 0.1)
    model = MODELS.build(
        {'type': case.method, 'segmentor': network, 'semi_train_cfg': {**case.settings}}
    )
    model.init_weights()
    draw_weights(model, everything=float64)
    start_state(model, case)
    if float64:
        model.double()
        model.data_preprocessor.register_forward_hook(_images_to_double)
    return model.train()


def _images_to_double(module: nn.Module, args: tuple, data: dict) -> dict:
    return {**data, 'inputs': {branch: one.double() for branch, one in data['inputs'].items()}}


def run(case: Case, norm: str, float64: bool = False) -> dict[str, Any]:
    """Train a few iterations.

    Args:
        case (Case): What to train.
        norm (str): 'GN' or 'BN'.
        float64 (bool): Everything in float64 and without dropout, so that all machines agree.

    Returns:
        dict: ``iterations``, a list of dicts of ``log`` (the logged values by name), ``gradients`` (by
        optimizer and parameter, of the steps in this iteration) and ``random`` (states of the generators);
        and ``state``, the weights and buffers in the end.
    """
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(0)
    model = build(case, norm, float64)
    names = {id(weight): old_name(name) for name, weight in model.named_parameters()}
    wrapper = build_optim_wrapper(
        model,
        {
            'constructor': 'NetworkOptimWrapperConstructor',
            'optimizer': {'type': 'SGD', 'lr': 0.005, 'momentum': 0.9},
            'accumulative_counts': case.accumulate,
        },
    )
    wrapper.initialize_count_status(model, 0, LENGTH)
    several = dict(wrapper.items()) if isinstance(wrapper, OptimWrapperDict) else {'': wrapper}
    gradients: dict[str, Tensor | None] = {}

    def keep_gradients(optimizer: torch.optim.Optimizer, name: str) -> None:
        for group in optimizer.param_groups:
            for weight in group['params']:
                grad = None if weight.grad is None else weight.grad.clone()
                gradients[f'{name} {names[id(weight)]}'] = grad

    for name, one in several.items():
        one.optimizer.register_step_pre_hook(
            lambda optim, *_, name=name: keep_gradients(optim, name)
        )
    torch.manual_seed(7)
    iterations = []
    for iteration in range(ITERATIONS + (case.accumulate - 1) * 2):
        gradients.clear()
        log = model.train_step(batch(iteration, case.unlabeled), wrapper)
        if gradients:
            after_step(model)
        log = {name: torch.as_tensor(value).detach().clone() for name, value in log.items()}
        iterations.append({'log': log, 'gradients': dict(gradients), 'random': random_states()})
    state = {old_name(name): value.clone() for name, value in model.state_dict().items()}
    return {'iterations': iterations, 'state': state}


def random_states() -> dict[str, Tensor]:
    _, keys, position, *_ = np.random.get_state()
    return {
        'torch': torch.get_rng_state(),
        'numpy': torch.tensor([*keys.tolist(), position]),
        'python': torch.tensor(random.getstate()[1]),
    }


def capture(path: str, pattern: str = '') -> int:
    """Save what :func:`run` returns for all cases whose name contains ``pattern``, with both normalizations.

    Returns:
        int: How many cases ended in an error, which is saved in their place.
    """
    captured: dict[str, Any] = {}
    for name, case in CASES.items():
        if pattern not in name:
            continue
        for norm in ('GN', 'BN'):
            try:
                captured[f'{name} {norm}'] = run(case, norm)
            except Exception as error:
                traceback.print_exc()
                captured[f'{name} {norm}'] = repr(error)
    torch.save(captured, path)
    failed = sum(isinstance(one, str) for one in captured.values())
    print(f'{len(captured)} cases of {mmseg_semi.__file__} captured, {failed} failed')
    return failed


# ---------------------------------------------------------------------- comparing
def compare(old: dict[str, Any], new: dict[str, Any]) -> int:
    """Print the differences of two captures, one line per case.

    Returns:
        int: How many cases differ, are in one of the two only, or failed.
    """
    differ = compared = 0
    for case in [*old, *(new.keys() - old.keys())]:
        first, second = old.get(case, 'not captured'), new.get(case, 'not captured')
        if isinstance(first, str) or isinstance(second, str):
            ended = [one if isinstance(one, str) else 'captured' for one in (first, second)]
            problems = [f'old: {ended[0]}, new: {ended[1]}']
        else:
            problems, number = differences(first, second)
            compared += number
        if problems:
            differ += 1
            more = f' and {len(problems) - 3} more' if len(problems) > 3 else ''
            print(f'{case}: {"; ".join(problems[:3])}{more}')
    print(f'{len({*old, *new})} cases, {differ} differ, {compared} values compared bit for bit')
    return differ


def differences(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[str], int]:
    """The differences of two results of :func:`run`, and the number of compared tensors."""
    problems, compared = [], 0
    if len(old['iterations']) != len(new['iterations']):
        problems.append(f'{len(old["iterations"])} and {len(new["iterations"])} iterations')
    groups = [
        (f'iteration {i}, {kind}', one[kind], other[kind])
        for i, (one, other) in enumerate(zip(old['iterations'], new['iterations'], strict=False))
        for kind in ('log', 'gradients', 'random')
    ]
    for where, one, other in [*groups, ('state', old['state'], new['state'])]:
        for name in [*one, *(other.keys() - one.keys())]:
            if name.startswith(ONLY_IN_ONE):
                continue
            compared += 1
            if name not in one or name not in other:
                problems.append(f'{where}: {name} only in {"old" if name in one else "new"}')
            elif not equal(one[name], other[name]):
                problems.append(f'{where}: {name}{distance(one[name], other[name])}')
        if where.endswith('log') and one.keys() == other.keys() and list(one) != list(other):
            problems.append(f'{where}: another order, {list(one)} and {list(other)}')
    return problems, compared


def equal(one: Tensor | None, other: Tensor | None) -> bool:
    """Same shape, dtype and values; two NaN are equal."""
    if one is None or other is None:
        return one is other
    same = one.dtype == other.dtype and one.shape == other.shape
    return same and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def distance(one: Tensor | None, other: Tensor | None) -> str:
    if one is None or other is None or one.shape != other.shape:
        return f' is {_kind(one)} and {_kind(other)}'
    return f' differs by {(one.double() - other.double()).abs().max().item():.3g}'


def _kind(tensor: Tensor | None) -> str:
    return 'None' if tensor is None else f'{tensor.dtype} {tuple(tensor.shape)}'


# ---------------------------------------------------------------------- the reduced form
def fingerprint(case: Case, norm: str) -> dict[str, Any]:
    """Few numbers that tell whether the steps of a case in float64 are the same, on any machine.

    Returns:
        dict: ``log`` (the logged values of each iteration), ``gradients`` (:func:`sums` of each iteration)
        and ``state`` (sums of the floating-point state).
    """
    result = run(case, norm, float64=True)
    return {
        'log': [
            {name: value.item() for name, value in one['log'].items()}
            for one in result['iterations']
        ],
        'gradients': [sums(one['gradients']) for one in result['iterations']],
        'state': sums(result['state']),
    }


def sums(tensors: dict[str, Tensor | None]) -> list[float]:
    """Of all numbers of floating-point tensors, the norm and a sum with weights of names and positions."""
    square, weighted = 0.0, 0.0
    for name, tensor in sorted(tensors.items()):
        if tensor is None or not tensor.is_floating_point():
            continue
        flat = tensor.double().flatten()
        weights = torch.empty_like(flat)
        draw(weights, f'sum of {name}')
        square += flat.square().sum().item()
        weighted += flat.dot(weights).item()
    return [square**0.5, weighted]


def write_fingerprints(path: str) -> None:
    """Write the fingerprint: sums in float64 of the cases that it includes."""
    prints = {
        f'{name} {norm}': fingerprint(case, norm)
        for name, case in CASES.items()
        if case.reduced
        for norm in ('GN', 'BN')
    }
    with open(path, 'w', encoding='utf-8') as file:
        # A case a line.
        lines = (f'{json.dumps(name)}: {json.dumps(_rounded(one))}' for name, one in prints.items())
        file.write('{\n' + ',\n'.join(lines) + '\n}\n')
    print(f'{len(prints)} cases written to {path}')


def _rounded(value: Any) -> Any:
    """Numbers with 8 digits."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f'{value:.8g}')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest='command', required=True)
    one = commands.add_parser('capture', help='save all steps of the installed code')
    one.add_argument('out', metavar='OUT.pt')
    one.add_argument(
        '--only', metavar='WORD', default='', help='only cases whose name contains this text'
    )
    one = commands.add_parser('compare', help='compare two captures bit for bit')
    one.add_argument('old', metavar='OLD.pt')
    one.add_argument('new', metavar='NEW.pt')
    one = commands.add_parser('fingerprint', help='write sums in float64')
    one.add_argument('out', metavar='OUT.json')
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    init_default_scope('mmseg')
    MMLogger.get_current_instance().setLevel('ERROR')
    if args.command == 'capture':
        sys.exit(bool(capture(args.out, args.only)))
    if args.command == 'fingerprint':
        write_fingerprints(args.out)
        return
    captures = (torch.load(path, weights_only=True) for path in (args.old, args.new))
    sys.exit(bool(compare(*captures)))


if __name__ == '__main__':
    main()
