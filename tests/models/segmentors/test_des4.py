"""DeS4 against an independent, pixel-by-pixel reading of the paper's equations."""

import copy

import pytest
import torch
import torch.nn.functional as F
from ddp_steps import start_prototypes as prototypes_on_rank
from host_reads import ReadsByTheHost
from mmengine.optim import build_optim_wrapper
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from mmengine.runner.checkpoint import _load_checkpoint_to_model, get_state_dict
from mmseg.registry import MODELS
from ranks import run_on_ranks
from tiny import (
    NUM_CLASSES,
    FixedCutMix,
    build_plain,
    collated_batch,
    loss_and_commit,
    tiny_segmentor,
    unlabeled_sample,
)

import mmseg_semi.engine  # noqa: F401  registers the constructors
from mmseg_semi.engine.hooks.prototype_mean_hook import start_prototypes
from mmseg_semi.functional.sampling import pixel_weights
from mmseg_semi.models.clock import Clock
from mmseg_semi.models.cutmix import CutMixPlan

BASELINE = {'decoupled_training': False, 'shared_head': False, 'pixel_reweighting': False}


def build(norm='GN', auxiliary=False, **settings):
    torch.manual_seed(0)
    model = MODELS.build(
        {
            'type': 'DeS4',
            'segmentor': tiny_segmentor(norm, auxiliary=auxiliary),
            'semi_train_cfg': settings,
        }
    )
    model.init_weights()
    with torch.no_grad():
        # The student must have moved on, or nothing tells its encoder from the teacher's.
        for parameter in model.student.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.equalizer.class_counts.copy_(torch.tensor([400, 100, 200, 100]))
    return model.train()


def batch_of(model, num_labeled=2, num_unlabeled=3, seed=0):
    return model.data_preprocessor(collated_batch(num_labeled, num_unlabeled, seed=seed), True)


def blocks(size=32):
    """A label map (2, size, size) of quarters, which the features' grid shows as they are; some is void."""
    half = size // 2
    label = torch.zeros(2, size, size, dtype=torch.int64)
    label[:, half:] = 1
    label[0, :half, half:] = 2
    label[1, half:, half:] = 3
    label[:, :4, :4] = 255
    return label


def set_labels(batch, labels):
    for sample, label in zip(batch['data_samples']['labeled'], labels, strict=True):
        sample.gt_sem_seg.data.copy_(label[None])
    return batch


def decoder_features(network, images):
    """What the classifier reads, by a plain hook."""
    seen = []
    handle = network.decode_head.conv_seg.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    network.decode_head(network.extract_feat(images))
    handle.remove()
    return seen[0]


def up(maps, size=(32, 32)):
    return F.interpolate(maps, size=size, mode='bilinear', align_corners=False)


