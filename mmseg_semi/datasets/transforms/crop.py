"""Center crop for the evaluation of a part of each image."""

from mmcv.transforms import CenterCrop
from mmseg.registry import TRANSFORMS


@TRANSFORMS.register_module()
class EvaluationCenterCrop(CenterCrop):
    """mmcv's ``CenterCrop`` for validation and test pipelines: the metrics are those of the cropped pixels.

    mmseg resizes each prediction to ``ori_shape``, which mmcv's transform leaves at the size of the whole
    image, so the prediction does not fit the cropped mask. This transform sets ``ori_shape`` to the size of the
    crop. Smaller images are padded at the right and at the bottom (``auto_pad=True``). Written or drawn
    predictions (``--out``, ``--show-dir``) do not fit the image files, so use a config without a crop for them.

    Args: see :class:`mmcv.transforms.CenterCrop`.
    """

    def transform(self, results: dict) -> dict:
        """Crop ``img`` and ``gt_seg_map``, and set ``ori_shape``."""
        results = super().transform(results)
        results['ori_shape'] = results['img'].shape[:2]
        return results
