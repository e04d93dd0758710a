"""Distribution alignment and logit adjustment against shares that are counted pixel by pixel."""

import math

import pytest
import torch
from ddp_steps import align_batches
from mmseg.models.losses import CrossEntropyLoss
from ranks import run_on_ranks

from mmseg_semi.models.alignment import (
    DECAY,
    DistributionAlignment,
    LabeledWeights,
    LogitAdjustment,
)
from mmseg_semi.models.losses import PixelCrossEntropyLoss

C = 3


def batch(seed, images=2):
    """Logits of unlabeled images, of which each is padded differently, and labels with void pixels."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(images, C, 4, 6, generator=generator)
    real = torch.ones(images, 8, 12, dtype=torch.bool)
    real[0, 4:] = False
    real[1, :, 8:] = False
    label = torch.randint(0, C, (3, 5, 7), generator=generator)
    label[0, 0] = 255
    return logits, real, label


def shares_of(*batches):
    """Class shares of the labeled and of the unlabeled pixels, one pixel at a time."""
    counts, probs, pixels = torch.zeros(C), torch.zeros(C), 0
    for logits, real, label in batches:
        for value in label.flatten().tolist():
            if value != 255:
                counts[value] += 1
        for image, mask in zip(logits, real, strict=True):
            for y in range(8):
                for x in range(12):
                    if mask[y, x]:
                        probs += image[:, y // 2, x // 2].softmax(dim=0)
                        pixels += 1
    return counts / counts.sum(), probs / pixels


def aligned_by_hand(logits, labeled, unlabeled):
    p = logits.softmax(dim=1) * (labeled / unlabeled)[:, None, None]
    return p / p.sum(dim=1, keepdim=True)


def test_probabilities_are_multiplied_by_the_ratio_of_the_shares():
    module, first, second = DistributionAlignment(C), batch(0), batch(1)
    # Nothing is known in the first step, of two micro-batches.
    for one in (first, second):
        torch.testing.assert_close(module(*one).softmax(dim=1), one[0].softmax(dim=1))
    log = module.commit()
    labeled, unlabeled = shares_of(first, second)
    torch.testing.assert_close(module.shares, torch.stack([labeled, unlabeled]))
    ratio = labeled / unlabeled
    torch.testing.assert_close(log['alignment_ratio'], torch.maximum(ratio, 1 / ratio).max())
    third = batch(2)
    expected = aligned_by_hand(third[0], labeled, unlabeled)
    torch.testing.assert_close(module(*third).softmax(dim=1), expected)


def test_first_steps_count_alike_and_later_ones_by_the_decay():
    module, steps = DistributionAlignment(C), [batch(seed) for seed in range(3)]
    for one in steps:
        module(*one)
        module.commit()
    mean = torch.stack([torch.stack(shares_of(one)) for one in steps]).mean(dim=0)
    torch.testing.assert_close(module.shares, mean)
    module.steps.fill_(1000)
    module(*batch(3))
    module.commit()
    expected = DECAY * mean + (1 - DECAY) * torch.stack(shares_of(batch(3)))
    torch.testing.assert_close(module.shares, expected)


def test_steps_that_show_nothing_are_left_out():
    module = DistributionAlignment(C)
    module(*batch(0))
    module.commit()
    before = module.shares.clone()
    logits, real, label = batch(1)
    for wrong in (
        (logits, real, torch.full_like(label, 255)),
        (logits, torch.zeros_like(real), label),
        (logits * float('nan'), real, label),
    ):
        module(*wrong)
        module.commit()
        torch.testing.assert_close(module.shares, before)
    assert module.steps == 1


def test_a_class_without_a_label_is_no_pseudo_label():
    module = DistributionAlignment(C)
    logits, real, label = batch(0)
    label[label == 1] = 0
    module(logits, real, label)
    module.commit()
    aligned = module(logits, real, label)
    assert aligned.isfinite().all()
    assert not (aligned.argmax(dim=1) == 1).any()


def test_checkpoints_continue_the_means():
    module = DistributionAlignment(C)
    module(*batch(0))
    module.commit()
    other = DistributionAlignment(C)
    other.load_state_dict(module.state_dict())
    torch.testing.assert_close(other(*batch(1)), module(*batch(1)), rtol=0, atol=0)
    assert set(module.state_dict()) == {'shares', 'steps'}


def test_ranks_align_by_the_same_shares(tmp_path):
    batches = [batch(0), batch(1)]
    expected = torch.stack(shares_of(*batches))
    for shares in run_on_ranks(align_batches, 2, tmp_path, batches):
        torch.testing.assert_close(shares, expected)


def pseudo_batch(seed):
    """Logits of two views, pseudo-labels with ignored pixels, confident pixels, and labels with void pixels."""
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn(2, C, 4, 6, generator=generator) for _ in range(2)]
    pseudo_label = torch.randint(0, C, (2, 8, 12), generator=generator)
    pseudo_label[0, 4:] = 255
    confident = torch.rand(2, 8, 12, generator=generator) < 0.5
    # Few confident pixels of class 2.
    confident &= (pseudo_label < 2) | (torch.rand(2, 8, 12, generator=generator) < 0.1)
    label = torch.randint(0, C, (3, 5, 7), generator=generator)
    label[0, 0] = 255
    return logits, pseudo_label, confident, label


def shares_of_pseudo_labels(*batches):
    """Class shares of the labeled pixels and of the confident pseudo-labels, one pixel at a time."""
    counts = torch.zeros(2, C)
    for _, pseudo_label, confident, label in batches:
        for value in label.flatten().tolist():
            if value != 255:
                counts[0, value] += 1
        for value, kept in zip(pseudo_label.flatten().tolist(), confident.flatten(), strict=True):
            if kept and value != 255:
                counts[1, value] += 1
    return counts / counts.sum(dim=1, keepdim=True)


def test_logits_are_adjusted_by_the_ratio_of_the_shares():
    module, first, second = LogitAdjustment(C), pseudo_batch(0), pseudo_batch(1)
    for one in (first, second):
        for adjusted, view in zip(module(*one), one[0], strict=True):
            torch.testing.assert_close(adjusted, view, rtol=0, atol=0)
    log = module.commit()
    labeled, pseudo = shares_of_pseudo_labels(first, second)
    torch.testing.assert_close(module.shares[0], labeled)
    # The micro-batches count by their number of confident pixels.
    torch.testing.assert_close(module.shares[1], pseudo)
    ratio = pseudo / labeled
    assert ratio[2] < 0.5 < 1 < ratio[0]
    torch.testing.assert_close(log['adjustment_ratio'], ratio.min())
    third = pseudo_batch(2)
    for adjusted, view in zip(module(*third), third[0], strict=True):
        expected = view.softmax(dim=1) * ratio[:, None, None]
        torch.testing.assert_close(
            adjusted.softmax(dim=1), expected / expected.sum(dim=1, keepdim=True)
        )


def test_ratio_is_limited():
    module = LogitAdjustment(C)
    logits, pseudo_label, confident, label = pseudo_batch(0)
    label[label == 1] = 0  # no labeled pixel
    pseudo_label[pseudo_label == 2] = 0  # no pseudo-label
    module(logits, pseudo_label, confident, label)
    module.commit()
    torch.testing.assert_close(module.offset[1:], torch.tensor([math.log(10), math.log(0.01)]))


def test_rare_class_without_pseudo_labels_has_the_smallest_ratio():
    """The bound of the shares must not limit the ratio. A class without any pixel keeps its logits."""
    module = LogitAdjustment(C)
    label = torch.zeros(1, 200, 250, dtype=torch.int64)
    label[0, 0, 0] = 2
    pseudo_label = torch.zeros(1, 8, 12, dtype=torch.int64)
    module([torch.zeros(1, C, 4, 6)], pseudo_label, pseudo_label == 0, label)
    module.commit()
    torch.testing.assert_close(module.shares[0, 2], torch.tensor(1 / 50_000))
    torch.testing.assert_close(module.offset.exp(), torch.tensor([50_000 / 49_999, 1, 0.01]))


def one_loss(weight, divided=False):
    return LabeledWeights(weight[None], torch.ones(1), torch.tensor([divided]))


def test_labeled_pixels_count_by_their_class_weights():
    weight = torch.tensor([1.0, 2.0, 6.0])
    module, batches = LogitAdjustment(C, one_loss(weight)), [pseudo_batch(0), pseudo_batch(1)]
    # The images of the second micro-batch have another share of class 2.
    batches[1][3][:, :3][batches[1][3][:, :3] == 2] = 1
    for one in batches:
        module(*one)
    module.commit()
    labeled, pseudo = shares_of_pseudo_labels(*batches)
    torch.testing.assert_close(module.shares[0], labeled * weight)
    expected = labeled * weight / (labeled * weight).sum()
    torch.testing.assert_close(module.offset.exp(), pseudo / expected)
    assert set(module.state_dict()) == {'shares', 'steps'}


@pytest.mark.parametrize('committed', [False, True])
@pytest.mark.parametrize('kinds', [('Pixel',), ('Stock',), ('Pixel', 'Stock')])
def test_adjustment_teaches_the_shares_of_the_weighted_loss(kinds, committed):
    """Micro-batches or steps with other classes are averaged as the losses average them."""
    weights = torch.tensor([[1.0, 9.0], [2.0, 1.0]])[: len(kinds)]
    labels = [torch.tensor([0] * 20), torch.tensor([0] * 4 + [1] * 16)]
    labels = [label.view(1, 4, 5) for label in labels]
    share = torch.tensor([0.3, 0.7])[: len(kinds)] if len(kinds) > 1 else torch.ones(1)
    module = LogitAdjustment(
        2, LabeledWeights(weights, share, torch.tensor([kind == 'Stock' for kind in kinds]))
    )
    classes = {'Pixel': PixelCrossEntropyLoss, 'Stock': CrossEntropyLoss}
    losses = [
        classes[kind](class_weight=weight.tolist(), loss_weight=one.item())
        for kind, weight, one in zip(kinds, weights, share, strict=True)
    ]
    pseudo_label = torch.tensor([0, 1, 1, 1]).repeat(1, 5, 1)
    for label in labels:
        module([torch.zeros(1, 2, 4, 5)], pseudo_label, pseudo_label < 2, label)
        if committed:
            module.commit()
    module.commit()
    # At the shares that the weighted loss teaches, its gradient is zero.
    taught = (torch.tensor([0.25, 0.75]) / module.offset.exp()).log().requires_grad_()
    logits = taught.view(1, 2, 1, 1).expand(1, 2, 4, 5)
    sum(loss(logits, label) for loss in losses for label in labels).backward()
    torch.testing.assert_close(taught.grad, torch.zeros(2), rtol=0, atol=1e-5)


def test_half_precision_is_adjusted_in_float32():
    module, (logits, *rest) = LogitAdjustment(C), pseudo_batch(0)
    module(logits, *rest)
    module.commit()
    rough = [view.bfloat16() for view in logits]
    for adjusted, view in zip(module(rough, *rest), rough, strict=True):
        assert adjusted.dtype == torch.float32
        torch.testing.assert_close(adjusted, view.float() + module.offset[:, None, None])


def test_a_step_without_confident_pixels_changes_nothing():
    module = LogitAdjustment(C)
    module(*pseudo_batch(0))
    module.commit()
    before = module.shares.clone()
    logits, pseudo_label, confident, label = pseudo_batch(1)
    module(logits, pseudo_label, torch.zeros_like(confident), label)
    module.commit()
    torch.testing.assert_close(module.shares, before, rtol=0, atol=0)
    assert module.steps == 1
