import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS

from mmseg_semi.models import PixelCrossEntropyLoss


def make(seed=0, classes=4):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 6, 6, generator=generator, dtype=torch.float64)
    label = torch.randint(0, classes, (2, 12, 12), generator=generator)
    label[0, :3] = 255
    return logits, label


def upsampled(logits):
    return F.interpolate(logits, (12, 12), mode='bilinear', align_corners=False)


def test_equals_the_mean_over_valid_pixels():
    logits, label = make()
    loss = MODELS.build({'type': 'PixelCrossEntropyLoss', 'loss_weight': 0.4})
    expected = 0.4 * F.cross_entropy(upsampled(logits), label, ignore_index=255)
    torch.testing.assert_close(loss(logits, label), expected)


def test_class_weight_multiplies_the_pixel_and_not_the_divisor():
    logits, label = make()
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0])
    per_pixel = F.cross_entropy(upsampled(logits), label, ignore_index=255, reduction='none')
    valid = label != 255
    factor = weight.double()[label.where(valid, torch.zeros_like(label))] * valid
    expected = (per_pixel * factor).sum() / valid.sum()
    torch.testing.assert_close(
        PixelCrossEntropyLoss(class_weight=weight.tolist())(logits, label), expected
    )


def test_ohem_keeps_the_hard_pixels():
    logits, label = make()
    probs = upsampled(logits).softmax(1)
    valid = label != 255
    target = probs.gather(1, label.where(valid, torch.zeros_like(label))[:, None])[:, 0]
    hard = valid & (target <= 0.3)
    assert 20 < hard.sum() < valid.sum()
    loss = PixelCrossEntropyLoss(ohem={'threshold': 0.3, 'min_kept': 10})
    torch.testing.assert_close(loss(logits, label), -target[hard].log().mean())


def test_all_void_is_zero_with_a_graph():
    logits, label = make()
    logits.requires_grad_()
    value = PixelCrossEntropyLoss()(logits, torch.full_like(label, 255))
    value.backward()
    assert value == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'loss_weight': -1.0}, 'loss_weight=-1.0 is negative'),
        ({'loss_name': 'ce'}, "loss_name='ce' does not contain 'loss'"),
        ({'ohem': {'min': 3}}, r"ohem has no option \['min'\]"),
        ({'ohem': {}, 'class_weight': [1.0]}, 'exclude each other'),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PixelCrossEntropyLoss(**settings)
