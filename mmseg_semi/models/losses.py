"""The labeled loss, a module for ``loss_decode`` of any decode head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..functional.losses import cross_entropy, ohem_cross_entropy


@MODELS.register_module()
class PixelCrossEntropyLoss(nn.Module):
    """Cross-entropy over the non-void pixels of the batch, plain or with online hard example mining.

    The loss is the mean over the non-void pixels, or 0 with a graph if there are none. OHEM is the usual one in
    segmentation: a threshold on the probability of the target class, and at least ``min_kept`` pixels per
    batch. There are two differences to MMSegmentation's ``CrossEntropyLoss`` and ``OhemCrossEntropy``: this
    loss takes the small logits of the head and upsamples them image by image, which saves memory, and it never
    waits for the device.

    Args:
        loss_weight (float): Weight of the loss.
        class_weight (sequence of float, optional): Weight of each class. The loss is still divided by the
            number of pixels.
        ohem (dict, optional): ``dict(threshold=0.7, min_kept=100000)``; excludes ``class_weight``.
        loss_name (str): Key of the loss. It must contain ``loss``, or MMEngine does not optimize it.
    """

    #: Tells the segmentor not to upsample the logits before the loss.
    accepts_small_logits = True

    def __init__(
        self,
        loss_weight: float = 1.0,
        class_weight: Sequence[float] | None = None,
        ohem: dict | None = None,
        loss_name: str = 'loss_ce',
    ) -> None:
        super().__init__()
        if loss_weight < 0:
            raise ValueError(f'loss_weight={loss_weight} is negative. Give a factor of at least 0.')
        if 'loss' not in loss_name:
            raise ValueError(
                f"loss_name='{loss_name}' does not contain 'loss', so MMEngine would not optimize it. "
                "Rename it, e.g. 'loss_ce'."
            )
        if ohem is not None:
            unknown = set(ohem) - {'threshold', 'min_kept'}
            if unknown:
                raise ValueError(
                    f'ohem has no option {sorted(unknown)}. Set threshold or min_kept.'
                )
            if class_weight is not None:
                raise ValueError('ohem and class_weight exclude each other. Drop one of them.')
        self.loss_weight = loss_weight
        self.ohem = None if ohem is None else dict(ohem)
        self._loss_name = loss_name
        weight = None if class_weight is None else torch.tensor(class_weight, dtype=torch.float32)
        self.register_buffer('class_weight', weight, persistent=False)

    @property
    def loss_name(self) -> str:
        return self._loss_name

    def forward(
        self,
        logits: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        ignore_index: int = 255,
        align_corners: bool = False,
        **kwargs,
    ) -> Tensor:
        """Return the scalar loss.

        Args:
            logits (Tensor): (N, C, h, w), with h <= H and w <= W.
            label (Tensor): int64 (N, H, W); ``ignore_index`` is void.
            weight (Tensor, optional): (N, H, W), weight per pixel, from a pixel sampler of the head.
            ignore_index (int): The void label.
            align_corners (bool): ``align_corners`` of the bilinear upsampling.
        """
        if self.ohem is not None:
            if weight is not None:
                raise ValueError(
                    'the head has both a pixel sampler and ohem in loss_decode. Drop its `sampler`.'
                )
            loss = ohem_cross_entropy(
                logits, label, ignore_index=ignore_index, align_corners=align_corners, **self.ohem
            )
        else:
            loss = cross_entropy(
                logits,
                label,
                pixel_weight=weight,
                class_weight=self.class_weight,
                ignore_index=ignore_index,
                align_corners=align_corners,
            )
        return self.loss_weight * loss


def is_mean_cross_entropy(head: BaseDecodeHead) -> bool:
    """Whether the only loss of a head is proportional to the mean cross-entropy of the labeled pixels."""
    loss = head.loss_decode
    return (
        type(loss) is PixelCrossEntropyLoss
        and loss.ohem is None
        and loss.class_weight is None
        and head.sampler is None
        and type(head).loss_by_feat is BaseDecodeHead.loss_by_feat
    )


def is_plain_cross_entropy(head: BaseDecodeHead) -> bool:
    """Whether the only loss of a head is the mean cross-entropy of the labeled pixels."""
    return is_mean_cross_entropy(head) and head.loss_decode.loss_weight == 1
