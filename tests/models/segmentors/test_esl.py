"""ESL against an independent, pixel-by-pixel reading of the paper's equations."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from ddp_steps import train_method
from mmengine.runner import load_checkpoint
from mmseg.registry import MODELS
from ranks import run_on_ranks
from tiny import (
    NUM_CLASSES,
    FixedCutMix,
    collated_batch,
    loss_and_commit,
    tiny_segmentor,
    unlabeled_sample,
)

from mmseg_semi.functional import contrast
from mmseg_semi.functional.pseudo_label import confidence_and_label
from mmseg_semi.models.clock import Clock
from mmseg_semi.models.cutmix import CutMixPlan

#: All that could be drawn is taken: every anchor, every negative, and queues of one entry.
EXHAUSTIVE = dict(queue_size=1, num_negatives=50, anchor_ratio=1.0)


def build(norm='GN', head=None, **settings):
    """A method whose teacher is another network than its student, and confident somewhere."""
    torch.manual_seed(0)
    small = dict(
        segmentation_head=dict(channels=6, dropout_ratio=0),
        projector=dict(channels=6, out_channels=4),
        num_parts=3,
        queue_size=4,
        num_negatives=8,
        anchor_threshold=0.7,
    )
    model = MODELS.build(
        {
            'type': 'ESL',
            'segmentor': tiny_segmentor(norm, **(head or {})),
            'semi_train_cfg': {**small, **settings},
        }
    )
    model.init_weights()
    with torch.no_grad():
        for network, scale in ((model.student, 2.0), (model.teacher, 3.0)):
            network.decode_head.conv_seg.weight.normal_().mul_(scale)
        if model.contrasts:
            model.contrast.prototypes.vectors.normal_()
            model.contrast.prototypes.valid.fill_(True)
    return model.train()


def batch_of(model, num_labeled=2, num_unlabeled=3, seed=0):
    return model.data_preprocessor(collated_batch(num_labeled, num_unlabeled, seed=seed), True)


def fix_cutmix(model, *boxes, triggered=True):
    """Paste these boxes of each image's successor."""
    partner = torch.arange(len(boxes)).roll(-1)
    model.cutmix = FixedCutMix()
    model.cutmix.fixed = CutMixPlan(partner, torch.tensor(boxes), (32, 32), torch.tensor(triggered))
    return partner


def optimized(losses):
    return {key for key in losses if 'loss' in key}


BOXES = ([0, 0, 16, 32], [8, 8, 32, 24], [0, 16, 32, 32])


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm())) if a.norm() and b.norm() else 0.0


