"""U2PL against an independent, pixel-by-pixel reading of the paper's equations."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ddp_steps import train_each, train_method
from mmengine.runner.checkpoint import load_state_dict
from mmseg.registry import MODELS
from ranks import run_on_ranks
from tiny import (
    NUM_CLASSES,
    FixedCutMix,
    collated_batch,
    tiny_segmentor,
    unlabeled_sample,
)

from mmseg_semi.models import negative_contrast
from mmseg_semi.models.clock import Clock
from mmseg_semi.models.cutmix import CutMixPlan, NoCutMix

SMALL = dict(
    representation=dict(channels=6, out_channels=4, dropout_ratio=0),
    low_rank=1,
    high_rank=3,
    queue_size=90,
    background_queue_size=100,
    keys_per_step=16,
    num_anchors=5,
    num_negatives=8,
    unreliable_share=0.4,
)
#: Every anchor is taken, and every new negative is stored.
EXHAUSTIVE = dict(num_anchors=80, keys_per_step=80, num_negatives=100)
BOXES = ([0, 0, 16, 32], [8, 8, 32, 24], [0, 16, 32, 32])


def build(norm='GN', auxiliary=False, head=None, **settings):
    """A method whose teacher is another network than its student, and confident somewhere."""
    torch.manual_seed(0)
    model = MODELS.build(
        {
            'type': 'U2PL',
            'segmentor': tiny_segmentor(norm, auxiliary, **(head or {})),
            'semi_train_cfg': {**SMALL, **settings},
        }
    )
    model.init_weights()
    with torch.no_grad():
        for network, scale in ((model.student, 2.0), (model.teacher, 3.0)):
            network.decode_head.conv_seg.weight.normal_().mul_(scale)
    return model.train()


def batch_of(model, num_labeled=2, num_unlabeled=3, seed=0):
    return model.data_preprocessor(collated_batch(num_labeled, num_unlabeled, seed=seed), True)


def fix_cutmix(model, triggered=True):
    """Paste the boxes of each image's successor."""
    model.cutmix = FixedCutMix()
    boxes = torch.tensor(BOXES) * triggered
    partner, triggered = torch.tensor([1, 2, 0]), torch.tensor(triggered)
    model.cutmix.fixed = CutMixPlan(partner, boxes, (32, 32), triggered)


def fill_with(model, value=1.0):
    """Let all queues be full of one vector."""
    model.contrast.bank.rows.fill_(value)
    model.contrast.bank.fill.copy_(model.contrast.bank.limits)


def optimized(losses):
    return {key for key in losses if 'loss' in key}


def without_replacement(queue, fill, starts):
    """All entries of a queue, each once."""
    entry = torch.arange(queue.shape[-1]).expand(queue.shape)
    return (starts[queue] + entry).masked_fill(entry >= fill[queue], -1)