def to_grid(label, size):
    step = label.shape[1] // size
    return label[:, step // 2 :: step, step // 2 :: step]


def reference_prototypes(features, label):
    """Normalized mean of normalized features of each class, by a loop over pixels."""
    prototypes = []
    for c in range(NUM_CLASSES):
        total = torch.zeros(features.shape[1], dtype=torch.float64)
        for n, y, x in zip(*(label == c).nonzero(as_tuple=True), strict=True):
            feature = features[n, :, y, x].double()
            total = total + feature / feature.norm().clamp(min=1e-12)
        prototypes.append(total / total.norm())
    return torch.stack(prototypes)


def reference_logits(features, prototypes, temperature=0.1):
    features = features.double()
    lengths = features.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return torch.einsum('ndhw,cd->nchw', features / lengths, prototypes) / temperature


def reference_ce(logits, label):
    """-log p of the label, 0 at void; (N, H, W)."""
    log_probs = up(logits).log_softmax(dim=1)
    picked = log_probs.gather(1, label.masked_fill(label == 255, 0)[:, None])[:, 0]
    return -picked.masked_fill(label == 255, 0)


def test_losses_and_prototypes_equal_the_papers_equations():
    # The literal ratio draws every pixel: then the update has no randomness.
    model = build(class_ratio='literal', unlabeled_weight=1.5, labeled_weight=0.5)
    model.cutmix = FixedCutMix()
    boxes = torch.tensor([[4, 2, 20, 25], [0, 0, 9, 9], [10, 10, 30, 12]])
    partner = torch.tensor([1, 2, 0])
    model.cutmix.fixed = CutMixPlan(partner, boxes, (32, 32), torch.tensor(True))
    batch = set_labels(batch_of(model), blocks())
    labeled, weak, label = batch['inputs']['labeled'], batch['inputs']['weak'], blocks()

    features = decoder_features(model.teacher, labeled).detach()
    grid = to_grid(label, features.shape[-1])
    first = reference_prototypes(features, grid)
    pseudo = up(reference_logits(decoder_features(model.teacher, weak), first)).argmax(dim=1)
    mixed, mixed_label = weak.clone(), pseudo.clone()
    for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        mixed[i, :, y1:y2, x1:x2] = weak[partner[i], :, y1:y2, x1:x2]
        mixed_label[i, y1:y2, x1:x2] = pseudo[partner[i], y1:y2, x1:x2]
    valid = (label != 255).sum()
    student = reference_logits(decoder_features(model.student, labeled), first)
    strong = reference_logits(decoder_features(model.student, mixed), first)
    teacher = reference_logits(features, first)
    confidence = up(teacher).softmax(dim=1).amax(dim=1)
    weight = ((1 - confidence) ** 2).masked_fill(label == 255, 0)
    weight = weight / weight.sum(dim=(1, 2), keepdim=True)
    expected = {
        'decode.loss_ce': 0.5 * reference_ce(student, label).sum() / valid,
        'loss_unlabeled': 1.5 * reference_ce(strong, mixed_label).mean(),
        'loss_teacher': (weight * reference_ce(teacher, label)).sum(dim=(1, 2)).mean(),
    }

    losses = loss_and_commit(model, batch)
    for key, value in expected.items():
        assert value > 0.01
        torch.testing.assert_close(losses[key].double(), value.detach(), rtol=1e-4, atol=1e-6)
    # Every pixel of the grid is drawn, and its mean has the prototypes' direction already.
    torch.testing.assert_close(model.prototypes.vectors.double(), first, rtol=1e-4, atol=1e-5)
    assert losses['sampled_ratio'] == 1
    assert losses['prototype_drift'] < 1e-2

    # The next batch moves them, by Eq. 12, after its losses.
    again = set_labels(batch_of(model, seed=1), blocks())
    features = decoder_features(model.teacher, again['inputs']['labeled']).detach()
    means = reference_prototypes(features, grid)
    moved = F.normalize(0.99 * model.prototypes.vectors.double() + 0.01 * means, dim=1)
    term = reference_ce(reference_logits(features, model.prototypes.vectors.double()), label)
    confidence = up(reference_logits(features, model.prototypes.vectors.double())).softmax(1)
    weight = ((1 - confidence.amax(dim=1)) ** 2).masked_fill(label == 255, 0)
    expected = (weight / weight.sum(dim=(1, 2), keepdim=True) * term).sum(dim=(1, 2)).mean()
    losses = loss_and_commit(model, again)
    torch.testing.assert_close(losses['loss_teacher'].double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model.prototypes.vectors.double(), moved, rtol=1e-4, atol=1e-6)


def test_only_loss_terms_are_optimized():
    model = build()
    losses = loss_and_commit(model, batch_of(model))
    optimized = {key for key in losses if 'loss' in key}
    assert optimized == {'decode.loss_ce', 'loss_unlabeled', 'loss_teacher'}
    diagnostics = losses.keys() - optimized
    assert diagnostics == {
        'pseudo_label_entropy',
        'pseudo_label_distance',
        'cutmix_rate',
        'prototype_drift',
        'prototype_similarity',
        'prototype_ratio',
        'sampled_ratio',
        *(f'zone{i}_ratio' for i in range(5)),
    }
    assert all(torch.isfinite(losses[key]) and not losses[key].requires_grad for key in diagnostics)
    assert sum(losses[f'zone{i}_ratio'] for i in range(5)) == pytest.approx(1)


def gradients(model, key):
    """Names of the parts of the model that a loss term gives a gradient that is not 0."""
    model.zero_grad()
    model.loss(**batch_of(model))[key].backward()
    return {
        '.'.join(name.split('.')[:2])
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }


def test_who_receives_a_gradient():
    model = build(auxiliary=True)
    student = {'student.backbone', 'student.decode_head'}
    assert gradients(model, 'decode.loss_ce') == student
    assert gradients(model, 'loss_unlabeled') == student
    assert gradients(model, 'loss_teacher') == {'teacher.decode_head'}
    assert 'student.auxiliary_head' in gradients(model, 'aux.loss_ce')
    # What DistributedDataParallel waits for gets one, and nothing else does.
    model.zero_grad()
    loss, _ = model.parse_losses(model.loss(**batch_of(model)))
    loss.backward()
    for name, parameter in model.named_parameters():
        trained = name.startswith(('student.', 'teacher.decode_head.'))
        assert parameter.requires_grad == trained == (parameter.grad is not None), name
    assert not any('conv_seg' in name for name, _ in model.student.decode_head.named_parameters())


def test_average_is_of_the_encoder_with_its_buffers_alone():
    model = build('BN')
    model.loss(**batch_of(model))
    before = copy.deepcopy(model.teacher.state_dict())
    student = model.student.state_dict()
    model.update_teacher(0.9)
    running = []
    for key, value in model.teacher.state_dict().items():
        if not key.startswith('backbone.'):
            assert torch.equal(value, before[key]), key
        elif value.is_floating_point():
            expected = torch.lerp(before[key], student[key], 0.1)
            torch.testing.assert_close(value, expected)
            running += [key] * ('running_' in key and not torch.equal(value, before[key]))
        else:
            assert torch.equal(value, student[key]), key
    assert running


def test_average_is_of_all_of_the_encoder():
    """Also of a module of the network that is in neither backbone nor neck, such as an adapter of bands."""
    model = build('BN')
    assert model.is_averaged('adapter.weight')
    assert model.is_averaged('neck.convs.0.weight')
    assert not model.is_averaged('decode_head.conv_seg.weight')
    assert not model.is_averaged('decode_head.bottleneck.conv.weight')


def test_modes():
    model = build('BN')
    assert model.teacher.decode_head.training
    assert not any(module.training for module in model.teacher.backbone.modules())
    before = copy.deepcopy(model.teacher.state_dict())
    model.loss(**batch_of(model))
    changed = {
        key
        for key, value in model.teacher.state_dict().items()
        if not torch.equal(value, before[key])
    }
    # Batch statistics of the labeled images; the weak ones are labeled in eval mode.
    assert {key.split('.')[0] for key in changed} == {'decode_head'}
    assert model.teacher.state_dict()['decode_head.convs.0.bn.num_batches_tracked'] == 1
    assert model.teacher.decode_head.training
    assert not model.eval().teacher.decode_head.training
    assert not build(**BASELINE).teacher.decode_head.training


def test_decoder_of_the_teacher_learns_at_the_rate_of_the_students():
    model = build('BN', auxiliary=True)
    wrapper = build_optim_wrapper(
        model,
        {
            'type': 'OptimWrapper',
            'constructor': 'NetworkOptimWrapperConstructor',
            'optimizer': {'type': 'SGD', 'lr': 0.1, 'weight_decay': 0.01},
            'paramwise_cfg': {
                'custom_keys': {'head': {'lr_mult': 10.0}, 'bn': {'decay_mult': 0.0}}
            },
        },
    )
    groups = {id(p): g for g in wrapper.optimizer.param_groups for p in g['params']}
    heads = model.student.decode_head, model.teacher.decode_head
    for own, other in zip(*(head.parameters() for head in heads), strict=True):
        assert groups[id(own)] is groups[id(other)]
        assert groups[id(other)]['lr'] == 1.0
    assert {p['weight_decay'] for p in groups.values()} == {0.01, 0.0}
    assert not any(id(p) in groups for p in model.teacher.backbone.parameters())
    assert not any(id(p) in groups for p in model.teacher.auxiliary_head.parameters())
    before = heads[1].convs[0].conv.weight.clone()
    model.train_step(collated_batch(), wrapper)
    assert not torch.equal(heads[1].convs[0].conv.weight, before)
    baseline = build(**BASELINE)
    assert baseline.optimized_alike() == {}


def test_weight_zero_is_supervised_training():
    model = build(unlabeled_weight=0.0)
    batch = batch_of(model)
    model.parse_losses(model.loss(**batch))[0].backward()
    mixed = [parameter.grad.clone() for parameter in model.student.parameters()]
    model = build(unlabeled_start=9)
    losses = model.loss(**batch)
    assert {key for key in losses if 'loss' in key} == {'decode.loss_ce', 'loss_teacher'}
    losses['decode.loss_ce'].backward()
    for got, parameter in zip(mixed, model.student.parameters(), strict=True):
        torch.testing.assert_close(got, parameter.grad, rtol=1e-4, atol=1e-7)
    model.clock = Clock(9)
    assert 'loss_unlabeled' in model.loss(**batch)


# ------------------------------------------------------------------------------ prototypes and classes


def test_prototypes_are_one_module_and_one_entry_of_a_checkpoint():
    model = build()
    model.loss(**batch_of(model))
    for whole in (model, copy.deepcopy(model)):
        assert whole.student.decode_head.conv_seg is whole.prototypes
        assert whole.teacher.decode_head.conv_seg is whole.prototypes
        for state in (whole.state_dict(), get_state_dict(whole)):
            keys = [key for key in state if key.endswith(('vectors', 'seen'))]
            assert keys == ['prototypes.vectors', 'prototypes.seen']
    # A copy of one network has prototypes of its own, with the same values.
    alone = copy.deepcopy(model.student)
    assert alone.decode_head.conv_seg is not model.prototypes
    assert torch.equal(alone.decode_head.conv_seg.vectors, model.prototypes.vectors)
    assert 'decode_head.conv_seg.vectors' in alone.state_dict()
    moved = copy.deepcopy(model).double()
    assert moved.teacher.decode_head.conv_seg.vectors.dtype == torch.float64
    assert moved.teacher.decode_head.conv_seg is moved.prototypes


@pytest.mark.parametrize('shared', [True, False])
def test_checkpoint_brings_all_back(shared):
    model = build(shared_head=shared)
    model.loss(**batch_of(model))
    other = build(shared_head=shared)
    other.load_state_dict(model.state_dict(), strict=True)
    model.loss(**batch_of(model, seed=1))
    _load_checkpoint_to_model(other, {'state_dict': get_state_dict(model)})
    for name in ('student', 'teacher'):
        mine, theirs = (getattr(m, name).state_dict() for m in (model, other))
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            assert torch.equal(value, theirs[key]), key
    assert torch.equal(other.equalizer.class_counts, model.equalizer.class_counts)
    assert (other.student.decode_head.conv_seg is other.teacher.decode_head.conv_seg) == shared


def test_checkpoint_with_the_counts_under_their_old_name_loads():
    model, other = build(), build()
    state = get_state_dict(model)
    state['class_counts'] = state.pop('equalizer.class_counts')
    other.equalizer.class_counts.zero_()
    _load_checkpoint_to_model(other, {'state_dict': state})
    assert torch.equal(other.equalizer.class_counts, model.equalizer.class_counts)


def test_prototypes_of_each_network_do_not_fit_a_shared_head():
    separate = build(shared_head=False)
    with pytest.raises(
        ValueError, match=r'Set semi_train_cfg\.shared_head=False as in its training'
    ):
        build().load_state_dict(separate.state_dict())
    shared = build()
    shared.loss(**batch_of(shared))
    separate.load_state_dict(shared.state_dict(), strict=False)
    for network in (separate.student, separate.teacher):
        assert torch.equal(network.decode_head.conv_seg.vectors, shared.prototypes.vectors)


def test_stock_checkpoint_gives_its_weights_to_both_networks():
    plain = build_plain(norm='GN')
    model = build()
    model.loss(**batch_of(model))
    vectors = model.prototypes.vectors.clone()
    _load_checkpoint_to_model(model, {'state_dict': plain.state_dict()})
    for network in (model.student, model.teacher):
        weight = network.state_dict()['backbone.layer1.0.conv1.weight']
        assert torch.equal(weight, plain.state_dict()['backbone.layer1.0.conv1.weight'])
    assert torch.equal(model.prototypes.vectors, vectors)


def test_own_export_gives_its_prototypes_too():
    trained = build()
    trained.loss(**batch_of(trained))
    model = build()
    _load_checkpoint_to_model(model, {'state_dict': trained.teacher.state_dict()})
    assert model.prototypes.seen.all()
    assert torch.equal(model.prototypes.vectors, trained.prototypes.vectors)


def test_classes_without_a_prototype_are_void_and_never_predicted():
    model = build()
    label = torch.zeros(2, 32, 32, dtype=torch.int64)
    label[:, 16:] = 2
    # A class that full resolution shows and the features' grid does not.
    label[0, 0, 0] = 1
    batch = set_labels(batch_of(model), label)
    losses = loss_and_commit(model, batch)
    assert model.prototypes.seen.tolist() == [True, False, True, False]
    assert losses['prototype_ratio'] == 0.5
    assert all(losses[key] < 10 for key in losses if 'loss' in key)
    label[0, 0, 0] = 255
    model = build()
    void = model.loss(**set_labels(batch_of(model), label))
    assert void['decode.loss_ce'] == losses['decode.loss_ce']
    # Its probability is 0 behind the upsampling, where -inf would have become NaN.
    model.eval()
    logits = up(model._forward(batch['inputs']['weak']))
    probs = logits.softmax(dim=1)
    assert torch.isfinite(logits).all()
    assert (probs[:, [1, 3]] == 0).all()
    assert set(logits.argmax(dim=1).unique().tolist()) <= {0, 2}
    predicted = model.predict(batch['inputs']['weak'])
    assert set(predicted[0].pred_sem_seg.data.unique().tolist()) <= {0, 2}


def test_absent_class_keeps_its_prototype_to_the_bit():
    model = build()
    loss_and_commit(model, set_labels(batch_of(model), blocks()))
    before = model.prototypes.vectors.clone()
    label = blocks()
    label[label == 3] = 255
    loss_and_commit(model, set_labels(batch_of(model, seed=1), label))
    assert torch.equal(model.prototypes.vectors[3], before[3])
    assert all(not torch.equal(model.prototypes.vectors[c], before[c]) for c in range(3))


def test_features_that_are_not_finite_move_no_prototype():
    model = build()
    loss_and_commit(model, set_labels(batch_of(model), blocks()))
    before = model.prototypes.vectors.clone()
    with torch.no_grad():
        model.teacher.decode_head.convs[0].conv.weight.fill_(torch.nan)
    loss_and_commit(model, set_labels(batch_of(model, seed=1), blocks()))
    assert torch.equal(model.prototypes.vectors, before)
    assert (model.equalizer.sample_counts >= 0).all()


def test_raw_prototypes_have_the_features_lengths():
    model = build(normalize=False, class_ratio='literal')
    batch = set_labels(batch_of(model), blocks())
    features = decoder_features(model.teacher, batch['inputs']['labeled']).detach()
    grid = to_grid(blocks(), features.shape[-1])
    loss_and_commit(model, batch)
    for c in range(NUM_CLASSES):
        mean = features.permute(0, 2, 3, 1)[grid == c].mean(dim=0)
        torch.testing.assert_close(model.prototypes.vectors[c], mean, rtol=1e-4, atol=1e-6)
    unit = build(class_ratio='literal')
    loss_and_commit(unit, batch)
    lengths = unit.prototypes.vectors.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(NUM_CLASSES))


