"""UniMatch against an independent, pixel-by-pixel reading of its equations."""

import copy

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmseg.registry import MODELS
from tiny import collated_batch, tiny_segmentor
from torch import nn
from two_views import (
    TAU,
    ListedCutMix,
    batch_of,
    build,
    cut,
    decode,
    labels_of,
    pad,
    view_loss,
)

from mmseg_semi.models.clock import Clock
from mmseg_semi.models.segmentors import unimatch

WIDTHS = [4, 8, 16, 32]
BOXES = (
    [[4, 2, 20, 25], [0, 0, 9, 9], [3, 3, 3, 3]],
    [[0, 0, 32, 9], [0, 0, 0, 0], [10, 10, 30, 12]],
)


def given_masks(num, widths, ratio, device):
    """Masks of no size that dropout would draw, so that nothing else can give the same numbers."""
    generator = torch.Generator().manual_seed(5)
    return [torch.rand(num, width, generator=generator) for width in widths]


@pytest.mark.parametrize('joint', [True, False])
@pytest.mark.parametrize('label_mode', ['train', 'eval'])
def test_unlabeled_losses_equal_the_equations(label_mode, joint, monkeypatch):
    monkeypatch.setattr(unimatch, 'sample_channel_masks', given_masks)
    model = build(
        'UniMatch',
        label_mode=label_mode,
        joint_forward=joint,
        unlabeled_weight=0.8,
        feature_weight=0.7,
        strong_weight=0.4,
    )
    model.cutmix = ListedCutMix(*BOXES)
    batch = batch_of(model)
    pad(batch, 12)
    inputs = batch['inputs']
    valid = torch.cat([sample.valid_mask.data for sample in batch['data_samples']['weak']])
    label, confidence = labels_of(model.student, inputs['weak'], valid)
    losses = model.loss(**batch)

    # Normalized by groups: images can pass the network one by one.
    strong = []
    with torch.no_grad():
        for branch, boxes, step in (('strong', BOXES[0], 1), ('strong2', BOXES[1], -1)):
            views = cut(list(inputs[branch]), boxes, step)
            logits = [decode(model.student, model.student.extract_feat(x[None])) for x in views]
            targets = (cut(list(maps), boxes, step) for maps in (label, confidence))
            strong.append(view_loss(logits, *targets))
        masks = given_masks(3, WIDTHS, None, None)
        perturbed = [
            decode(model.student, model.student.extract_feat(x[None]), [m[i] for m in masks])
            for i, x in enumerate(inputs['weak'])
        ]
        feature = view_loss(perturbed, label, confidence)
    expected = 0.8 * 0.7 * feature, 0.8 * 0.4 * sum(strong) / 2
    assert min(expected) > 0.01
    for key, value in zip(('loss_feature', 'loss_strong'), expected, strict=True):
        torch.testing.assert_close(losses[key], value, rtol=1e-4, atol=1e-6)
    # Padding counts in neither.
    ratio = torch.stack(
        [(c[v] >= TAU).float().mean() for c, v in zip(confidence, valid, strict=True)]
    )
    torch.testing.assert_close(losses['confident_ratio'], ratio.mean())


def test_only_loss_terms_are_optimized():
    model = build('UniMatch')
    losses = model.loss(**batch_of(model))
    optimized = {key for key in losses if 'loss' in key}
    assert optimized == {'decode.loss_ce', 'loss_feature', 'loss_strong'}
    rest = losses.keys() - optimized
    assert rest == {'confident_ratio', 'pseudo_label_entropy'}
    assert not any(losses[key].requires_grad for key in rest)


@pytest.mark.parametrize('label_mode', ['train', 'eval'])
@pytest.mark.parametrize('joint', [True, False])
@pytest.mark.parametrize('term', ['loss_feature', 'loss_strong'])
def test_every_term_teaches_encoder_and_decoder(term, joint, label_mode):
    model = build('UniMatch', joint_forward=joint, label_mode=label_mode)
    model.loss(**batch_of(model))[term].backward()
    for module in (model.student.backbone, model.student.decode_head):
        assert all((parameter.grad != 0).any() for parameter in module.parameters())


def test_no_gradient_through_the_labels():
    """The classifier's bias moves all views alike: through the labels it would get another gradient."""
    gradients = []
    for mode in ('train', 'eval'):
        torch.manual_seed(1)
        model = build('UniMatch', label_mode=mode, cutmix=None)
        torch.manual_seed(2)
        losses = model.loss(**batch_of(model))
        (losses['loss_feature'] + losses['loss_strong']).backward()
        gradients.append([parameter.grad for parameter in model.student.parameters()])
    # Without dropout or batch normalization both modes label alike, the second without a graph.
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


