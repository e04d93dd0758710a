import copy

import pytest
import torch
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from mmseg.models import EncoderDecoder
from mmseg.models.decode_heads import FCNHead
from mmseg.registry import MODELS
from tiny import build_plain, collated_batch, labeled_sample, tiny_segmentor

from mmseg_semi.models import IMAS, SemiSegmentor


def build(**kwargs):
    torch.manual_seed(0)
    settings = {'segmentor': tiny_segmentor(), **kwargs}
    return MODELS.build({'type': 'IMAS', **settings})


@MODELS.register_module()
class OwnSegmentor(EncoderDecoder):
    """A user's network with one more loss."""

    def loss(self, inputs, data_samples):
        return {
            **super().loss(inputs, data_samples),
            'loss_own': self.decode_head.conv_seg.bias.sum(),
        }


@MODELS.register_module()
class OwnHead(FCNHead):
    def loss(self, inputs, batch_data_samples, train_cfg):
        return {**super().loss(inputs, batch_data_samples, train_cfg), 'loss_own': inputs[0].sum()}


def with_own_head(name):
    segmentor = tiny_segmentor()
    segmentor[name] = {**segmentor['decode_head'], 'type': 'OwnHead'}
    return segmentor


def test_config_of_the_caller_is_not_edited():
    segmentor = tiny_segmentor()
    before = copy.deepcopy(segmentor)
    build(segmentor=segmentor)
    assert segmentor == before


def test_stock_interface_answers_for_the_predicting_network():
    model = build(semi_test_cfg={'predict_on': 'student'})
    assert model.decode_head is model.student.decode_head
    assert (model.num_classes, model.out_channels, model.align_corners) == (4, 4, False)
    with model.predicting_with('teacher'):
        assert model.decode_head is model.teacher.decode_head
    assert model.predictor is model.student


def test_predict_equals_the_networks_own_prediction():
    model = build().eval()
    with torch.no_grad():
        for parameter in model.teacher.parameters():
            parameter.add_(0.1)
    batch = {'inputs': [torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)], 'data_samples': []}
    batch['data_samples'] = [labeled_sample(torch.zeros(32, 32, dtype=torch.long))]
    for name in ('student', 'teacher'):
        with model.predicting_with(name):
            got = model.test_step(copy.deepcopy(batch))[0].seg_logits.data
        network = getattr(model, name)
        network.data_preprocessor = model.data_preprocessor
        expected = network.test_step(copy.deepcopy(batch))[0].seg_logits.data
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'semi_train_cfg': {'taw': 0.9}}, r'semi_train_cfg has no setting taw'),
        ({'semi_test_cfg': {'predict_on': 'pupil'}}, "predict_on='pupil' is not a network of IMAS"),
        (
            {'segmentor': tiny_segmentor(num_classes=2, out_channels=1, threshold=0.5)},
            'out_channels=1 differs from num_classes=2',
        ),
        (
            {'segmentor': tiny_segmentor(num_classes=1)},
            'num_classes=1, but .* at least two classes',
        ),
        (
            {'segmentor': {**tiny_segmentor(), 'type': 'OwnSegmentor'}},
            r'OwnSegmentor overrides loss\(\), which semi-supervised methods do not call',
        ),
        ({'segmentor': with_own_head('decode_head')}, r'OwnHead overrides loss\(\), which'),
        ({'segmentor': with_own_head('auxiliary_head')}, r'OwnHead overrides loss\(\), which'),
        (
            {
                'segmentor': tiny_segmentor(
                    loss_decode=dict(type='CrossEntropyLoss', class_weight=[1.0, 2.0])
                )
            },
            r'class_weight of CrossEntropyLoss has shape \(2,\), but FCNHead has num_classes=4',
        ),
        (
            {'data_preprocessor': {'type': 'SegDataPreProcessor'}},
            r"Set model\.data_preprocessor\.type='MultiBranchDataPreprocessor'",
        ),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)


def test_segmentor_without_preprocessor_is_refused():
    segmentor = tiny_segmentor()
    del segmentor['data_preprocessor']
    with pytest.raises(ValueError, match='IMAS has no data_preprocessor'):
        build(segmentor=segmentor)


