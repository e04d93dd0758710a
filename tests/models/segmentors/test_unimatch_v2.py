"""UniMatch V2 against an independent, pixel-by-pixel reading of its equations."""

import copy

import pytest
import torch
from tiny import tiny_segmentor
from two_views import (
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
from mmseg_semi.models.segmentors import unimatch_v2

WIDTHS = [4, 8, 16, 32]
BOXES = (
    [[4, 2, 20, 25], [0, 0, 9, 9], [3, 3, 3, 3]],
    [[0, 0, 32, 9], [0, 0, 0, 0], [10, 10, 30, 12]],
)


def given_masks(num, widths, prob, device):
    """Masks of no size that dropout would draw, so that nothing else can give the same numbers."""
    generator = torch.Generator().manual_seed(5)
    return [torch.rand(2 * num, width, generator=generator) for width in widths]


@pytest.mark.parametrize('joint', [True, False])
def test_unlabeled_loss_equals_the_equations(joint, monkeypatch):
    monkeypatch.setattr(unimatch_v2, 'sample_complementary_masks', given_masks)
    model = build('UniMatchV2', joint_forward=joint, unlabeled_weight=0.8)
    model.cutmix = ListedCutMix(*BOXES)
    batch = batch_of(model)
    pad(batch, 12)
    inputs = batch['inputs']
    valid = torch.cat([sample.valid_mask.data for sample in batch['data_samples']['weak']])
    label, confidence = labels_of(model.teacher, inputs['weak'], valid)
    losses = model.loss(**batch)

    masks, terms = given_masks(3, WIDTHS, None, None), []
    with torch.no_grad():
        for v, (branch, step) in enumerate((('strong', 1), ('strong2', -1))):
            views = cut(list(inputs[branch]), BOXES[v], step)
            logits = [
                decode(
                    model.student,
                    model.student.extract_feat(x[None]),
                    [mask[3 * v + i] for mask in masks],
                )
                for i, x in enumerate(views)
            ]
            targets = (cut(list(maps), BOXES[v], step) for maps in (label, confidence))
            terms.append(view_loss(logits, *targets))
    expected = 0.8 * sum(terms) / 2
    assert expected > 0.01
    torch.testing.assert_close(losses['loss_strong'], expected, rtol=1e-4, atol=1e-6)


def decoded_features(model, batch, monkeypatch):
    """Stages that the student's heads were given, forward by forward."""
    seen, forward = [], type(model).forward_heads

    def watch(network, features, *args, **kwargs):
        if network is model.student:
            seen.append(features)
        return forward(model, network, features, *args, **kwargs)

    monkeypatch.setattr(model, 'forward_heads', watch)
    model.loss(**batch)
    return seen


@pytest.mark.parametrize('prob', [0.0, 1.0])
def test_views_lose_complementary_channels_of_every_stage(prob, monkeypatch):
    model = build('UniMatchV2', dropout_prob=prob, cutmix=None)
    batch = batch_of(model)
    batch['inputs']['strong2'] = batch['inputs'][
        'strong'
    ]  # one view twice: its features are comparable
    with torch.no_grad():
        clean = model.student.extract_feat(batch['inputs']['strong'])
    strong, labeled = decoded_features(model, batch, monkeypatch)
    assert all(len(stage) == 2 for stage in labeled)
    for whole, stage in zip(clean, strong, strict=True):
        first, second = stage.chunk(2)
        torch.testing.assert_close(first + second, 2 * whole, rtol=1e-4, atol=1e-5)
        gone = [(view == 0).flatten(2).all(dim=2) for view in (first, second)]
        if prob:
            # Channels that are zero anyhow, behind a ReLU, are gone in both.
            silent = (whole == 0).flatten(2).all(dim=2)
            assert torch.equal(gone[0] ^ gone[1], ~silent)
            assert all(mask[~silent].any() for mask in gone)
        else:
            torch.testing.assert_close(first, whole, rtol=1e-4, atol=1e-5)


def test_labeled_images_keep_their_features(monkeypatch):
    model = build('UniMatchV2', joint_forward=True, dropout_prob=1.0)
    batch = batch_of(model)
    with torch.no_grad():
        clean = model.student.extract_feat(batch['inputs']['labeled'])
    (stages,) = decoded_features(model, batch, monkeypatch)
    for stage, whole in zip(stages, clean, strict=True):
        assert len(stage) == 2 + 2 * 3
        torch.testing.assert_close(stage[:2], whole, rtol=1e-4, atol=1e-5)


def test_only_loss_terms_are_optimized():
    model = build('UniMatchV2')
    losses = model.loss(**batch_of(model))
    assert {key for key in losses if 'loss' in key} == {'decode.loss_ce', 'loss_strong'}
    rest = losses.keys() - {'decode.loss_ce', 'loss_strong'}
    assert rest == {'confident_ratio', 'pseudo_label_entropy'}


@pytest.mark.parametrize('joint', [True, False])
def test_gradient_reaches_the_student_and_never_the_teacher(joint):
    model = build('UniMatchV2', joint_forward=joint)
    model.loss(**batch_of(model))['loss_strong'].backward()
    for module in (model.student.backbone, model.student.decode_head):
        assert all((parameter.grad != 0).any() for parameter in module.parameters())
    assert all(parameter.grad is None for parameter in model.teacher.parameters())


def test_weight_zero_is_supervised_training_at_half_the_weight():
    model = build('UniMatchV2', unlabeled_weight=0.0)
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
    model = build('UniMatchV2', unlabeled_start=5)
    batch = batch_of(model)
    model.clock = Clock(4)
    assert model.loss(**batch).keys() == {'decode.loss_ce'}
    model.clock = Clock(5)
    assert 'loss_strong' in model.loss(**batch)


def test_labels_are_the_teachers():
    model = build('UniMatchV2')
    batch = batch_of(model)
    torch.manual_seed(1)
    before = model.loss(**batch)
    with torch.no_grad():
        # The same class everywhere, with certainty.
        model.teacher.decode_head.conv_seg.bias[1] = 50
    torch.manual_seed(1)
    after = model.loss(**batch)
    assert after['confident_ratio'] == 1
    assert after['pseudo_label_entropy'] == 0 < before['pseudo_label_entropy']
    assert after['decode.loss_ce'] == before['decode.loss_ce']


def test_statistics_of_the_teacher_are_left_alone():
    model = build('UniMatchV2', 'BN')
    before = copy.deepcopy(model.teacher.state_dict())
    model.loss(**batch_of(model))
    for key, value in model.teacher.state_dict().items():
        assert torch.equal(value, before[key])
    assert not model.teacher.training
    assert model.student.backbone.training


def test_bfloat16_autocast():
    model = build('UniMatchV2', tau=0.0)
    batch = batch_of(model)
    torch.manual_seed(3)
    exact = model.loss(**batch)
    torch.manual_seed(3)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        rough = model.loss(**batch)
    assert rough['loss_strong'].dtype == torch.float32
    torch.testing.assert_close(rough['loss_strong'], exact['loss_strong'], rtol=0.1, atol=0.01)
    rough['loss_strong'].backward()
    assert all((parameter.grad != 0).any() for parameter in model.student.parameters())


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'tau': -0.1}, r'semi_train_cfg\.tau must be .*, got -0\.1'),
        ({'unlabeled_weight': -1}, r'semi_train_cfg\.unlabeled_weight must be .*, got -1'),
        ({'dropout_prob': 1.5}, r'semi_train_cfg\.dropout_prob must be .*, got 1\.5'),
        ({'dropout_ratio': 0.5}, r'semi_train_cfg has no setting dropout_ratio'),
        (
            {'align_distribution': True, 'adjust_logits': True},
            'align_distribution=True and adjust_logits=True, .* Set one of them to False',
        ),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build('UniMatchV2', **settings)


