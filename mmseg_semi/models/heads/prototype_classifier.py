"""Classes as directions of the decoder's features, in the place of a head's 1x1 classifier."""

from __future__ import annotations

import torch
from mmengine.logging import print_log
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...functional.prototypes import cosine_logits, update_prototypes
from .feature_tap import install_tap

#: How far the logit of a class without a prototype lies below all others: its probability is exactly 0.
UNSEEN = 1e4


class PrototypeClassifier(nn.Module):
    """Classify pixels by the cosine of their feature with one prototype per class (DeS4, Sec. 3).

    It has no parameters: prototypes follow the features by :meth:`start` and :meth:`follow`. A class without
    a prototype has a logit ``UNSEEN`` below the least cosine, the same at every place: finite, because the
    bilinear upsampling that follows would make NaN of -inf (0 · inf), so that probabilities are 0 behind it.

    Args:
        num_classes (int): C.
        channels (int): D of the features.
        temperature (float): Divides the cosines. The paper prints none, which is 1.

    Raises:
        ValueError: The temperature is not above 0.
    """

    def __init__(self, num_classes: int, channels: int, temperature: float = 0.1) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(
                f"temperature={temperature} must be above 0. Give 0.1, or 1.0 for the paper's letter."
            )
        self.temperature = temperature
        self.register_buffer('vectors', torch.zeros(num_classes, channels))
        self.register_buffer('seen', torch.zeros(num_classes, dtype=torch.bool))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (N, C, h, w) in float32 of features (N, D, h, w)."""
        logits = cosine_logits(features, self.vectors, self.temperature)
        return self._lower_unseen(logits, self.temperature)

    def at_temperature(self, logits: Tensor, temperature: float) -> Tensor:
        """Return the logits (N, C, h, w) of :meth:`forward` as another temperature would have made them."""
        return self._lower_unseen(logits * (self.temperature / temperature), temperature)

    def _lower_unseen(self, logits: Tensor, temperature: float) -> Tensor:
        unseen = ~self.seen[None, :, None, None]
        return logits.masked_fill(unseen, -1 / temperature - UNSEEN)

    @torch.no_grad()
    def start(self, means: Tensor, present: Tensor, normalize: bool = True) -> None:
        """Set the prototypes of the present classes that have none yet, see :meth:`follow`."""
        self.follow(means, present & ~self.seen, 1.0, normalize)

    @torch.no_grad()
    def follow(self, means: Tensor, present: Tensor, decay: float, normalize: bool = True) -> None:
        """Move the prototypes of the present classes towards the means, or set those without one (Eq. 12).

        Args:
            means (Tensor): (C, D). Rows that are not finite are left out.
            present (Tensor): bool (C,).
            decay (float): Weight of the old prototype.
            normalize (bool): Give the means and then the prototypes unit length.
        """
        present = present & means.isfinite().all(dim=1)
        if normalize:
            means = nn.functional.normalize(means, dim=1)
        moved = update_prototypes(self.vectors, means, present, decay, initialised=self.seen)
        if normalize:
            # The others not even by a rounding.
            unit = nn.functional.normalize(moved, dim=1)
            moved = torch.where(present[:, None], unit, moved)
        self.vectors.copy_(moved)
        self.seen.logical_or_(present)

    def known(self, label: Tensor, ignore_index: int = 255) -> Tensor:
        """A copy of an int64 label map in which the pixels of classes without a prototype are void."""
        unknown = nn.functional.pad(~self.seen, (0, max(0, 256 - len(self.seen))), value=True)
        return label.masked_fill(unknown[label], ignore_index)

    def replace_linear(self, state_dict: dict[str, Tensor], prefix: str) -> None:
        """Put this classifier's own values in the place of a 1x1 convolution's, if a checkpoint has one.

        Args:
            state_dict (dict[str, Tensor]): The checkpoint's weights, edited in place.
            prefix (str): Of the classifier's keys.
        """
        if state_dict.pop(f'{prefix}weight', None) is None:
            return
        state_dict.pop(f'{prefix}bias', None)
        state_dict.update({prefix + key: value for key, value in self.state_dict().items()})
        print_log(
            f"The checkpoint's {prefix}weight is left out: classes have prototypes instead.",
            logger='current',
        )

    def extra_repr(self) -> str:
        num_classes, channels = self.vectors.shape
        return f'{num_classes}, {channels}, temperature={self.temperature}'


@MODELS.register_module()
def PrototypeHead(head: dict, temperature: float = 0.1) -> BaseDecodeHead:
    """Build any decode head with a :class:`PrototypeClassifier` as its classifier (DeS4, Sec. 3).

    The head keeps its class, so that it trains and predicts as ever; ``conv_seg`` is the classifier. Its
    dropout is taken out: prototypes, entropies and weights are of the features that it would drop.

    Args:
        head (dict): Config of a decode head whose forward ends in one call of the stock ``cls_seg``.
        temperature (float): See :class:`PrototypeClassifier`.
    """
    head = MODELS.build(head)
    channels = install_tap(head)
    head.conv_seg = PrototypeClassifier(head.num_classes, channels, temperature)
    if head.dropout is not None:
        print_log(
            f'The dropout of {type(head).__name__} is taken out: prototypes are of the features before it.',
            logger='current',
        )
    head.dropout = None
    return head
