"""The converter of weights for TIMMBackbone, on files with the names and shapes that are published."""

import functools
import importlib.util
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from networks import narrow, needs_timm

timm = pytest.importorskip('timm', reason="timm is not installed: pip install 'mmseg_semi[timm]'")

init_default_scope('mmseg')

TOOL = Path(__file__).resolve().parents[2] / 'tools/model_converters/timm_backbone.py'
spec = importlib.util.spec_from_file_location('timm_backbone', TOOL)
converter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(converter)

#: Width, blocks and attention heads of facebookresearch/dinov3's ViTs, and their parameters in timm.
VITS = {
    'small': (384, 12, 6, 21_586_944),
    'base': (768, 12, 12, 85_641_216),
    'large': (1024, 24, 16, 303_079_424),
}
#: Blocks and widths of its ConvNeXts.
CONVNEXTS = {
    'tiny': ((3, 3, 9, 3), (96, 192, 384, 768)),
    'small': ((3, 3, 27, 3), (96, 192, 384, 768)),
    'base': ((3, 3, 27, 3), (128, 256, 512, 1024)),
    'large': ((3, 3, 27, 3), (192, 384, 768, 1536)),
}


def norm(name: str, width: int) -> dict:
    return {f'{name}.weight': (width,), f'{name}.bias': (width,)}


def linear(name: str, inside: int, out: int) -> dict:
    return {f'{name}.weight': (out, inside), f'{name}.bias': (out,)}


def vit_shapes(width: int, depth: int, heads: int) -> dict:
    """Names and shapes of dinov3_vit*16_pretrain_*.pth."""
    shapes = {
        'cls_token': (1, 1, width),
        'storage_tokens': (1, 4, width),
        'mask_token': (1, width),
        'patch_embed.proj.weight': (width, 3, 16, 16),
        'patch_embed.proj.bias': (width,),
        'rope_embed.periods': (width // heads // 4,),
    }
    for i in range(depth):
        shapes |= norm(f'blocks.{i}.norm1', width)
        shapes |= linear(f'blocks.{i}.attn.qkv', width, 3 * width)
        shapes |= {f'blocks.{i}.attn.qkv.bias_mask': (3 * width,)}
        shapes |= linear(f'blocks.{i}.attn.proj', width, width)
        shapes |= {f'blocks.{i}.ls1.gamma': (width,)}
        shapes |= norm(f'blocks.{i}.norm2', width)
        shapes |= linear(f'blocks.{i}.mlp.fc1', width, 4 * width)
        shapes |= linear(f'blocks.{i}.mlp.fc2', 4 * width, width)
        shapes |= {f'blocks.{i}.ls2.gamma': (width,)}
    return shapes | norm('norm', width)


def convnext_shapes(depths: tuple, widths: tuple) -> dict:
    """Names and shapes of facebookresearch/ConvNeXt's files; DINOv3's have `norms.3` beside `norm`."""
    shapes = {}
    for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        if i == 0:
            conv = {'downsample_layers.0.0.weight': (width, 3, 4, 4)}
            shapes |= conv | norm('downsample_layers.0.1', width)
        else:
            conv = {f'downsample_layers.{i}.1.weight': (width, widths[i - 1], 2, 2)}
            shapes |= norm(f'downsample_layers.{i}.0', widths[i - 1]) | conv
        shapes |= {f'downsample_layers.{i}.{0 if i == 0 else 1}.bias': (width,)}
        for j in range(depth):
            block = f'stages.{i}.{j}'
            shapes |= {f'{block}.gamma': (width,), f'{block}.dwconv.weight': (width, 1, 7, 7)}
            shapes |= {f'{block}.dwconv.bias': (width,)} | norm(f'{block}.norm', width)
            shapes |= linear(f'{block}.pwconv1', width, 4 * width)
            shapes |= linear(f'{block}.pwconv2', 4 * width, width)
    return shapes | norm('norm', widths[-1])


def drawn(shapes: dict) -> dict:
    generator = torch.Generator().manual_seed(7)
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for name in weights:
        if name.endswith('qkv.bias'):  # as published
            weights[name].zero_()
    return weights


@pytest.fixture
def without_values(monkeypatch):
    """Networks and weights of real widths take no memory."""
    # timm reads its rates of stochastic depth as numbers.
    monkeypatch.setattr(torch, 'linspace', functools.partial(torch.linspace, device='cpu'))
    with torch.device('meta'):
        yield


@pytest.fixture
def narrow_vit(monkeypatch):
    """DINOv3 with the layers of tests/networks.py."""
    needs_timm('vit_small_patch16_dinov3')
    config = narrow('dpt_dinov3-s16')['backbone']
    widths = {key: config[key] for key in ('embed_dim', 'depth', 'num_heads')}
    create = timm.create_model
    monkeypatch.setattr(timm, 'create_model', lambda *a, **k: create(*a, **{**widths, **k}))
    return vit_shapes(widths['embed_dim'], widths['depth'], widths['num_heads'])


def segmentor(path: Path) -> dict:
    config = narrow('dpt_dinov3-s16', backbone__patch_size=16)
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(path)}
    config['backbone']['init_cfg'] = init_cfg
    config['neck']['init_cfg'] = {**init_cfg, 'prefix': 'timm_model.model.norm.'}
    return config