class Reference:
    """Sec. 3 of the paper in loops over pixels, in float64, from the networks' own outputs."""

    def __init__(self, model, batch):
        self.cfg = model.cfg.as_dict()
        labeled, weak = batch['inputs']['labeled'], batch['inputs']['weak']
        self.num_labeled = len(labeled)
        truth = torch.stack([s.gt_sem_seg.data[0] for s in batch['data_samples']['labeled']])
        teacher = copy.deepcopy(model.teacher)
        mixed = weak.clone()
        with torch.no_grad():
            logits = teacher.decode_head(teacher.extract_feat(weak)).double()
            full = F.interpolate(logits, (32, 32), mode='bilinear').argmax(dim=1)
            label = full.clone()
            for i, (x1, y1, x2, y2) in enumerate(BOXES):
                other = (i + 1) % 3
                mixed[i, :, y1:y2, x1:x2] = weak[other, :, y1:y2, x1:x2]
                label[i, y1:y2, x1:x2] = full[other, y1:y2, x1:x2]
            self.views = torch.cat([labeled, mixed])
            out = model.forward_network(teacher, self.views, tap=True)
            self.stored = teacher.decode_head.representation(out.decoder).double()
        logits = out.logits.double()
        probs = F.interpolate(logits[len(labeled) :], (32, 32), mode='bilinear').softmax(dim=1)
        self.entropy = -(probs * (probs + 1e-10).log()).sum(dim=1)
        alpha = self.cfg['unreliable_share']
        self.gamma = np.percentile(self.entropy.numpy(), 100 * (1 - alpha))
        self.pseudo = label[:, 4::8, 4::8]
        self.reliable = label.clone()
        self.reliable[self.entropy > self.gamma] = 255
        candidates = self.reliable
        if self.cfg['anchor_pixels'] == 'surest':
            candidates = label.clone()
            candidates[self.entropy > np.percentile(self.entropy.numpy(), 100 * alpha)] = 255
        # The features are 4 x 4: every 8th pixel, at its center.
        self.label = torch.cat([truth, candidates])[:, 4::8, 4::8]
        self.unsure = (self.entropy > self.gamma)[:, 4::8, 4::8]
        self.probs = logits.softmax(dim=1)
        self.pixels = [(i, y, x) for i in range(5) for y in range(4) for x in range(4)]

    def anchors(self, c):
        return [
            (i, y, x)
            for i, y, x in self.pixels
            if self.label[i, y, x] == c and self.probs[i, c, y, x] > self.cfg['anchor_threshold']
        ]

    def center(self, c):
        of = self.anchors(c)
        if self.cfg['center_pixels'] == 'all':
            of = [p for p in self.pixels if self.label[p] == c]
        return torch.stack([self.stored[i, :, y, x] for i, y, x in of]).mean(dim=0)

    def negatives(self, c):
        found = []
        for i, y, x in self.pixels:
            p = self.probs[i, :, y, x].tolist()
            rank = sorted(range(NUM_CLASSES), key=lambda k, p=p: -p[k]).index(c)
            if i < self.num_labeled:
                label = self.label[i, y, x]
                chosen = label != c and label != 255 and rank < self.cfg['low_rank']
                chosen = chosen and self.cfg['negatives'] == 'paper'
            else:
                unsure = self.unsure[i - self.num_labeled, y, x]
                chosen = unsure and self.cfg['low_rank'] <= rank < self.cfg['high_rank']
                if self.cfg['negatives'] == 'code':
                    chosen = chosen and self.pseudo[i - self.num_labeled, y, x] == c
            if chosen:
                found.append((i, y, x))
        return found

    def unlabeled_loss(self, logits):
        full = F.interpolate(logits.double(), (32, 32), mode='bilinear').log_softmax(dim=1)
        kept = [tuple(p) for p in (self.reliable != 255).nonzero().tolist()]
        mean = -sum(full[i, self.reliable[i, y, x], y, x] for i, y, x in kept) / len(kept)
        return mean * 3 * 32 * 32 / len(kept)

    def contrast_loss(self, features):
        features, tau = features.double(), self.cfg['temperature']
        total = right = number = present = 0
        for c in range(NUM_CLASSES):
            negatives = [self.stored[i, :, y, x] for i, y, x in self.negatives(c)]
            terms = []
            for i, y, x in self.anchors(c):
                others = torch.stack([self.center(c), *negatives])
                logits = torch.cosine_similarity(features[i, :, y, x][None], others) / tau
                terms.append(logits.logsumexp(0) - logits[0])
                if negatives:
                    right += bool(logits[0] > logits[1:].max())
                    number += 1
            present += bool(terms)
            total = total + (torch.stack(terms).mean() if terms else 0)
        divisor = NUM_CLASSES if self.cfg['class_average'] == 'all' else present
        return total / divisor, right / number


