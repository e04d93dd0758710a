"""The valid mask of an unlabeled image. It is added after loading and transformed with the image.

In the pipeline the mask is a uint8 map with the key ``gt_seg_map``: 1 for real pixels (in the branches of
``MultiBranch``, any number from 1 to 254), and 0 or 255 for filled pixels. The key is intentional. Some
transforms apply to every map in ``seg_fields`` (those of mmseg), others only to ``gt_seg_map`` (mmcv's Pad and
CenterCrop, Albu). Most of them fill it with 255 in new pixels, and RandomRotFlip and Albu with 0.
``PackUnlabeledInputs`` renames it to ``valid_mask`` and does not pack ``gt_sem_seg``, so that no loss can use
it as a label.
"""

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import PixelData
from mmseg.datasets.transforms import PackSegInputs
from mmseg.registry import TRANSFORMS

REAL, FILLED = 1, 255


@TRANSFORMS.register_module()
class AddValidMask(BaseTransform):
    """Mark every pixel of a freshly loaded image as real.

    Place it right after the image is loaded. Needs ``img`` (H, W, C); adds ``gt_seg_map``, uint8
    (H, W), all 1, and lists it in ``seg_fields``.

    Raises:
        ValueError: The image already has a ``gt_seg_map``, so it is labeled.
    """

    def transform(self, results: dict) -> dict:
        """Add the mask."""
        if results.get('gt_seg_map') is not None:
            raise ValueError(
                f'{results.get("img_path")} has a label map before AddValidMask, but unlabeled pipelines '
                'must not load annotations. Remove the transform that loads them.'
            )
        mask = np.full(results['img'].shape[:2], REAL, dtype=np.uint8)
        return {**results, 'gt_seg_map': mask, 'seg_fields': ['gt_seg_map']}

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


@TRANSFORMS.register_module()
class PackUnlabeledInputs(PackSegInputs):
    """Pack an unlabeled view: the image, its meta information and its valid mask.

    Same as mmseg's ``PackSegInputs``, but the sample has a ``valid_mask`` (``PixelData`` whose ``data`` is
    bool (1, H, W), True = real pixel) and no ``gt_sem_seg``.

    Args:
        meta_keys: Keys of the results that become meta information of the sample.

    Raises:
        ValueError: The pipeline has no ``AddValidMask``, or a transform changed the size of the image but not
            that of the mask.
    """

    def __init__(
        self,
        meta_keys=(
            'img_path',
            'ori_shape',
            'img_shape',
            'pad_shape',
            'scale_factor',
            'flip',
            'flip_direction',
        ),
    ) -> None:
        super().__init__(meta_keys=meta_keys)

    def transform(self, results: dict) -> dict:
        """Pack ``results``, which does not change."""
        mask, path = results.get('gt_seg_map'), results.get('img_path')
        if mask is None:
            raise ValueError(
                f"{path} has no valid mask. Add dict(type='AddValidMask') right after the image "
                'is loaded in the unlabeled pipeline.'
            )
        if mask.shape != results['img'].shape[:2]:
            raise ValueError(
                f'{path} is {_size(results["img"])} but its valid mask is {_size(mask)}, since a transform '
                'of the unlabeled pipeline changes images but not label maps. Replace it by one that '
                'changes both.'
            )
        kept = {k: v for k, v in results.items() if k not in ('img', 'gt_seg_map')}
        packed = super().transform(kept)
        # Splitting the channels takes a tenth of the time of a strided copy.
        packed['inputs'] = torch.from_numpy(np.stack(cv2.split(results['img'])))
        packed['data_samples'].set_data(
            dict(valid_mask=PixelData(data=torch.from_numpy((mask != 0) & (mask != FILLED))[None]))
        )
        return packed


def _size(array: np.ndarray) -> str:
    return f'{array.shape[0]}x{array.shape[1]}'
