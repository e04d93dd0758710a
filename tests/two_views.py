"""What the tests of methods with two strong views share: a model, a batch, and the loss pixel by pixel."""

from __future__ import annotations

import re

import torch
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from tiny import collated_batch, tiny_segmentor
from torch import Tensor

from mmseg_semi.models.cutmix import AdaptiveCutMix, CutMixPlan

#: Confidence that 17 (UniMatch) and 66 (UniMatch V2) of 100 pixels of `build`'s networks reach.
TAU = 0.7


class ListedCutMix(AdaptiveCutMix):
    """A CutMix whose draws are given, one after the other."""

    def __init__(self, *boxes) -> None:
        super().__init__(adaptive=False)
        self.boxes = list(boxes)

    def plan(self, num, size, device, hardness=None):
        boxes = torch.tensor(self.boxes.pop(0))
        return CutMixPlan(torch.arange(num).roll(-1), boxes, size, torch.tensor(True))


def build(method: str, norm: str = 'GN', *, network: dict | None = None, **settings):
    """A method with a network that is confident somewhere, and a teacher that differs."""
    torch.manual_seed(0)
    model = MODELS.build(
        {
            'type': method,
            'segmentor': tiny_segmentor(norm, **(network or {})),
            'semi_train_cfg': {'tau': TAU, **settings},
        }
    )
    model.init_weights()
    with torch.no_grad():
        for index, name in enumerate(model.networks):
            network = getattr(model, name)
            network.decode_head.conv_seg.weight.normal_().mul_(1 + 0.3 * index)
            # Blocks that start as identities would let no gradient into them.
            for key, weight in network.backbone.named_parameters():
                if re.search(r'[bg]n2\.weight', key):
                    weight.fill_(0.5)
    return model.train()


def batch_of(model, num_labeled: int = 2, num_unlabeled: int = 3, seed: int = 0) -> dict:
    return model.data_preprocessor(collated_batch(num_labeled, num_unlabeled, seed=seed), True)


def pad(batch: dict, columns: int) -> None:
    """Call the last columns of the first unlabeled image padding."""
    batch['data_samples']['weak'][0].valid_mask.data[..., -columns:] = False


def decode(network, features: list[Tensor], masks: list[Tensor] | None = None) -> Tensor:
    """Small logits from the features of one image, whose channels are multiplied."""
    if masks is not None:
        features = [x * m[None, :, None, None] for x, m in zip(features, masks, strict=True)]
    return network.decode_head(features)


def labels_of(network, weak: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Labels, 255 at padding, and confidences of the weak views."""
    with torch.no_grad():
        logits = resize(network._forward(weak), size=weak.shape[2:], mode='bilinear')
        confidence, label = logits.softmax(1).max(1)
    return torch.where(masks, label, 255), confidence


def cut(tensors: list[Tensor], boxes, step: int) -> list[Tensor]:
    """Each of the batch's tensors with the box of the image ``step`` further on, all unmixed."""
    mixed = [tensor.clone() for tensor in tensors]
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        partner = tensors[(i + step) % len(tensors)]
        mixed[i][..., y1:y2, x1:x2] = partner[..., y1:y2, x1:x2]
    return mixed


def view_loss(
    logits: list[Tensor], label: list[Tensor], confidence: list[Tensor], tau: float = TAU
) -> Tensor:
    """Sum of the confident pixels' cross-entropy over the number of pixels that are not padding."""
    total, count = 0.0, 0
    for one, target, sure in zip(logits, label, confidence, strict=True):
        log_probs = resize(one, size=target.shape, mode='bilinear')[0].log_softmax(0)
        for y in range(target.shape[0]):
            for x in range(target.shape[1]):
                if target[y, x] != 255:
                    count += 1
                    if sure[y, x] >= tau:
                        total = total - log_probs[target[y, x], y, x]
    return total / count