# Images of which no pixel is so close to the threshold that rounding decides about it.
@pytest.mark.parametrize(
    ('settings', 'seed'),
    [
        ({}, 3),
        (
            {
                'anchor_pixels': 'surest',
                'center_pixels': 'all',
                'class_average': 'present',
                'negatives': 'code',
                # More of them: ranks of the pass behind CutMix, where the one before it has c first.
                'high_rank': 4,
                'unreliable_share': 0.9,
            },
            7,
        ),
    ],
    ids=['paper', 'authors'],
)
def test_losses_equal_the_papers_equations(settings, seed, monkeypatch):
    monkeypatch.setattr(negative_contrast, 'sample_entries', without_replacement)
    model = build(**EXHAUSTIVE, **settings)
    batch = batch_of(model, seed=seed)
    fix_cutmix(model)
    reference = Reference(model, batch)
    losses = model.loss(**batch)
    with torch.no_grad():
        out = model.forward_network(model.student, reference.views, tap=True)
        unlabeled = reference.unlabeled_loss(out.logits[2:])
        features = model.student.decode_head.representation(out.decoder)
        contrast, accuracy = reference.contrast_loss(features)
    close = dict(rtol=1e-4, atol=1e-6, check_dtype=False)
    torch.testing.assert_close(losses['loss_unlabeled'], unlabeled, **close)
    torch.testing.assert_close(losses['loss_contrast'], 0.1 * contrast, **close)
    assert losses['contrast_accuracy'].item() == pytest.approx(accuracy)
    assert losses['entropy_threshold'].item() == pytest.approx(reference.gamma, rel=1e-5)
    kept = (reference.reliable != 255).double().mean()
    assert losses['reliable_ratio'].item() == pytest.approx(kept.item())
    assert kept.item() == pytest.approx(1 - model.alpha, abs=1e-3)
    # Each class's queue has its negatives, in some order.
    stored = [reference.negatives(c) for c in range(NUM_CLASSES)]
    assert model.contrast.bank.fill.tolist() == [len(of) for of in stored]
    for c, (start, of) in enumerate(zip(model.contrast.bank.starts.tolist(), stored, strict=True)):
        rows = model.contrast.bank.entries[start : start + len(of)].sum(dim=0)
        expected = sum((reference.stored[i, :, y, x] for i, y, x in of), torch.zeros(4))
        torch.testing.assert_close(rows, expected, rtol=1e-4, atol=1e-4, check_dtype=False), c
    # Both kinds of anchors and of negatives took part.
    places = [
        {i < 2 for c in range(NUM_CLASSES) for i, _, _ in of(c)}
        for of in (reference.anchors, reference.negatives)
    ]
    kinds = {True, False} if model.cfg.negatives == 'paper' else {False}
    assert places == [{True, False}, kinds]


def test_only_loss_terms_are_optimized():
    model = build()
    losses = model.loss(**batch_of(model))
    assert optimized(losses) == {'decode.loss_ce', 'loss_unlabeled', 'loss_contrast'}
    diagnostics = losses.keys() - optimized(losses)
    assert diagnostics == {
        'reliable_ratio',
        'entropy_threshold',
        'pseudo_label_entropy',
        'cutmix_rate',
        'contrast_accuracy',
        'anchor_classes_ratio',
        'bank_fill_ratio',
    }
    assert all(torch.isfinite(losses[key]) and not losses[key].requires_grad for key in diagnostics)


def test_gradient_reaches_the_student_and_never_the_teacher():
    model = build()
    losses = model.loss(**batch_of(model))
    for key, missing in (
        ('loss_unlabeled', {'decode_head.representation'}),
        ('loss_contrast', {'decode_head.conv_seg'}),
    ):
        model.zero_grad()
        losses[key].backward(retain_graph=True)
        untouched = {n for n, p in model.student.named_parameters() if p.grad is None}
        assert {'.'.join(name.split('.')[:2]) for name in untouched} == missing
        assert any(p.grad.abs().sum() for p in model.student.backbone.parameters())
    last = model.student.decode_head.representation[-1]
    assert last.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.teacher.parameters())
    assert all(not b.requires_grad for b in model.contrast.bank.buffers())


