"""The tap hands out what the classifier reads, changes nothing else, and is copied with its head."""

import copy

import pytest
import torch
from mmseg.models.decode_heads import FCNHead, PointHead
from mmseg.registry import MODELS
from tiny import tiny_segmentor

from mmseg_semi.models import ESL
from mmseg_semi.models.heads import conv_stack, install_tap, tapped, tapping

COMMON = dict(channels=8, num_classes=4, norm_cfg=dict(type='BN'))
ONE = dict(COMMON, in_channels=16, in_index=-1)
SEVERAL = dict(COMMON, in_channels=[8, 16], in_index=[0, 1])
FIT = [
    dict(ONE, type='FCNHead', num_convs=1),
    dict(ONE, type='FCNHead', num_convs=0, concat_input=False, channels=16),
    dict(ONE, type='ASPPHead', dilations=(1, 2)),
    dict(ONE, type='DepthwiseSeparableASPPHead', dilations=(1, 2), c1_in_channels=8, c1_channels=4),
    dict(ONE, type='PlainDeepLabV3PlusHead', dilations=(1, 2), c1_in_channels=8, c1_channels=4),
    dict(ONE, type='PSPHead', pool_scales=(1, 2)),
    dict(SEVERAL, type='UPerHead', pool_scales=(1, 2)),
    dict(SEVERAL, type='SegformerHead'),
    dict(SEVERAL, type='FPNHead', feature_strides=[4, 8]),
    dict(ONE, type='GCHead', ratio=1 / 4, pooling_type='att', fusion_types=('channel_add',)),
]


def maps():
    return [torch.randn(2, 8, 12, 12), torch.randn(2, 16, 6, 6)]


def build(config):
    torch.manual_seed(0)
    head = MODELS.build(copy.deepcopy(config))
    head.init_weights()
    return head


@pytest.mark.parametrize('config', FIT, ids=lambda config: config['type'])
@pytest.mark.filterwarnings('ignore')
def test_features_are_what_the_classifier_reads(config):
    head, inputs = build(config).eval(), maps()
    before = head(inputs)
    channels = install_tap(head)
    torch.testing.assert_close(head(inputs), before, rtol=0, atol=0)
    with tapping(head):
        logits, features = tapped(head(inputs), head)
    assert torch.equal(logits, before)
    assert features.shape[1] == channels
    torch.testing.assert_close(head.conv_seg(features), logits)
    assert torch.equal(head(inputs), before)


def test_tap_before_and_after_the_dropout():
    config = dict(ONE, type='FCNHead', num_convs=1, dropout_ratio=0.5)
    inputs = maps()
    for after in (False, True):
        head = build(config).train()
        install_tap(head, after_dropout=after)
        with tapping(head):
            logits, features = head(inputs)
        dropped = (features == 0).all(dim=-1).all(dim=-1)
        assert dropped.any() == after
        assert torch.allclose(head.conv_seg(features), logits) == after


def test_gradient_flows_through_the_features():
    head = build(dict(ONE, type='FCNHead', num_convs=1))
    install_tap(head)
    with tapping(head):
        _, features = head(maps())
    features.sum().backward()
    assert head.convs[0].conv.weight.grad.abs().sum() > 0
    assert head.conv_seg.weight.grad is None


def test_copies_have_a_tap_of_their_own():
    head, inputs = build(dict(ONE, type='FCNHead', num_convs=1)).eval(), maps()
    install_tap(head)
    other = copy.deepcopy(head)
    with torch.no_grad():
        other.conv_seg.bias.add_(1)
    torch.testing.assert_close(other(inputs), head(inputs) + 1)
    with tapping(other):
        assert tapped(other(inputs), other).logits.shape == head(inputs).shape
        assert isinstance(head(inputs), torch.Tensor)


def test_tap_closes_after_an_error():
    head = build(dict(ONE, type='FCNHead', num_convs=1))
    install_tap(head)
    with pytest.raises(RuntimeError), tapping(head):
        raise RuntimeError
    assert isinstance(head(maps()), torch.Tensor)


