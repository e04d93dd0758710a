"""DPT head for encoders that only return feature maps, with the published fusion."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmseg.models.decode_heads import DPTHead
from mmseg.models.decode_heads.dpt_head import FeatureFusionBlock
from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class FeatureMapDPTHead(DPTHead):
    """DPTHead for encoders that return maps (N, D, h, w) without class tokens.

    The stock head expects pairs of a map and a class token, as in MMSegmentation's VisionTransformer. With the
    VisionTransformer of mmpretrain, which supports DINOv2, it would interpret the two *images* of a batch of
    two as such a pair, and fail for other batch sizes. The weights are those of DPTHead. Any patch size works:
    the maps have the resolution of the patches, and the logits have eight times this resolution.

    Each fusion block resizes its output to the size of the next map, and the last one doubles it, as in
    the code of UniMatch V2. The stock head doubles the size in each block and resizes the maps. The result
    differs for an odd number of patches: 37 patches become 19, then 38, 76 and 152, and the map of 37 is
    resized to 38.

    Args:
        readout_type (str): Only 'ignore'. The others need the class token.
        **kwargs: Arguments of :class:`mmseg.models.decode_heads.DPTHead`.

    Raises:
        ValueError: ``readout_type`` is not 'ignore'.
    """

    def __init__(self, readout_type: str = 'ignore', **kwargs) -> None:
        if readout_type != 'ignore':
            raise ValueError(
                f"FeatureMapDPTHead has readout_type='{readout_type}', which reads class tokens that a map "
                "does not have. Set readout_type='ignore'."
            )
        super().__init__(readout_type=readout_type, **kwargs)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Compute logits (N, C, 8h, 8w) from maps (N, D, h, w) of four layers, the first layer first."""
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
    """Run a stock fusion block and resize its output to ``size``. The first block has no fused input."""
    if fused is not None:
        skip = fused + block.res_conv_unit1(skip)
    out = F.interpolate(
        block.res_conv_unit2(skip), size, mode='bilinear', align_corners=block.align_corners
    )
    return block.project(out)
