"""A classifier with one prototype per class instead of a 1x1 convolution."""

from __future__ import annotations

import torch
from mmengine.logging import print_log
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...functional.prototypes import cosine_logits, update_prototypes
from .feature_tap import install_tap

#: Difference between the lowest logit and that of a class without a prototype. Its probability is then 0.
UNSEEN = 1e4


class PrototypeClassifier(nn.Module):
    """Classify pixels by the cosine similarity of their features with one prototype per class (DeS4, Sec. 3).

    It has no parameters. :meth:`start` and :meth:`follow` update the prototypes from features. A class without
    a prototype has the same logit at every pixel, ``UNSEEN`` below the lowest cosine, so that its probability
    is 0. The logit is finite, because bilinear upsampling of -inf would give NaN.

    Args:
        num_classes (int): C.
        channels (int): D of the features.
        temperature (float): Divisor of the cosines. The paper has no temperature, which is 1.

    Raises:
        ValueError: The temperature is not above 0.
    """

    def __init__(self, num_classes: int, channels: int, temperature: float = 0.1) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(
                f'temperature must be above 0, got {temperature}. Set it to 0.1, or to 1.0 as in the paper.'
            )
        self.temperature = temperature
        self.register_buffer('vectors', torch.zeros(num_classes, channels))
        self.register_buffer('seen', torch.zeros(num_classes, dtype=torch.bool))

    def forward(self, features: Tensor) -> Tensor:
        """Return float32 logits (N, C, h, w) of features (N, D, h, w)."""
        logits = cosine_logits(features, self.vectors, self.temperature)
        return self._lower_unseen(logits, self.temperature)

    def at_temperature(self, logits: Tensor, temperature: float) -> Tensor:
        """Convert logits (N, C, h, w) of :meth:`forward` to another temperature."""
        return self._lower_unseen(logits * (self.temperature / temperature), temperature)

    def _lower_unseen(self, logits: Tensor, temperature: float) -> Tensor:
        unseen = ~self.seen[None, :, None, None]
        return logits.masked_fill(unseen, -1 / temperature - UNSEEN)

    @torch.no_grad()
    def start(self, means: Tensor, present: Tensor, normalize: bool = True) -> None:
        """Initialize missing prototypes of the present classes, see :meth:`follow`."""
        self.follow(means, present & ~self.seen, 1.0, normalize)

    @torch.no_grad()
    def follow(self, means: Tensor, present: Tensor, decay: float, normalize: bool = True) -> None:
        """Move the prototypes of the present classes towards the means, or initialize them (Eq. 12).

        Args:
            means (Tensor): (C, D). Rows that are not finite are ignored.
            present (Tensor): bool (C,).
            decay (float): Weight of the old prototype.
            normalize (bool): Normalize the means and then the prototypes to unit length.
        """
        present = present & means.isfinite().all(dim=1)
        if normalize:
            means = nn.functional.normalize(means, dim=1)
        moved = update_prototypes(self.vectors, means, present, decay, initialised=self.seen)
        if normalize:
            # The other prototypes must not change, not even by rounding.
            unit = nn.functional.normalize(moved, dim=1)
            moved = torch.where(present[:, None], unit, moved)
        self.vectors.copy_(moved)
        self.seen.logical_or_(present)

    def known(self, label: Tensor, ignore_index: int = 255) -> Tensor:
        """Return a copy of an int64 label map in which pixels of classes without a prototype are void."""
        unknown = nn.functional.pad(~self.seen, (0, max(0, 256 - len(self.seen))), value=True)
        return label.masked_fill(unknown[label], ignore_index)

    def replace_linear(self, state_dict: dict[str, Tensor], prefix: str) -> None:
        """Replace the 1x1 convolution of a checkpoint, if it has one, by the values of this classifier.

        Args:
            state_dict (dict[str, Tensor]): Weights of the checkpoint, edited in place.
            prefix (str): Prefix of the classifier's keys.
        """
        if state_dict.pop(f'{prefix}weight', None) is None:
            return
        state_dict.pop(f'{prefix}bias', None)
        state_dict.update({prefix + key: value for key, value in self.state_dict().items()})
        print_log(
            f"The checkpoint's {prefix}weight is not loaded, since prototypes replace the classifier.",
            logger='current',
        )

    def extra_repr(self) -> str:
        num_classes, channels = self.vectors.shape
        return f'{num_classes}, {channels}, temperature={self.temperature}'


@MODELS.register_module()
def PrototypeHead(head: dict, temperature: float = 0.1) -> BaseDecodeHead:
    """Build any decode head with a :class:`PrototypeClassifier` as its classifier (DeS4, Sec. 3).

    The class of the head does not change. ``conv_seg`` becomes the classifier. The dropout of the head is
    removed, since prototypes, entropies and weights use the features before it.

    Args:
        head (dict): Config of a decode head whose forward method ends with one call of the stock ``cls_seg``.
        temperature (float): See :class:`PrototypeClassifier`.
    """
    head = MODELS.build(head)
    channels = install_tap(head)
    head.conv_seg = PrototypeClassifier(head.num_classes, channels, temperature)
    if head.dropout is not None:
        print_log(
            f'The dropout of {type(head).__name__} is removed, since prototypes use the features before it.',
            logger='current',
        )
    head.dropout = None
    return head
