"""What a config with a network of timm says where something is missing, and which sizes its networks read."""

import sys
from pathlib import Path

import pytest
import torch
from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.models.backbones import TIMMBackbone as StockTIMMBackbone
from mmseg.registry import MODELS
from networks import narrow
from packaging.requirements import Requirement

from mmseg_semi.models.backbones import timm_backbone
from mmseg_semi.models.patches import patch_size

timm = pytest.importorskip('timm', reason="timm is not installed: pip install 'mmseg_semi[timm]'")

init_default_scope('mmseg')


def build(model_name, **settings):
    return MODELS.build(
        dict(
            type='TIMMBackbone',
            model_name=model_name,
            features_only=True,
            pretrained=False,
            **settings,
        )
    )


def test_the_range_is_that_of_the_extra():
    lines = (Path(__file__).parents[3] / 'requirements' / 'timm.txt').read_text().splitlines()
    (wanted,) = [Requirement(line) for line in lines if line and not line.startswith('#')]
    assert wanted == Requirement(f'timm{timm_backbone.SUPPORTED}')


def test_an_old_timm_lacks_a_network(monkeypatch):
    monkeypatch.setattr(timm, '__version__', '1.0.9')
    monkeypatch.setattr(timm, 'is_model', lambda name: 'dinov3' not in name)
    build('resnet10t')
    with pytest.raises(ImportError) as error:
        build('vit_small_patch16_dinov3')
    assert str(error.value) == (
        'timm 1.0.9 has no network vit_small_patch16_dinov3. Run `pip install "timm>=1.0.20,<1.1"`.'
    )


def test_no_version_has_a_network(monkeypatch):
    monkeypatch.setattr(timm, '__version__', '1.0.20')
    said = (
        r'^timm 1\.0\.20 has no network convnext_tinny\.fb_in22k\. Did you mean convnext_tiny\? '
        r'timm\.list_models\(\) lists all\.$'
    )
    with pytest.raises(ValueError, match=said):
        build('convnext_tinny.fb_in22k')


def test_timm_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(ImportError, match=r'^The network resnet10t is one of timm, .*Run `pip'):
        build('resnet10t')


def test_weights_that_are_not_there():
    backbone = build('resnet10t', init_cfg=dict(type='Pretrained', checkpoint='data/no.pth'))
    with pytest.raises(FileNotFoundError, match=r'data/no\.pth .*tools/model_converters'):
        backbone.init_weights()


def test_it_is_the_stock_network():
    torch.manual_seed(0)
    ours = build('resnet10t', out_indices=(1, 2))
    stock = StockTIMMBackbone('resnet10t', pretrained=False, out_indices=(1, 2))
    stock.load_state_dict(ours.state_dict())
    image = torch.rand(1, 3, 32, 48)
    for got, expected in zip(ours.eval()(image), stock.eval()(image), strict=True):
        assert torch.equal(got, expected)


def test_sizes_of_patches():
    settings = dict(embed_dim=16, depth=1, num_heads=2, out_indices=(0,))
    assert patch_size(build('vit_tiny_patch16_224', **settings)) == 16
    assert patch_size(build('vit_tiny_patch16_224', **settings, patch_size=8)) == 8
    assert patch_size(build('convnext_atto')) is None


@torch.no_grad()
def test_an_image_without_padding_is_padded_to_whole_patches():
    backbone = MODELS.build(narrow('dpt_dinov3-s16')['backbone']).eval()
    image = torch.rand(1, 3, 50, 61)
    padded = torch.zeros(1, 3, 56, 70)
    padded[..., :50, :61] = image
    for got, expected in zip(backbone(image), backbone(padded), strict=True):
        assert got.shape == (1, 16, 4, 5)
        torch.testing.assert_close(got, expected)


def test_sync_bn_keeps_the_activations():
    """timm's layers of batch normalization and activation, converted to SyncBN and back as by MMEngine."""
    torch.manual_seed(0)
    network = build('tf_efficientnet_lite0', out_indices=(1, 2)).eval()
    images, keys = torch.randn(2, 3, 32, 32), set(network.state_dict())
    with torch.no_grad():
        expected = network(images)
    for convert, kind in (
        (convert_sync_batchnorm, 'SyncBatchNormAct'),
        (convert_sync_batchnorm, 'SyncBatchNormAct'),
        (revert_sync_batchnorm, 'BatchNormAct2d'),
    ):
        network = convert(network).eval()
        assert type(network.timm_model.bn1).__name__ == kind
        assert set(network.state_dict()) == keys
        with torch.no_grad():
            for found, wanted in zip(network(images), expected, strict=True):
                torch.testing.assert_close(found, wanted)
    assert type(network.timm_model.blocks[0][0].bn1).__name__ == 'BatchNormAct2d'


def test_sync_bn_of_mmcv_is_refused():
    network = build('tf_efficientnet_lite0', out_indices=(1,))

    class SyncBatchNorm(torch.nn.Module):
        """As MMCV's, which is not a subclass of PyTorch's and needs its compiled operations."""

        __module__ = 'mmcv.ops.sync_bn'

    layer = SyncBatchNorm()
    layer.register_buffer('running_mean', torch.zeros(2))
    for name in ('drop', 'act'):
        layer.add_module(name, torch.nn.Identity())
    with pytest.raises(ValueError, match=r"activations of this timm network\. Set sync_bn='torch'"):
        network.add_module('timm_model', torch.nn.Sequential(layer))
