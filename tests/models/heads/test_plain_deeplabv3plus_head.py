"""The papers' DeepLabv3+ decoder."""

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import nn

import mmseg_semi  # noqa: F401  registers the head


def _build(kind='PlainDeepLabV3PlusHead', **settings):
    torch.manual_seed(0)
    return MODELS.build(
        {
            'type': kind,
            'in_channels': 16,
            'in_index': 3,
            'channels': 8,
            'dilations': (1, 2, 3),
            'c1_in_channels': 4,
            'c1_channels': 6,
            'dropout_ratio': 0,
            'num_classes': 5,
            'norm_cfg': {'type': 'BN'},
            'align_corners': True,
            'loss_decode': {'type': 'PixelCrossEntropyLoss'},
            **settings,
        }
    )


def _features(batch=2):
    torch.manual_seed(1)
    channels, sides = (4, 8, 12, 16), (17, 9, 5, 5)
    return [torch.rand(batch, c, s, s) for c, s in zip(channels, sides, strict=True)]


def test_is_the_published_decoder():
    head = _build().eval()
    features = _features()
    low, deep = features[0], features[3]

    def block(x, module, **kwargs):
        x = F.conv2d(x, module.conv.weight, None, **kwargs)
        bn = module.bn
        return F.relu(F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias))

    pooled = block(deep.mean((2, 3), keepdim=True), head.image_pool[1]).expand(-1, -1, 5, 5)
    rates = [block(deep, head.aspp_modules[0])]
    rates += [block(deep, head.aspp_modules[i], padding=r, dilation=r) for i, r in ((1, 2), (2, 3))]
    deep = block(torch.cat([pooled, *rates], 1), head.bottleneck)
    deep = F.interpolate(deep, size=(17, 17), mode='bilinear', align_corners=True)
    x = torch.cat([block(low, head.c1_bottleneck), deep], 1)
    x = block(block(x, head.decoder[0], padding=1), head.decoder[1], padding=1)
    expected = F.conv2d(x, head.conv_seg.weight, head.conv_seg.bias)

    with torch.no_grad():
        torch.testing.assert_close(head(features), expected)


def test_all_convolutions_are_plain():
    head = _build()
    assert all(m.groups == 1 for m in head.modules() if isinstance(m, nn.Conv2d))
    assert head.bottleneck.conv.kernel_size == (1, 1)
    stock = _build('DepthwiseSeparableASPPHead')
    assert any(m.groups > 1 for m in stock.modules() if isinstance(m, nn.Conv2d))


def test_every_parameter_learns():
    head = _build().train()
    logits = head(_features())
    label = torch.randint(0, 5, (2, 33, 33))
    head.loss_decode(logits, label, align_corners=True).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())