def passes(batches=2, size=32, seed=3):
    """Labeled images (2, 3, size, size) and labels by batch, as different as those of a training."""
    generator = torch.Generator().manual_seed(seed)
    images = [torch.randn(2, 3, size, size, generator=generator) for _ in range(batches)]
    return [(i + 1) * image for i, image in enumerate(images)], [blocks(size)] * batches


def test_prototypes_of_a_pass_over_the_labeled_images():
    """They are of features as the training makes them, not of an untrained decoder's running statistics."""
    model = build('BN', prototype_init='labeled_set')
    assert 'PrototypeMeanHook' in model.required_hooks
    images, labels = passes()
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    seen = []
    handle = model.teacher.decode_head.conv_seg.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    assert start_prototypes(model, zip(images, labels, strict=True)) == NUM_CLASSES
    handle.remove()
    assert modes == [module.training for module in model.modules()]
    for key, value in model.state_dict().items():
        if not key.startswith('prototypes.'):
            assert torch.equal(value, before[key]), key

    def means(features):
        grid = [to_grid(label, one.shape[-1]) for label, one in zip(labels, features, strict=True)]
        return reference_prototypes(torch.cat(features), torch.cat(grid))

    # Those of the pass, and those of training steps: the encoder in eval mode, the decoder in train mode.
    found = model.prototypes.vectors.double()
    torch.testing.assert_close(found, means(seen), rtol=1e-4, atol=1e-6)
    assert not model.teacher.backbone.training
    assert model.teacher.decode_head.training
    trained = means([decoder_features(model.teacher, image).detach() for image in images])
    assert (found * trained).sum(dim=1).min() > 0.9999
    model.load_state_dict(before)
    running = means([decoder_features(model.teacher.eval(), image).detach() for image in images])
    assert (running * trained).sum(dim=1).min() < 0.9


