"""Names of the metrics of a validation, known before it runs."""

from __future__ import annotations

from mmengine.evaluator import DumpResults, Evaluator
from mmseg.evaluation import IoUMetric

from .class_iou import ClassIoUMetric

#: Metrics that each of ``iou_metrics`` adds to the pixel accuracy ``aAcc``.
IOU_METRICS = {
    'mIoU': ('mIoU', 'mAcc'),
    'mDice': ('mDice', 'mAcc'),
    'mFscore': ('mFscore', 'mPrecision', 'mRecall'),
}


def wanted_metrics(metric: IoUMetric) -> list[str]:
    """Return the ``iou_metrics`` of a metric as a list."""
    return [metric.metrics] if isinstance(metric.metrics, str) else list(metric.metrics)


def metric_names(evaluator: Evaluator) -> list[str] | None:
    """Return the names of the metrics that an evaluator reports for one network.

    Args:
        evaluator (Evaluator): Evaluator of a loop.

    Returns:
        list[str], optional: Names, with duplicates if several metrics have the same name. None if the names are
        unknown, since a metric is neither MMSegmentation's ``IoUMetric`` nor one of this package.
    """
    names = []
    for metric in evaluator.metrics:
        if isinstance(metric, DumpResults) or getattr(metric, 'format_only', False):
            continue
        if type(metric) not in (IoUMetric, ClassIoUMetric):
            return None
        own = [
            'aAcc',
            *(name for one in wanted_metrics(metric) for name in IOU_METRICS.get(one, ())),
        ]
        if isinstance(metric, ClassIoUMetric):
            own += [f'IoU.{name}' for name in (metric.dataset_meta or {}).get('classes', ())]
        names += [
            f'{metric.prefix}/{name}' if metric.prefix else name for name in dict.fromkeys(own)
        ]
    return names