class Reference:
    """Sec. 3 of the paper, written out in loops over pixels at the resolution of the decoder's features."""

    def __init__(self, model, batch, partner, **settings):
        self.cfg = {**model.cfg.as_dict(), **settings}
        self.prototypes = model.contrast.prototypes.vectors.double().clone()
        labeled, weak = batch['inputs']['labeled'], batch['inputs']['weak']
        truth = torch.stack([s.gt_sem_seg.data[0] for s in batch['data_samples']['labeled']])
        with torch.no_grad():
            teacher = copy.deepcopy(model.teacher)
            views = torch.cat([labeled, weak])
            out = model.forward_network(teacher, views, tap=True)
            self.projected = teacher.decode_head.projector(out.decoder).double()
            self.encoded = out.encoder[-1].double()
            self.probs = F.interpolate(
                out.logits[len(labeled) :].double(), (32, 32), mode='bilinear'
            ).softmax(dim=1)
        confidence, label = self.probs.max(dim=1)
        # The features are 4 x 4: every 8th pixel, at its center.
        self.grid = torch.cat([truth, label])[:, 4::8, 4::8]
        sure = confidence[:, 4::8, 4::8] > self.cfg['anchor_threshold']
        self.parts = self._parts()
        anchors, parts = self.grid.clone(), self.parts.clone()
        n = len(labeled)
        anchors[n:][~sure] = 255
        for i, (x1, y1, x2, y2) in enumerate(BOXES):
            for y in range(4):
                for x in range(4):
                    if x1 <= 8 * x + 4 < x2 and y1 <= 8 * y + 4 < y2:
                        j = n + int(partner[i])
                        source = self.grid[j, y, x] if sure[j - n, y, x] else 255
                        anchors[n + i, y, x], parts[n + i, y, x] = source, self.parts[j, y, x]
        self.anchors, self.anchor_parts = anchors, parts

    def _parts(self):
        parts = torch.full_like(self.grid, -1)
        for i, y, x in (self.grid != 255).nonzero().tolist():
            cosines = [
                cosine(self.encoded[i, :, y, x], p) for p in self.prototypes[self.grid[i, y, x]]
            ]
            parts[i, y, x] = cosines.index(max(cosines))
        return parts

    def means(self, features):
        """Eq. 8: mean feature of each part in each image, by (image, class, part)."""
        found = {}
        for i, y, x in (self.grid != 255).nonzero().tolist():
            key = i, int(self.grid[i, y, x]), int(self.parts[i, y, x])
            found.setdefault(key, []).append(features[i, :, y, x])
        return {key: torch.stack(values).mean(dim=0) for key, values in sorted(found.items())}

    def soft_loss(self, logits, partner):
        """Eq. 3-6."""
        full = F.interpolate(logits.double(), (32, 32), mode='bilinear').log_softmax(dim=1)
        total = 0
        for i, (x1, y1, x2, y2) in enumerate(BOXES):
            for y in range(32):
                for x in range(32):
                    inside = x1 <= x < x2 and y1 <= y < y2
                    p = self.probs[int(partner[i]) if inside else i, :, y, x]
                    falling, reached = p.sort(descending=True).values, 0.0
                    for delta in falling:
                        reached += delta
                        if reached >= self.cfg['eta']:
                            break
                    soft = torch.where(p >= delta, p, 0)
                    total = total - (soft / soft.sum() * full[i, :, y, x]).sum()
        return total / (32 * 32 * len(BOXES))

    def contrast_loss(self, features, exclude_same_class=False):
        """Eq. 9-10 with queues of one entry, the last that was pushed."""
        queues = {}
        for (_, c, k), mean in self.means(self.projected).items():
            queues[c, k] = mean
        features, sigma = features.double(), self.cfg['temperature']
        total, right, number = 0, 0, 0
        for c in range(NUM_CLASSES):
            terms = []
            for i, y, x in (self.anchors == c).nonzero().tolist():
                own = c, int(self.anchor_parts[i, y, x])
                anchor = features[i, :, y, x]
                positive = torch.cosine_similarity(anchor, queues[own], dim=0)
                negatives = [
                    torch.cosine_similarity(anchor, value, dim=0)
                    for key, value in queues.items()
                    if key != own and not (exclude_same_class and key[0] == c)
                ]
                logits = torch.stack([positive, *negatives]) / sigma
                terms.append(logits.logsumexp(0) - logits[0])
                right += bool(logits[0] > logits[1:].max())
            number += len(terms)
            if terms:
                total = total + torch.stack(terms).mean()
        return total / NUM_CLASSES, right / number


@pytest.mark.parametrize('exclude', [False, True])
def test_losses_equal_the_papers_equations(exclude):
    model = build(**EXHAUSTIVE, exclude_same_class=exclude)
    batch = batch_of(model)
    partner = fix_cutmix(model, *BOXES)
    reference = Reference(model, batch, partner)
    student = copy.deepcopy(model.student)
    losses = model.loss(**batch)

    labeled, weak = batch['inputs']['labeled'], batch['inputs']['weak']
    mixed = weak.clone()
    for i, (x1, y1, x2, y2) in enumerate(BOXES):
        mixed[i, :, y1:y2, x1:x2] = weak[partner[i], :, y1:y2, x1:x2]
    with torch.no_grad():
        out = model.forward_network(student, torch.cat([labeled, mixed]), tap=True)
        soft = reference.soft_loss(out.logits[2:], partner)
        features = student.decode_head.projector(out.decoder)
        contrasted, accuracy = reference.contrast_loss(features, exclude)
    close = dict(rtol=1e-4, atol=1e-6, check_dtype=False)
    torch.testing.assert_close(losses['loss_soft'], 0.2 * soft, **close)
    torch.testing.assert_close(losses['loss_contrast'], 0.1 * contrasted, **close)
    assert losses['contrast_accuracy'].item() == pytest.approx(accuracy)
    # Both kinds of anchors, several parts and both kinds of places took part.
    assert {(i >= 2).item() for i in (reference.anchors != 255).nonzero()[:, 0]} == {False, True}
    assert len(set(reference.anchor_parts[reference.anchors != 255].tolist())) > 1
    assert (reference.anchors[2:] == 255).any()