def test_pass_counts_each_labeled_pixel_once(monkeypatch):
    model = build('BN', prototype_init='labeled_set')
    images, labels = passes()
    labels = [labels[0], labels[1].masked_fill(labels[1] == 2, 255)]
    counted = []
    module = 'mmseg_semi.models.equalizer.mean_over_ranks'
    monkeypatch.setattr(
        module, lambda means, counts: counted.append(counts) or (means[0], counts[0])
    )
    start_prototypes(model, zip(images, labels, strict=True))
    size = decoder_features(model.teacher, images[0]).shape[-1]
    grid = to_grid(torch.cat(labels), size)
    assert counted[0][0].tolist() == [(grid == c).sum() for c in range(NUM_CLASSES)]


@pytest.mark.slow
def test_pass_of_two_ranks_is_that_of_one(tmp_path):
    """Of the same batches, since each rank's decoder takes the statistics of its own."""
    batches = list(zip(*passes(4), strict=True))
    shares = [[batches[0], batches[2]], [batches[1], batches[3]]]
    first, second = run_on_ranks(prototypes_on_rank, 2, tmp_path, 'BN', shares)
    assert torch.equal(first, second)
    alone = prototypes_on_rank(0, 'BN', [batches])
    torch.testing.assert_close(first, alone, rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------ sampling and switches


def test_samples_are_balanced_and_counted():
    model = build()
    model.loss(**set_labels(batch_of(model), blocks()))
    counts = model.equalizer.sample_counts.sum(dim=1)
    label = blocks()
    size = decoder_features(model.teacher, torch.zeros(1, 3, 32, 32)).shape[-1]
    present = torch.bincount(to_grid(label, size).flatten(), minlength=256)[:NUM_CLASSES]
    ratio = torch.tensor([100 / 400, 1.0, 100 / 200, 1.0])
    assert counts.tolist() == (ratio * present + 0.5).floor().long().tolist()
    assert model.equalizer.sample_counts.shape == (NUM_CLASSES, 5)
    own = build(shared_head=False)
    own.loss(**set_labels(batch_of(own), blocks()))
    assert torch.equal(own.equalizer.sample_counts.sum(dim=1), counts)
    assert model.equalizer.pseudo_label_counts.sum() == 3 * 32 * 32


@pytest.mark.parametrize('sampling', ['quantity', 'confidence'])
def test_other_samplings_draw_as_many_pixels(sampling):
    model, entropy = build(sampling=sampling), build()
    batch = set_labels(batch_of(model), blocks())
    for m in (model, entropy):
        torch.manual_seed(5)
        loss_and_commit(m, batch)
    assert model.equalizer.sample_counts.shape == (NUM_CLASSES, 1)
    assert torch.equal(
        model.equalizer.sample_counts[:, 0], entropy.equalizer.sample_counts.sum(dim=1)
    )
    assert not torch.equal(model.prototypes.vectors, entropy.prototypes.vectors)


def test_the_temperature_is_that_of_all_terms():
    batch = batch_of(build())
    sharp, literal = build(temperature=0.1), build(temperature=1.0)
    for network in (literal.student, literal.teacher):
        assert network.decode_head.conv_seg.temperature == 1.0
    losses = [model.loss(**batch) for model in (sharp, literal)]
    for key in ('decode.loss_ce', 'loss_unlabeled', 'loss_teacher'):
        assert losses[0][key] != losses[1][key]
    # Features behind a ReLU have cosines in [0, 1]: at 1.0 no class can be far from 1 / C.
    logits = literal.eval()._forward(batch['inputs']['weak'])
    assert logits.softmax(dim=1).max() <= torch.e / (torch.e + NUM_CLASSES - 1)


@pytest.mark.parametrize('weight_temperature', [None, 1.0, 0.05, 0.3])
def test_weights_have_a_temperature_of_their_own(weight_temperature):
    model = build(weight_temperature=weight_temperature)
    # A class that has no prototype has no share in the confidence.
    label = blocks().masked_fill(blocks() == 3, 255)
    batch = set_labels(batch_of(model), label)
    features = decoder_features(model.teacher, batch['inputs']['labeled']).detach()
    grid = to_grid(label, features.shape[-1])
    shown = NUM_CLASSES - 1
    means = [F.normalize(features, dim=1).movedim(1, 0)[:, grid == c] for c in range(shown)]
    prototypes = F.normalize(torch.stack([one.double().mean(dim=1) for one in means]), dim=1)

    def logits(temperature):
        return reference_logits(features, prototypes, temperature)

    confidence = up(logits(weight_temperature or 0.1)).softmax(dim=1).amax(dim=1)
    weight = ((1 - confidence) ** 2).masked_fill(label == 255, 0)
    weight = weight / weight.sum(dim=(1, 2), keepdim=True)
    # The loss itself has the temperature of all similarities.
    expected = (weight * reference_ce(logits(0.1), label)).sum(dim=(1, 2)).mean()
    found = model.loss(**batch)['loss_teacher']
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)
    plain = build().loss(**set_labels(batch_of(model), label))['loss_teacher']
    assert (found == plain) == (weight_temperature is None)


