"""Distributions in a small form, against loops over pixels."""

import pytest
import torch

from mmseg_semi.functional.top_k import compress_probs, expand_probs


def draw(classes=5, images=2, height=3, width=4):
    torch.manual_seed(0)
    return (2 * torch.randn(images, classes, height, width)).softmax(dim=1)


@pytest.mark.parametrize('k', [1, 3, 5])
def test_against_a_loop(k):
    probs = draw()
    stored = compress_probs(probs, k)
    assert stored.shape == (2, 2 * k, 3, 4)
    assert stored.dtype == torch.uint8
    expanded = expand_probs(stored, 5)
    for n in range(2):
        for y in range(3):
            for x in range(4):
                pixel = probs[n, :, y, x].tolist()
                best = sorted(range(5), key=lambda c, pixel=pixel: -pixel[c])[:k]
                assert stored[n, :k, y, x].tolist() == best
                values = [round(255 * pixel[c]) for c in best]
                assert stored[n, k:, y, x].tolist() == values
                target = [values[best.index(c)] / sum(values) if c in best else 0 for c in range(5)]
                assert expanded[n, :, y, x].tolist() == pytest.approx(target, abs=1e-6)


def test_all_classes_are_kept_to_half_a_step():
    """With k = C what is lost is the rounding: at most 0.5/255 of each, before the division by the sum."""
    probs = draw(classes=3)
    error = (expand_probs(compress_probs(probs, 3), 3) - probs).abs().max()
    assert 0 < error < 3 / 255


def test_a_filled_pixel_has_no_target():
    stored = torch.zeros(1, 4, 1, 2, dtype=torch.uint8)
    stored[0, :, 0, 0] = torch.tensor([2, 1, 200, 55])
    found = expand_probs(stored, 3)
    assert found[0, :, 0, 0].tolist() == pytest.approx([0, 55 / 255, 200 / 255])
    assert found[0, :, 0, 1].tolist() == [0, 0, 0]


def test_the_largest_of_many_equal_ones_is_not_zero():
    """255 classes of 1/255 each are stored as 1."""
    stored = compress_probs(torch.full((1, 255, 1, 1), 1 / 255), 2)
    assert stored[0, 2:, 0, 0].tolist() == [1, 1]


@pytest.mark.parametrize(
    ('probs', 'k', 'sentence'),
    [
        (torch.ones(1, 3, 2), 1, r'probs has shape \(1, 3, 2\)'),
        (torch.ones(1, 256, 1, 1), 1, '1 to 255 classes'),
        (torch.ones(1, 3, 2, 2), 0, 'k is 0'),
        (torch.ones(1, 3, 2, 2), 4, 'k is 4, but must be from 1 to the 3 classes'),
    ],
)
def test_what_does_not_fit(probs, k, sentence):
    with pytest.raises(ValueError, match=sentence):
        compress_probs(probs, k)


def test_an_odd_number_of_channels():
    with pytest.raises(ValueError, match=r'must be \(N, 2 k, H, W\)'):
        expand_probs(torch.zeros(1, 3, 1, 1, dtype=torch.uint8), 3)
