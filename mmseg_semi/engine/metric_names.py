"""Which metrics a validation will report, before it has seen an image."""

from __future__ import annotations

from mmengine.evaluator import DumpResults, Evaluator
from mmseg.evaluation import IoUMetric

from .class_iou import ClassIoUMetric

#: What each of ``iou_metrics`` adds to the accuracy of all pixels, ``aAcc``.
IOU_METRICS = {
    'mIoU': ('mIoU', 'mAcc'),
    'mDice': ('mDice', 'mAcc'),
    'mFscore': ('mFscore', 'mPrecision', 'mRecall'),
}


def metric_names(evaluator: Evaluator) -> list[str] | None:
    """Names of what an evaluator will report of one network.

    Args:
        evaluator (Evaluator): Of a loop.

    Returns:
        list[str], optional: With repetitions where several metrics share a name; None where a metric is not
        MMSegmentation's ``IoUMetric`` or ours, whose names are not known beforehand.
    """
    names = []
    for metric in evaluator.metrics:
        if isinstance(metric, DumpResults) or getattr(metric, 'format_only', False):
            continue
        if type(metric) not in (IoUMetric, ClassIoUMetric):
            return None
        wanted = [metric.metrics] if isinstance(metric.metrics, str) else metric.metrics
        own = ['aAcc', *(name for one in wanted for name in IOU_METRICS.get(one, ()))]
        if isinstance(metric, ClassIoUMetric):
            own += [f'IoU.{name}' for name in (metric.dataset_meta or {}).get('classes', ())]
        names += [
            f'{metric.prefix}/{name}' if metric.prefix else name for name in dict.fromkeys(own)
        ]
    return names
