"""What GPS and CPS share: networks of their own weights, from config to checkpoint."""

import copy

import pytest
import torch
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from mmseg.registry import MODELS
from tiny import build_plain, collated_batch, labeled_sample, tiny_segmentor

from mmseg_semi.models import recompute as recomputation

METHODS = {'GPS': ('student1', 'student2', 'teacher'), 'CPS': ('student1', 'student2')}


def build(method, **settings):
    return MODELS.build({'type': method, 'segmentor': tiny_segmentor(), **settings})


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('initialized', [False, True])
def test_each_network_draws_its_own_weights(method, initialized):
    model = build(method)
    if initialized:
        model.init_weights()
    heads = [getattr(model, name).decode_head.conv_seg.weight for name in METHODS[method]]
    for i, head in enumerate(heads):
        assert not any(torch.equal(head, other) for other in heads[:i])
    model.check_start()


@pytest.mark.parametrize('method', METHODS)
def test_students_that_began_alike_are_refused(method):
    model = build(method)
    model.student2.load_state_dict(model.student1.state_dict())
    with pytest.raises(
        ValueError, match='student1 and student2 have the same weights in their heads'
    ):
        model.check_start()
    # One weight of the heads is enough, as after a step.
    with torch.no_grad():
        model.student2.decode_head.conv_seg.bias[0] += 1e-3
    model.check_start()


def test_constant_initialization_is_refused():
    constant = {'type': 'Constant', 'val': 0.1, 'layer': ['Conv2d', 'BatchNorm2d']}
    model = build('CPS', segmentor=tiny_segmentor(init_cfg=constant))
    model.init_weights()
    with pytest.raises(ValueError, match='Use a random '):
        model.check_start()


@pytest.mark.parametrize('method', METHODS)
def test_plain_checkpoint_fills_all_networks_to_predict_but_not_to_train(method):
    torch.manual_seed(1)
    plain, model = build_plain(), build(method)
    _load_checkpoint_to_model(model, {'state_dict': plain.state_dict()})
    for name in METHODS[method]:
        for key, value in plain.state_dict().items():
            assert torch.equal(getattr(model, name).state_dict()[key], value)
    with pytest.raises(ValueError, match='Instead of load_from with a plain checkpoint'):
        model.check_start()


def test_own_checkpoint_round_trips():
    first, second = build('GPS'), build('GPS')
    first.ramp_up.latch_epoch.fill_(3)
    first.ramp_up.labeled_sums.copy_(torch.tensor([1.0, 2.0, 3.0]))
    _load_checkpoint_to_model(second, {'state_dict': first.state_dict()})
    for key, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[key], value), key
    assert {'ramp_up.latch_epoch', 'ramp_up.labeled_sums'} <= first.state_dict().keys()
    second.check_start()


@pytest.mark.parametrize('method', METHODS)
def test_first_student_predicts_unless_told_otherwise(method):
    batch = {'inputs': [torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)]}
    batch['data_samples'] = [labeled_sample(torch.zeros(32, 32, dtype=torch.long))]
    assert build(method).predictor is not None
    for name in (None, *METHODS[method]):
        settings = {} if name is None else {'semi_test_cfg': {'predict_on': name}}
        model = build(method, **settings).eval()
        network = getattr(model, name or 'student1')
        assert model.predictor is network
        got = model.test_step(copy.deepcopy(batch))[0].seg_logits.data
        network.data_preprocessor = model.data_preprocessor
        torch.testing.assert_close(got, network.test_step(copy.deepcopy(batch))[0].seg_logits.data)
    with pytest.raises(ValueError, match="predict_on='student' is not a network"):
        build(method, semi_test_cfg={'predict_on': 'student'})


def test_reentrant_checkpointing_is_refused():
    segmentor = tiny_segmentor()
    segmentor['backbone']['with_cp'] = True
    with pytest.raises(ValueError, match=r'with_cp=True .* semi_train_cfg.recompute=True'):
        build('CPS', segmentor=segmentor)


def test_mmengines_checkpointing_is_refused():
    model = build('CPS')
    turn_on_activation_checkpointing(model, ['student2.backbone'])
    with pytest.raises(
        ValueError, match=r'activation_checkpointing of student2\.backbone does not'
    ):
        model.check_start()


def test_single_image_under_pooling_is_told():
    segmentor = tiny_segmentor()
    head = segmentor['decode_head']
    del head['num_convs'], head['concat_input']
    head.update(type='ASPPHead', dilations=(1,))
    model = build('CPS', segmentor=segmentor, semi_train_cfg={'cutmix': None}).train()
    assert model.loss(**model.data_preprocessor(collated_batch(2, 2), True))
    with pytest.raises(
        ValueError, match='1 image on a process gives batch normalization only one value'
    ):
        model.loss(**model.data_preprocessor(collated_batch(1, 2), True))


@pytest.mark.parametrize('settings', [{}, {'recompute': True}])
def test_single_pair_under_pooling_is_told(settings):
    segmentor = tiny_segmentor()
    head = segmentor['decode_head']
    del head['num_convs'], head['concat_input']
    head.update(type='ASPPHead', dilations=(1,))
    model = build('CPS', segmentor=segmentor, semi_train_cfg=settings).train()
    with pytest.raises(ValueError, match=r'1 image on a process .* \(unlabeled to 4 with pairs\)'):
        model.loss(**model.data_preprocessor(collated_batch(2, 2), True))


def test_single_image_has_no_partner():
    model = build('CPS', semi_train_cfg={'cutmix': 'in_batch'}).train()
    with pytest.raises(
        ValueError, match=r'in_batch.* at least 2 unlabeled images on a process, got 1'
    ):
        model.loss(**model.data_preprocessor(collated_batch(2, 1), True))