@pytest.mark.parametrize('contrast_weight', [0.0, 1e-30])
def test_weight_zero_is_supervised_training(contrast_weight):
    model = build(unlabeled_weight=0.0, contrast_weight=contrast_weight)
    batch = batch_of(model)
    loss, _ = model.parse_losses(model.loss(**batch))
    loss.backward()
    mixed = {name: p.grad.clone() for name, p in model.student.named_parameters()}
    assert any('representation' in name for name in mixed) == (contrast_weight > 0)
    model.student.zero_grad()
    supervised = model.student.loss(batch['inputs']['labeled'], batch['data_samples']['labeled'])
    supervised['decode.loss_ce'].backward()
    for name, parameter in model.student.named_parameters():
        expected = parameter.grad
        if 'representation' in name:
            assert expected is None
            expected = torch.zeros_like(parameter)
        torch.testing.assert_close(mixed[name], expected, rtol=1e-3, atol=1e-6)


def test_without_contrast_there_is_neither_head_nor_bank():
    model = build(contrast_weight=0.0)
    assert not any('representation' in key or 'bank' in key for key in model.state_dict())
    assert optimized(model.loss(**batch_of(model))) == {'decode.loss_ce', 'loss_unlabeled'}


def test_before_unlabeled_start_only_the_labeled_images_count():
    model = build(unlabeled_start=5)
    batch = batch_of(model)
    model.clock = Clock(4)
    losses = model.loss(**batch)
    assert losses.keys() == {'decode.loss_ce', 'loss_contrast'}
    assert losses['loss_contrast'] == 0
    assert model.contrast.bank.fill.sum() == 0
    sum(losses.values()).backward()
    # DistributedDataParallel wants a gradient of each parameter.
    assert all(p.grad is not None for p in model.student.parameters())
    model.clock = Clock(5)
    assert 'loss_unlabeled' in model.loss(**batch)


def test_weight_of_the_labeled_loss_acts_before_and_after_the_start():
    whole, half = build(unlabeled_start=1), build(unlabeled_start=1, labeled_weight=0.5)
    batch = batch_of(whole)
    for step in (0, 1):
        whole.clock = half.clock = Clock(step)
        one, other = (model.loss(**batch)['decode.loss_ce'].item() for model in (whole, half))
        assert other == pytest.approx(one / 2)


def test_fewer_pixels_are_unreliable_as_the_training_goes_on():
    model = build(unreliable_share=0.2)
    batch = batch_of(model)
    ratios = []
    for iteration in (0, 20, 60, 80):
        model.clock = Clock(iteration, 80)
        fix_cutmix(model)
        ratios.append(model.loss(**batch)['reliable_ratio'].item())
    assert ratios == pytest.approx([0.8, 0.85, 0.95, 1.0], abs=1e-3)


