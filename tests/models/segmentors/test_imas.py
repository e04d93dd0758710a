"""iMAS against an independent, pixel-by-pixel reading of the paper's equations."""

import copy

import numpy as np
import pytest
import torch
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from tiny import (
    NUM_CLASSES,
    FixedCutMix,
    collated_batch,
    tiny_segmentor,
    unlabeled_sample,
)

from mmseg_semi.models.clock import Clock
from mmseg_semi.models.cutmix import CutMixPlan


def build(norm='GN', tau=0.28, **settings):
    torch.manual_seed(0)
    model = MODELS.build(
        {
            'type': 'IMAS',
            'segmentor': tiny_segmentor(norm),
            'semi_train_cfg': {'tau': tau, **settings},
        }
    )
    model.init_weights()
    with torch.no_grad():
        # Teacher and student must differ, or the hardness is trivial; and be confident somewhere.
        for network, scale in ((model.student, 1.0), (model.teacher, 1.3)):
            network.decode_head.conv_seg.weight.normal_().mul_(scale)
    return model.train()


def batch_of(model, num_labeled=2, num_unlabeled=3, seed=0):
    batch = collated_batch(num_labeled, num_unlabeled, seed=seed)
    return model.data_preprocessor(batch, True)


def views_of(model, batch):
    """The student's views, their labels and confidences, and the scalars for the log."""
    batch = model.batch_of(**batch)
    gamma, label, confidence, log = model.measure_hardness(batch)
    views, targets, _, mix = model.make_views(batch, gamma, label, confidence)
    return views, targets, {**log, **mix.log}


def reference_hardness(model, weak, tau, ignore_background):
    """Eq. 4-6 by loops over classes in numpy."""
    maps = []
    with torch.no_grad():
        for network in (model.student, model.teacher):
            network = copy.deepcopy(network).eval()
            logits = resize(network._forward(weak), size=weak.shape[2:], mode='bilinear')
            probs = logits.double().softmax(1).numpy()
            maps.append((probs.argmax(1), probs.max(1)))
    (label_s, conf_s), (label_t, conf_t) = maps
    hardness = []
    for i in range(len(weak)):
        phis = []
        for first, second, conf in (
            (label_s[i], label_t[i], conf_s[i]),
            (label_t[i], label_s[i], conf_t[i]),
        ):
            total, weighted = 0, 0.0
            for c in range(1 if ignore_background else 0, NUM_CLASSES):
                a, b = first == c, second == c
                if (a | b).any():
                    weighted += a.sum() * (a & b).sum() / (a | b).sum()
                total += a.sum()
            pixels = total if ignore_background else first.size
            wiou = weighted / pixels if pixels else 0.0
            phis.append((conf >= tau).mean() / 2 * wiou)
        hardness.append(1 - sum(phis))
    return np.array(hardness), label_t, conf_t


def reference_term(logits, label, conf, tau):
    """The inner sum of Eq. 10: cross-entropy of the confident pixels over all H * W."""
    log_probs = resize(logits, size=label.shape[1:], mode='bilinear').double().log_softmax(1)
    terms = []
    for i in range(len(label)):
        total = torch.zeros((), dtype=torch.float64)
        for y, x in zip(*np.nonzero(conf[i] >= tau), strict=True):
            total = total - log_probs[i, label[i, y, x], y, x]
        terms.append(total / label[i].size)
    return torch.stack(terms)


