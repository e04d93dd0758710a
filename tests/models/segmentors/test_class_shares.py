"""Padding has no share among the classes of pseudo-labels, and class weights change the shares of labels."""

import pytest
import torch
from mmseg.registry import MODELS
from tiny import collated_batch, tiny_segmentor, unlabeled_sample
from tiny_run import METHODS

from mmseg_semi.models.alignment import LabeledWeights
from mmseg_semi.models.clock import Clock

LEARNED = ('loss_unlabeled', 'loss_consistency', 'loss_cps', 'loss_gps', 'loss_strong', 'loss_soft')


def batch_of(model):
    """A batch whose images are padded differently, and whose padding is of another look."""
    batch = collated_batch(2, 4)
    valid = torch.ones(4, 32, 32, dtype=torch.bool)
    valid[0, :, 12:] = False
    valid[1, 5:] = False
    valid[2, 24:, 8:] = False
    for branch in ('weak', 'strong', 'strong2'):
        batch['inputs'][branch].movedim(1, -1)[~valid] = 0
        batch['data_samples'][branch] = [unlabeled_sample(one) for one in valid]
    return model.data_preprocessor(batch, True)


@pytest.mark.parametrize('method', METHODS)
def test_padding_has_no_share(method):
    found = {}
    for ignore_padding in (True, False):
        torch.manual_seed(0)
        # A classifier that tells real pixels and padding in several classes from the start.
        classifier = {'type': 'Normal', 'std': 2.0, 'override': {'name': 'conv_seg'}}
        segmentor = tiny_segmentor('BN', init_cfg=classifier)
        settings = {**METHODS[method][0], 'ignore_padding': ignore_padding}
        model = MODELS.build({'type': method, 'segmentor': segmentor, 'semi_train_cfg': settings})
        model.init_weights()
        model.train()
        model.clock = Clock(9)
        if method == 'DeS4':
            model.equalizer.class_counts.fill_(1)
        torch.manual_seed(1)
        found[ignore_padding] = model.loss(**batch_of(model))
    shares = [found[key]['pseudo_label_entropy'].item() for key in (True, False)]
    assert shares[0] == pytest.approx(shares[1], abs=1e-6)
    assert shares[0] > 0.05
    # The setting acts: what is learned is not the same.
    key = next(key for key in found[True] if key in LEARNED)
    assert found[True][key] != found[False][key]


def losses_with(*losses):
    """A tiny segmentor with these losses in the decode head."""
    return tiny_segmentor('BN', loss_decode=list(losses))


WEIGHTED = {'type': 'CrossEntropyLoss', 'class_weight': [1.0, 2.0, 3.0, 6.0]}


@pytest.mark.parametrize('method', ['UniMatchV2', 'IMAS'])
@pytest.mark.parametrize(
    ('losses', 'expected'),
    [
        # MMSegmentation's loss is divided by the weights of its pixels.
        ([WEIGHTED], ([[1.0, 2.0, 3.0, 6.0]], [1.0], [True])),
        ([{**WEIGHTED, 'type': 'PixelCrossEntropyLoss'}], ([[1.0, 2.0, 3.0, 6.0]], [1.0], [False])),
        (
            [{**WEIGHTED, 'loss_weight': 2.0}, {'type': 'DiceLoss', 'loss_weight': 3.0}],
            ([[1.0, 2.0, 3.0, 6.0], [1.0] * 4], [0.4, 0.6], [True, False]),
        ),
        ([{'type': 'CrossEntropyLoss'}], ([[1.0] * 4], [1.0], [False])),
    ],
)
def test_adjustment_knows_the_class_weights_of_the_labeled_loss(method, losses, expected):
    settings = {'adjust_logits': True}
    model = MODELS.build(
        {'type': method, 'segmentor': losses_with(*losses), 'semi_train_cfg': settings}
    )
    for name, value in zip(LabeledWeights._fields, expected, strict=True):
        torch.testing.assert_close(getattr(model.adjustment, name), torch.tensor(value))


def test_class_weights_of_other_classes_are_refused():
    segmentor = losses_with({**WEIGHTED, 'class_weight': [1.0, 2.0]})
    with pytest.raises(ValueError, match=r'has shape \(2,\), .* num_classes=4\. Give one weight'):
        MODELS.build(
            {'type': 'IMAS', 'segmentor': segmentor, 'semi_train_cfg': {'adjust_logits': True}}
        )
