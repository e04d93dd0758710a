"""Validation and test of all networks of a method in one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby

from mmengine.evaluator import DumpResults
from mmengine.runner import TestLoop, ValLoop
from mmseg.engine.hooks import SegVisualizationHook
from mmseg.registry import LOOPS
from torch import Tensor

from ...models.segmentors.base import SemiSegmentor
from ..hooks._common import unwrap
from ..metric_names import metric_names
from .validation_sets import Collected, JoinedLoader, build_sets


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
    """Evaluate each network of the model on each set with the same evaluator, names before the metrics.

    Only the network that ``semi_test_cfg.predict_on`` names writes files (predictions, pictures), since
    all would use the same names. A model that is not a method is one network without a name. Images of a batch
    that differ in size pass the network one after the other: padding would change what it predicts.

    Several sets are a list of loaders, or a ``ConcatDataset``. Each is evaluated alone, as ``SET/teacher/mIoU``
    or ``SET/mIoU``, and ``teacher/mIoU`` or ``mIoU`` is over the images of all. Without ``names`` sets have
    that of the first of these by which all differ: the stem of ``ann_file``, ``data_root``, the folder of
    images; else they are ``set1``, ``set2``, ... Files that metrics write lie in a folder of the set's name.

    Args:
        runner (Runner): Of the run.
        dataloader (DataLoader or dict or list): One, or a list of them.
        evaluator (Evaluator or dict or list): Of all sets.
        names (list[str], optional): Of the sets, in their order.
        **kwargs: As of MMEngine's loops.

    Attributes:
        sets (list[EvaluationSet]): With their loaders.
        prefixes (list[str]): What stands before the names of metrics, such as ``'night/teacher/'``.

    Raises:
        ValueError: Two sets have one name or other classes, or there are more or fewer names.
    """

    def __init__(self, runner, dataloader, evaluator, names=None, **kwargs) -> None:
        self.sets = build_sets(runner, dataloader, self.stage, names)
        loaders = [part.loader for part in self.sets]
        joined = loaders[0] if len(loaders) == 1 else JoinedLoader(loaders)
        super().__init__(runner, joined, evaluator, **kwargs)

    @property
    def prefixes(self) -> list[str]:
        names = ['', *(f'{part.name}/' for part in self.sets if part.name)]
        model = unwrap(self.runner.model)
        if not isinstance(model, SemiSegmentor):
            return names
        return [f'{name}{network}/' for name in names for network in model.networks]

    def reported_names(self) -> list[str] | None:
        """Names of what the loop will report: first those of the network that predicts, over all sets.

        Each network's names are in the order of :func:`~mmseg_semi.engine.metric_names.metric_names`, which
        also says when they are not known.
        """
        names, model = metric_names(self.evaluator), unwrap(self.runner.model)
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
        model = unwrap(self.runner.model)
        is_method = isinstance(model, SemiSegmentor)
        if not is_method and len(self.sets) == 1:
            return super().run()
        stage = self.stage
        self.runner.call_hook(f'before_{stage}')
        self.runner.call_hook(f'before_{stage}_epoch')
        self.runner.model.eval()
        metrics = {}
        if not is_method:
            metrics = self._evaluate('')
        else:
            primary = model.semi_test_cfg['predict_on']
            for name in model.networks:
                with model.predicting_with(name), self._files_only_if(name == primary) as wanted:
                    if wanted:
                        self.runner.logger.info(f'Evaluating the {name}.')
                        metrics.update(self._evaluate(f'{name}/'))
        self.runner.call_hook(f'after_{stage}_epoch', metrics=metrics)
        self.runner.call_hook(f'after_{stage}')
        return metrics

    def _evaluate(self, network: str) -> dict:
        """Metrics of the network that predicts now, on each set and over all."""
        if len(self.sets) == 1:
            results = self._evaluate_set(self.sets[0].loader, 0)
            return {f'{network}{key}': value for key, value in results.items()}
        collected, found, index = Collected(self.evaluator), {}, 0
        for part in self.sets:
            self.runner.logger.info(f'Evaluating on {part.name} ({part.key}).')
            with collected.of(part.name):
                results = self._evaluate_set(part.loader, index)
            index += len(part.loader)
            found.update({f'{part.name}/{network}{key}': v for key, v in results.items()})
        self.runner.logger.info('Evaluating over all sets.')
        results = collected.evaluate()
        return {**found, **{f'{network}{key}': value for key, value in results.items()}}

    def _evaluate_set(self, loader, first: int) -> dict:
        for index, data_batch in enumerate(loader, start=first):
            self.run_iter(index, data_batch)
        return self.evaluator.evaluate(len(loader.dataset))

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
