import math

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger

from mmseg_semi.engine import ClassIoUMetric


def test_ious_of_the_classes_are_those_of_the_mean():
    MMLogger.get_instance('test_class_iou')
    metric = ClassIoUMetric(iou_metrics=['mIoU'])
    metric.dataset_meta = dict(classes=('a', 'b', 'c'))
    prediction = torch.tensor([[0, 0, 1, 1]])
    label = torch.tensor([[0, 1, 1, 255]])
    metric.results = [metric.intersect_and_union(prediction, label, 3, 255)] * 2
    found = metric.compute_metrics(metric.results)
    assert found['IoU.a'] == pytest.approx(50)
    assert found['IoU.b'] == pytest.approx(50)
    assert math.isnan(found['IoU.c'])
    ious = [found[f'IoU.{name}'] for name in 'abc']
    assert found['mIoU'] == pytest.approx(np.nanmean(ious), abs=0.01)
