"""U2PL's split, ranks and negatives against numbers done by hand and NumPy."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmseg_semi.functional.reliability import (
    class_rank,
    labeled_negatives,
    masked_quantile,
    pixel_entropy,
    unlabeled_negatives,
    unreliable_mask,
    unreliable_share,
)


def test_entropy_by_hand():
    # Certain, even, and a quarter against three quarters.
    logits = torch.tensor([[50.0, 0.0, 0.0], [0.0, 0.0, math.log(3)]])[None, :, None]
    expected = [0, math.log(2), -0.25 * math.log(0.25) - 0.75 * math.log(0.75)]
    torch.testing.assert_close(pixel_entropy(logits)[0, 0], torch.tensor(expected))


@pytest.mark.parametrize('align_corners', [True, False])
def test_entropy_is_of_the_upsampled_logits(align_corners):
    logits = torch.randn(3, 5, 4, 6, dtype=torch.float64)
    full = F.interpolate(logits, (9, 11), mode='bilinear', align_corners=align_corners)
    expected = torch.distributions.Categorical(logits=full.movedim(1, -1)).entropy()
    found = pixel_entropy(logits, (9, 11), align_corners)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


def test_entropy_of_half_precision_is_float32_and_carries_no_gradient():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = pixel_entropy(logits.bfloat16(), 4)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    torch.testing.assert_close(found, pixel_entropy(logits.bfloat16().float(), 4))


def test_share_falls_to_zero():
    shares = [unreliable_share(step, 80, 0.2) for step in (0, 20, 40, 79, 80, 90)]
    assert shares == pytest.approx([0.2, 0.15, 0.1, 0.0025, 0, 0])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [((-1, 80, 0.2), 'step is -1'), ((0, 0, 0.2), 'length is 0'), ((0, 80, 20), 'start is 20')],
)
def test_bad_schedules_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        unreliable_share(*arguments)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-9, 9, width=32), st.booleans()), min_size=1, max_size=12),
    st.floats(0, 1),
)
def test_quantile_is_numpys(pairs, share):
    values = torch.tensor([value for value, _ in pairs], dtype=torch.float64)
    mask = torch.tensor([there for _, there in pairs])
    found = masked_quantile(values, share, mask)
    if mask.any():
        expected = np.percentile(values[mask].numpy(), 100 * share)
        assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)
    else:
        assert found.item() == math.inf


def test_quantile_refuses_what_is_no_share():
    with pytest.raises(ValueError, match='share is 20'):
        masked_quantile(torch.zeros(3), 20, torch.ones(3).bool())
    with pytest.raises(ValueError, match='mask has shape'):
        masked_quantile(torch.zeros(3), 0.2, torch.ones(2).bool())


def test_the_highest_entropies_of_the_batch_are_unreliable():
    entropy = torch.tensor([[[0.1, 0.9, 0.3]], [[0.5, 0.7, 99.0]]])
    valid = torch.tensor([[[True, True, True]], [[True, True, False]]])
    # Of the five valid ones 0.4 are above the value between the third and the fourth: 0.5 + 0.4 · 0.2.
    mask, threshold = unreliable_mask(entropy, 0.4, valid)
    assert mask.tolist() == [[[False, True, False]], [[False, True, False]]]
    assert threshold.item() == pytest.approx(0.5 + 0.4 * 0.2)
    assert not unreliable_mask(entropy, 0.0, valid)[0].any()
    # Everything but the least, which is the threshold itself.
    assert unreliable_mask(entropy, 1.0, valid)[0].sum() == 4


def test_one_entropy_everywhere_and_no_valid_pixel_find_nothing_unreliable():
    same, valid = torch.zeros(2, 3, 3), torch.ones(2, 3, 3).bool()
    assert not unreliable_mask(same, 0.2, valid)[0].any()
    mask, threshold = unreliable_mask(same, 0.2, ~valid)
    assert not mask.any()
    assert threshold == math.inf


def test_ranks_by_hand():
    probs = torch.tensor([[0.1, 0.6, 0.3, 0.0], [0.25, 0.25, 0.25, 0.25]])
    ranks = class_rank(probs.t()[None, :, :, None])
    assert ranks[0, :, :, 0].t().tolist() == [[2, 0, 1, 3], [0, 1, 2, 3]]


def test_negatives_by_hand():
    # Three pixels that all rank the classes 2, 0, 3, 1.
    rank = torch.tensor([1, 3, 0, 2]).view(1, 4, 1, 1).expand(1, 4, 1, 3)
    label = torch.tensor([[[2, 1, 255]]])
    # The two most likely classes, 2 and 0, but the true one; void is a negative of none.
    found = labeled_negatives(rank, label, 2)[0, :, 0].t()
    assert found.int().tolist() == [[1, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    unreliable = torch.tensor([[[True, False, True]]])
    # Ranks 1 and 2: classes 0 and 3.
    found = unlabeled_negatives(rank, unreliable, 1, 3)[0, :, 0].t()
    assert found.int().tolist() == [[1, 0, 0, 1], [0, 0, 0, 0], [1, 0, 0, 1]]
    # Beyond the classes there is nothing to leave out.
    found = unlabeled_negatives(rank, unreliable, 1, 20)[0, :, 0].t()
    assert found[0].int().tolist() == [1, 1, 0, 1]


def test_bad_ranks_are_refused():
    rank = torch.zeros(1, 4, 2, 2).long()
    with pytest.raises(ValueError, match='low_rank is 3 and high_rank 3'):
        unlabeled_negatives(rank, torch.ones(1, 2, 2).bool(), 3, 3)
    with pytest.raises(ValueError, match='label has shape'):
        labeled_negatives(rank, torch.zeros(1, 2, 3).long(), 3)
    with pytest.raises(ValueError, match='rank has shape'):
        labeled_negatives(rank[0], torch.zeros(1, 2, 2).long(), 3)
