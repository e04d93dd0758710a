"""Validation and test of all networks of a method in one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby

from mmengine.evaluator import DumpResults
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import TestLoop, ValLoop
from mmseg.engine.hooks import SegVisualizationHook
from mmseg.registry import LOOPS
from torch import Tensor, nn

from ...models.segmentors.base import SemiSegmentor
from ..metric_names import metric_names


def _of_one_size(data_batch: dict) -> Iterator[dict]:
    """Cut a batch where the size of the images changes, since a network takes images of one size only."""
    images = data_batch['inputs']
    if isinstance(images, (Tensor, Mapping)) or not all(isinstance(one, Tensor) for one in images):
        yield data_batch
        return
    for _, part in groupby(range(len(images)), key=lambda index: images[index].shape):
        indices = list(part)
        yield {key: [values[index] for index in indices] for key, values in data_batch.items()}


class _EveryNetwork:
    """Evaluate each network of the model with the same evaluator, metrics prefixed by its name.

    Only the network that ``semi_test_cfg.predict_on`` names writes files (predictions, pictures), since
    all would use the same names. A model that is not a method is evaluated as ever. Images of a batch that
    differ in size pass the network one after the other: padding would change what it predicts.
    """

    @property
    def prefixes(self) -> list[str]:
        """What stands before the names of metrics, such as ``'teacher/'``."""
        model = _unwrap(self.runner.model)
        is_method = isinstance(model, SemiSegmentor)
        return [f'{network}/' for network in model.networks] if is_method else ['']

    def reported_names(self) -> list[str] | None:
        """Names of what the loop will report: first those of the network that predicts.

        Each network's names are in the order of :func:`~mmseg_semi.engine.metric_names.metric_names`, which
        also says when they are not known.
        """
        names, model = metric_names(self.evaluator), _unwrap(self.runner.model)
        if names is None:
            return None
        is_method = isinstance(model, SemiSegmentor)
        first = f'{model.semi_test_cfg["predict_on"]}/' if is_method else ''
        prefixes = sorted(self.prefixes, key=lambda prefix: prefix != first)
        return [f'{prefix}{name}' for prefix in prefixes for name in names]

    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Evaluate a batch, whose images may differ in size."""
        for part in _of_one_size(data_batch):
            super().run_iter(idx, part)

    def run(self) -> dict:
        model = _unwrap(self.runner.model)
        if not isinstance(model, SemiSegmentor):
            return super().run()
        stage = self.stage
        self.runner.call_hook(f'before_{stage}')
        self.runner.call_hook(f'before_{stage}_epoch')
        self.runner.model.eval()
        primary, metrics = model.semi_test_cfg['predict_on'], {}
        for name in model.networks:
            with model.predicting_with(name), self._files_only_if(name == primary) as wanted:
                if not wanted:
                    continue
                self.runner.logger.info(f'Evaluating the {name}.')
                for index, data_batch in enumerate(self.dataloader):
                    self.run_iter(index, data_batch)
                results = self.evaluator.evaluate(len(self.dataloader.dataset))
            metrics.update({f'{name}/{key}': value for key, value in results.items()})
        self.runner.call_hook(f'after_{stage}_epoch', metrics=metrics)
        self.runner.call_hook(f'after_{stage}')
        return metrics

    @contextmanager
    def _files_only_if(self, primary: bool) -> Iterator[bool]:
        """Silence whatever writes files; yields False when nothing else is left to do."""
        if primary:
            yield True
            return
        all_metrics = self.evaluator.metrics
        hooks = [hook for hook in self.runner.hooks if isinstance(hook, SegVisualizationHook)]
        drawn = [hook.draw for hook in hooks]
        outputs = [getattr(metric, 'output_dir', None) for metric in all_metrics]
        self.evaluator.metrics = [
            metric
            for metric in all_metrics
            if not isinstance(metric, DumpResults) and not getattr(metric, 'format_only', False)
        ]
        try:
            for hook in hooks:
                hook.draw = False
            for metric, output in zip(all_metrics, outputs, strict=True):
                if output is not None:
                    metric.output_dir = None
            yield bool(self.evaluator.metrics)
        finally:
            self.evaluator.metrics = all_metrics
            for hook, draw in zip(hooks, drawn, strict=True):
                hook.draw = draw
            for metric, output in zip(all_metrics, outputs, strict=True):
                if output is not None:
                    metric.output_dir = output


@LOOPS.register_module()
class TeacherStudentValLoop(_EveryNetwork, ValLoop):
    """``ValLoop`` that reports every network, e.g. ``student/mIoU`` and ``teacher/mIoU``."""

    stage = 'val'


@LOOPS.register_module()
class TeacherStudentTestLoop(_EveryNetwork, TestLoop):
    """``TestLoop`` that reports every network, also under test-time augmentation."""

    stage = 'test'


def _unwrap(model: nn.Module) -> nn.Module:
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