def test_dropout_reaches_every_stage(monkeypatch):
    seen = []
    model = build('UniMatch', dropout_ratio=0.5)
    batch = batch_of(model)
    monkeypatch.setattr(
        model,
        'forward_heads',
        lambda network, features, *args: (
            seen.append(features) or type(model).forward_heads(model, network, features, *args)
        ),
    )
    torch.manual_seed(4)
    model.loss(**batch)
    stages = seen[0]  # labeled, weak, and weak with perturbed features
    assert [tuple(stage.shape[:2]) for stage in stages] == [(8, width) for width in WIDTHS]
    for stage in stages:
        clean, perturbed = stage[2:5], stage[5:]
        gone = (perturbed == 0).flatten(2).all(dim=2)
        assert torch.equal(perturbed[~gone], 2 * clean[~gone])
        assert gone.any()
        assert not gone.all()
    assert (
        torch.cat([(s[5:] == 0).flatten(2).all(dim=2).flatten() for s in stages]).float().mean()
        > 0.3
    )


def test_network_without_dropped_channels_sees_the_weak_view_as_it_is():
    model = build('UniMatch', dropout_ratio=0.0)
    batch = batch_of(model)
    _, (weak,), perturbed = model.forward_perturbed(
        batch['inputs']['labeled'], batch['inputs']['weak']
    )
    torch.testing.assert_close(weak, perturbed)


def test_weight_zero_is_supervised_training_at_half_the_weight():
    model = build('UniMatch', unlabeled_weight=0.0)
    batch = batch_of(model)
    loss, _ = model.parse_losses(model.loss(**batch))
    loss.backward()
    mixed = [parameter.grad.clone() for parameter in model.student.parameters()]
    model.student.zero_grad()
    supervised = model.student.loss(batch['inputs']['labeled'], batch['data_samples']['labeled'])
    (0.5 * supervised['decode.loss_ce']).backward()
    for got, parameter in zip(mixed, model.student.parameters(), strict=True):
        torch.testing.assert_close(got, parameter.grad, rtol=1e-4, atol=1e-7)


def test_before_unlabeled_start_only_the_labeled_images_count():
    model = build('UniMatch', unlabeled_start=5, labeled_weight=0.25)
    batch = batch_of(model)
    model.clock = Clock(4)
    losses = model.loss(**batch)
    assert losses.keys() == {'decode.loss_ce'}
    supervised = model.student.loss(batch['inputs']['labeled'], batch['data_samples']['labeled'])
    torch.testing.assert_close(losses['decode.loss_ce'], 0.25 * supervised['decode.loss_ce'])
    model.clock = Clock(5)
    assert 'loss_strong' in model.loss(**batch)


def seen_by_the_stem(model, batch):
    """Number of images of each forward of the student in training mode."""
    sizes, stem = [], model.student.backbone.stem[0]
    handle = stem.register_forward_pre_hook(
        lambda module, args: sizes.append((len(args[0]), module.training))
    )
    model.loss(**batch)
    handle.remove()
    return sizes


@pytest.mark.parametrize(
    ('settings', 'expected'),
    [
        ({}, [(2 + 3, True), (2 * 3, True)]),
        ({'joint_forward': True}, [(2 + 3 * 3, True)]),
        ({'label_mode': 'eval'}, [(3, False), (2 + 3, True), (2 * 3, True)]),
        ({'label_mode': 'eval', 'joint_forward': True}, [(3, False), (2 + 3 * 3, True)]),
    ],
)
def test_passes_of_a_step(settings, expected):
    model = build('UniMatch', 'BN', **settings)
    assert seen_by_the_stem(model, batch_of(model)) == expected
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize('num_unlabeled', [1, 2])
@pytest.mark.parametrize('joint', [True, False])
def test_nobody_confident_gives_zero_with_a_graph(num_unlabeled, joint):
    model = build('UniMatch', tau=1.0, joint_forward=joint)
    losses = model.loss(**batch_of(model, num_unlabeled=num_unlabeled))
    assert losses['confident_ratio'] == 0
    total = losses['loss_feature'] + losses['loss_strong']
    assert total == 0
    total.backward()
    assert all((parameter.grad == 0).all() for parameter in model.student.parameters())


@pytest.mark.parametrize('ignore_padding', [True, False])
def test_images_of_padding_alone(ignore_padding):
    model = build('UniMatch', tau=0.0, ignore_padding=ignore_padding)
    batch = batch_of(model)
    for sample in batch['data_samples']['weak']:
        sample.valid_mask.data.fill_(False)
    losses = model.loss(**batch)
    assert all(torch.isfinite(value) for value in losses.values())
    assert (losses['loss_strong'] == 0) == ignore_padding
    assert (losses['loss_feature'] == 0) == ignore_padding