@pytest.mark.parametrize('normalize', [True, False])
def test_prototypes_follow_the_unmixed_features_of_all_images(normalize):
    model = build(normalize_encoder=normalize, prototype_decay=0.9)
    batch = batch_of(model)
    reference = Reference(model, batch, fix_cutmix(model, *BOXES))
    before = model.contrast.prototypes.vectors.double().clone()
    loss_and_commit(model, batch)
    features = reference.encoded
    if normalize:
        features = F.normalize(features, dim=1)
    expected = before.clone()
    for c in range(NUM_CLASSES):
        for k in range(3):
            here = (reference.grid == c) & (reference.parts == k)
            if here.any():
                expected[c, k] = 0.9 * before[c, k] + 0.1 * features.movedim(1, -1)[here].mean(0)
    torch.testing.assert_close(
        model.contrast.prototypes.vectors.double(), expected, rtol=1e-4, atol=1e-5
    )
    assert not torch.equal(expected, before)


def test_parts_of_labeled_and_unlabeled_images_are_stored_before_they_are_drawn():
    model = build()
    batch = batch_of(model)
    reference = Reference(model, batch, fix_cutmix(model, *BOXES))
    losses = model.loss(**batch)
    stored = {}
    for (_, c, k), mean in reference.means(reference.projected).items():
        stored.setdefault(3 * c + k, []).append(mean)
    assert model.contrast.bank.fill.tolist() == [len(stored.get(q, ())[:4]) for q in range(12)]
    queues = model.contrast.bank.entries.view(12, 4, 4)
    for queue, values in stored.items():
        assert len(values) <= 5
        last = values if len(values) < 5 else [values[4], *values[1:4]]
        torch.testing.assert_close(
            queues[queue, : len(last)].double(), torch.stack(last), rtol=1e-4, atol=1e-5
        )
    assert losses['bank_fill_ratio'] == model.contrast.bank.fill.sum() / 48
    assert losses['loss_contrast'] > 0


def test_only_loss_terms_are_optimized():
    model = build()
    losses = model.loss(**batch_of(model))
    assert optimized(losses) == {'decode.loss_ce', 'loss_soft', 'loss_contrast'}
    diagnostics = losses.keys() - optimized(losses)
    assert diagnostics == {
        'one_dominant_ratio',
        'two_dominant_ratio',
        'more_dominant_ratio',
        'anchor_classes_ratio',
        'anchor_pixel_ratio',
        'pseudo_label_entropy',
        'cutmix_rate',
        'contrast_accuracy',
        'anchors_per_class',
        'anchors_capped_ratio',
        'bank_fill_ratio',
    }
    assert all(torch.isfinite(losses[key]) and not losses[key].requires_grad for key in diagnostics)
    shares = [losses[f'{number}_dominant_ratio'] for number in ('one', 'two', 'more')]
    assert sum(shares) == pytest.approx(1)