@pytest.mark.parametrize(
    ('weight_temperature', 'least', 'most'), [(None, 1e5, 1e7), (0.05, 1e5, 1e7), (1.0, 1.1, 1.5)]
)
def test_sharp_similarities_need_not_sharpen_the_weights(
    weight_temperature, least, most, monkeypatch
):
    """Of an easy and a hard pixel: cosines .9 and .5 with their class, .5 with all others."""
    model = build(temperature=0.05, weight_temperature=weight_temperature)
    model.prototypes.seen[:] = True
    cosines = torch.full((1, NUM_CLASSES, 1, 2), 0.5)
    cosines[0, 0, 0, 0] = 0.9
    found = []
    own = 'mmseg_semi.models.segmentors.des4.pixel_weights'
    monkeypatch.setattr(own, lambda *args: found.append(pixel_weights(*args)) or found[0])
    logits = (cosines / 0.05).requires_grad_()
    model.reweighted_loss(logits, torch.zeros(1, 1, 2, dtype=torch.int64)).backward()
    easy, hard = found[0][0, 0].tolist()
    probs = (cosines.double() / (weight_temperature or 0.05)).softmax(dim=1).amax(dim=1)[0, 0]
    assert hard / easy == pytest.approx(((1 - probs[1]) / (1 - probs[0])).item() ** 2, rel=1e-3)
    assert least < hard / easy < most
    assert logits.grad.any()


