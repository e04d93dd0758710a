"""Training of plain segmentors with soft labels."""

from __future__ import annotations

from collections.abc import Sequence
from types import MethodType

import torch
import torch.nn.functional as F
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ..functional.losses import cross_entropy, soft_cross_entropy
from ..functional.top_k import expand_probs
from .losses import is_mean_cross_entropy


def learn_soft_targets(network: nn.Module) -> None:
    """Let every head of a segmentor use ``gt_soft_seg`` of the samples that have it.

    This replaces ``loss_by_feat`` of the instances, so that weights and checkpoints do not change. Further
    calls have no effect.

    Args:
        network (nn.Module): A stock segmentor.

    Raises:
        ValueError: A head's loss is not a plain ``PixelCrossEntropyLoss``.
    """
    heads = {name: m for name, m in network.named_modules() if isinstance(m, BaseDecodeHead)}
    for name, head in heads.items():
        if not is_mean_cross_entropy(head):
            raise ValueError(
                f'{name}.loss_decode of {type(head).__name__} cannot use soft labels. Set loss_decode=dict('
                "type='PixelCrossEntropyLoss') without ohem, class_weight and sampler, in a head that does not "
                'override the loss, or set train_dataloader.dataset.pseudo_labeled.soft=False.'
            )
    for head in heads.values():
        head.loss_by_feat = MethodType(soft_loss_by_feat, head)


def soft_loss_by_feat(
    head: BaseDecodeHead, seg_logits: Tensor, batch_data_samples: Sequence[SegDataSample]
) -> dict[str, Tensor]:
    """Return the mean cross-entropy of a batch in which some images have soft labels (ST++, Eq. 2 and 3).

    The target of a labeled image is the one-hot distribution of its labels. The target of a pseudo-labeled
    image is the distribution predicted by the teacher. The mean is over all non-void pixels of the batch. With
    one-hot distributions this equals ``PixelCrossEntropyLoss``. The accuracy that stock heads log is left out.

    Args:
        head (BaseDecodeHead): See :func:`learn_soft_targets`.
        seg_logits (Tensor): (N, C, h, w), with h <= H and w <= W.
        batch_data_samples (Sequence[SegDataSample]): Samples with ``gt_sem_seg`` (1, H, W) and optionally
            ``gt_soft_seg``, uint8 (2 k, H', W') with H' ≤ H and W' ≤ W, the format of ``compress_probs``.

    Returns:
        dict[str, Tensor]: The loss by its name.
    """
    label = torch.cat([sample.gt_sem_seg.data for sample in batch_data_samples])
    sums = []
    for i, sample in enumerate(batch_data_samples):
        logits, mask = seg_logits[i : i + 1], label[i : i + 1]
        if 'gt_soft_seg' in sample:
            target = expand_probs(_padded(sample.gt_soft_seg.data, mask), logits.shape[1])
            valid = mask != head.ignore_index
            mean = soft_cross_entropy(
                logits, target, valid_mask=valid, align_corners=head.align_corners
            )
            sums.append(mean * mask.numel())
        else:
            of_image = cross_entropy(
                logits,
                mask,
                ignore_index=head.ignore_index,
                align_corners=head.align_corners,
                reduction='image_sum',
            )
            sums.append(of_image)
    divisor = (label != head.ignore_index).sum().clamp(min=1)
    loss = head.loss_decode
    return {loss.loss_name: loss.loss_weight * torch.cat(sums).sum() / divisor}


def _padded(stored: Tensor, mask: Tensor) -> Tensor:
    """Return stored soft labels (1, 2 k, H, W), with zeros in the padding of the preprocessor."""
    height, width = (
        side - own for side, own in zip(mask.shape[-2:], stored.shape[-2:], strict=True)
    )
    return F.pad(stored, (0, width, 0, height))[None]