def test_gradient_reaches_the_student_and_never_the_teacher():
    model = build()
    losses = model.loss(**batch_of(model))
    for key, missing in (
        ('loss_soft', {'decode_head.projector'}),
        ('loss_contrast', {'decode_head.classifier_convs', 'decode_head.conv_seg'}),
    ):
        model.zero_grad()
        losses[key].backward(retain_graph=True)
        untouched = {n for n, p in model.student.named_parameters() if p.grad is None}
        assert {'.'.join(name.split('.')[:2]) for name in untouched} == missing
        moved = [p.grad.abs().sum() for p in model.student.backbone.parameters()]
        assert any(moved)
    losses['loss_contrast'].backward()
    assert all(p.grad is None for p in model.teacher.parameters())
    assert all(not b.requires_grad for b in model.contrast.buffers())


def test_weight_zero_is_supervised_training():
    model = build(soft_weight=0.0, contrast_weight=0.0)
    batch = batch_of(model)
    loss, _ = model.parse_losses(model.loss(**batch))
    loss.backward()
    mixed = {name: p.grad.clone() for name, p in model.student.named_parameters()}
    model.student.zero_grad()
    supervised = model.student.loss(batch['inputs']['labeled'], batch['data_samples']['labeled'])
    supervised['decode.loss_ce'].backward()
    for name, parameter in model.student.named_parameters():
        expected = parameter.grad
        if 'projector' in name:
            assert expected is None
            expected = torch.zeros_like(parameter)
        torch.testing.assert_close(mixed[name], expected, rtol=1e-3, atol=1e-6)


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
    assert 'loss_soft' in model.loss(**batch)


ABLATION = {
    'hard label': (dict(top_classes=1, num_parts=0), {'loss_soft'}),
    'hard label and contrast': (dict(top_classes=1), {'loss_soft', 'loss_contrast'}),
    'dynamic soft label only': (dict(num_parts=0), {'loss_soft'}),
    'contrast only': (dict(soft_weight=0.0), {'loss_soft', 'loss_contrast'}),
    'top 5': (dict(top_classes=5), {'loss_soft', 'loss_contrast'}),
    'K = 1': (dict(num_parts=1), {'loss_soft', 'loss_contrast'}),
    'K = 5': (dict(num_parts=5), {'loss_soft', 'loss_contrast'}),
    'eta 0.8': (dict(eta=0.8), {'loss_soft', 'loss_contrast'}),
}


@pytest.mark.parametrize('row', ABLATION)
def test_rows_of_the_papers_ablation(row):
    settings, terms = ABLATION[row]
    model = build(**settings)
    losses = model.loss(**batch_of(model))
    assert optimized(losses) == {'decode.loss_ce', *terms}
    sum(losses[key] for key in optimized(losses)).backward()
    assert all(p.grad is not None for p in model.student.parameters())
    if 'soft_weight' in settings:
        assert losses['loss_soft'] == 0
    if settings.get('top_classes') == 1:
        assert losses['one_dominant_ratio'] == 1
    if settings.get('num_parts') == 0:
        assert not any('projector' in name for name, _ in model.named_parameters())
        assert 'PrototypeInitHook' not in model.required_hooks
    else:
        parts = settings.get('num_parts', 3)
        assert model.contrast.bank.fill.shape == (NUM_CLASSES * parts,)
        assert 'PrototypeInitHook' in model.required_hooks


def test_each_setting_of_the_soft_label_changes_the_loss():
    values = {}
    for name, settings in {
        'paper': {},
        'eta': dict(eta=0.5),
        'hard': dict(top_classes=1),
        'two': dict(top_classes=2),
        'all': dict(eta=1.0),
        'mix': dict(cutmix=None),
    }.items():
        model = build(num_parts=0, **settings)
        if settings.get('cutmix', True) is not None:
            fix_cutmix(model, *BOXES)
        values[name] = model.loss(**batch_of(model))['loss_soft'].item()
    assert len(set(values.values())) == len(values)


