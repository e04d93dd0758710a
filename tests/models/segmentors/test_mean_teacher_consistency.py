"""Mean Teacher against its equation."""

import math

import pytest
import torch
from baselines import batch_of, build, probabilities, valid_of

from mmseg_semi.models.clock import Clock


@pytest.mark.parametrize('view', ['strong', 'weak'])
@pytest.mark.parametrize('ignore_padding', [True, False])
@pytest.mark.parametrize('joint_forward', [True, False])
def test_consistency_is_the_squared_distance_of_probabilities(view, ignore_padding, joint_forward):
    model = build(
        'MeanTeacher',
        student_view=view,
        ignore_padding=ignore_padding,
        joint_forward=joint_forward,
        consistency_weight=3.0,
    )
    batch = batch_of(model)
    losses = model.loss(**batch)
    student = probabilities(model.student, batch['inputs'][view])
    teacher = probabilities(model.teacher, batch['inputs']['weak'])
    distance = (student - teacher).square().sum(dim=1)
    if ignore_padding:
        distance = distance * valid_of(batch)
    expected = 3 * distance.mean()
    assert expected > 0.01
    torch.testing.assert_close(losses['loss_consistency'].double(), expected, rtol=1e-4, atol=0)
    halved = build('MeanTeacher', student_view=view, ignore_padding=ignore_padding, class_mean=True)
    value = halved.loss(**batch)['loss_consistency'].double()
    torch.testing.assert_close(value, expected / 3 / model.num_classes, rtol=1e-4, atol=0)


def test_classes_are_counted_on_the_grid_of_the_logits():
    # Nothing of full resolution: the loss needs neither labels nor confidences.
    model = build('MeanTeacher')
    batch = batch_of(model)
    value = model.loss(**batch)['pseudo_label_entropy']
    logits = model.teacher._forward(batch['inputs']['weak'])
    step = 32 // logits.shape[2]
    counted = valid_of(batch)[:, step // 2 :: step, step // 2 :: step]
    classes = logits.argmax(dim=1)[counted]
    assert 0 < len(classes) < logits[:, 0].numel()
    share = classes.bincount() / len(classes)
    expected = -(share * share.clamp(min=1e-9).log()).sum()
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


def test_weight_ramps_up_from_the_start_of_the_unlabeled_images():
    model = build('MeanTeacher', unlabeled_start=5, rampup_steps=10, consistency_weight=2.0)
    batch = batch_of(model)
    model.clock = Clock(4)
    assert model.loss(**batch).keys() == {'decode.loss_ce'}
    values = []
    for iteration in (5, 10, 15, 99):
        model.clock = Clock(iteration)
        values.append(model.loss(**batch)['loss_consistency'].item())
    full = values[-1]
    assert values == pytest.approx([full * math.exp(-5), full * math.exp(-1.25), full, full])
    assert full == pytest.approx(2 * build('MeanTeacher').loss(**batch)['loss_consistency'].item())


def test_the_weak_view_needs_no_strong_branch():
    model = build('MeanTeacher', student_view='weak')
    batch = batch_of(model)
    del batch['inputs']['strong'], batch['data_samples']['strong']
    assert 'loss_consistency' in model.loss(**batch)
    with pytest.raises(ValueError, match="MeanTeacher needs the branch 'strong'"):
        build('MeanTeacher').loss(**batch)


def test_networks_that_agree_cost_nothing():
    model = build('MeanTeacher', student_view='weak')
    model.copy_student_to_teacher()
    assert model.loss(**batch_of(model))['loss_consistency'] < 1e-12


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'consistency_weight': -1}, r'semi_train_cfg\.consistency_weight must be .*, got -1'),
        ({'rampup_steps': -1}, r'semi_train_cfg\.rampup_steps must be .*, got -1'),
        ({'unlabeled_start': -1}, r'semi_train_cfg\.unlabeled_start must be .*, got -1'),
        (
            {'student_view': 'both'},
            r"semi_train_cfg\.student_view must be .*, got 'both'",
        ),
        ({'tau': 0.9}, r'semi_train_cfg has no setting tau'),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build('MeanTeacher', **settings)
