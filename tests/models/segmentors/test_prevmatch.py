"""PrevMatch against an independent, pixel-by-pixel reading of docs/prevmatch.md."""

import copy

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmseg.models.utils import resize
from tiny import collated_batch
from two_views import ListedCutMix, batch_of, build, cut, decode, labels_of, view_loss

from mmseg_semi.models.clock import Clock
from mmseg_semi.models.segmentors import unimatch

WIDTHS = [4, 8, 16, 32]
BOXES = (
    [[4, 2, 20, 25], [0, 0, 9, 9], [3, 3, 3, 3]],
    [[0, 0, 32, 9], [0, 0, 0, 0], [10, 10, 30, 12]],
)
#: Confidence that 20 to 60 of 100 pixels of the ensemble below reach.
GUIDANCE_TAU = 0.6


def given_masks(num, widths, ratio, device):
    generator = torch.Generator().manual_seed(5)
    return [torch.rand(num, width, generator=generator) for width in widths]


def pad_each(batch) -> torch.Tensor:
    """Give every unlabeled image padding of another size; returns the masks."""
    for i, sample in enumerate(batch['data_samples']['weak']):
        sample.valid_mask.data[..., 30 - 7 * i :] = False
    return torch.cat([sample.valid_mask.data for sample in batch['data_samples']['weak']])


def keep_some(model, number: int = 3) -> list:
    """Keep the student with other weights and statistics each time; returns copies, the oldest first."""
    copies, before = [], copy.deepcopy(model.student.state_dict())
    generator = torch.Generator().manual_seed(3)
    for _ in range(number):
        with torch.no_grad():
            for value in model.student.state_dict().values():
                if value.is_floating_point():
                    noise = torch.rand(value.shape, generator=generator)
                    value.mul_(1 + 0.6 * (noise - 0.5))
        model.keep_student()
        copies.append(copy.deepcopy(model.student).eval())
    model.student.load_state_dict(before)
    return copies


def ensemble(copies, drawn, weak) -> tuple[torch.Tensor, torch.Tensor]:
    """Class and probability of the sum of weighted full logits, image by image."""
    label, confidence = [], []
    with torch.no_grad():
        for image in weak:
            total = 0
            for place, weight in drawn:
                logits = copies[place]._forward(image[None])
                total = total + weight * resize(logits, size=image.shape[1:], mode='bilinear')
            one = total[0].softmax(0).max(0)
            confidence.append(one.values)
            label.append(one.indices)
    return torch.stack(label), torch.stack(confidence)


def unlabeled_loss(model, inputs, label, confidence, tau) -> dict:
    """1/2 H(fp) and 1/4 (H(s1) + H(s2)) of labels, by their names."""
    student, masks = model.student, given_masks(3, WIDTHS, None, None)
    perturbed = [
        decode(student, student.extract_feat(x[None]), [m[i] for m in masks])
        for i, x in enumerate(inputs['weak'])
    ]
    strong = []
    for branch, boxes, step in (('strong', BOXES[0], 1), ('strong2', BOXES[1], -1)):
        views = cut(list(inputs[branch]), boxes, step)
        logits = [decode(student, student.extract_feat(x[None])) for x in views]
        targets = (cut(list(maps), boxes, step) for maps in (label, confidence))
        strong.append(view_loss(logits, *targets, tau))
    return {
        'feature': view_loss(perturbed, list(label), list(confidence), tau) / 2,
        'strong': sum(strong) / 4,
    }


@pytest.mark.parametrize('label_mode', ['train', 'eval'])
@pytest.mark.parametrize(('step', 'weight'), [(0, 0.0), (1, 0.25), (4, 1.0), (7, 0.25)])
def test_losses_are_those_of_the_page(step, weight, label_mode, monkeypatch):
    monkeypatch.setattr(unimatch, 'sample_channel_masks', given_masks)
    model = build('PrevMatch', label_mode=label_mode, guidance_tau=GUIDANCE_TAU)
    model.cutmix = ListedCutMix(*BOXES)
    copies = keep_some(model)
    drawn = [(2, 0.3), (0, 0.7)]
    monkeypatch.setattr(model.earlier, 'draw', lambda most, random_number: drawn)
    batch = batch_of(model)
    valid = pad_each(batch)
    inputs = batch['inputs']
    model.clock = Clock(step, 8)
    losses = model.loss(**batch)

    own, sure = labels_of(model.student, inputs['weak'], valid)
    guided, guided_sure = ensemble(copies, drawn, inputs['weak'])
    guided = torch.where(valid, guided, 255)
    # Something is at stake: other labels, and pixels on both sides of the threshold.
    assert 0.1 < (guided_sure[valid] >= GUIDANCE_TAU).float().mean() < 0.9
    assert (guided[valid] != own[valid]).any()
    with torch.no_grad():
        supervised = model.student.loss(inputs['labeled'], batch['data_samples']['labeled'])
        terms = unlabeled_loss(model, inputs, own, sure, model.cfg.tau)
        guidance = unlabeled_loss(model, inputs, guided, guided_sure, GUIDANCE_TAU)
    expected = {'decode.loss_ce': supervised['decode.loss_ce'] / 2}
    for name in ('feature', 'strong'):
        expected[f'loss_{name}'] = terms[name] / 2
        expected[f'loss_guided_{name}'] = weight / 2 * guidance[name]
    assert {key for key in losses if 'loss' in key} == expected.keys()
    for key, value in expected.items():
        wanted = 2 / (2 + weight) * value
        torch.testing.assert_close(losses[key].detach(), wanted, rtol=1e-4, atol=1e-6, msg=key)
    counted = (guided_sure >= GUIDANCE_TAU) & valid
    ratio = counted.flatten(1).sum(1) / valid.flatten(1).sum(1)
    torch.testing.assert_close(losses['guidance_ratio'], ratio.mean())