def test_preprocessor_of_the_network_that_is_not_used_is_told(capsys):
    segmentor = tiny_segmentor()
    used = {**segmentor['data_preprocessor'], 'type': 'MultiBranchDataPreprocessor'}
    build(segmentor=segmentor, data_preprocessor=used)
    assert 'has no effect' not in capsys.readouterr().out
    build(segmentor=segmentor, data_preprocessor={**used, 'mean': [1.0, 2.0, 3.0]})
    assert (
        'has no effect, since model.data_preprocessor.mean=[1.0, 2.0, 3.0] applies to all networks'
        in capsys.readouterr().out
    )


def losses(*types):
    return [{'type': name, 'use_sigmoid': name != 'CrossEntropyLoss'} for name in types]


@pytest.mark.parametrize(
    ('types', 'told'),
    [
        (['DiceLoss'], True),
        (['DiceLoss', 'CrossEntropyLoss'], False),
        (['CrossEntropyLoss'], False),
    ],
)
def test_losses_that_train_no_softmax_are_told(types, told, capsys):
    model = build(segmentor=tiny_segmentor(loss_decode=losses(*types)))
    model.check_start()
    assert (
        'All losses of the decode head have use_sigmoid=True' in capsys.readouterr().out
    ) == told


def gradients(frozen=(), checkpointed=()):
    """Gradients of the student in a training with MMEngine's activation checkpointing."""
    model = build(segmentor=tiny_segmentor('GN')).train()
    for name in frozen:
        model.get_submodule(name).requires_grad_(False)
    turn_on_activation_checkpointing(model, list(checkpointed))
    model.check_start()
    losses = model.loss(**model.data_preprocessor(collated_batch(), True))
    model.parse_losses(losses)[0].backward()
    return {name: p.grad for name, p in model.student.named_parameters() if p.requires_grad}


def test_stages_of_the_encoder_may_be_checkpointed():
    expected = gradients()
    found = gradients(checkpointed=['student.backbone.layer1', 'student.backbone.layer3'])
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], msg=name)


@pytest.mark.parametrize(
    ('frozen', 'checkpointed'),
    [
        ([], 'student.backbone'),
        (['student.backbone.stem', 'student.backbone.layer1'], 'student.backbone.layer2'),
    ],
)
def test_modules_that_would_not_be_trained_are_not_checkpointed(frozen, checkpointed):
    """MMEngine's is reentrant: it has no gradients if the input needs none."""
    with pytest.raises(
        ValueError, match=f'activation_checkpointing of {checkpointed} would leave its weights'
    ):
        gradients(frozen, [checkpointed])


@pytest.mark.parametrize(
    ('method', 'settings', 'remedy'),
    [
        ('FixMatch', {}, ', or set semi_train_cfg.joint_forward=True'),
        ('UniMatchV2', {}, ', or set semi_train_cfg.joint_forward=True'),
        ('IMAS', {'joint_forward': False}, ', or set semi_train_cfg.joint_forward=True'),
        ('IMAS', {}, None),
        ('CorrMatch', {}, ''),
    ],
)
def test_several_forwards_on_several_processes_are_not_checkpointed(
    method, settings, remedy, monkeypatch
):
    """Its gradient hooks would mark a parameter ready twice under DistributedDataParallel."""
    model = build(type=method, semi_train_cfg=settings)
    turn_on_activation_checkpointing(model, ['student.backbone.layer3'])
    model.check_start()
    monkeypatch.setattr('mmseg_semi.models.segmentors.base.get_world_size', lambda: 2)
    if remedy is None:
        model.check_start()
        return
    said = (
        rf'activation_checkpointing of student\.backbone\.layer3 .* processes\. Remove it{remedy}\.'
    )
    with pytest.raises(ValueError, match=said):
        model.check_start()


def test_joint_and_separate_forwards_agree_without_batch_statistics():
    model = build(segmentor=tiny_segmentor('GN', auxiliary=True))
    images = torch.randn(2, 3, 32, 32), torch.randn(3, 3, 32, 32), torch.randn(3, 3, 32, 32)
    joint, views = model.forward_views(model.student, *images, joint=True)
    alone, views_alone = model.forward_views(model.student, *images, joint=False)
    torch.testing.assert_close(joint.logits, alone.logits)
    torch.testing.assert_close(joint.auxiliary, alone.auxiliary)
    torch.testing.assert_close(views, views_alone)
    assert joint.auxiliary[0].shape[0] == 2


