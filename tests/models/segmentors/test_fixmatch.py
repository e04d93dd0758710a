"""FixMatch against Eq. 4 of the paper, with the CutMix of UniMatch's re-run."""

import copy

import pytest
import torch
from baselines import TAU as TAUS
from baselines import batch_of, build, mix, plan_of, probabilities, valid_of
from mmseg.registry import MODELS
from tiny import FixedCutMix, tiny_segmentor

from mmseg_semi.models.cutmix import NoCutMix

TAU = TAUS['FixMatch']


def fixed(**settings):
    model = build('FixMatch', **{'tau': TAU, **settings})
    if not isinstance(model.cutmix, NoCutMix):
        model.cutmix = FixedCutMix()
        model.cutmix.fixed = plan_of()
    return model


@pytest.mark.parametrize('divisor', ['valid', 'confident', 'area'])
@pytest.mark.parametrize('ignore_padding', [True, False])
@pytest.mark.parametrize('label_mode', ['train', 'eval'])
@pytest.mark.parametrize('cutmix', [True, False])
def test_strong_view_learns_the_labels_of_the_weak_one(divisor, ignore_padding, label_mode, cutmix):
    settings = {} if cutmix else {'cutmix': None}
    model = fixed(
        divisor=divisor,
        ignore_padding=ignore_padding,
        label_mode=label_mode,
        unlabeled_weight=2.0,
        **settings,
    )
    batch = batch_of(model)
    losses = model.loss(**batch)
    paste = mix if cutmix else torch.clone
    # Group normalization and no dropout: the two modes agree.
    confidence, label = probabilities(model.student, batch['inputs']['weak']).max(dim=1)
    valid = valid_of(batch) if ignore_padding else torch.ones(3, 32, 32, dtype=torch.bool)
    ratio = ((confidence >= TAU) & valid).sum() / valid.sum()
    label, confidence, valid = paste(label), paste(confidence), paste(valid)
    keep = (confidence >= TAU) & valid
    assert 0.1 < keep.double().mean() < 0.9
    probs = probabilities(model.student, paste(batch['inputs']['strong']))
    pixels = -probs.gather(1, label[:, None])[:, 0].log() * keep
    number = {'valid': valid.sum(), 'confident': keep.sum(), 'area': keep.numel()}[divisor]
    expected = 2 * pixels.sum() / number
    torch.testing.assert_close(losses['loss_unlabeled'].double(), expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(
        losses['confident_ratio'].double(), ratio.double(), rtol=1e-6, atol=0
    )
    assert ('cutmix_rate' in losses) == cutmix


@pytest.mark.parametrize(
    ('settings', 'batches'),
    [
        # Images of each forward, in its order: labeled 2, weak 3, strong 3.
        ({}, [5, 3]),
        ({'joint_forward': True}, [8]),
        ({'label_mode': 'eval'}, [3, 2, 3]),
        ({'label_mode': 'eval', 'joint_forward': True}, [3, 5]),
    ],
)
def test_forwards_are_those_of_the_setting(settings, batches):
    model = build('FixMatch', norm='BN', **settings)
    seen = []
    model.student.backbone.register_forward_pre_hook(
        lambda module, args: seen.append((len(args[0]), module.training))
    )
    model.loss(**batch_of(model))
    assert [number for number, _ in seen] == batches
    modes = [True] * len(batches)
    modes[0] = settings.get('label_mode') != 'eval'
    assert [mode for _, mode in seen] == modes
    assert all(module.training for module in model.modules())


def test_labels_in_eval_mode_leave_the_statistics_alone():
    model = build('FixMatch', norm='BN', label_mode='eval', tau=TAU)
    batch = batch_of(model)
    twin = copy.deepcopy(model)
    twin.forward_views(twin.student, batch['inputs']['labeled'])
    model.cutmix = NoCutMix()
    model.loss(**batch)
    twin.forward_network(twin.student, batch['inputs']['strong'])
    for key, value in model.student.state_dict().items():
        torch.testing.assert_close(value, twin.student.state_dict()[key], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('label_mode', ['train', 'eval'])
def test_labels_carry_no_gradient(label_mode):
    model = fixed(label_mode=label_mode, joint_forward=True)
    batch = batch_of(model)
    for branch in batch['inputs']:
        batch['inputs'][branch] = batch['inputs'][branch].clone().requires_grad_()
    model.loss(**batch)['loss_unlabeled'].backward()
    weak, strong = batch['inputs']['weak'], batch['inputs']['strong']
    assert weak.grad is None or (weak.grad == 0).all()
    assert (strong.grad != 0).any()


def test_labeled_weight_scales_the_heads_losses():
    model = build('FixMatch', auxiliary=True, labeled_weight=0.5)
    batch = batch_of(model)
    whole = build('FixMatch', auxiliary=True).loss(**batch)
    half = model.loss(**batch)
    for key in ('decode.loss_ce', 'aux.loss_ce'):
        torch.testing.assert_close(half[key], whole[key] / 2)
    model = build('FixMatch', labeled_weight=0.5, unlabeled_start=3)
    assert model.loss(**batch).keys() == {'decode.loss_ce'}
    torch.testing.assert_close(
        2 * model.loss(**batch)['decode.loss_ce'], build('FixMatch').loss(**batch)['decode.loss_ce']
    )


def test_images_are_mixed_half_of_the_time_each_for_itself():
    cutmix = build('FixMatch').cutmix
    plans = [cutmix.plan(2, (32, 32), torch.device('cpu')) for _ in range(400)]
    triggered = torch.stack([plan.triggered for plan in plans]).float()
    assert triggered.mean().item() == pytest.approx(0.5, abs=0.06)
    assert (triggered[:, 0] == triggered[:, 1]).float().mean().item() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'tau': -0.1}, r'semi_train_cfg\.tau must be .*, got -0\.1'),
        ({'labeled_weight': -1}, r'semi_train_cfg\.labeled_weight must be .*, got -1'),
        ({'unlabeled_weight': -1}, r'semi_train_cfg\.unlabeled_weight must be .*, got -1'),
        ({'unlabeled_start': -1}, r'semi_train_cfg\.unlabeled_start must be .*, got -1'),
        ({'divisor': 'all'}, r"semi_train_cfg\.divisor must be .*, got 'all'"),
        ({'label_mode': 'ema'}, r"semi_train_cfg\.label_mode must be .*, got 'ema'"),
        (
            {'cutmix': {'adaptive': True, 'per_image': False}},
            'adaptive=True needs the hardness of images, which FixMatch does not',
        ),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build('FixMatch', **settings)


def test_reentrant_checkpointing_needs_the_joint_forward():
    segmentor = tiny_segmentor('GN')
    segmentor['backbone']['with_cp'] = True
    with pytest.raises(ValueError, match=r'Set joint_forward=True or with_cp=False'):
        MODELS.build({'type': 'FixMatch', 'segmentor': segmentor})
    settings = {'joint_forward': True}
    MODELS.build({'type': 'FixMatch', 'segmentor': segmentor, 'semi_train_cfg': settings})