def test_components_of_table_3():
    batch = set_labels(batch_of(build()), blocks())
    baseline = build(**BASELINE)
    losses = baseline.loss(**batch)
    assert 'loss_teacher' not in losses
    assert not any(p.requires_grad for p in baseline.teacher.parameters())
    assert 'prototypes.vectors' not in baseline.state_dict()
    heads = [network.decode_head for network in (baseline.student, baseline.teacher)]
    # Each network's prototypes are of its own features, and never averaged.
    assert not torch.equal(heads[0].conv_seg.vectors, heads[1].conv_seg.vectors)
    before = heads[1].conv_seg.vectors.clone()
    baseline.update_teacher(0.0)
    assert torch.equal(heads[1].conv_seg.vectors, before)
    assert torch.equal(heads[0].convs[0].conv.weight, heads[1].convs[0].conv.weight)
    expected = reference_prototypes(
        decoder_features(build(**BASELINE).student, batch['inputs']['labeled']).detach(),
        to_grid(blocks(), decoder_features(baseline.student, torch.zeros(1, 3, 32, 32)).shape[-1]),
    )
    literal = build(**BASELINE, class_ratio='literal')
    literal.loss(**batch)
    torch.testing.assert_close(
        literal.student.decode_head.conv_seg.vectors.double(), expected, rtol=1e-4, atol=1e-5
    )

    decoupled = build(shared_head=False, pixel_reweighting=False)
    shared = build(pixel_reweighting=False)
    weighted = build()
    terms = [m.loss(**batch)['loss_teacher'] for m in (decoupled, shared, weighted)]
    assert terms[0] == terms[1] != terms[2]
    features = decoder_features(build(pixel_reweighting=False).teacher, batch['inputs']['labeled'])
    first = reference_prototypes(features.detach(), to_grid(blocks(), features.shape[-1]))
    ce = reference_ce(reference_logits(features.detach(), first), blocks())
    torch.testing.assert_close(
        terms[1].double(), ce.sum() / (blocks() != 255).sum(), rtol=1e-4, atol=0
    )


