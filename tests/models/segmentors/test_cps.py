"""CPS against an independent reading of the paper and its code."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmseg.registry import MODELS
from tiny import FixedCutMix, collated_batch, tiny_segmentor

import mmseg_semi.engine  # noqa: F401  registers the constructors
from mmseg_semi.models.clock import Clock
from mmseg_semi.models.cutmix import CutMixPlan, ThreeBoxCutMix

CLASSIFIER = {'type': 'Normal', 'std': 2.0, 'override': {'name': 'conv_seg'}}
BOXES = torch.tensor([[[2, 3, 20, 14], [10, 8, 30, 30], [0, 20, 12, 31]]] * 2)


def build(**settings):
    torch.manual_seed(0)
    model = MODELS.build(
        {
            'type': 'CPS',
            'segmentor': tiny_segmentor(init_cfg=CLASSIFIER),
            'semi_train_cfg': settings,
        }
    )
    model.init_weights()
    # In float64: in float32, rounding decides between two classes that are almost as probable.
    return model.double().train()


def up(logits):
    return F.interpolate(logits, size=(32, 32), mode='bilinear', align_corners=False)


def batch_of(model, num_unlabeled=2):
    batch = model.data_preprocessor(collated_batch(2, num_unlabeled), True)
    for sample in batch['data_samples']['weak']:
        sample.valid_mask.data = sample.valid_mask.data.clone()
        sample.valid_mask.data[:, 27:] = False
    return batch


@pytest.mark.parametrize('joint', [False, True])
@pytest.mark.parametrize('on_labeled', [True, False])
@pytest.mark.parametrize('ignore_padding', [True, False])
def test_without_cutmix_both_kinds_of_images_are_learned(on_labeled, ignore_padding, joint):
    model = build(
        cutmix=None,
        cps_on_labeled=on_labeled,
        ignore_padding=ignore_padding,
        cps_weight=2.0,
        joint_forward=joint,
    )
    batch = batch_of(model)
    x, u = batch['inputs']['labeled'], batch['inputs']['weak']
    y = torch.cat([sample.gt_sem_seg.data for sample in batch['data_samples']['labeled']])
    masks = [y != 255, torch.cat([s.valid_mask.data for s in batch['data_samples']['weak']])]
    passes = [torch.cat([x, u])] if joint else [x, u]
    logits = [
        torch.cat([up(net._forward(images)) for images in passes])
        for net in (model.student1, model.student2)
    ]
    valid = torch.cat(masks) if ignore_padding else torch.ones(4, 32, 32, dtype=torch.bool)
    labels = [one.argmax(1).masked_fill(~valid, 255) for one in logits]
    part = slice(None) if on_labeled else slice(2, None)
    expected = sum(
        F.cross_entropy(one[part], label[part], ignore_index=255)
        for one, label in zip(logits, labels[::-1], strict=True)
    )
    losses = model.loss(**batch)
    torch.testing.assert_close(losses['loss_cps'], 2 * expected, rtol=1e-9, atol=1e-12)
    for i, one in enumerate(logits, start=1):
        supervised = F.cross_entropy(one[:2], y, ignore_index=255)
        torch.testing.assert_close(
            losses[f'student{i}.decode.loss_ce'], supervised, rtol=1e-9, atol=1e-12
        )
    same = (labels[0] == labels[1])[2:][valid[2:]].float().mean()
    torch.testing.assert_close(losses['agreement_students'], same)
    assert 0.05 < same < 0.95


@pytest.mark.parametrize('joint', [False, True])
@pytest.mark.parametrize('cutmix', ['in_batch', 'pair'])
def test_with_cutmix_mixed_images_are_learned(cutmix, joint):
    model = build(cutmix=cutmix, ignore_padding=False, joint_forward=joint)
    assert isinstance(model.cutmix, ThreeBoxCutMix)
    model.cutmix = FixedCutMix()
    partner = torch.tensor([2, 3] if cutmix == 'pair' else [1, 0])
    model.cutmix.fixed = CutMixPlan(partner, BOXES, (32, 32))
    batch = batch_of(model, 4 if cutmix == 'pair' else 2)
    x, u = batch['inputs']['labeled'], batch['inputs']['weak']
    shared = x if joint else x[:0]
    first, second = (u[:2], u[2:]) if cutmix == 'pair' else (u, u.flip(0))
    inside = torch.zeros(2, 32, 32, dtype=torch.bool)
    for i, boxes in enumerate(BOXES.tolist()):
        for x1, y1, x2, y2 in boxes:
            inside[i, y1:y2, x1:x2] ^= True
    images = torch.where(inside[:, None], second, first)
    networks = model.student1, model.student2

    def predict(net, source):
        return up(net._forward(torch.cat([shared, source])))[len(shared) :]

    labels = [
        torch.where(inside, predict(net, second).argmax(1), predict(net, first).argmax(1))
        for net in networks
    ]
    expected = sum(
        F.cross_entropy(predict(net, images), label)
        for net, label in zip(networks, labels[::-1], strict=True)
    )
    losses = model.loss(**batch)
    torch.testing.assert_close(losses['loss_cps'], 1.5 * expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ('cutmix', 'joint', 'passes'),
    [
        (None, False, 12),
        ('in_batch', False, 14),
        ('pair', False, 16),
        (None, True, 12),
        ('in_batch', True, 16),
        ('pair', True, 20),
    ],
)
def test_passes_of_a_step_and_one_optimizer(cutmix, joint, passes):
    model = build(cutmix=cutmix, joint_forward=joint)
    wrapper = build_optim_wrapper(
        model,
        {
            'type': 'OptimWrapper',
            'constructor': 'NetworkOptimWrapperConstructor',
            'optimizer': {'type': 'SGD', 'lr': 0.01},
        },
    )
    assert type(wrapper) is OptimWrapper
    seen = []
    for net in (model.student1, model.student2):
        net.backbone.register_forward_hook(
            lambda _, inputs, out: seen.append(len(inputs[0]) * (3 if out[0].requires_grad else 1))
        )
    weights = [net.decode_head.conv_seg.weight for net in (model.student1, model.student2)]
    before = [weight.clone() for weight in weights]
    model.train_step(collated_batch(2, 2 * model.unlabeled_batches), wrapper)
    assert sum(seen) / 2 == passes
    assert not any(torch.equal(*pair) for pair in zip(before, weights, strict=True))


def test_labeled_images_alone_before_the_start():
    model = build(cutmix=None, unlabeled_start=3)
    for iteration in (2, 3):
        model.clock = Clock(iteration)
        assert ('loss_cps' in model.loss(**batch_of(model))) == (iteration == 3)


def test_odd_number_of_images_makes_no_pairs():
    model = build(cutmix='pair')
    with pytest.raises(ValueError, match=r'an even number of unlabeled images on a process, got 3'):
        model.loss(**batch_of(model, 3))