@pytest.mark.parametrize('dropout_ratio', [0, 0.25])
def test_dropout_of_what_labels_is_warned_about(dropout_ratio, capsys):
    segmentor = tiny_segmentor(auxiliary=True)
    segmentor['auxiliary_head']['dropout_ratio'] = 0.1
    segmentor['decode_head']['dropout_ratio'] = dropout_ratio
    build('CPS', segmentor=segmentor).check_start()
    said = capsys.readouterr().out
    assert ('decode_head.dropout drops 0.25 of its input' in said) == bool(dropout_ratio)
    assert 'auxiliary_head' not in said


def test_batch_without_unlabeled_images_is_told():
    for method in METHODS:
        model = build(method).train()
        data = model.data_preprocessor(collated_batch(), True)
        for part in data.values():
            del part['weak']
        with pytest.raises(ValueError, match=f"{method} needs the branch 'weak'"):
            model.loss(**data)


def test_second_forward_spares_only_its_own_statistics(monkeypatch):
    kept = []
    keep = recomputation.statistics_kept
    monkeypatch.setattr(
        recomputation, 'statistics_kept', lambda modules: kept.append(modules) or keep(modules)
    )
    model = build('CPS', semi_train_cfg={'cutmix': None, 'recompute': True}).train()
    model.loss(**model.data_preprocessor(collated_batch(), True))
    layers = [
        sum(isinstance(layer, torch.nn.BatchNorm2d) for one in modules for layer in one.modules())
        for modules in kept
    ]
    total = sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in model.student1.modules())
    # Encoder and head in turn, neither those of the other.
    assert set(zip(layers[::2], layers[1::2], strict=True)) == {(total - 1, 1)}


def test_boxes_are_cps_and_mix_some_of_each_image():
    torch.manual_seed(0)
    model = build('CPS', semi_train_cfg={'cutmix': 'in_batch'})
    batch = model.batch_of(**model.data_preprocessor(collated_batch(1, 4), True))
    weak = batch.weak.images
    mix = model.cutmix.plan(4, batch.size, weak.device)
    assert mix.boxes.shape == (4, 3, 4)
    images = mix(weak)
    own = (images == weak).all(dim=1)
    foreign = (images == weak.roll(-1, dims=0)).all(dim=1)
    assert (own | foreign).all()
    assert ((foreign & ~own).float().mean(dim=(1, 2)) > 0.05).all()
    # Labels follow their pixels.
    label = torch.arange(4)[:, None, None].expand(4, 32, 32)
    mixed = model.mixed_label(label, batch, mix)
    assert torch.equal(mixed == label, own)
    assert torch.equal(mixed == label.roll(-1, dims=0), foreign)


def test_pairs_are_labeled_half_by_half_and_padding_follows_its_pixels():
    torch.manual_seed(0)
    model = build('CPS', semi_train_cfg={'ignore_padding': True}).train()
    data = model.data_preprocessor(collated_batch(1, 4), True)
    for index, sample in enumerate(data['data_samples']['weak']):
        sample.valid_mask.data = torch.ones(1, 32, 32, dtype=torch.bool)
        sample.valid_mask.data[:, 20 + 3 * index :] = False
    batch = model.batch_of(**data)
    other = copy.deepcopy(model.student1)
    logits = model.label_weak(model.student1, batch)
    first, second = batch.weak.images.split(2)
    expected = torch.cat([other._forward(half) for half in (first, second)])
    torch.testing.assert_close(logits, expected)
    assert not logits.requires_grad
    mix = model.cutmix.plan(4, batch.size, logits.device)
    label = model.hard_label(logits, batch, mix)
    assert torch.equal(label == 255, ~mix(batch.weak.valid))
    entropy = model.mixed_label_entropy(label, batch, mix)
    share = torch.bincount(label[label != 255], minlength=4) / (label != 255).sum()
    torch.testing.assert_close(entropy, torch.special.entr(share).sum())


def test_checkpointing_sees_every_tensor(monkeypatch):
    """PyTorch before 2.4 finds no device in a list, and does not keep the random state of the GPU."""
    calls = []

    def recorded(function, *inputs, **options):
        calls.append(inputs)
        return function(*inputs)

    monkeypatch.setattr('mmseg_semi.models.recompute.checkpoint', recorded)
    model = build('CPS', semi_train_cfg={'cutmix': None, 'recompute': True}).train()
    model.loss(**model.data_preprocessor(collated_batch(), True))
    assert len(calls) == 8  # encoder and heads of two students, two forward passes of each
    for inputs in calls:
        assert any(isinstance(one, torch.Tensor) for one in inputs)
        assert not any(isinstance(one, (list, tuple)) for one in inputs)


def test_statistics_of_recomputed_forwards_are_counted_once():
    models = []
    for recompute in (False, True):
        torch.manual_seed(0)
        settings = {'cutmix': None, 'recompute': recompute}
        model = build('CPS', semi_train_cfg=settings).train()
        losses = model.loss(**model.data_preprocessor(collated_batch(), True))
        model.parse_losses(losses)[0].backward()
        models.append(model)
    first, second = (dict(model.named_buffers()) for model in models)
    counted = [key for key in first if 'num_batches_tracked' in key]
    assert all(first[key] == second[key] == 2 for key in counted)
    for key, value in first.items():
        torch.testing.assert_close(second[key], value)
    gradients = [{k: p.grad for k, p in m.named_parameters()} for m in models]
    for key, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], value)
