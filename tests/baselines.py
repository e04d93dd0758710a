"""What the tests of the baselines share: a small model that is sure of something, and its batch."""

from __future__ import annotations

import torch
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from tiny import collated_batch, tiny_segmentor, unlabeled_sample

from mmseg_semi.models.cutmix import CutMixPlan

#: Confidences that about half of the pixels of :func:`build`'s networks reach.
TAU = {'CutMixSeg': 0.8, 'FixMatch': 0.5}
#: Two boxes for three images of 32 x 32, and nothing for the last.
BOXES = torch.tensor([[4, 2, 20, 25], [0, 16, 32, 32], [0, 0, 0, 0]])


def build(method: str, norm: str = 'GN', auxiliary: bool = False, **settings):
    """A method in train mode whose networks differ and are confident somewhere."""
    torch.manual_seed(0)
    model = MODELS.build(
        {
            'type': method,
            'segmentor': tiny_segmentor(norm, auxiliary=auxiliary),
            'semi_train_cfg': settings,
        }
    )
    model.init_weights()
    with torch.no_grad():
        for name, scale in zip(model.networks, (1.0, 1.3), strict=False):
            getattr(model, name).decode_head.conv_seg.weight.normal_().mul_(scale)
    return model.train()


def batch_of(model, num_labeled: int = 2, num_unlabeled: int = 3, padding: int = 8) -> dict:
    """A preprocessed batch; the last columns of the unlabeled images are padding."""
    batch = collated_batch(num_labeled, num_unlabeled)
    valid = torch.ones(32, 32, dtype=torch.bool)
    valid[:, 32 - padding :] = False
    for branch in ('weak', 'strong'):
        batch['data_samples'][branch] = [unlabeled_sample(valid) for _ in range(num_unlabeled)]
    return model.data_preprocessor(batch, True)


def valid_of(batch: dict) -> torch.Tensor:
    return torch.cat([sample.valid_mask.data for sample in batch['data_samples']['weak']])


def plan_of(triggered: bool = True) -> CutMixPlan:
    """A CutMix of three images, drawn beforehand."""
    partner = torch.tensor([1, 2, 0])
    return CutMixPlan(partner, BOXES * triggered, (32, 32), torch.tensor(triggered))


def mix(maps: torch.Tensor) -> torch.Tensor:
    """The CutMix of :func:`plan_of`, by slices."""
    mixed = maps.clone()
    for i, (x1, y1, x2, y2) in enumerate(BOXES.tolist()):
        mixed[i, ..., y1:y2, x1:x2] = maps[(i + 1) % 3, ..., y1:y2, x1:x2]
    return mixed


@torch.no_grad()
def probabilities(network, images: torch.Tensor) -> torch.Tensor:
    """Full-resolution probabilities, in the network's own mode."""
    logits = resize(network._forward(images), size=images.shape[2:], mode='bilinear')
    return logits.double().softmax(dim=1)