@pytest.mark.parametrize(
    'settings',
    [
        dict(anchor_threshold=0.9),
        dict(temperature=0.2),
        dict(exclude_same_class=True),
        dict(min_conf_for_parts=0.6),
        dict(projector_last_act=False),
        dict(anchor_ratio=0.3),
        dict(max_anchors=1),
        dict(num_negatives=2),
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_each_setting_of_the_contrast_changes_the_loss(settings):
    values = []
    for changed in ({}, settings):
        model = build(**{**EXHAUSTIVE, **changed})
        fix_cutmix(model, *BOXES)
        values.append(model.loss(**batch_of(model))['loss_contrast'].item())
    assert values[0] != values[1]


def test_stock_head_alone_and_the_feature_after_its_dropout():
    model = build(segmentation_head=None, head=dict(dropout_ratio=0.5), tap_after_dropout=True)
    assert model.student.decode_head.classifier_convs is None
    assert model.student.decode_head.projector[0].conv.in_channels == 8
    out = model.forward_network(model.student, torch.randn(2, 3, 32, 32), tap=True)
    assert (out.decoder == 0).all(dim=-1).all(dim=-1).any()


@pytest.mark.parametrize('norm', ['GN', 'BN'])
@pytest.mark.parametrize('num_unlabeled', [1, 3])
def test_small_and_odd_batches(norm, num_unlabeled):
    model = build(norm)
    losses = model.loss(**batch_of(model, num_unlabeled=num_unlabeled))
    assert all(torch.isfinite(value) for value in losses.values())


def test_void_labels_and_nobody_confident_give_zero_with_a_graph():
    model = build(anchor_threshold=1.0)
    batch = batch_of(model)
    for sample in batch['data_samples']['labeled']:
        sample.gt_sem_seg.data.fill_(255)
    losses = model.loss(**batch)
    assert losses['decode.loss_ce'] == losses['loss_contrast'] == losses['anchor_pixel_ratio'] == 0
    assert losses['anchors_per_class'] == 0
    sum(losses[key] for key in optimized(losses)).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.student.parameters())
    # The unlabeled images have filled the bank all the same.
    assert model.contrast.bank.fill.sum() > 0


def test_single_part_in_the_bank_leaves_nothing_to_push_away():
    model = build(num_parts=1, num_negatives=5)
    batch = batch_of(model)
    for sample in batch['data_samples']['labeled']:
        sample.gt_sem_seg.data.fill_(2)
    with torch.no_grad():
        model.teacher.decode_head.conv_seg.weight.zero_()
        model.teacher.decode_head.conv_seg.bias.copy_(torch.tensor([0.0, 0, 9, 0]))
    losses = model.loss(**batch)
    assert losses['anchors_per_class'] > 0
    assert losses['loss_contrast'] == 0
    losses['loss_contrast'].backward()
    assert all(p.grad.isfinite().all() for p in model.student.backbone.parameters())


@pytest.mark.parametrize('ignore_padding', [True, False])
def test_padding(ignore_padding):
    model = build(ignore_padding=ignore_padding, cutmix=None)
    batch = batch_of(model)
    valid = torch.ones(32, 32, dtype=torch.bool)
    valid[:, 16:] = False
    batch['data_samples']['weak'] = [unlabeled_sample(valid) for _ in range(3)]
    batch = model.batch_of(**batch)
    mix = model.cutmix.plan(3, (32, 32), torch.device('cpu'))
    teacher = model.forward_teacher(batch)
    confidence, label = confidence_and_label(teacher.logits[2:], (32, 32))
    sure = (confidence > 0.7) & batch.weak.valid
    label, parts = model.find_anchors(batch, teacher, confidence, label, sure, mix)
    assert (label[2:, :, 2:] == 255).all() == ignore_padding
    assert (parts[2:, :, 2:] == -1).all() == ignore_padding
    logits = torch.randn(3, NUM_CLASSES, 4, 4, requires_grad=True)
    losses = model.soft_loss(logits, teacher.logits[2:], mix, batch.weak.valid)
    losses['loss_soft'].backward()
    assert (logits.grad[..., 3] == 0).all() == ignore_padding


@pytest.mark.parametrize('ignore_padding', [True, False])
def test_padding_counts_for_anchors_alone_where_it_is_learned_from(ignore_padding):
    model = build(ignore_padding=ignore_padding, cutmix=None)
    batch, valid = batch_of(model), torch.ones(3, 32, 32, dtype=torch.bool)
    for i in range(3):
        valid[i, :, 8 + 6 * i :] = False
    batch['data_samples']['weak'] = [unlabeled_sample(mask) for mask in valid]
    losses = model.loss(**batch)
    logits = model.forward_network(model.teacher, batch['inputs']['weak']).logits
    confidence, label = confidence_and_label(logits, (32, 32))
    counted = valid if ignore_padding else torch.ones_like(valid)
    expected = (confidence[counted] > 0.7).float().mean()
    torch.testing.assert_close(losses['anchor_pixel_ratio'], expected)
    share = label[valid].bincount(minlength=NUM_CLASSES) / valid.sum()
    torch.testing.assert_close(losses['pseudo_label_entropy'], torch.special.entr(share).sum())


def test_no_valid_pixel_at_all():
    model = build()
    batch = batch_of(model)
    nothing = torch.zeros(32, 32, dtype=torch.bool)
    batch['data_samples']['weak'] = [unlabeled_sample(nothing) for _ in range(3)]
    losses = model.loss(**batch)
    assert losses['loss_soft'] == 0
    assert all(torch.isfinite(value) for value in losses.values())


def test_features_that_are_not_finite_spoil_neither_bank_nor_prototypes():
    model = build()
    batch = batch_of(model)
    batch['inputs']['weak'][0] = float('nan')
    model.loss(**batch)
    assert all(buffer.isfinite().all() for buffer in model.contrast.buffers())
    assert model.contrast.bank.fill.sum() > 0


def test_bfloat16_autocast_keeps_targets_and_memory_in_float32():
    exact, rough = build(), build()
    fix_cutmix(exact, *BOXES)
    fix_cutmix(rough, *BOXES)
    batch = batch_of(exact)
    torch.manual_seed(3)
    expected = exact.loss(**batch)
    torch.manual_seed(3)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = rough.loss(**batch)
    for key in ('loss_soft', 'loss_contrast'):
        assert losses[key].dtype == torch.float32
        torch.testing.assert_close(losses[key], expected[key], rtol=0.1, atol=0)
    sum(losses[key] for key in optimized(losses)).backward()
    assert all(torch.isfinite(p.grad).all() for p in rough.student.parameters())
    assert (
        rough.contrast.bank.rows.dtype == rough.contrast.prototypes.vectors.dtype == torch.float32
    )
    torch.testing.assert_close(
        rough.contrast.prototypes.vectors, exact.contrast.prototypes.vectors, rtol=0.05, atol=0.05
    )


def test_empty_places_of_anchors_change_nothing(monkeypatch):
    # As on a device, which is not asked how many anchors there are.
    values = []
    for taken in (contrast._taken, lambda places, number: places):
        monkeypatch.setattr(contrast, '_taken', taken)
        model = build(**{**EXHAUSTIVE, 'max_anchors': 30})
        fix_cutmix(model, *BOXES)
        losses = model.loss(**batch_of(model))
        losses['loss_contrast'].backward()
        values.append((losses, model.student.decode_head.projector[0].conv.weight.grad))
    for key, value in values[0][0].items():
        torch.testing.assert_close(values[1][0][key], value)
    torch.testing.assert_close(values[1][1], values[0][1])
    assert values[0][1].abs().sum() > 0


def test_auxiliary_head_learns_from_labeled_images_only():
    torch.manual_seed(0)
    settings = {'projector': {'channels': 4, 'out_channels': 4}, 'queue_size': 2}
    model = MODELS.build(
        {
            'type': 'ESL',
            'segmentor': tiny_segmentor('GN', auxiliary=True),
            'semi_train_cfg': settings,
        }
    )
    losses = model.loss(**batch_of(model))
    assert {'decode.loss_ce', 'aux.loss_ce', 'loss_soft', 'loss_contrast'} == optimized(losses)
    (losses['loss_soft'] + losses['loss_contrast']).backward()
    assert all(p.grad is None for p in model.student.auxiliary_head.parameters())


@pytest.mark.slow
def test_ranks_remember_the_same_and_hold_the_same_networks(tmp_path):
    settings = dict(
        segmentation_head=None,
        projector=dict(channels=6, out_channels=4),
        num_parts=2,
        queue_size=3,
        num_negatives=6,
        anchor_threshold=0.26,
    )
    first, second = run_on_ranks(train_method, 2, tmp_path, 2, 3, 'ESL', settings)
    for key, value in first['state_dict'].items():
        assert torch.equal(second['state_dict'][key], value), key
    assert first['state_dict']['contrast.bank.fill'].sum() > 0
    assert first['logs'][0]['loss'] != second['logs'][0]['loss']


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'eta': 0}, r'semi_train_cfg\.eta must be in \(0, 1\], got 0\.$'),
        ({'anchor_ratio': 1.5}, r'semi_train_cfg\.anchor_ratio must be in \(0, 1\], got 1\.5\.$'),
        (
            {'temperature': 0},
            r'semi_train_cfg\.temperature must be above 0, got 0\. The paper uses 0\.5\.',
        ),
        ({'num_parts': -1}, r'semi_train_cfg\.num_parts must be at least 0, got -1'),
        ({'queue_size': 0}, r'semi_train_cfg\.queue_size must be at least 1, got 0'),
        ({'prototype_decay': 1.5}, r'prototype_decay must be in \[0, 1\], got 1\.5'),
        (
            {'top_classes': 0},
            r'top_classes must be at least 1, got 0\. 1 gives hard labels, and None keeps',
        ),
        ({'cutmix': {'adaptive': True}}, r'cutmix\.adaptive=True needs the hardness of images'),
        ({'projector': {'width': 3}}, r'semi_train_cfg\.projector has no setting width\.'),
        (
            {'segmentation_head': {'convs': 3}},
            r'_head has no setting convs\. Did you mean num_convs',
        ),
        (
            {'encoder_index': 2},
            r'encoder_index=2 and encoder_channels=None belong together\. Set both',
        ),
        ({'unlabeled_start': None}, r'unlabeled_start must be an integer, got None'),
        ({'eta': 'high'}, r"semi_train_cfg\.eta must be a number, got 'high'"),
        ({'num_negatives': 2.5}, r'semi_train_cfg\.num_negatives must be an integer, got 2\.5'),
        ({'top_classes': 1.5}, r'semi_train_cfg\.top_classes must be an integer or None, got 1\.5'),
        ({'cutmix': True}, r'semi_train_cfg\.cutmix must be a dict or None, got True'),
        ({'ignore_padding': 1}, r'semi_train_cfg\.ignore_padding must be True or False, got 1'),
        ({'tap_after_dropout': True}, 'does not work with segmentation_head'),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)