def test_earlier_models_label_in_eval_mode_with_their_own_statistics(monkeypatch):
    model = build('PrevMatch', 'BN')
    batch = batch_of(model)
    model.train_step(collated_batch(2, 3), OptimWrapper(torch.optim.SGD(model.parameters(), 0.1)))
    (kept,) = keep_some(model, 1)
    before = copy.deepcopy(model.student.state_dict())
    label, confidence, _ = model.make_guidance(model.batch_of(**batch))
    expected = ensemble([kept], [(0, 1.0)], batch['inputs']['weak'])
    assert torch.equal(label, expected[0])
    torch.testing.assert_close(confidence, expected[1])
    # The student has lent its structure and is as it was.
    assert all(torch.equal(value, before[key]) for key, value in model.student.state_dict().items())
    assert all(module.training for module in model.student.modules())


def test_without_an_earlier_model_it_is_unimatch():
    found = []
    for method in ('PrevMatch', 'UniMatch'):
        model = build(method)
        batch = batch_of(model)
        pad_each(batch)
        torch.manual_seed(2)
        losses = model.loss(**batch)
        sum(value for key, value in losses.items() if 'loss' in key).backward()
        found.append((losses, [parameter.grad for parameter in model.parameters()]))
    assert found[0][0].keys() == found[1][0].keys()
    assert all(torch.equal(found[0][0][key], found[1][0][key]) for key in found[0][0])
    assert all(torch.equal(*pair) for pair in zip(found[0][1], found[1][1], strict=True))


def test_gradients_reach_the_student_alone():
    model = build('PrevMatch', guidance_tau=0.0)
    keep_some(model, 2)
    model.clock = Clock(2, 4)
    losses = model.loss(**batch_of(model))
    (losses['loss_guided_feature'] + losses['loss_guided_strong']).backward()
    for module in (model.student.backbone, model.student.decode_head):
        assert all((parameter.grad != 0).any() for parameter in module.parameters())
    for weights in model.earlier.models:
        assert not any(value.requires_grad for value in weights.values())
    assert not any('earlier' in key for key, _ in model.named_parameters())


def test_weight_zero_is_unimatch_and_logs_the_guidance():
    model = build('PrevMatch', guidance_weight=0.0, cutmix=None, dropout_ratio=0.0)
    keep_some(model, 2)
    model.clock = Clock(2, 4)
    batch = batch_of(model)
    losses = model.loss(**batch)
    assert losses['loss_guided_feature'] == losses['loss_guided_strong'] == 0
    assert {'guidance_ratio', 'confident_ratio', 'pseudo_label_entropy'} <= losses.keys()
    plain = build('UniMatch', cutmix=None, dropout_ratio=0.0).loss(**batch)
    for key in plain:
        torch.testing.assert_close(losses[key], plain[key])


def test_images_of_padding_alone_and_nobody_confident():
    model = build('PrevMatch', guidance_tau=1.0, tau=1.0)
    keep_some(model, 1)
    model.clock = Clock(1, 4)
    batch = batch_of(model)
    losses = model.loss(**batch)
    assert losses['loss_guided_strong'] == 0
    for sample in batch['data_samples']['weak']:
        sample.valid_mask.data.fill_(False)
    losses = model.loss(**batch)
    assert all(torch.isfinite(value) for value in losses.values())
    assert losses['guidance_ratio'] == 0


def test_the_length_of_the_training_must_be_known():
    model = build('PrevMatch')
    keep_some(model, 1)
    with pytest.raises(
        ValueError, match='PrevMatch depends on the length of the training, which is unknown'
    ):
        model.loss(**batch_of(model))


def test_a_checkpoint_brings_the_earlier_models_and_exports_leave_them_out():
    model = build('PrevMatch', 'BN', num_models=2)
    keep_some(model, 3)
    state = model.state_dict()
    assert {key.split('.')[1] for key in state if key.startswith('earlier.')} == {'0', '1'}
    other = build('PrevMatch', 'BN', num_models=2)
    other.load_state_dict(state)
    assert len(other.earlier.models) == 2
    for mine, theirs in zip(model.earlier.models, other.earlier.models, strict=True):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[key]) for key, value in mine.items())
    from mmseg_semi.models.matching import network_weights

    weights, network = network_weights({'state_dict': state})
    assert network == 'student'
    assert weights.keys() == model.student.state_dict().keys()


def test_earlier_models_that_do_not_fit_are_refused():
    model = build('PrevMatch')
    keep_some(model, 3)
    state = model.state_dict()
    with pytest.raises(
        ValueError, match=r'has 3 earlier models, but semi_train_cfg\.num_models=2\. Set'
    ):
        build('PrevMatch', num_models=2).load_state_dict(state)
    broken = {k: v for k, v in state.items() if k != 'earlier.1.decode_head.conv_seg.weight'}
    with pytest.raises(ValueError, match=r'the earlier model 1 differ in 1 weights'):
        build('PrevMatch').load_state_dict(broken)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'num_models': 0}, r'semi_train_cfg\.num_models must be .*, got 0'),
        ({'max_drawn': 0}, r'semi_train_cfg\.max_drawn must be .*, got 0'),
        ({'guidance_tau': 1.2}, r'semi_train_cfg\.guidance_tau must be .*, got 1\.2'),
        ({'guidance_weight': -1}, r'semi_train_cfg\.guidance_weight must be .*, got -1'),
        ({'place': 'disk'}, r"semi_train_cfg\.place must be .*, got 'disk'"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build('PrevMatch', **settings)