def test_published_dinov3_reaches_both_networks(narrow_vit, tmp_path):
    weights = drawn(narrow_vit)
    torch.save(weights, tmp_path / 'vit.pth')
    arguments = ['vit_small_patch16_dinov3', str(tmp_path / 'new' / 'vit.pth')]
    converter.main([*arguments, '--src', str(tmp_path / 'vit.pth')])
    model = MODELS.build({'type': 'IMAS', 'segmentor': segmentor(tmp_path / 'new' / 'vit.pth')})
    model.init_weights()
    named = {'storage_tokens': 'reg_token', 'ls1.gamma': 'gamma_1', 'ls2.gamma': 'gamma_2'}
    unused = ('mask_token', 'rope_embed.periods', 'qkv.bias', 'qkv.bias_mask')
    for network in (model.student, model.teacher):
        own, expected = network.state_dict(), {}
        for name, value in weights.items():
            for old, new in named.items():
                name = name.replace(old, new)
            if name.startswith('norm.'):
                expected[name.replace('norm', 'neck')] = value
            elif not name.endswith(unused):
                expected[f'backbone.timm_model.model.{name}'] = value
        assert {name for name in own if not name.startswith('decode_head')} == expected.keys()
        assert all(torch.equal(own[name], value) for name, value in expected.items())


def test_a_file_of_timm_is_read_too(narrow_vit, tmp_path):
    save_file = pytest.importorskip('safetensors.torch').save_file
    whole = timm.create_model('vit_small_patch16_dinov3', num_classes=0)
    save_file(whole.state_dict(), tmp_path / 'model.safetensors')
    arguments = ['vit_small_patch16_dinov3', str(tmp_path / 'vit.pth')]
    converter.main([*arguments, '--src', str(tmp_path / 'model.safetensors')])
    model = MODELS.build(segmentor(tmp_path / 'vit.pth'))
    model.init_weights()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        got = model.eval().extract_feat(image)
        expected = whole.eval().forward_intermediates(image, norm=True, intermediates_only=True)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize('size', VITS)
def test_published_dinov3_of_real_widths(size, without_values):
    name = f'vit_{size}_patch16_dinov3'
    needs_timm(name)
    *widths, number = VITS[size]
    weights = {key: torch.empty(shape) for key, shape in vit_shapes(*widths).items()}
    for key in [key for key in weights if key.endswith('qkv.bias')]:
        del weights[key]  # without values, none is known to be 0
    found = converter.backbone_weights(name, weights)
    backbone = timm.create_model(name, features_only=True)
    expected = {f'timm_model.{key}': value.shape for key, value in backbone.state_dict().items()}
    expected |= {f'timm_model.model.norm.{key}': (widths[0],) for key in ('weight', 'bias')}
    assert {key: value.shape for key, value in found.items()} == expected
    assert sum(value.numel() for value in found.values()) == number


