"""MMSegmentation's DPT head on encoders that give feature maps alone."""

from __future__ import annotations

from collections.abc import Sequence

from mmseg.models.decode_heads import DPTHead
from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class FeatureMapDPTHead(DPTHead):
    """DPTHead for an encoder whose outputs are maps (N, D, h, w), without class tokens.

    The stock head takes pairs of a map and a class token, as MMSegmentation's own VisionTransformer makes
    them. Of mmpretrain's, which has DINOv2, it would take the first two *images* of a batch of two for such a
    pair, and fail on any other batch. Weights are DPTHead's. Any patch size will do: the maps are at the
    grid of the patches, and the logits at eight times that.

    Args:
        readout_type (str): 'ignore' only, the others need the class token.
        **kwargs: Of :class:`mmseg.models.decode_heads.DPTHead`.

    Raises:
        ValueError: Another readout.
    """

    def __init__(self, readout_type: str = 'ignore', **kwargs) -> None:
        if readout_type != 'ignore':
            raise ValueError(
                f"FeatureMapDPTHead has readout_type='{readout_type}', which reads class tokens that a map "
                "does not have: set readout_type='ignore'."
            )
        super().__init__(readout_type=readout_type, **kwargs)

    def _transform_inputs(self, inputs: Sequence[Tensor]) -> list[tuple[Tensor, None]]:
        return [(feature, None) for feature in super()._transform_inputs(inputs)]
