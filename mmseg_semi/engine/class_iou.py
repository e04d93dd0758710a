"""IoU of every class as a metric of the validation."""

from __future__ import annotations

import numpy as np
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS


@METRICS.register_module()
class ClassIoUMetric(IoUMetric):
    """MMSegmentation's ``IoUMetric`` that also returns ``IoU.CLASS`` in percent. The stock one only prints it.

    A class that is in neither the ground truth nor the predictions has NaN.
    """

    def compute_metrics(self, results: list) -> dict[str, float]:
        metrics = super().compute_metrics(results)
        if self.format_only:
            return metrics
        intersect, union = (
            np.asarray(sum(areas)) for areas in list(zip(*results, strict=True))[:2]
        )
        with np.errstate(invalid='ignore'):
            ious = intersect / union * 100
        names = self.dataset_meta['classes']
        metrics.update({f'IoU.{name}': float(iou) for name, iou in zip(names, ious, strict=True)})
        return metrics