def test_encoder_stage_can_be_chosen_and_must_fit():
    model = build(encoder_index=1, encoder_channels=8)
    assert model.contrast.prototypes.vectors.shape == (NUM_CLASSES, 3, 8)
    assert torch.isfinite(model.loss(**batch_of(model))['loss_contrast'])
    wrong = build(encoder_index=1, encoder_channels=32)
    with pytest.raises(ValueError, match='Stage 1 of the encoder has 8 channels, not 32'):
        wrong.encode(torch.randn(1, 3, 32, 32))
    missing = build(encoder_index=9, encoder_channels=8)
    with pytest.raises(ValueError, match=r'encoder_index=9 is none of the 4 stages of the encoder'):
        missing.loss(**batch_of(missing))
    concatenated = dict(in_channels=[16, 32], in_index=[2, 3], input_transform='resize_concat')
    with pytest.raises(ValueError, match=r'reads the encoder stages \[2, 3\] as one'):
        build(head=concatenated)
    segmentor = tiny_segmentor('GN')
    head = {key: segmentor['decode_head'][key] for key in ('channels', 'num_classes', 'norm_cfg')}
    segmentor['decode_head'] = {
        **head,
        'type': 'SegformerHead',
        'in_channels': [16, 32],
        'in_index': [2, 3],
    }
    several = MODELS.build(
        {'type': 'ESL', 'segmentor': segmentor, 'semi_train_cfg': {'projector': {'channels': 4}}}
    )
    assert several.contrast.encoder_index == 3
    assert math.isfinite(several.loss(**batch_of(several))['loss_contrast'])


