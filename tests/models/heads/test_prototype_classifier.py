"""The classifier by prototypes, alone and inside stock heads."""

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from tiny import NUM_CLASSES, tiny_segmentor

from mmseg_semi.models import PrototypeClassifier

PRESENT = torch.tensor([True, False, True])


def started(temperature=0.5, **settings):
    classifier = PrototypeClassifier(3, 2, temperature)
    means = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]])
    classifier.start(means, PRESENT, **settings)
    return classifier


def test_logits_are_cosines_over_the_temperature():
    logits = started()(torch.tensor([0.0, 5.0]).view(1, 2, 1, 1))
    torch.testing.assert_close(logits[0, [0, 2], 0, 0], torch.tensor([0.8, 1.0]) / 0.5)
    assert logits[0, 1] == -10002
    assert logits.softmax(dim=1)[0, 1] == 0


def test_unseen_class_has_probability_zero_behind_any_upsampling():
    features = torch.randn(2, 2, 5, 7)
    for corners in (True, False):
        full = F.interpolate(started()(features), (33, 51), mode='bilinear', align_corners=corners)
        probs = full.softmax(dim=1)
        assert torch.isfinite(full).all()
        assert (probs[:, 1] == 0).all()
        torch.testing.assert_close(probs[:, [0, 2]].sum(dim=1), torch.ones(2, 33, 51))


def test_start_sets_what_is_new_alone():
    classifier = started()
    torch.testing.assert_close(classifier.vectors, torch.tensor([[0.6, 0.8], [0, 0], [0, 1]]))
    assert classifier.seen.tolist() == [True, False, True]
    classifier.start(torch.eye(3)[:, :2], torch.tensor([True, True, False]))
    torch.testing.assert_close(classifier.vectors, torch.tensor([[0.6, 0.8], [0, 1], [0, 1]]))
    assert started(normalize=False).vectors[0].tolist() == [3, 4]


def test_follow_is_a_moving_average_of_directions():
    classifier = started()
    before = classifier.vectors.clone()
    means = torch.tensor([[0.0, 9.0], [7.0, 0.0], [torch.nan, 1.0]])
    classifier.follow(means, torch.ones(3, dtype=torch.bool), 0.9)
    expected = F.normalize(torch.tensor([[0.54, 0.82]]), dim=1)[0]
    torch.testing.assert_close(classifier.vectors[0], expected)
    assert classifier.vectors[1].tolist() == [1, 0]  # set: it had none
    assert torch.equal(classifier.vectors[2], before[2])  # not finite: left out
    raw = started(normalize=False)
    raw.follow(means, PRESENT, 0.9, normalize=False)
    torch.testing.assert_close(raw.vectors[0], torch.tensor([2.7, 4.5]))


def test_pixels_of_unseen_classes_are_void():
    label = torch.tensor([[[0, 1, 2, 255]]])
    assert started().known(label).tolist() == [[[0, 255, 2, 255]]]
    assert label.tolist() == [[[0, 1, 2, 255]]]


def test_half_precision_gives_exact_cosines():
    features = torch.randn(1, 2, 4, 4)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert started()(features.bfloat16()).dtype == torch.float32
        inside = started()(features)
    torch.testing.assert_close(inside, started()(features), rtol=1e-6, atol=1e-6)


def test_zero_feature_has_cosine_zero_and_a_finite_gradient():
    features = torch.zeros(1, 2, 1, 1, requires_grad=True)
    logits = started()(features)
    logits[:, [0, 2]].sum().backward()
    assert (logits[0, [0, 2]] == 0).all()
    assert torch.isfinite(features.grad).all()


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match=r'temperature must be above 0, got 0'):
        PrototypeClassifier(2, 2, 0)


@pytest.mark.parametrize(
    'head',
    [
        {},
        {'type': 'PSPHead', 'pool_scales': (1, 2)},
        {'type': 'ASPPHead', 'dilations': (1, 2)},
    ],
)
def test_any_head_of_one_classifier(head):
    config = tiny_segmentor('GN')['decode_head']
    if head:
        config = {k: v for k, v in config.items() if k not in ('num_convs', 'concat_input')}
    built = MODELS.build({'type': 'PrototypeHead', 'head': {**config, **head}, 'temperature': 0.2})
    built.init_weights()
    assert built.conv_seg.vectors.shape == (NUM_CLASSES, 8)
    assert built.conv_seg.temperature == 0.2
    built.conv_seg.start(torch.rand(NUM_CLASSES, 8), torch.ones(NUM_CLASSES, dtype=torch.bool))
    features = [torch.randn(2, c, 8, 8) for c in (4, 8, 16, 32)]
    logits = built.eval()(features)
    assert logits.shape == (2, NUM_CLASSES, 8, 8)
    assert logits.abs().max() <= 1 / 0.2 + 1e-4
