"""CutMix-Seg against the paper's recipe, with a mask that is given."""

import pytest
import torch
from baselines import TAU as TAUS
from baselines import batch_of, build, mix, plan_of, probabilities, valid_of
from tiny import FixedCutMix

TAU = TAUS['CutMixSeg']


def fixed(**settings):
    model = build('CutMixSeg', **{'tau': TAU, **settings})
    model.cutmix = FixedCutMix()
    model.cutmix.fixed = plan_of()
    return model


@pytest.mark.parametrize('weighting', ['batch', 'pixel'])
@pytest.mark.parametrize('ignore_padding', [True, False])
@pytest.mark.parametrize('view', ['weak', 'strong'])
def test_student_learns_the_mixed_prediction_of_the_mixed_image(weighting, ignore_padding, view):
    model = fixed(
        confidence_weighting=weighting,
        ignore_padding=ignore_padding,
        student_view=view,
        consistency_weight=2.0,
    )
    batch = batch_of(model)
    losses = model.loss(**batch)
    target = probabilities(model.teacher, batch['inputs']['weak'])
    valid = valid_of(batch) if ignore_padding else torch.ones(3, 32, 32, dtype=torch.bool)
    target, valid = mix(target), mix(valid)
    student = probabilities(model.student, mix(batch['inputs'][view]))
    distance = (student - target).square().sum(dim=1) * valid
    sure = (target.amax(dim=1) >= TAU) & valid
    share = sure.sum() / valid.sum()
    assert 0.1 < share < 0.9
    expected = (distance * sure).mean() if weighting == 'pixel' else share * distance.mean()
    torch.testing.assert_close(losses['loss_consistency'].double(), 2 * expected, rtol=1e-4, atol=0)
    assert losses['cutmix_rate'] == 1


def test_teacher_sees_no_mixed_image():
    model = fixed()
    batch = batch_of(model)
    seen = []
    model.teacher.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model.loss(**batch)
    assert [torch.equal(images, batch['inputs']['weak']) for images in seen] == [True]


def test_nobody_confident_gives_zero_and_everybody_the_mean_teacher():
    model = fixed(tau=1.0)
    batch = batch_of(model)
    losses = model.loss(**batch)
    assert losses['loss_consistency'] == 0
    losses['loss_consistency'].backward()
    assert all((p.grad == 0).all() for p in model.student.parameters())
    model = fixed(tau=0.0)
    model.cutmix.fixed = plan_of(triggered=False)
    plain = build('MeanTeacher', student_view='weak').loss(**batch)
    torch.testing.assert_close(model.loss(**batch)['loss_consistency'], plain['loss_consistency'])


def test_boxes_are_the_papers():
    cutmix = build('CutMixSeg').cutmix
    plan = cutmix.plan(4, (64, 64), torch.device('cpu'))
    x1, y1, x2, y2 = plan.boxes.unbind(1)
    assert ((((x2 - x1) * (y2 - y1)) / 64**2 - 0.5).abs() < 0.03).all()
    assert plan.triggered
    assert plan.partner.tolist() == [1, 2, 3, 0]


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'tau': 1.5}, r'semi_train_cfg\.tau must be .*, got 1\.5'),
        ({'confidence_weighting': 'image'}, r"confidence_weighting must be .*, got 'image'"),
        ({'cutmix': None}, r"cutmix must be a dict, got None.*'MeanTeacher'"),
        (
            {'cutmix': {'adaptive': True}},
            'adaptive=True needs the hardness of images, which CutMixSeg does not',
        ),
        ({'rampup_steps': -2}, r'rampup_steps must be .*, got -2'),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build('CutMixSeg', **settings)