# ------------------------------------------------------------------------------ edges


def test_void_labels_everywhere_keep_the_step_finite():
    model = build()
    batch = batch_of(model)
    for sample in batch['data_samples']['labeled']:
        sample.gt_sem_seg.data.fill_(255)
    for started in (False, True):
        before = model.prototypes.vectors.clone()
        loss, log_vars = model.parse_losses(loss_and_commit(model, batch))
        loss.backward()
        assert log_vars['decode.loss_ce'] == log_vars['loss_teacher'] == 0
        assert log_vars['sampled_ratio'] == 0
        assert torch.equal(model.prototypes.vectors, before)
        assert model.prototypes.seen.any() == started
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert torch.isfinite(parameter.grad).all(), name
        loss_and_commit(model, batch_of(model))


def test_one_image_is_cut_with_itself():
    model = build()
    batch = batch_of(model, num_labeled=1, num_unlabeled=1)
    weak = batch['inputs']['weak']
    model.loss(**batch)
    encoded = model.teacher.extract_feat(weak)
    images, label, log = model.make_targets(encoded, model.batch_of(**batch))
    assert torch.equal(images, weak)
    assert label.shape == (1, 32, 32)
    assert log['cutmix_rate'] == 1


@pytest.mark.parametrize('ignore_padding', [True, False])
def test_padding(ignore_padding):
    """It may be learned, and is never counted among the classes."""
    model = build(ignore_padding=ignore_padding, cutmix=None)
    batch = batch_of(model)
    model.loss(**set_labels(batch, blocks()))
    model.equalizer.pseudo_label_counts.zero_()
    valid = torch.ones(3, 32, 32, dtype=torch.bool)
    valid[0, :, 20:] = False
    valid[1, 7:] = False
    batch['data_samples']['weak'] = [unlabeled_sample(one) for one in valid]
    weak = batch['inputs']['weak']
    encoded = model.teacher.extract_feat(weak)
    images, label, log = model.make_targets(encoded, model.batch_of(**batch))
    assert images is weak
    assert torch.equal(label == 255, ~valid & ignore_padding)
    counts = torch.bincount(label[valid], minlength=NUM_CLASSES)
    assert model.equalizer.pseudo_label_counts.tolist() == counts.tolist()
    share = counts / valid.sum()
    assert log['pseudo_label_entropy'].item() == pytest.approx(torch.special.entr(share).sum())
    distance = (
        share - model.equalizer.class_counts / model.equalizer.class_counts.sum()
    ).abs().sum() / 2
    assert log['pseudo_label_distance'].item() == pytest.approx(distance)
    assert 'cutmix_rate' not in log
    nothing = [unlabeled_sample(torch.zeros_like(one)) for one in valid]
    batch['data_samples']['weak'] = nothing
    losses = model.loss(**batch)
    assert (losses['loss_unlabeled'] == 0) == ignore_padding
    assert all(torch.isfinite(value) for value in losses.values())