@pytest.mark.parametrize('ignore_background', [False, True])
@pytest.mark.parametrize(
    ('triggered', 'untriggered'), [(1, 'official'), (0, 'official'), (0, 'literal')]
)
def test_unlabeled_loss_equals_the_papers_equations(ignore_background, triggered, untriggered):
    tau = 0.28
    model = build(tau=tau, ignore_background=ignore_background, untriggered=untriggered)
    model.cutmix = FixedCutMix()
    boxes = torch.tensor([[4, 2, 20, 25], [0, 0, 9, 9], [10, 10, 30, 12]]) * triggered
    batch = batch_of(model)
    weak, strong = batch['inputs']['weak'], batch['inputs']['strong']
    gamma, label, conf = reference_hardness(model, weak, tau, ignore_background)
    assert gamma.min() < 0.99
    order = np.argsort(gamma)
    partner = np.empty(3, dtype=np.int64)
    partner[order] = order[::-1]
    model.cutmix.fixed = CutMixPlan(
        torch.tensor(partner), boxes, (32, 32), torch.tensor(bool(triggered))
    )
    losses = model.loss(**batch)

    mixed, mixed_label, mixed_conf = weak.clone(), label.copy(), conf.copy()
    for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        mixed[i, :, y1:y2, x1:x2] = weak[partner[i], :, y1:y2, x1:x2]
        mixed_label[i, y1:y2, x1:x2] = label[partner[i], y1:y2, x1:x2]
        mixed_conf[i, y1:y2, x1:x2] = conf[partner[i], y1:y2, x1:x2]
    weight = torch.tensor(gamma, dtype=torch.float32)[:, None, None, None]
    view = (1 - weight) * strong + weight * weak
    with torch.no_grad():
        term_a = reference_term(model.student._forward(view), label, conf, tau)
        term_c = reference_term(model.student._forward(mixed), mixed_label, mixed_conf, tau)
    both = triggered or untriggered == 'literal'
    per_image = 0.5 * (term_a + term_c) if both else term_a
    expected = 3.0 * ((1 - torch.tensor(gamma)) * per_image).mean()
    assert expected > 0.01
    torch.testing.assert_close(losses['loss_unlabeled'].double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        losses['hardness'].double(), torch.tensor(gamma.mean()), rtol=1e-5, atol=0
    )


def test_only_loss_terms_are_optimized():
    model = build()
    losses = model.loss(**batch_of(model))
    optimized = {key for key in losses if 'loss' in key}
    assert optimized == {'decode.loss_ce', 'loss_unlabeled'}
    diagnostics = losses.keys() - optimized
    assert diagnostics == {
        'hardness',
        'hardness_std',
        'confident_ratio',
        'teacher_student_agreement',
        'pseudo_label_entropy',
        'cutmix_rate',
    }
    assert all(torch.isfinite(losses[key]) and not losses[key].requires_grad for key in diagnostics)


def test_gradient_reaches_the_student_and_never_the_teacher():
    model = build()
    losses = model.loss(**batch_of(model))
    losses['loss_unlabeled'].backward()
    assert all(parameter.grad is not None for parameter in model.student.parameters())
    assert any((parameter.grad != 0).any() for parameter in model.student.backbone.parameters())
    assert all(parameter.grad is None for parameter in model.teacher.parameters())


def test_weight_zero_is_supervised_training():
    model = build(unlabeled_weight=0.0)
    batch = batch_of(model)
    loss, _ = model.parse_losses(model.loss(**batch))
    loss.backward()
    mixed = [parameter.grad.clone() for parameter in model.student.parameters()]
    model.student.zero_grad()
    supervised = model.student.loss(batch['inputs']['labeled'], batch['data_samples']['labeled'])
    supervised['decode.loss_ce'].backward()
    for got, parameter in zip(mixed, model.student.parameters(), strict=True):
        torch.testing.assert_close(got, parameter.grad, rtol=1e-4, atol=1e-7)


def test_before_unlabeled_start_only_the_labeled_images_count():
    model = build(unlabeled_start=5)
    batch = batch_of(model)
    model.clock = Clock(4)
    assert model.loss(**batch).keys() == {'decode.loss_ce'}
    model.clock = Clock(5)
    assert 'loss_unlabeled' in model.loss(**batch)


def test_right_after_a_copy_the_hardness_is_one_minus_the_confident_ratio():
    model = build()
    model.copy_student_to_teacher()
    losses = model.loss(**batch_of(model))
    torch.testing.assert_close(losses['hardness'], 1 - losses['confident_ratio'])
    assert losses['teacher_student_agreement'] == 1


def test_prepass_leaves_the_students_statistics_and_modes_alone():
    model = build('BN')
    batch = batch_of(model)
    model.student.decode_head.eval()
    before = copy.deepcopy(model.student.state_dict())
    modes = [module.training for module in model.modules()]
    views_of(model, batch)
    for key, value in model.student.state_dict().items():
        assert torch.equal(value, before[key])
    assert modes == [module.training for module in model.modules()]