@pytest.mark.parametrize('size', CONVNEXTS)
@pytest.mark.parametrize('others', [{}, norm('norms.3', 768), linear('head', 768, 21841)])
def test_published_convnext_of_real_widths(size, others, without_values):
    name = f'convnext_{size}'
    shapes = convnext_shapes(*CONVNEXTS[size]) | others
    found = converter.backbone_weights(name, {k: torch.empty(s) for k, s in shapes.items()})
    expected = timm.create_model(name, features_only=True).state_dict()
    assert {key: value.shape for key, value in found.items()} == {
        f'timm_model.{key}': value.shape for key, value in expected.items()
    }


def test_published_convnext_computes_what_mmpretrain_computes(tmp_path):
    """The same file in another implementation, up to the last stage, whose output timm does not normalize."""
    pytest.importorskip('mmpretrain.models')
    weights = drawn(convnext_shapes(*CONVNEXTS['tiny']))
    weights = {name: value * 0.05 for name, value in weights.items()}
    torch.save({'model': weights}, tmp_path / 'tiny.pth')
    converter.main(
        ['convnext_tiny', str(tmp_path / 'new.pth'), '--src', str(tmp_path / 'tiny.pth')]
    )
    ours = MODELS.build(
        dict(
            type='TIMMBackbone',
            model_name='convnext_tiny',
            out_indices=(0, 1, 2, 3),
            pretrained=False,
            init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'new.pth')),
        )
    )
    ours.init_weights()
    other = MODELS.build(dict(type='mmpretrain.ConvNeXt', arch='tiny', gap_before_final_norm=False))
    renamed = {}
    for name, value in weights.items():
        for old, new in {'dwconv': 'depthwise_conv', 'pwconv': 'pointwise_conv'}.items():
            name = name.replace(old, new)
        renamed[name.replace('norm.', 'norm3.') if name.startswith('norm.') else name] = value
    other.load_state_dict(renamed, strict=True)
    other.eval()
    image = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        got = ours.eval()(image)[-1]
        (expected,) = other(image)
        torch.testing.assert_close(other.norm3(got), expected, rtol=1e-4, atol=1e-5)


def test_biases_that_timm_would_drop_are_refused(narrow_vit):
    weights = drawn(narrow_vit)
    bias = weights['blocks.1.attn.qkv.bias']
    mask = torch.ones_like(bias)
    mask[16:32] = 0
    weights['blocks.1.attn.qkv.bias_mask'] = mask
    bias[20] = 1.0  # of the keys, which no attention sees
    converter.backbone_weights('vit_small_patch16_dinov3', weights)
    bias[40] = 1.0
    with pytest.raises(converter.ConversionError, match=r'blocks\.1.* is not 0 .*_qkvb as MODEL'):
        converter.backbone_weights('vit_small_patch16_dinov3', weights)
    found = converter.backbone_weights('vit_small_patch16_dinov3_qkvb', weights)
    assert torch.equal(found['timm_model.model.blocks.1.attn.v_bias'], bias[32:])


def test_another_file_is_refused(narrow_vit, tmp_path):
    weights = drawn(narrow_vit)
    lacking = {key: value for key, value in weights.items() if 'blocks.3.' not in key}
    with pytest.raises(converter.ConversionError, match=r'lacks 13 of the 56 tensors of vit_small'):
        converter.backbone_weights('vit_small_patch16_dinov3', lacking)
    weights['cls_token'] = torch.zeros(1, 1, 8)
    with pytest.raises(converter.ConversionError, match=r'shape \(1, 1, 8\) .* and \(1, 1, 16\)'):
        converter.backbone_weights('vit_small_patch16_dinov3', weights)


def test_no_file_of_a_convnext(tmp_path):
    with pytest.raises(converter.ConversionError, match='does not have'):
        converter.backbone_weights('convnext_atto', {'fc.weight': torch.zeros(2, 2)})
    with pytest.raises(converter.ConversionError, match=r'no\.pth does not exist'):
        converter.main(['convnext_atto', 'x.pth', '--src', str(tmp_path / 'no.pth')])


def test_a_download_that_fails_is_one_sentence(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError('no connection\nand a second line')

    monkeypatch.setattr(timm, 'create_model', fail)
    with pytest.raises(converter.ConversionError, match=r'\(no connection\)\. Download the file'):
        converter.download('convnext_atto')
