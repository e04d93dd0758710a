"""Masks of channels by their numbers and statistics, and what applying them does."""

import pytest
import torch

from mmseg_semi.functional.perturbation import (
    sample_channel_masks,
    sample_complementary_masks,
    scale_channels,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize('ratio', [0.0, 0.25, 0.5])
def test_dropped_channels_keep_the_expected_value(ratio):
    first, second = sample_channel_masks(50, [400, 30], ratio, generator=seeded())
    assert first.shape == (50, 400)
    assert second.shape == (50, 30)
    torch.testing.assert_close(first.unique(), torch.tensor([0.0, 1 / (1 - ratio)])[ratio == 0 :])
    assert abs((first == 0).float().mean() - ratio) < 0.01
    assert abs(first.mean() - 1) < 0.02
    if ratio:  # images are drawn independently
        assert len(first.unique(dim=0)) == 50


def test_stages_of_one_width_are_dropped_independently():
    first, second = sample_channel_masks(4, [64, 64], generator=seeded())
    assert 0.3 < (first == second).float().mean() < 0.7


@pytest.mark.parametrize('num', [1, 2, 5, 8])
def test_complementary_masks_complement_each_other(num):
    (mask,) = sample_complementary_masks(num, [200], 1.0, generator=seeded())
    first, second = mask.chunk(2)
    assert mask.shape == (2 * num, 200)
    assert set(mask.unique().tolist()) == {0, 2}
    # What one view keeps, doubled, the other drops.
    assert torch.equal(first + second, torch.full((num, 200), 2.0))
    assert (first * second == 0).all()
    assert abs((first == 0).float().mean() - 0.5) < 0.12


@pytest.mark.parametrize(('num', 'dropped'), [(1, 1), (2, 1), (4, 2), (5, 3)])
def test_a_share_of_the_images_is_left_whole(num, dropped):
    chosen = set()
    for seed in range(20):
        (mask,) = sample_complementary_masks(num, [40], 0.5, generator=seeded(seed))
        first, second = mask.chunk(2)
        whole = (first == 1).all(dim=1)
        assert torch.equal(whole, (second == 1).all(dim=1))
        assert num - whole.sum() == dropped
        assert not (first[~whole] == 1).any()
        chosen.add(tuple(whole.tolist()))
    assert len(chosen) > 1 or num == dropped  # another one each time


def test_nothing_is_dropped_with_probability_zero():
    for mask in sample_complementary_masks(3, [4, 8], 0.0, generator=seeded()):
        assert (mask == 1).all()


def test_stages_of_one_width_share_the_complementary_mask():
    first, second, third = sample_complementary_masks(2, [64, 32, 64], 1.0, generator=seeded())
    assert torch.equal(first, third)
    assert second.shape == (4, 32)
    assert not torch.equal(first[:, :32], second)


@pytest.mark.parametrize('shape', [(2, 3, 4, 5), (2, 3)])
def test_channels_are_scaled_whole(shape):
    features = torch.randn(shape, dtype=torch.bfloat16, requires_grad=True)
    mask = torch.tensor([[0.0, 2.0, 1.0], [2.0, 0.0, 0.0]])
    scaled = scale_channels(features, mask)
    assert scaled.dtype == torch.bfloat16
    for image in range(2):
        for channel in range(3):
            expected = features[image, channel] * mask[image, channel]
            assert torch.equal(scaled[image, channel], expected)
    scaled.sum().backward()
    assert torch.equal(features.grad.reshape(2, 3, -1)[..., 0].float(), mask)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r'ratio is 1\.0, but a share of dropped channels'):
        sample_channel_masks(1, [2], 1.0)
    with pytest.raises(ValueError, match=r'prob is -0\.1, but a share of images'):
        sample_complementary_masks(1, [2], -0.1)
    with pytest.raises(ValueError, match=r'mask has shape \(2, 3\).* need \(2, 4\)'):
        scale_channels(torch.zeros(2, 4, 1, 1), torch.ones(2, 3))