def test_a_vision_transformer_with_class_tokens():
    """DPT's encoder gives a map and a class token per stage."""
    segmentor = tiny_segmentor('GN')
    head = {key: segmentor['decode_head'][key] for key in ('num_classes', 'loss_decode')}
    segmentor['backbone'] = {
        'type': 'VisionTransformer',
        'img_size': (32, 32),
        'patch_size': 8,
        'embed_dims': 16,
        'num_layers': 4,
        'num_heads': 2,
        'mlp_ratio': 2,
        'out_indices': (0, 1, 2, 3),
        'final_norm': False,
        'with_cls_token': True,
        'output_cls_token': True,
    }
    segmentor['decode_head'] = {
        **head,
        'type': 'DPTHead',
        'in_channels': (16, 16, 16, 16),
        'channels': 8,
        'embed_dims': 16,
        'post_process_channels': [4, 4, 8, 8],
        'readout_type': 'project',
        'input_transform': 'multiple_select',
        'in_index': (0, 1, 2, 3),
        'norm_cfg': {'type': 'GN', 'num_groups': 2},
    }
    settings = {'projector': {'channels': 4}, 'segmentation_head': {'channels': 4}}
    model = MODELS.build({'type': 'ESL', 'segmentor': segmentor, 'semi_train_cfg': settings})
    assert model.contrast.prototypes.vectors.shape == (NUM_CLASSES, 5, 16)
    assert model.encode(torch.randn(1, 3, 32, 32)).shape == (1, 16, 4, 4)
    assert math.isfinite(model.loss(**batch_of(model))['loss_contrast'])


