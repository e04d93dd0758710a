"""CorrMatch against the terms of docs/corrmatch.md."""

import pytest
import torch
from baselines import batch_of, mix, plan_of, valid_of
from baselines import build as build_method
from ddp_steps import train_each, train_method
from mmseg.models.utils import resize
from ranks import run_on_ranks
from tiny import FixedCutMix

from mmseg_semi.functional.correlation import propagate_labels
from mmseg_semi.models.features import append_dropped

TAU = 0.5


def build(**settings):
    defaults = {
        'tau_start': TAU,
        'channels': 8,
        'num_regions': 6,
        'projector_dropout': 0.0,
        'dropout_ratio': 0.0,
    }
    model = build_method('CorrMatch', **{**defaults, **settings})
    if settings.get('cutmix', 0) is not None:
        model.cutmix = FixedCutMix()
        model.cutmix.fixed = plan_of()
    return model


def full(logits):
    return resize(logits, (32, 32), mode='bilinear').double()


def forward(model, images):
    """Logits, propagated logits and maps of the student, from its own parts."""
    head = model.student.decode_head
    features = model.student.extract_feat(images)
    logits, correlate = head.forward(features), head.correlator
    projected = correlate.projector(features[3])
    query, key = (conv(projected).flatten(2) for conv in (correlate.query, correlate.key))
    maps = torch.softmax(torch.einsum('nki,nkj->nij', query, key) / 2, dim=2)  # sqrt of 4 classes
    small = resize(logits, projected.shape[2:], mode='bilinear')
    spread = torch.einsum('nci,nij->ncj', small.flatten(2), maps)
    return full(logits), full(spread.unflatten(2, small.shape[2:])), maps, small.shape[2:]


def mean_over(logits, label, counted, valid):
    logp = logits.log_softmax(dim=1)
    safe = label.masked_fill(~counted, 0)
    return -(logp.gather(1, safe[:, None])[:, 0] * counted).sum() / valid.sum()


@pytest.mark.parametrize('cutmix', [True, False])
@torch.no_grad()
def test_every_term_is_that_of_the_page(cutmix):
    # With random weights, a low threshold lets some regions be labeled.
    model = build(tau_start=0.4, **({} if cutmix else {'cutmix': None}))
    batch = batch_of(model)
    paste = mix if cutmix else torch.clone
    torch.manual_seed(7)
    losses = model.loss(**batch)
    torch.manual_seed(7)
    inputs, valid = batch['inputs'], valid_of(batch)
    x, x_corr, _, _ = forward(model, inputs['labeled'])
    w, w_corr, maps, grid = forward(model, inputs['weak'])
    s, s_corr, _, _ = forward(model, paste(inputs['strong']))
    confidence, label = w.softmax(dim=1).max(dim=1)
    sure = (confidence >= 0.4) & valid
    # The channels' masks are drawn first, then the rows.
    features = model.student.extract_feat(inputs['weak'])
    append_dropped(features, 3, 0.0)
    places = torch.randint(grid.numel(), (6,))
    inside = torch.zeros(3, 32, 32, dtype=torch.bool)
    if cutmix:
        for i, (x1, y1, x2, y2) in enumerate(plan_of().boxes.tolist()):
            inside[i, y1:y2, x1:x2] = True
    target, counted = propagate_labels(
        paste(label),
        paste(sure),
        maps[:, places].unflatten(2, grid),
        ~inside & paste(valid),
        0.4,
        4,
    )
    truth = torch.cat([one.gt_sem_seg.data for one in batch['data_samples']['labeled']])
    soft = -(paste(w.softmax(dim=1)) * s.log_softmax(dim=1)).sum(dim=1) * paste(sure)
    both = mean_over(s_corr, target, counted, paste(valid)) + mean_over(w_corr, label, sure, valid)
    expected = {
        'decode.loss_ce': mean_over(x, truth, truth != 255, truth != 255) / 4,
        'loss_labeled_correlation': mean_over(x_corr, truth, truth != 255, truth != 255) / 4,
        'loss_hard': mean_over(s, target, counted, paste(valid)) / 8,
        'loss_soft': soft.sum() / paste(valid).sum() / 8,
        'loss_feature': mean_over(w, label, sure, valid) / 8,
        'loss_correlation': both / 16,
        'confident_ratio': sure.sum() / valid.sum(),
        'propagated_ratio': (counted & ~paste(sure)).sum() / paste(valid).sum(),
    }
    assert (counted & ~paste(sure)).any()
    for key, value in expected.items():
        torch.testing.assert_close(losses[key].double(), value.double(), rtol=1e-4, atol=1e-6)
    assert {key for key in losses if 'loss' in key} == {key for key in expected if 'loss' in key}


