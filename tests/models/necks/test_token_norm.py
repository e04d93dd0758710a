"""The neck against torch's LayerNorm, and against the encoder that has it behind its last layer."""

import pytest
import torch
from mmseg.registry import MODELS
from mmseg.utils import register_all_modules
from networks import narrow
from torch import nn


@pytest.fixture(autouse=True)
def _scope():
    register_all_modules(init_default_scope=True)


@pytest.mark.parametrize('height', [2, 5])
def test_places_are_normalized_scaled_and_shifted_as_by_a_layer_norm(height):
    torch.manual_seed(0)
    neck = MODELS.build({'type': 'TokenNorm', 'channels': 16})
    norm = nn.LayerNorm(16, eps=1e-6)
    for module in (neck, norm):
        assert module.weight.eq(1).all()
        assert module.bias.eq(0).all()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    neck.load_state_dict(norm.state_dict())
    several = [torch.randn(2, 16, height, 3) * 5 + 2 for _ in range(2)]
    for maps, got in zip(several, neck(several), strict=True):
        expected = norm(maps.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(maps.shape)
        torch.testing.assert_close(got, expected)
    sum(got.square().sum() for got in neck(several)).backward()
    assert neck.weight.grad.all()
    assert neck.bias.grad.all()


@torch.no_grad()
def test_intermediate_layers_pass_the_final_layer_norm_of_the_checkpoint(tmp_path):
    """The last map is that of the encoder with its final LayerNorm, which normalizes the others, too."""
    torch.manual_seed(0)
    stock = MODELS.build(narrow('linear_dinov2-s14')).eval()
    nn.init.normal_(stock.backbone.ln1.weight)
    nn.init.normal_(stock.backbone.ln1.bias)
    path = str(tmp_path / 'dinov2.pth')
    torch.save({'state_dict': stock.state_dict()}, path)
    pretrained = {'type': 'Pretrained', 'checkpoint': path, 'prefix': 'backbone.'}
    config = narrow('dpt_dinov2-s14')
    config['backbone']['init_cfg'] = pretrained
    config['neck']['init_cfg'] = {**pretrained, 'prefix': 'backbone.ln1.'}
    network = MODELS.build(config).eval()
    network.init_weights()
    images = torch.randn(2, 3, 42, 70)
    maps = network.extract_feat(images)
    assert len(maps) == 4
    torch.testing.assert_close(maps[-1], stock.extract_feat(images)[0])
    raw = network.backbone(images)
    for feature, got in zip(raw, maps, strict=True):
        expected = stock.backbone.ln1(feature.movedim(1, -1)).movedim(-1, 1)
        torch.testing.assert_close(got, expected)