def test_weak_view_joins_the_forward_for_its_statistics_only():
    with_weak, without = build('BN', weak_in_joint_forward=True), build('BN')
    batch = batch_of(without)
    with_weak.cutmix = without.cutmix = FixedCutMix()
    with_weak.cutmix.fixed = CutMixPlan(
        torch.tensor([2, 1, 0]), torch.zeros(3, 4, dtype=torch.long), (32, 32), torch.tensor(False)
    )
    passed = []
    for model in (with_weak, without):
        forward = model.forward_views
        model.forward_views = lambda *args, forward=forward, **kwargs: (
            passed.append(args[2:]) or forward(*args, **kwargs)
        )
    losses = with_weak.loss(**batch), without.loss(**batch)
    # Before the two views that have a loss.
    assert [len(views) for views in passed] == [3, 2]
    assert torch.equal(passed[0][0], batch['inputs']['weak'])
    mean = 'backbone.stem.1.running_mean'
    assert not torch.equal(with_weak.student.state_dict()[mean], without.student.state_dict()[mean])
    assert losses[0]['hardness'] == losses[1]['hardness']


@pytest.mark.parametrize('joint', [True, False])
@pytest.mark.parametrize('num_unlabeled', [1, 2, 3])
def test_nobody_confident_gives_zero_with_a_graph(num_unlabeled, joint):
    model = build(tau=1.0, joint_forward=joint)
    losses = model.loss(**batch_of(model, num_unlabeled=num_unlabeled))
    assert losses['loss_unlabeled'] == 0
    assert losses['hardness'] == 1
    assert losses['confident_ratio'] == 0
    losses['loss_unlabeled'].backward()
    assert all((parameter.grad == 0).all() for parameter in model.student.parameters())


def test_single_unlabeled_image_is_cut_with_itself():
    model = build()
    for seed in range(5):
        torch.manual_seed(seed)
        (strong, mixed), _, _ = views_of(model, batch_of(model, num_unlabeled=1))
        assert torch.equal(mixed, batch_of(model, num_unlabeled=1)['inputs']['weak'])
        assert strong.shape == mixed.shape


def test_void_labels_everywhere_keep_the_step_finite():
    model = build()
    batch = batch_of(model)
    for sample in batch['data_samples']['labeled']:
        sample.gt_sem_seg.data.fill_(255)
    loss, log_vars = model.parse_losses(model.loss(**batch))
    loss.backward()
    assert log_vars['decode.loss_ce'] == 0
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.student.parameters())


@pytest.mark.parametrize('ignore_padding', [True, False])
def test_padding(ignore_padding):
    model = build(ignore_padding=ignore_padding)
    batch = batch_of(model)
    valid = torch.ones(32, 32, dtype=torch.bool)
    valid[:, 20:] = False
    batch['data_samples']['weak'] = [unlabeled_sample(valid) for _ in range(3)]
    _, ((label, confidence), _), log = views_of(model, batch)
    void = label == 255
    assert void.any() == ignore_padding
    if ignore_padding:
        assert torch.equal(void, ~valid.expand(3, -1, -1))
        # What the networks say about padding changes nothing.
        expected = (confidence[:, :, :20] >= 0.28).float().mean()
        torch.testing.assert_close(log['confident_ratio'], expected)


def test_no_valid_pixel_at_all():
    model = build()
    batch = batch_of(model)
    nothing = torch.zeros(32, 32, dtype=torch.bool)
    batch['data_samples']['weak'] = [unlabeled_sample(nothing) for _ in range(3)]
    losses = model.loss(**batch)
    assert losses['hardness'] == 1
    assert losses['loss_unlabeled'] == 0
    assert all(torch.isfinite(value) for value in losses.values())


def test_ablation_switches():
    batch = batch_of(build())
    plain = build(adaptive_loss=False, intensity=None, cutmix=None)
    views, _, log = views_of(plain, batch)
    assert len(views) == 1
    assert views[0] is batch['inputs']['weak']
    assert 'cutmix_rate' not in log
    weak_only = copy.deepcopy(batch)
    del weak_only['inputs']['strong'], weak_only['data_samples']['strong']
    adaptive = build(adaptive_loss=True, intensity=None, cutmix=None)
    unweighted, weighted = (m.loss(**batch)['loss_unlabeled'] for m in (plain, adaptive))
    assert weighted < unweighted
    assert 'loss_unlabeled' in plain.loss(**weak_only)
    fixed = build(intensity={'type': 'IntensityMix', 'adaptive': False}, cutmix=None)
    assert torch.equal(views_of(fixed, batch)[0][0], batch['inputs']['strong'])


def padded_batch(model):
    """A batch whose images have padding of different sizes."""
    batch = batch_of(model)
    for index in range(3):
        valid = torch.ones(32, 32, dtype=torch.bool)
        valid[:, 30 - 4 * index :] = False
        for branch in ('weak', 'strong'):
            batch['data_samples'][branch][index] = unlabeled_sample(valid)
    return batch


@pytest.mark.parametrize('triggered', [True, False])
@pytest.mark.parametrize('untriggered', ['official', 'literal'])
@pytest.mark.parametrize('weak_in_joint_forward', [False, True])
def test_adaptive_cutmix_alone_is_its_term_with_weight_1(
    triggered, untriggered, weak_in_joint_forward
):
    """Where CutMix is not triggered, the weak view's term; no un-augmented term beside it."""
    tau, settings = 0.28, {'untriggered': untriggered, 'ignore_padding': False}
    model = build(tau=tau, intensity=None, weak_in_joint_forward=weak_in_joint_forward, **settings)
    model.cutmix = FixedCutMix()
    boxes = torch.tensor([[4, 2, 20, 25], [0, 0, 9, 9], [10, 10, 30, 12]]) * triggered
    model.cutmix.fixed = CutMixPlan(
        torch.tensor([2, 1, 0]), boxes, (32, 32), torch.tensor(triggered)
    )
    batch = padded_batch(model)
    weak = batch['inputs']['weak']
    gamma, label, conf = reference_hardness(model, weak, tau, False)
    view, view_label, view_conf = weak.clone(), label.copy(), conf.copy()
    for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        for maps, source in ((view_label, label), (view_conf, conf)):
            maps[i, y1:y2, x1:x2] = source[2 - i, y1:y2, x1:x2]
        view[i, :, y1:y2, x1:x2] = weak[2 - i, :, y1:y2, x1:x2]
    with torch.no_grad():
        term = reference_term(model.student._forward(view), view_label, view_conf, tau)
    losses = model.loss(**batch)
    expected = 3.0 * ((1 - torch.tensor(gamma)) * term).mean()
    assert expected > 0.01
    torch.testing.assert_close(losses['loss_unlabeled'].double(), expected, rtol=1e-4, atol=1e-6)
    assert losses['cutmix_rate'] == triggered
    assert len(views_of(model, batch)[0]) == 1


@pytest.mark.parametrize('untriggered', ['official', 'literal'])
def test_adaptive_intensity_alone_is_its_term_with_weight_1(untriggered):
    tau = 0.28
    model = build(tau=tau, cutmix=None, untriggered=untriggered, ignore_padding=False)
    batch = padded_batch(model)
    weak, strong = batch['inputs']['weak'], batch['inputs']['strong']
    gamma, label, conf = reference_hardness(model, weak, tau, False)
    weight = torch.tensor(gamma, dtype=torch.float32)[:, None, None, None]
    with torch.no_grad():
        logits = model.student._forward((1 - weight) * strong + weight * weak)
    term = reference_term(logits, label, conf, tau)
    losses = model.loss(**batch)
    expected = 3.0 * ((1 - torch.tensor(gamma)) * term).mean()
    assert expected > 0.01
    torch.testing.assert_close(losses['loss_unlabeled'].double(), expected, rtol=1e-4, atol=1e-6)
    assert 'cutmix_rate' not in losses


