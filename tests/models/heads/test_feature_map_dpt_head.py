"""The DPT head against the published arithmetic, written down from the head's weights alone."""

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from networks import narrow


def head_and_maps(height: int, width: int):
    torch.manual_seed(0)
    head = MODELS.build(narrow('dpt_dinov2-s14')['decode_head']).eval().double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    maps = [torch.randn(2, 16, height, width, dtype=torch.float64) for _ in range(4)]
    return head, maps


def published(weights: dict, maps: list[torch.Tensor]) -> torch.Tensor:
    """Reassemble, fuse from the last layer to the first, each step at the size of the map that comes next."""

    def conv(x, name, padding=0, stride=1):
        bias = weights.get(f'{name}.bias')
        return F.conv2d(x, weights[f'{name}.weight'], bias, stride=stride, padding=padding)

    def residual(x, name):
        inner = conv(F.relu(x), f'{name}.conv1.conv', padding=1)
        return x + conv(F.relu(inner), f'{name}.conv2.conv', padding=1)

    def upsample(x, stride, name):
        bias = weights[f'{name}.bias']
        return F.conv_transpose2d(x, weights[f'{name}.weight'], bias, stride=stride)

    blocks = 'reassemble_blocks'
    maps = [conv(x, f'{blocks}.projects.{i}.conv') for i, x in enumerate(maps)]
    maps[0] = upsample(maps[0], 4, f'{blocks}.resize_layers.0')
    maps[1] = upsample(maps[1], 2, f'{blocks}.resize_layers.1')
    maps[3] = conv(maps[3], f'{blocks}.resize_layers.3', padding=1, stride=2)
    first, second, third, fourth = (conv(x, f'convs.{i}.conv', 1) for i, x in enumerate(maps))

    def fuse(x, number, size):
        x = residual(x, f'fusion_blocks.{number}.res_conv_unit2')
        x = F.interpolate(x, size, mode='bilinear', align_corners=True)
        return conv(x, f'fusion_blocks.{number}.project.conv')

    x = fuse(fourth, 0, third.shape[2:])
    x = fuse(x + residual(third, 'fusion_blocks.1.res_conv_unit1'), 1, second.shape[2:])
    x = fuse(x + residual(second, 'fusion_blocks.2.res_conv_unit1'), 2, first.shape[2:])
    double = tuple(2 * side for side in first.shape[2:])
    x = fuse(x + residual(first, 'fusion_blocks.3.res_conv_unit1'), 3, double)
    return conv(F.relu(conv(x, 'project.conv', 1)), 'conv_seg')


@pytest.mark.parametrize(('height', 'width'), [(5, 7), (4, 5), (3, 6), (4, 6), (1, 1)])
@torch.no_grad()
def test_logits_are_those_of_the_published_arithmetic(height, width):
    head, maps = head_and_maps(height, width)
    expected = published(head.state_dict(), maps)
    got = head([feature.clone() for feature in maps])
    assert got.shape[2:] == (8 * height, 8 * width)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    assert torch.equal(got.argmax(1), expected.argmax(1))


def test_every_weight_has_a_gradient_at_odd_grids():
    head, maps = head_and_maps(5, 7)
    head.train()(maps).square().mean().backward()
    missing = [name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []
