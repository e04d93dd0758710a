"""The papers' ResNet: stem, rounding of the max-pool, dilations."""

import pytest
import torch
from mmseg.models.backbones import ResNetV1c
from mmseg.registry import MODELS

import mmseg_semi  # noqa: F401  registers the backbone

NARROW = {'depth': 50, 'stem_channels': 8, 'base_channels': 4, 'norm_cfg': {'type': 'BN'}}


def _build(name: str = 'CeilPoolResNetV1c', **settings):
    network = MODELS.build({'type': name, **NARROW, **settings})
    network.eval()  # returns None
    return network


@pytest.mark.parametrize(
    ('side', 'ceil', 'floor'),
    # The stem halves a side, rounding up: 500 -> 250, 513 -> 257, 375 -> 188, 366 -> 183.
    [(500, 126, 125), (513, 129, 129), (375, 95, 94), (366, 92, 92)],
)
def test_max_pool_rounds_up(side, ceil, floor):
    image = torch.zeros(1, 3, side, 65)
    with torch.no_grad():
        assert _build()(image)[0].shape[2:] == (ceil, 17)
        assert _build('ResNetV1c')(image)[0].shape[2:] == (floor, 17)


def test_takes_the_weights_of_resnet_v1c():
    torch.manual_seed(0)
    ours, stock = _build(), _build('ResNetV1c')
    ours.load_state_dict(stock.state_dict())
    image = torch.rand(1, 3, 65, 65)
    with torch.no_grad():
        for mine, theirs in zip(ours(image), stock(image), strict=True):
            torch.testing.assert_close(mine, theirs)
    assert isinstance(ours, ResNetV1c)


def test_stem_of_128_channels():
    network = _build(stem_channels=128)
    widths = [m.out_channels for m in network.stem if isinstance(m, torch.nn.Conv2d)]
    assert widths == [64, 64, 128]