def test_a_stock_checkpoint_needs_the_stock_head():
    plain = MODELS.build({**tiny_segmentor('GN'), 'data_preprocessor': None}).state_dict()
    with pytest.raises(ValueError, match=r'Set semi_train_cfg\.segmentation_head=None to keep'):
        build().load_state_dict(plain)
    model = build(segmentation_head=None)
    model.load_state_dict(plain, strict=False)
    weight = model.teacher.decode_head.conv_seg.weight
    assert torch.equal(weight, plain['decode_head.conv_seg.weight'])


@pytest.mark.parametrize('loader', ['torch', 'mmengine'])
def test_checkpoints_from_before_the_contrast_was_a_module(tmp_path, loader):
    """Prototypes and bank were the method's own; all of both comes back, as each loader hands it on."""
    trained, model = build(), build()
    loss_and_commit(trained, batch_of(trained))
    trained.contrast.prototypes.ready.fill_(True)
    state = trained.state_dict()
    old = {key.removeprefix('contrast.'): value for key, value in state.items()}
    assert len(old.keys() - state.keys()) == 6
    assert not torch.equal(model.contrast.bank.rows, trained.contrast.bank.rows)
    if loader == 'torch':
        model.load_state_dict(old)
    else:
        torch.save({'state_dict': old}, tmp_path / 'old.pth')
        load_checkpoint(model, str(tmp_path / 'old.pth'), map_location='cpu', strict=True)
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key
    other = build(queue_size=5)
    message = r"'contrast\.bank\.rows' has shape \(49, 4\).*Set num_parts, queue_size and projector"
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(old)


def test_a_labeled_step_gives_the_projector_a_gradient_of_zero():
    model = build(unlabeled_start=1)
    losses = model.loss(**batch_of(model))
    sum(losses.values()).backward()
    gradients = [p.grad for p in model.student.decode_head.projector.parameters()]
    assert all(grad is not None and (grad == 0).all() for grad in gradients)
    assert (model.contrast.prototypes.pending_counts == 0).all()