def test_single_unlabeled_image():
    model = build('UniMatchV2', tau=0.0)
    losses = model.loss(**batch_of(model, num_unlabeled=1))
    losses['loss_strong'].backward()
    assert losses['loss_strong'] > 0


def test_auxiliary_head_learns_from_labeled_images_only():
    assert 'auxiliary_head' in tiny_segmentor('GN', auxiliary=True)
    model = build('UniMatchV2', network={'auxiliary': True})
    losses = model.loss(**batch_of(model))
    assert 'aux.loss_ce' in losses
    losses['loss_strong'].backward()
    gradients = [p.grad for p in model.student.auxiliary_head.parameters()]
    assert all(grad is None or (grad == 0).all() for grad in gradients)


def test_aligned_labels_are_those_of_a_teacher_with_other_biases():
    model = build('UniMatchV2', align_distribution=True, dropout_prob=0.0, cutmix=None)
    batch = batch_of(model)
    pad(batch, 12)
    # The first step has no shares yet.
    model.loss(**batch)
    assert not model.alignment.offset.any()
    assert 'alignment_ratio' in model.alignment.commit()
    offset = model.alignment.offset.clone()
    assert offset.abs().max() > 0.1
    aligned = model.loss(**batch)['loss_strong']
    plain = build('UniMatchV2', dropout_prob=0.0, cutmix=None)
    plain.load_state_dict(model.state_dict(), strict=False)
    assert abs(plain.loss(**batch)['loss_strong'] - aligned) > 1e-3
    plain.teacher.decode_head.conv_seg.bias.data += offset
    torch.testing.assert_close(plain.loss(**batch)['loss_strong'], aligned)


def test_adjusted_loss_is_that_of_a_student_with_other_biases():
    settings = {'dropout_prob': 0.0, 'tau': 0.7}
    model = build('UniMatchV2', adjust_logits=True, **settings)
    batch = batch_of(model)
    pad(batch, 12)

    def losses_of(one):
        one.cutmix = ListedCutMix(*BOXES)
        return one.loss(**batch)

    # The first step has no shares yet.
    losses_of(model)
    assert not model.adjustment.offset.any()
    assert 'adjustment_ratio' in model.adjustment.commit()
    # The shares are those of the labeled pixels and of the confident ones without padding.
    valid = torch.cat([sample.valid_mask.data for sample in batch['data_samples']['weak']])
    label, confidence = labels_of(model.teacher, batch['inputs']['weak'], valid)
    real = torch.cat([s.gt_sem_seg.data for s in batch['data_samples']['labeled']])
    kept = label[(confidence >= settings['tau']) & (label != 255)]
    assert 0 < len(kept) < (label != 255).sum()
    for share, labels in zip(model.adjustment.shares, (real[real != 255], kept), strict=True):
        counts = torch.bincount(labels.flatten(), minlength=len(share)).float()
        torch.testing.assert_close(share, counts / counts.sum())
    offset = model.adjustment.offset.clone()
    assert offset.abs().max() > 0.1
    adjusted = losses_of(model)
    plain = build('UniMatchV2', **settings)
    plain.load_state_dict(model.state_dict(), strict=False)
    before = losses_of(plain)
    assert abs(before['loss_strong'] - adjusted['loss_strong']) > 1e-3
    # The labeled loss and the pseudo-labels stay.
    for key in ('decode.loss_ce', 'confident_ratio', 'pseudo_label_entropy'):
        torch.testing.assert_close(before[key], adjusted[key], rtol=0, atol=0)
    plain.student.decode_head.conv_seg.bias.data += offset
    torch.testing.assert_close(losses_of(plain)['loss_strong'], adjusted['loss_strong'])
