"""The steps of U2PL's contrast on a few pixels whose numbers are worked out by hand."""

import math

import pytest
import torch

from mmseg_semi.models import NegativeContrast
from mmseg_semi.models.negative_contrast import ContrastPixels

C, D = 3, 2
#: Of one labeled and one unlabeled image of two pixels: each class's probability.
PROBS = torch.tensor([[[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]], [[0.3, 0.3, 0.4], [0.2, 0.5, 0.3]]])
PROBS = PROBS.transpose(1, 2)[:, :, None]
PIXELS = ContrastPixels(
    truth=torch.tensor([[[1, 255]]]),
    pseudo=torch.tensor([[[2, 1]]]),
    candidates=torch.tensor([[[255, 1]]]),
    unreliable=torch.tensor([[[True, False]]]),
)


def build(**settings):
    small = dict(low_rank=1, high_rank=2, queue_size=4, background_queue_size=4, keys_per_step=4)
    cfg = NegativeContrast.Settings({**small, 'num_anchors': 4, 'num_negatives': 3, **settings})
    return NegativeContrast(cfg, C, D)


def test_anchors_exceed_the_threshold():
    label = torch.cat([PIXELS.truth, PIXELS.candidates])
    anchors = build(anchor_threshold=0.5).anchors(PROBS, label)
    assert anchors.tolist() == [[[255, 255]], [[255, 255]]]
    anchors = build(anchor_threshold=0.4).anchors(PROBS, label)
    assert anchors.tolist() == [[[255, 255]], [[255, 1]]]
    anchors = build(anchor_threshold=0.1).anchors(PROBS, label)
    assert anchors.tolist() == [[[1, 255]], [[255, 1]]]


def classes_of(negatives):
    """The classes of each pixel."""
    return [
        column.nonzero().flatten().tolist() for column in negatives.transpose(0, 1).flatten(1).T
    ]


def test_negatives_are_labeled_pixels_of_low_ranks_and_unreliable_ones_of_middle_ranks():
    # The labeled pixel ranks class 0 first, but is of class 1; the other one has no label. Of the unreliable
    # pixel class 0 has rank 1, as the first of two that are equal.
    assert classes_of(build().negatives(PROBS, PIXELS)) == [[0], [], [0], []]
    assert classes_of(build(low_rank=2, high_rank=3).negatives(PROBS, PIXELS)) == [[0], [], [1], []]
    # The code: the class is also the pseudo-label, which is of the pass before CutMix.
    of_code = build(negatives='code')
    assert classes_of(of_code.negatives(PROBS, PIXELS)) == [[], [], [], []]
    pixels = PIXELS._replace(pseudo=torch.tensor([[[0, 1]]]))
    assert classes_of(of_code.negatives(PROBS, pixels)) == [[], [], [0], []]


FEATURES = torch.tensor([[[[1.0, 5.0]], [[2.0, 6.0]]], [[[3.0, 7.0]], [[4.0, 8.0]]]])


@pytest.mark.parametrize(
    ('center_pixels', 'center'), [('anchors', [7.0, 8.0]), ('all', [4.0, 5.0])]
)
def test_a_step_stores_the_negatives_and_averages_the_anchors(center_pixels, center):
    contrast = build(center_pixels=center_pixels)
    anchors, centers = contrast.remember(FEATURES, PROBS.log(), PIXELS)
    assert anchors.tolist() == [[[255, 255]], [[255, 1]]]
    torch.testing.assert_close(centers, torch.tensor([[0.0, 0.0], center, [0.0, 0.0]]))
    assert contrast.bank.fill.tolist() == [2, 0, 0]
    assert sorted(contrast.bank.entries[:2].tolist()) == [[1, 2], [3, 4]]


def test_the_loss_is_eq_4():
    contrast = build(temperature=0.5)
    anchors = torch.tensor([[[1, 255]], [[255, 255]]])
    centers = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 1.0]])
    features = torch.zeros(2, D, 1, 2).index_fill(1, torch.tensor([0]), 3.0).requires_grad_()
    # An empty bank and classes without an anchor give 0.
    loss, log = contrast.loss(features, anchors, centers)
    assert loss == log['contrast_accuracy'] == log['bank_fill_ratio'] == 0
    assert log['anchor_classes_ratio'].item() == pytest.approx(1 / 3)
    # One negative in the bank of class 1, drawn three times: at a right angle to the anchor.
    contrast.bank.append(torch.tensor([[[0.0, 9.0]] * C]), torch.tensor([[False, True, False]]))
    loss, log = contrast.loss(features, anchors, centers)
    of_class = -math.log(math.exp(2) / (math.exp(2) + 3 * math.exp(0)))
    assert loss.item() == pytest.approx(of_class / 3)
    assert log['contrast_accuracy'] == 1
    assert log['bank_fill_ratio'].item() == pytest.approx(1 / 4 / 3)
    loss.backward()
    # Away from the negative, and only where the anchor is.
    assert features.grad[0, 1, 0, 0] > 0
    assert features.grad.count_nonzero() == 1
    loss, _ = build(class_average='present').loss(features, anchors, centers)
    assert loss == 0
    present = build(class_average='present')
    present.bank.load_state_dict(contrast.bank.state_dict())
    assert present.loss(features, anchors, centers)[0].item() == pytest.approx(of_class)


def test_settings_that_leave_no_negatives_are_refused():
    with pytest.raises(ValueError, match=r'high_rank must be above low_rank=3, got 3'):
        NegativeContrast.Settings({'high_rank': 3})
    with pytest.raises(
        ValueError, match=r'low_rank must be below .*, 3, got 3\. Set it to at most 2'
    ):
        NegativeContrast(NegativeContrast.Settings(), C, D)