@pytest.mark.parametrize(
    'settings',
    [
        dict(unreliable_share=0.1),
        dict(anchor_threshold=0.9),
        dict(temperature=0.2),
        dict(center_pixels='all'),
        dict(anchor_pixels='surest'),
        dict(negatives='code'),
        dict(low_rank=2),
        dict(high_rank=2),
        dict(num_negatives=2),
        dict(contrast_weight=0.2),
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_each_setting_of_the_contrast_changes_the_loss(settings, monkeypatch):
    monkeypatch.setattr(negative_contrast, 'sample_entries', without_replacement)
    values = []
    for changed in ({}, settings):
        model = build(**{**EXHAUSTIVE, **changed})
        fix_cutmix(model)
        values.append(model.loss(**batch_of(model))['loss_contrast'].item())
    assert values[0] != pytest.approx(values[1], rel=1e-4)


def test_each_setting_of_the_pseudo_labels_changes_the_loss():
    values = {}
    for name, settings in {
        'paper': {},
        'share': dict(unreliable_share=0.1),
        'weight': dict(unlabeled_weight=0.5),
        'mix': dict(cutmix=None),
    }.items():
        model = build(contrast_weight=0.0, **settings)
        if not isinstance(model.cutmix, NoCutMix):
            fix_cutmix(model)
        values[name] = model.loss(**batch_of(model))['loss_unlabeled'].item()
    assert len(set(values.values())) == len(values)
    assert values['weight'] == pytest.approx(values['paper'] / 2)


def test_sizes_of_anchors_keys_and_queues():
    model = build(num_anchors=3, keys_per_step=7, queue_size=9, background_queue_size=11)
    losses = model.loss(**batch_of(model))
    assert model.contrast.bank.fill.max() == 7
    for seed in range(1, 4):
        losses = model.loss(**batch_of(model, seed=seed))
    assert model.contrast.bank.fill.tolist() == [11, 9, 9, 9]
    assert losses['bank_fill_ratio'] == 1


def test_class_that_is_absent_and_bank_that_is_empty_add_nothing(monkeypatch):
    # A teacher that sees class 2 everywhere, beyond doubt, and labels that agree.
    model = build()
    batch = batch_of(model)
    for sample in batch['data_samples']['labeled']:
        sample.gt_sem_seg.data.fill_(2)
    with torch.no_grad():
        model.teacher.decode_head.conv_seg.weight.zero_()
        model.teacher.decode_head.conv_seg.bias.copy_(torch.tensor([0.0, 0, 9, 0]))
    losses = model.loss(**batch)
    # One entropy everywhere: nothing is unreliable, and labeled pixels are of their first class.
    assert losses['reliable_ratio'] == 1
    assert model.contrast.bank.fill.sum() == 0
    assert losses['anchor_classes_ratio'] == 1 / NUM_CLASSES
    assert losses['loss_contrast'] == losses['contrast_accuracy'] == 0
    losses['loss_contrast'].backward()
    assert all(p.grad.isfinite().all() for p in model.student.backbone.parameters())
    # Once there is something to push away, the one class counts a quarter, or, alone, in full.
    fill_with(model)
    torch.manual_seed(1)
    quarter = model.loss(**batch)['loss_contrast']
    model.contrast.cfg = model.Settings({**SMALL, 'class_average': 'present'})
    torch.manual_seed(1)
    assert 4 * quarter.item() == pytest.approx(model.loss(**batch)['loss_contrast'].item())
    assert quarter > 0


def test_void_labels_give_zero_with_a_graph():
    model = build(anchor_threshold=1.0)
    batch = batch_of(model)
    for sample in batch['data_samples']['labeled']:
        sample.gt_sem_seg.data.fill_(255)
    losses = model.loss(**batch)
    assert (
        losses['decode.loss_ce'] == losses['loss_contrast'] == losses['anchor_classes_ratio'] == 0
    )
    sum(losses[key] for key in optimized(losses)).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.student.parameters())
    # The unlabeled images have filled the bank all the same, by ranks 1 and 2.
    assert model.contrast.bank.fill.sum() > 0


@pytest.mark.parametrize('norm', ['GN', 'BN'])
@pytest.mark.parametrize('num_unlabeled', [1, 3])
def test_small_and_odd_batches(norm, num_unlabeled):
    model = build(norm)
    losses = model.loss(**batch_of(model, num_unlabeled=num_unlabeled))
    assert all(torch.isfinite(value) for value in losses.values())


def test_two_classes_have_negatives_of_rank_one():
    two = dict(num_classes=2)
    with pytest.raises(ValueError, match=r'low_rank must be below .* 2, got 3\. .* at most 1'):
        build(head=two, low_rank=3, high_rank=20)
    model = build(head=two, low_rank=1, high_rank=20)
    batch = batch_of(model)
    for sample in batch['data_samples']['labeled']:
        sample.gt_sem_seg.data[sample.gt_sem_seg.data != 255] %= 2
    assert model.loss(**batch)['loss_contrast'] > 0
    assert (model.contrast.bank.fill > 0).all()


@pytest.mark.parametrize('ignore_padding', [True, False])
def test_padding(ignore_padding):
    model = build(ignore_padding=ignore_padding, cutmix=None)
    batch = batch_of(model)
    valid = torch.ones(32, 32, dtype=torch.bool)
    valid[:, 16:] = False
    batch['data_samples']['weak'] = [unlabeled_sample(valid) for _ in range(3)]
    targets = model.make_targets(model.batch_of(**batch))
    assert (targets.label[..., 16:] == 255).all() == ignore_padding
    assert (targets.anchors[2:, :, 2:] == 255).all() == ignore_padding
    # The share is that of the pixels that count, and padding does not raise the weight.
    assert targets.log['reliable_ratio'].item() == pytest.approx(0.6, abs=2e-3)
    assert targets.weight.item() == pytest.approx(1 / 0.6, rel=5e-3)
    logits = torch.randn(3, NUM_CLASSES, 4, 4, requires_grad=True)
    model.unlabeled_loss(logits, targets).backward()
    assert (logits.grad[..., 3] == 0).all() == ignore_padding


def test_no_valid_pixel_at_all():
    model = build(ignore_padding=True)
    batch = batch_of(model)
    nothing = torch.zeros(32, 32, dtype=torch.bool)
    batch['data_samples']['weak'] = [unlabeled_sample(nothing) for _ in range(3)]
    losses = model.loss(**batch)
    assert losses['loss_unlabeled'] == losses['reliable_ratio'] == losses['entropy_threshold'] == 0
    assert all(torch.isfinite(value) for value in losses.values())


def test_features_that_are_not_finite_do_not_spoil_the_bank():
    model = build()
    batch = batch_of(model)
    batch['inputs']['weak'][0] = float('nan')
    model.loss(**batch)
    assert all(buffer.isfinite().all() for buffer in model.contrast.bank.buffers())
    assert model.contrast.bank.fill.sum() > 0


def test_bfloat16_autocast_keeps_targets_and_bank_in_float32(monkeypatch):
    monkeypatch.setattr(negative_contrast, 'sample_entries', without_replacement)
    exact, rough = build(**EXHAUSTIVE), build(**EXHAUSTIVE)
    fix_cutmix(exact)
    fix_cutmix(rough)
    batch = batch_of(exact)
    expected = exact.loss(**batch)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = rough.loss(**batch)
    for key in ('loss_unlabeled', 'loss_contrast'):
        assert losses[key].dtype == torch.float32
        torch.testing.assert_close(losses[key], expected[key], rtol=0.1, atol=0)
    sum(losses[key] for key in optimized(losses)).backward()
    assert all(torch.isfinite(p.grad).all() for p in rough.student.parameters())
    assert rough.contrast.bank.rows.dtype == torch.float32


def test_auxiliary_head_learns_from_labeled_images_only():
    model = build(auxiliary=True)
    losses = model.loss(**batch_of(model))
    assert 'aux.loss_ce' in losses
    (losses['loss_unlabeled'] + losses['loss_contrast']).backward()
    assert all(p.grad is None for p in model.student.auxiliary_head.parameters())


@pytest.mark.slow
def test_ranks_remember_the_same_and_are_one_without_contrast(tmp_path):
    # The share of unreliable pixels is of each rank's images; with none of them the mean is of all.
    plain = {**SMALL, 'contrast_weight': 0.0, 'unreliable_share': 0.0, 'cutmix': None}
    first, second = run_on_ranks(train_each, 2, tmp_path, 2, 2, ('U2PL', SMALL), ('U2PL', plain))
    for one, other in zip(first, second, strict=True):
        for key, value in one['state_dict'].items():
            assert torch.equal(other['state_dict'][key], value), key
    # More than one rank can have sent in two steps.
    assert first[0]['state_dict']['contrast.bank.fill'].max() > 2 * SMALL['keys_per_step']
    assert first[0]['logs'][0]['loss'] != second[0]['logs'][0]['loss']
    alone = train_method(0, 1, 2, 'U2PL', plain)
    for key, value in alone['state_dict'].items():
        torch.testing.assert_close(first[1]['state_dict'][key], value, rtol=1e-4, atol=1e-5)


def test_checkpoint_with_the_banks_former_name_is_loaded():
    """As MMEngine loads it, which calls no ``load_state_dict``."""
    trained, resumed = build(), build()
    trained.loss(**batch_of(trained))
    assert trained.contrast.bank.fill.sum() > 0
    current = trained.state_dict()
    former = {key.replace('contrast.bank.', 'bank.'): value for key, value in current.items()}
    assert former.keys() != current.keys()
    load_state_dict(resumed, former, strict=True)
    for key, value in resumed.state_dict().items():
        assert torch.equal(value, current[key]), key
    other = build(queue_size=7)
    with pytest.raises(ValueError, match=r"'contrast\.bank\.rows' has shape .*. Set queue_size"):
        load_state_dict(other, former)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'unreliable_share': 20.0}, r'unreliable_share must be in \[0, 1\], got 20\.0'),
        ({'anchor_threshold': -0.1}, r'semi_train_cfg\.anchor_threshold must be in .* got -0\.1'),
        ({'contrast_weight': -1.0}, r'contrast_weight must be at least 0, got -1\.0'),
        ({'unlabeled_weight': -1.0}, r'unlabeled_weight must be at least 0, got -1\.0'),
        ({'temperature': 0}, r'temperature must be above 0, got 0\. The paper has 0\.5\.'),
        ({'num_anchors': 0}, r'num_anchors must be at least 1, got 0'),
        ({'num_negatives': 0}, r'num_negatives must be at least 1, got 0'),
        ({'keys_per_step': 0}, r'keys_per_step must be at least 1, got 0'),
        ({'background_queue_size': 0}, r'background_queue_size must be at least 1, got 0'),
        ({'low_rank': 3}, r'high_rank must be above low_rank=3, got 3\. Raise high_rank'),
        ({'low_rank': 4, 'high_rank': 20}, r'low_rank must be below .* 4, got 4\. .* at most 3'),
        ({'anchor_pixels': 'all'}, r"anchor_pixels must be 'reliable' or 'surest', got 'all'"),
        ({'center_pixels': 'some'}, r"center_pixels must be .*, got 'some'"),
        ({'class_average': 'none'}, r"class_average must be .*, got 'none'"),
        ({'negatives': 'all'}, r"negatives must be 'paper' or 'code', got 'all'"),
        ({'cutmix': {'adaptive': True}}, 'needs the hardness of images, which U2PL does not'),
        ({'representation': {'width': 3}}, r'representation has no setting width'),
        ({'representation': {'num_convs': 0}}, r'representation\.num_convs must be at least 1'),
        ({'representation': {'dropout_ratio': 1.0}}, r'dropout_ratio must be in \[0, 1\), got 1'),
        ({'queue_size': 2.5}, r'semi_train_cfg\.queue_size must be an integer, got 2\.5'),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)


def test_defaults_are_the_papers():
    with torch.device('meta'):
        model = MODELS.build({'type': 'U2PL', 'segmentor': tiny_segmentor('GN')})
    head = model.student.decode_head.representation
    kinds = [type(layer).__name__ for layer in head]
    assert kinds == ['ConvModule', 'Dropout2d', 'ConvModule', 'Dropout2d', 'Conv2d']
    assert [layer.out_channels for layer in head[::2]] == [256] * 3
    assert model.contrast.bank.entries.shape == (50000 + 3 * 30000, 256)
    assert math.isclose(model.alpha, 0.2)