@pytest.mark.parametrize('loss', ['PixelCrossEntropyLoss', 'CrossEntropyLoss'])
def test_labeled_loss_is_the_heads_own(loss):
    segmentor = tiny_segmentor('GN', auxiliary=True, loss_decode={'type': loss, 'loss_weight': 0.7})
    model = build(segmentor=segmentor)
    batch = model.data_preprocessor(collated_batch(), True)
    images, samples = batch['inputs']['labeled'], batch['data_samples']['labeled']
    output, _ = model.forward_views(model.student, images)
    losses = model.labeled_loss(output, model.batch_of(**batch))
    expected = model.student.loss(images, samples)
    assert losses.keys() == {'decode.loss_ce', 'aux.loss_ce'}
    for key, value in losses.items():
        if loss == 'CrossEntropyLoss':
            torch.testing.assert_close(value, expected[key])
    valid = samples[0].gt_sem_seg.data.ne(255).float().mean()
    if loss == 'PixelCrossEntropyLoss':
        stock = MODELS.build({'type': 'CrossEntropyLoss', 'loss_weight': 0.7})
        label = torch.cat([sample.gt_sem_seg.data for sample in samples])
        logits = torch.nn.functional.interpolate(output.logits, label.shape[1:], mode='bilinear')
        # MMSegmentation's default divides by all pixels, ours by those that are not void.
        torch.testing.assert_close(
            losses['decode.loss_ce'] * valid, stock(logits, label, ignore_index=255)
        )


def test_batch_without_a_branch_is_refused():
    model = build()
    batch = model.data_preprocessor(collated_batch(), True)
    inputs = dict(batch['inputs'])
    del inputs['labeled']
    with pytest.raises(
        ValueError,
        match=r"IMAS needs the branch 'labeled', but the batch has strong, strong2, weak",
    ):
        model.loss(inputs, batch['data_samples'])
    with pytest.raises(ValueError, match='IMAS needs a batch with named branches, got a Tensor'):
        model.loss(batch['inputs']['labeled'], [])


def test_plain_checkpoint_loads_into_all_networks():
    torch.manual_seed(1)
    plain = build_plain()
    model = build()
    _load_checkpoint_to_model(model, {'state_dict': plain.state_dict()})
    for key, value in plain.state_dict().items():
        assert torch.equal(model.student.state_dict()[key], value)
        assert torch.equal(model.teacher.state_dict()[key], value)


def test_own_checkpoint_round_trips_with_torch_and_mmengine():
    first, second, third = build(), build(), build()
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(torch.randn_like(parameter))
    second.load_state_dict(first.state_dict())
    _load_checkpoint_to_model(third, {'state_dict': first.state_dict()})
    for key, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[key], value)
        assert torch.equal(third.state_dict()[key], value)


def test_checkpoint_of_another_architecture_is_refused():
    wider = tiny_segmentor()
    wider['decode_head']['channels'] = 16
    with pytest.raises(
        ValueError, match=r"'decode_head\S+' has shape .* Load a checkpoint of the same"
    ):
        _load_checkpoint_to_model(
            build(), {'state_dict': MODELS.build({**wider, 'data_preprocessor': None}).state_dict()}
        )
    deeper = tiny_segmentor()
    deeper['backbone']['depth'] = 34
    with pytest.raises(ValueError, match='the student differ in'):
        _load_checkpoint_to_model(
            build(),
            {'state_dict': MODELS.build({**deeper, 'data_preprocessor': None}).state_dict()},
        )


def test_checkpoint_without_auxiliary_head_still_loads():
    plain = build_plain()
    model = build(segmentor=tiny_segmentor(auxiliary=True))
    _load_checkpoint_to_model(model, {'state_dict': plain.state_dict()})
    assert torch.equal(model.teacher.decode_head.conv_seg.weight, plain.decode_head.conv_seg.weight)


def test_clock_defaults_to_the_start():
    assert IMAS.clock == (0, None, 1, True)


def test_updates_and_optimized_have_the_same_names():
    message = r"Wrong has updates=\['student'\] and optimized=\['net'\]. Use the same names"
    with pytest.raises(TypeError, match=message):

        class Wrong(SemiSegmentor):
            optimized = {'net': ('student',)}