def test_bfloat16_autocast_keeps_cosines_in_float32():
    model = build()
    batch = batch_of(model)
    torch.manual_seed(3)
    exact = model.loss(**batch)
    model = build()
    torch.manual_seed(3)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        rough = model.loss(**batch)
        logits = model.student._forward(batch['inputs']['weak'])
    assert logits.dtype == model.prototypes.vectors.dtype == torch.float32
    for key in ('decode.loss_ce', 'loss_unlabeled', 'loss_teacher'):
        assert rough[key].dtype == torch.float32
        torch.testing.assert_close(rough[key], exact[key], rtol=0.1, atol=0.02)
    model.parse_losses(rough)[0].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize('settings', [{}, BASELINE, {'sampling': 'confidence'}], ids=str)
def test_step_never_waits_for_a_device(settings):
    model = build('BN', auxiliary=True, **settings)
    batch = batch_of(model)
    with ReadsByTheHost() as reads:
        losses = model.loss(**batch)
        sum(value for key, value in losses.items() if 'loss' in key).backward()
        model.update_teacher(0.99)
    assert reads.seen == []


def test_distance_of_pseudo_labels_from_labels():
    model = build(cutmix=None)
    batch = model.batch_of(**batch_of(model))
    log = model.make_targets(model.teacher.extract_feat(batch.weak.images), batch)[2]
    # Without prototypes all classes tie and the first is told: 1 - 400 / 800.
    assert log['pseudo_label_distance'] == 0.5
    assert log['pseudo_label_entropy'] == 0


def test_dropout_is_taken_out_and_the_config_kept():
    config = tiny_segmentor('GN', dropout_ratio=0.3)
    before = copy.deepcopy(config)
    model = MODELS.build({'type': 'DeS4', 'segmentor': config})
    assert config == before
    assert model.student.decode_head.dropout is None


@pytest.mark.parametrize(
    ('place', 'message'),
    [
        ('teacher.decode_head', 'the tapped FCNHead is under activation checkpointing'),
        ('student.decode_head', r'Remove student\.decode_head from activation_checkpointing'),
    ],
)
def test_a_decode_head_under_checkpointing_is_refused(place, message):
    """MMEngine's is reentrant: what it returns has no graph, and a network would silently learn nothing."""
    model = build()
    turn_on_activation_checkpointing(model, [place])
    with pytest.raises(ValueError, match=message):
        model.loss(**batch_of(model))


def test_starting_from_the_labeled_set_needs_a_shared_head():
    with pytest.raises(ValueError, match=r"prototype_init='labeled_set' needs shared prototypes"):
        build(prototype_init='labeled_set', shared_head=False)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'temperature': 0}, r'semi_train_cfg\.temperature must be .*, got 0'),
        ({'weight_temperature': 0}, r'semi_train_cfg\.weight_temperature must be .*, got 0'),
        (
            {'weight_temperature': 'T'},
            r"semi_train_cfg\.weight_temperature must be a number or None, got 'T'",
        ),
        ({'alpha': -0.1}, r'semi_train_cfg\.alpha must be .*, got -0\.1'),
        ({'num_zones': 0}, r'semi_train_cfg\.num_zones must be .*, got 0'),
        ({'sampling': 'all'}, r"semi_train_cfg\.sampling must be .*, got 'all'"),
        ({'class_ratio': 'n'}, r"semi_train_cfg\.class_ratio must be .*, got 'n'"),
        ({'prototype_init': 'k'}, r"semi_train_cfg\.prototype_init must be .*, got 'k'"),
        ({'unlabeled_weight': -1}, r'semi_train_cfg\.unlabeled_weight must be at least 0, got -1'),
        ({'prototype_decay': 1.5}, r'prototype_decay must be in .*, got 1\.5'),
        ({'decoupled_training': False}, r'Set both to False'),
        ({'cutmix': {'adaptive': True}}, r'Set adaptive=False and a prob'),
        ({'tau': 0.9}, r'semi_train_cfg has no setting tau'),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)
