"""MMSegmentation's DPT head on encoders that give feature maps alone, with the published fusion."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmseg.models.decode_heads import DPTHead
from mmseg.models.decode_heads.dpt_head import FeatureFusionBlock
from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class FeatureMapDPTHead(DPTHead):
    """DPTHead for an encoder whose outputs are maps (N, D, h, w), without class tokens.

    The stock head takes pairs of a map and a class token, as MMSegmentation's own VisionTransformer makes
    them. Of mmpretrain's, which has DINOv2, it would take the first two *images* of a batch of two for such a
    pair, and fail on any other batch. Weights are DPTHead's. Any patch size will do: the maps are at the
    grid of the patches, and the logits at eight times that.

    Each fusion block resizes its output to the size of the next map, and the last one doubles it, as in
    UniMatch V2's code. The stock head doubles in each block and resizes the maps, which is another function
    where a side of the grid is odd: 37 patches become 19, then 38, 76 and 152, and the map of 37 is resized
    to 38.

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
                "does not have. Set readout_type='ignore'."
            )
        super().__init__(readout_type=readout_type, **kwargs)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps (N, D, h, w) of four layers, the first layer first, to logits (N, C, 8h, 8w)."""
        maps = self.reassemble_blocks(self._transform_inputs(inputs))
        maps = [conv(feature) for conv, feature in zip(self.convs, maps, strict=True)]
        height, width = maps[0].shape[2:]
        sizes = [feature.shape[2:] for feature in maps[:-1]]
        fused = None
        for block in self.fusion_blocks:
            skip = maps.pop()
            size = sizes.pop() if sizes else (2 * height, 2 * width)
            fused = _fuse(block, fused, skip, size)
        return self.cls_seg(self.project(fused))

    def _transform_inputs(self, inputs: Sequence[Tensor]) -> list[tuple[Tensor, None]]:
        return [(feature, None) for feature in super()._transform_inputs(inputs)]


def _fuse(
    block: FeatureFusionBlock, fused: Tensor | None, skip: Tensor, size: tuple[int, int]
) -> Tensor:
    """The stock block's arithmetic, resized to ``size``; the first block has nothing fused before it."""
    if fused is not None:
        skip = fused + block.res_conv_unit1(skip)
    out = F.interpolate(
        block.res_conv_unit2(skip), size, mode='bilinear', align_corners=block.align_corners
    )
    return block.project(out)