def test_bfloat16_autocast():
    """Labeled in eval mode without a graph first: its cast weights must not serve the training pass."""
    model = build('UniMatch', label_mode='eval', tau=0.0)
    batch = batch_of(model)
    torch.manual_seed(3)
    exact = model.loss(**batch)
    torch.manual_seed(3)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        rough = model.loss(**batch)
    for key in ('loss_feature', 'loss_strong'):
        assert rough[key].dtype == torch.float32
        torch.testing.assert_close(rough[key], exact[key], rtol=0.1, atol=0.01)
    sum(value for key, value in rough.items() if 'loss' in key).backward()
    for parameter in model.student.parameters():
        assert torch.isfinite(parameter.grad).all()
        assert (parameter.grad != 0).any()


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'tau': 1.2}, r'semi_train_cfg\.tau must be .*, got 1\.2'),
        ({'unlabeled_weight': -1}, r'semi_train_cfg\.unlabeled_weight must be .*, got -1'),
        ({'labeled_weight': -1}, r'semi_train_cfg\.labeled_weight must be .*, got -1'),
        ({'feature_weight': -1}, r'semi_train_cfg\.feature_weight must be .*, got -1'),
        ({'strong_weight': -1}, r'semi_train_cfg\.strong_weight must be .*, got -1'),
        ({'unlabeled_start': -1}, r'semi_train_cfg\.unlabeled_start must be .*, got -1'),
        ({'dropout_ratio': 1.0}, r'semi_train_cfg\.dropout_ratio must be in \[0, 1\), got 1\.0'),
        ({'label_mode': 'code'}, r"semi_train_cfg\.label_mode must be .*, got 'code'"),
        (
            {'cutmix': {'adaptive': True}},
            'per_image=True contradicts adaptive=True',
        ),
        # Without a draw for each image nothing else would refuse it.
        (
            {'cutmix': {'adaptive': True, 'per_image': False}},
            'adaptive=True needs the hardness of images, which UniMatch does not',
        ),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build('UniMatch', **settings)


def test_options_of_the_cutmix_change_one_by_one():
    cutmix = build('UniMatch', cutmix={'prob': 0.3}).cutmix
    assert (cutmix.adaptive, cutmix.per_image, cutmix.prob, cutmix.style) == (
        False,
        True,
        0.3,
        'unimatch',
    )


def test_reentrant_checkpointing_needs_the_joint_forward():
    segmentor = tiny_segmentor('GN')
    segmentor['backbone']['with_cp'] = True
    config = {'type': 'UniMatch', 'segmentor': segmentor}
    with pytest.raises(ValueError, match=r'Set joint_forward=True or with_cp=False'):
        MODELS.build(config)
    joint = MODELS.build({**config, 'semi_train_cfg': {'joint_forward': True}}).train()
    assert torch.isfinite(joint.loss(**batch_of(joint))['loss_strong'])


def test_auxiliary_head_learns_from_labeled_images_only():
    model = build('UniMatch', network={'auxiliary': True})
    losses = model.loss(**batch_of(model))
    assert {'decode.loss_ce', 'aux.loss_ce', 'loss_feature', 'loss_strong'} <= losses.keys()
    (losses['loss_feature'] + losses['loss_strong']).backward()
    gradients = [p.grad for p in model.student.auxiliary_head.parameters()]
    assert all(grad is None or (grad == 0).all() for grad in gradients)


def test_one_step_moves_the_student():
    model = build('UniMatch', 'BN')
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.student.parameters(), lr=0.1)
    log = model.train_step(collated_batch(2, 2), OptimWrapper(optimizer))
    assert log['loss'] > 0
    moved = {
        key for key, value in model.state_dict().items() if not torch.equal(value, before[key])
    }
    assert {key for key, _ in model.named_parameters()} <= moved


class FeaturePyramid(nn.Module):
    """A neck that returns a tuple, as mmseg's do."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width, 6, 1) for width in WIDTHS)

    def forward(self, stages):
        return tuple(conv(stage) for conv, stage in zip(self.convs, stages, strict=True))


@pytest.mark.parametrize('method', ['UniMatch', 'UniMatchV2'])
def test_features_behind_a_neck_are_perturbed(method):
    network = {'in_channels': 6, 'in_index': 3}
    model = build(method, network=network)
    torch.manual_seed(0)
    for name in model.networks:
        getattr(model, name).neck = FeaturePyramid()
    losses = model.loss(**batch_of(model))
    losses['loss_strong'].backward()
    grads = [conv.weight.grad for conv in model.student.neck.convs]
    assert (grads[3] != 0).any()


@pytest.mark.parametrize('method', ['UniMatch', 'UniMatchV2'])
def test_backbone_that_returns_tokens_is_refused(method):
    model = build(method)
    backbone = model.student.backbone
    model.student.backbone = nn.Sequential(backbone)
    model.student.backbone.forward = lambda x: [stage.flatten(2).mT for stage in backbone(x)]
    with pytest.raises(ValueError, match=r'stage 0 of the features has shapes \[\(\d+, \d+, 4\)\]'):
        model.loss(**batch_of(model))
