"""The loss of a batch with labeled images and images with soft labels, against one-hot and dense formulas."""

import copy

import pytest
import torch
from host_reads import ReadsByTheHost
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from tiny import build_plain

from mmseg_semi.functional.top_k import compress_probs, expand_probs
from mmseg_semi.models.soft_targets import learn_soft_targets

SIZE = 16


def sample(label, soft=None):
    found = SegDataSample(gt_sem_seg=PixelData(data=label[None]))
    if soft is not None:
        found.set_data({'gt_soft_seg': PixelData(data=soft)})
    return found


def batch():
    """Three images of which the last two have soft labels, with void in different places."""
    torch.manual_seed(1)
    images = torch.randn(3, 3, SIZE, SIZE)
    label = torch.randint(4, (3, SIZE, SIZE))
    label[0, :2], label[1, :, :5], label[2, 3:7, 3:] = 255, 255, 255
    probs = (2 * torch.randn(3, 4, SIZE, SIZE)).softmax(dim=1)
    return images, label, compress_probs(probs, 3)


def loss_and_gradient(network, images, samples, of=None):
    network = copy.deepcopy(network)
    learn = of is None
    if learn:
        learn_soft_targets(network)
        losses = network.loss(images, samples)
        total = sum(losses.values())
    else:
        total = of(network)
    total.backward()
    grads = [p.grad for p in network.parameters() if p.grad is not None]
    return total.detach(), grads


def assert_same(one, other):
    torch.testing.assert_close(one[0], other[0], rtol=1e-5, atol=1e-6)
    assert len(one[1]) == len(other[1]) > 0
    for first, second in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


def dense(images, label, soft, weights=(1.0,)):
    """The formula in full: the mean of -Σ y log p over all valid pixels of the batch, of each head."""

    def of(network):
        features = network.extract_feat(images)
        heads = [network.decode_head]
        heads += [network.auxiliary_head] if network.with_auxiliary_head else []
        valid = label != 255
        target = torch.nn.functional.one_hot(label.masked_fill(~valid, 0), 4).permute(0, 3, 1, 2)
        target = target.float()
        target[1:] = expand_probs(soft[1:], 4)
        total = 0
        for head, weight in zip(heads, weights, strict=True):
            logits = torch.nn.functional.interpolate(
                head(features), (SIZE, SIZE), mode='bilinear', align_corners=head.align_corners
            )
            pixels = -(target * logits.log_softmax(dim=1)).sum(dim=1)
            total = total + weight * pixels[valid].sum() / valid.sum()
        return total

    return of


@pytest.mark.parametrize('auxiliary', [False, True])
def test_mixed_batch_against_the_dense_formula(auxiliary):
    images, label, soft = batch()
    network = build_plain(auxiliary=auxiliary)
    samples = [sample(label[0]), sample(label[1], soft[1]), sample(label[2], soft[2])]
    found = loss_and_gradient(network, images, samples)
    weights = (1.0, 0.4) if auxiliary else (1.0,)
    assert_same(
        found, loss_and_gradient(network, images, samples, dense(images, label, soft, weights))
    )


def test_one_hot_distributions_are_the_labels():
    """Then the loss is PixelCrossEntropyLoss, as is that of labeled images alone."""
    images, label, _ = batch()
    network = build_plain()
    one_hot = torch.nn.functional.one_hot(label.masked_fill(label == 255, 0), 4).permute(0, 3, 1, 2)
    soft = compress_probs(one_hot.float(), 2)
    hard = [sample(one) for one in label]
    plain = loss_and_gradient(
        network, images, hard, lambda net: net.loss(images, hard)['decode.loss_ce']
    )
    mixed = [sample(label[0]), sample(label[1], soft[1]), sample(label[2], soft[2])]
    assert_same(plain, loss_and_gradient(network, images, mixed))
    assert_same(plain, loss_and_gradient(network, images, hard))


def test_labels_that_the_preprocessor_has_padded():
    """Masks are padded with void, stored maps are not; the padding has no target."""
    images, label, soft = batch()
    network = build_plain()
    small = soft[:, :, :11, :13]
    label[1:, 11:], label[1:, :, 13:] = 255, 255
    samples = [sample(label[0]), sample(label[1], small[1]), sample(label[2], small[2])]
    found = loss_and_gradient(network, images, samples)
    assert_same(found, loss_and_gradient(network, images, samples, dense(images, label, soft)))


def test_the_host_waits_for_nothing():
    images, label, soft = batch()
    network = build_plain()
    learn_soft_targets(network)
    samples = [sample(label[0]), sample(label[1], soft[1]), sample(label[2], soft[2, :, :9])]
    with ReadsByTheHost() as reads:
        network.loss(images, samples)['decode.loss_ce'].backward()
    assert reads.seen == []


def test_nothing_valid_is_zero_with_a_graph():
    images, label, soft = batch()
    label[:] = 255
    samples = [sample(one, two) for one, two in zip(label, soft, strict=True)]
    value, grads = loss_and_gradient(build_plain(), images, samples)
    assert value == 0
    assert all((grad == 0).all() for grad in grads)


@pytest.mark.parametrize(
    'loss',
    [
        {'type': 'CrossEntropyLoss'},
        {'type': 'PixelCrossEntropyLoss', 'ohem': {'threshold': 0.7}},
        {'type': 'PixelCrossEntropyLoss', 'class_weight': [1, 2, 3, 4]},
    ],
)
def test_other_losses_are_refused(loss):
    network = build_plain(loss_decode=loss)
    with pytest.raises(
        ValueError, match=r'decode_head.loss_decode of FCNHead cannot use soft labels'
    ):
        learn_soft_targets(network)