def test_heads_with_a_classifier_of_their_own_are_refused():
    # As PointHead, whose construction needs compiled operations.
    class OwnClassifierHead(FCNHead):
        cls_seg = PointHead.cls_seg

    head = OwnClassifierHead(num_convs=1, in_channels=16, channels=8, num_classes=4)
    with pytest.raises(ValueError, match='OwnClassifierHead overrides the classifier'):
        install_tap(head)
    transformer = build(
        dict(
            type='SegmenterMaskTransformerHead',
            in_channels=16,
            channels=16,
            num_classes=4,
            num_layers=1,
            num_heads=2,
            embed_dims=16,
            in_index=-1,
        )
    )
    with pytest.raises(
        ValueError, match='classifier of SegmenterMaskTransformerHead is not a conv'
    ):
        install_tap(transformer)


@pytest.mark.parametrize(
    ('config', 'channels'),
    [
        (dict(ONE, type='DAHead', pam_channels=4), [16]),
        (dict(COMMON, type='EncHead', in_channels=[8, 16], in_index=[0, 1], num_codes=4), [8, 16]),
        (dict(COMMON, type='PIDHead', in_channels=16), [8, 16, 8]),
    ],
    ids=['DAHead', 'EncHead', 'PIDHead'],
)
def test_heads_that_return_something_else_are_refused(config, channels):
    head = build(config).train()
    install_tap(head)
    inputs = [torch.randn(2, c, 6, 6) for c in channels]
    sentence = f'forward method of {config["type"]} does not end in its one cls_seg call'
    with tapping(head), pytest.raises(ValueError, match=sentence):
        tapped(head(inputs), head)


def test_method_refuses_such_a_network_in_one_sentence():
    segmentor = tiny_segmentor(type='DAHead', pam_channels=4)
    for key in ('num_convs', 'concat_input'):
        del segmentor['decode_head'][key]
    model = ESL(segmentor, semi_train_cfg={'projector': {'channels': 8}}).train()
    with pytest.raises(
        ValueError, match='forward method of DAHead does not end in its one cls_seg call'
    ):
        model.forward_network(model.student, torch.randn(2, 3, 32, 32), tap=True)


def deep(**settings):
    head = dict(ONE, type='FCNHead', num_convs=1, dropout_ratio=0)
    return dict(type='DeepClassifierHead', head=head, **settings)


def test_deep_classifier_is_the_head_with_convolutions():
    head, inputs = build(deep(num_convs=2, channels=6, dropout_ratio=0.3)).eval(), maps()
    assert type(head).__name__ == 'FCNHead'
    assert head.dropout.p == 0.3
    assert [block.conv.weight.shape[:2] for block in head.classifier_convs] == [(6, 8), (6, 6)]
    assert head.conv_seg.weight.shape == (4, 6, 1, 1)
    install_tap(head)
    with tapping(head):
        logits, features = head(inputs)
    assert features.shape[1] == 8
    torch.testing.assert_close(head.conv_seg(head.classifier_convs(features)), logits)
    assert build(deep(dropout_ratio=0)).dropout is None


def test_deep_classifier_has_no_dropout_at_the_tap():
    with pytest.raises(ValueError, match='tap_after_dropout=True does not work with'):
        install_tap(build(deep()), after_dropout=True)


@pytest.mark.parametrize('last_act', [True, False])
def test_stack_of_convolutions(last_act):
    head = build(dict(ONE, type='FCNHead', num_convs=1))
    stack = conv_stack(head, 8, 3, 6, 5, last_act)
    out = stack(torch.randn(2, 8, 5, 5))
    assert out.shape == (2, 5, 5, 5)
    assert (out >= 0).all() == last_act
    assert [block.with_norm for block in stack] == [True, True, last_act]
    assert [block.with_activation for block in stack] == [True, True, last_act]


def test_stack_has_batch_normalization_where_the_head_has_none():
    head = build(dict(ONE, type='FCNHead', num_convs=1, norm_cfg=None))
    assert conv_stack(head, 8, 1, 6)[0].norm_name == 'bn'
    with pytest.raises(ValueError, match='num_convs=0'):
        conv_stack(head, 8, 0, 6)
