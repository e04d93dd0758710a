"""No method counts padding among the classes of its pseudo-labels, whether it learns padding or not."""

import pytest
import torch
from mmseg.registry import MODELS
from tiny import collated_batch, tiny_segmentor, unlabeled_sample
from tiny_run import METHODS

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
