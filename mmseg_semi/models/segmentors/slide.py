"""Sliding-window prediction as in the papers' code for Cityscapes."""

from __future__ import annotations

import torch
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class SlideScoreEncoderDecoder(EncoderDecoder):
    """EncoderDecoder that sums softmax scores of sliding windows and clips them at the border (iMAS's code).

    MMSegmentation's ``mode='slide'`` averages logits, and shifts the last windows to keep their full size.
    Everything else, including the weights, is the same as in EncoderDecoder.

    Args: see :class:`mmseg.models.EncoderDecoder`; ``test_cfg=dict(mode='slide', crop_size=(h, w),
        stride=(h, w))``.
    """

    def slide_inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Return the logarithm of the mean softmax score over the windows of each pixel.

        The logarithm turns scores into logits: their softmax, as in test-time augmentation, is the score.

        Args:
            inputs (Tensor): (N, 3, H, W).
            batch_img_metas (list[dict]): Meta information of the images; not changed.

        Returns:
            Tensor: (N, C, H, W).
        """
        height, width = inputs.shape[2:]
        (step_y, step_x), (crop_y, crop_x) = self.test_cfg.stride, self.test_cfg.crop_size
        scores = inputs.new_zeros(len(inputs), self.out_channels, height, width)
        count = inputs.new_zeros(1, 1, height, width)
        for top in _starts(height, crop_y, step_y):
            for left in _starts(width, crop_x, step_x):
                window = slice(top, top + crop_y), slice(left, left + crop_x)
                crop = inputs[:, :, window[0], window[1]]
                metas = [dict(meta, img_shape=crop.shape[2:]) for meta in batch_img_metas]
                logits = self.encode_decode(crop, metas)
                scores[:, :, window[0], window[1]] += logits.float().softmax(dim=1)
                count[:, :, window[0], window[1]] += 1
        # Avoid -inf, which becomes NaN when the logits are resized to the original size.
        return (scores / count).clamp_(min=torch.finfo(scores.dtype).tiny).log_()


def _starts(length: int, crop: int, step: int) -> range:
    """Start positions of windows of ``crop`` pixels, every ``step`` pixels, that cover ``length``."""
    return range(0, max(length - crop, 0) + step, step)