def test_bfloat16_autocast_keeps_the_targets_in_float32():
    model = build()
    batch = batch_of(model)
    torch.manual_seed(3)
    exact = model.loss(**batch)
    torch.manual_seed(3)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        _, ((_, confidence), _), _ = views_of(model, batch)
        assert confidence.dtype == torch.float32
        torch.manual_seed(3)
        rough = model.loss(**batch)
    assert rough['loss_unlabeled'].dtype == torch.float32
    torch.testing.assert_close(rough['decode.loss_ce'], exact['decode.loss_ce'], rtol=0.05, atol=0)
    rough['loss_unlabeled'].backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.student.parameters())


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'tau': 1.2}, r'semi_train_cfg\.tau must be in \[0, 1\], got 1\.2\. The paper uses'),
        ({'unlabeled_weight': -1}, r'semi_train_cfg\.unlabeled_weight must be at least 0, got -1'),
        ({'unlabeled_start': -1}, r'semi_train_cfg\.unlabeled_start must be at least 0, got -1'),
        ({'untriggered': 'code'}, "untriggered must be 'official' or 'literal', got 'code'"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)


def test_reentrant_checkpointing_needs_the_joint_forward():
    segmentor = tiny_segmentor('GN')
    segmentor['backbone']['with_cp'] = True
    config = {'type': 'IMAS', 'segmentor': segmentor}
    loss = MODELS.build(config).train().loss(**batch_of(build()))['loss_unlabeled']
    assert torch.isfinite(loss)
    with pytest.raises(ValueError, match=r'Set joint_forward=True or with_cp=False'):
        MODELS.build({**config, 'semi_train_cfg': {'joint_forward': False}})


def test_auxiliary_head_learns_from_labeled_images_only():
    torch.manual_seed(0)
    model = MODELS.build({'type': 'IMAS', 'segmentor': tiny_segmentor('GN', auxiliary=True)})
    losses = model.loss(**batch_of(model))
    assert {'decode.loss_ce', 'aux.loss_ce', 'loss_unlabeled'} <= losses.keys()
    losses['loss_unlabeled'].backward()
    assert all(
        p.grad is None or (p.grad == 0).all() for p in model.student.auxiliary_head.parameters()
    )


@pytest.mark.parametrize(
    'settings',
    [
        {'cutmix': None},
        {'intensity': None},
        {'weak_in_joint_forward': True},
        {'joint_forward': False},
    ],
)
def test_adjusted_loss_is_the_loss_of_other_logits(settings):
    model = build(tau=0.5, adjust_logits=True, **settings)
    batch = batch_of(model)
    batch['data_samples']['weak'][0].valid_mask.data[..., -12:] = False
    torch.manual_seed(1)
    # The first step has no shares yet.
    model.loss(**batch)
    assert not model.adjustment.offset.any()
    assert 'adjustment_ratio' in model.adjustment.commit()
    # The shares are those of the labeled pixels and of the confident ones without padding.
    grouped = model.batch_of(**batch)
    _, label, confidence, _ = model.measure_hardness(grouped)
    kept = label[(confidence >= model.cfg.tau) & (label != 255)]
    assert 0 < len(kept) < (label != 255).sum() < label.numel()
    real = grouped.labeled.label
    for share, labels in zip(model.adjustment.shares, (real[real != 255], kept), strict=True):
        counts = torch.bincount(labels.flatten(), minlength=NUM_CLASSES).float()
        torch.testing.assert_close(share, counts / counts.sum())
    offset = model.adjustment.offset.clone()
    assert offset.abs().max() > 0.1
    torch.manual_seed(1)
    adjusted = model.loss(**batch)
    plain = build(tau=0.5, **settings)
    plain.load_state_dict(model.state_dict(), strict=False)
    torch.manual_seed(1)
    before = plain.loss(**batch)
    assert abs(before['loss_unlabeled'] - adjusted['loss_unlabeled']) > 1e-3
    for key in ('decode.loss_ce', 'hardness', 'confident_ratio', 'pseudo_label_entropy'):
        torch.testing.assert_close(before[key], adjusted[key], rtol=0, atol=0)
    # The loss of the same views on logits that are adjusted by hand.
    unlabeled_loss = plain.unlabeled_loss

    def shifted(logits, *rest):
        return unlabeled_loss([one + offset[:, None, None] for one in logits], *rest)

    plain.unlabeled_loss = shifted
    torch.manual_seed(1)
    torch.testing.assert_close(
        plain.loss(**batch)['loss_unlabeled'], adjusted['loss_unlabeled'], rtol=1e-5, atol=1e-7
    )