def test_threshold_follows_once_per_step_over_all_micro_batches():
    model = build(tau_decay=0.9)
    threshold = model.threshold
    label, valid = torch.tensor([[[0, 0, 1]]]), torch.tensor([[[True, True, True]]])
    threshold.observe(label, torch.tensor([[[0.5, 0.7, 0.9]]]), valid)
    threshold.observe(label, torch.tensor([[[0.8, 0.6, 0.4]]]), valid)
    assert float(threshold.value) == TAU
    threshold.commit()
    assert float(threshold.value) == pytest.approx(0.9 * TAU + 0.1 * (0.8 + 0.9) / 2)
    before = threshold.value.clone()
    threshold.observe(label, torch.tensor([[[0.5, 0.7, 0.9]]]), ~valid)
    threshold.commit()
    assert torch.equal(threshold.value, before)
    # A step that the loss scaler skips.
    threshold.observe(label, torch.tensor([[[float('nan'), 0.7, 0.9]]]), valid)
    threshold.commit()
    assert float(threshold.value) == pytest.approx(0.9 * float(before) + 0.1 * 0.9)
    assert 'threshold.value' in model.state_dict()


@pytest.mark.parametrize('term', ['hard', 'soft', 'feature', 'correlation'])
def test_each_weight_scales_its_term(term):
    torch.manual_seed(1)
    one = build(**{f'{term}_weight': 1.0})
    batch = batch_of(one)
    torch.manual_seed(2)
    first = one.loss(**batch)
    two = build(**{f'{term}_weight': 3.0})
    torch.manual_seed(2)
    second = two.loss(**batch)
    for key in (key for key in first if 'loss' in key):
        factor = 3 if key == f'loss_{term}' else 1
        torch.testing.assert_close(second[key], factor * first[key])
    assert first[f'loss_{term}'] > 0


def test_weight_zero_is_supervised_training():
    model = build(unlabeled_weight=0.0, labeled_correlation_weight=0.0)
    batch = batch_of(model)
    sum(value for key, value in model.loss(**batch).items() if 'loss' in key).backward()
    mixed = {k: p.grad.clone() for k, p in model.student.named_parameters() if 'correl' not in k}
    model.student.zero_grad()
    loss = model.student.loss(batch['inputs']['labeled'], batch['data_samples']['labeled'])
    (0.25 * loss['decode.loss_ce']).backward()
    for key, parameter in model.student.named_parameters():
        if key in mixed:
            torch.testing.assert_close(mixed[key], parameter.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize('start', [0, 5])
def test_every_parameter_gets_a_gradient(start):
    model = build(unlabeled_start=start)
    sum(value for key, value in model.loss(**batch_of(model)).items() if 'loss' in key).backward()
    assert all(parameter.grad is not None for parameter in model.student.parameters())


def test_nobody_confident_gives_zero_with_a_graph():
    model = build(tau_start=1.0)
    losses = model.loss(**batch_of(model))
    total = sum(losses[f'loss_{term}'] for term in ('hard', 'soft', 'feature', 'correlation'))
    assert total == 0
    total.backward()


@pytest.mark.slow
def test_two_ranks_with_half_the_batch_train_like_one(tmp_path):
    # Without boxes, dropped channels and rows of the map, which each rank draws; with them, ranks only agree.
    same = {'cutmix': None, 'dropout_ratio': 0.0, 'num_regions': 0, 'projector_dropout': 0.0}
    comparable = {**same, 'channels': 8, 'tau_start': 0.0, 'tau_decay': 0.9}
    drawn = {'channels': 8, 'num_regions': 8, 'tau_start': 0.25, 'tau_decay': 0.9}
    runs = [('CorrMatch', comparable), ('CorrMatch', drawn)]
    first, second = run_on_ranks(train_each, 2, tmp_path, 2, 3, *runs)
    for one, two in zip(first, second, strict=True):
        for key, value in one['state_dict'].items():
            assert torch.equal(two['state_dict'][key], value), key
    alone = train_method(0, 1, 3, *runs[0])
    for key, value in alone['state_dict'].items():
        torch.testing.assert_close(first[0]['state_dict'][key], value, rtol=1e-4, atol=1e-5)
    assert first[0]['state_dict']['threshold.value'] > 0
    terms = [key for key in alone['logs'][0] if 'loss' in key]
    assert {'loss_labeled_correlation', 'loss_hard', 'loss_correlation'} < set(terms)
    for log, log1, log2 in zip(alone['logs'], first[0]['logs'], second[0]['logs'], strict=True):
        assert log1['threshold'] == log2['threshold']
        for key in (*terms, 'threshold'):
            torch.testing.assert_close((log1[key] + log2[key]) / 2, log[key], rtol=1e-4, atol=1e-6)
