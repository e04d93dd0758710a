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
    """Split a batch where the image size changes, since a forward pass needs images of the same size."""
    images = data_batch['inputs']
    if isinstance(images, (Tensor, Mapping)):
        yield data_batch
        return
    # With test-time augmentation, each view has a list of its images.
    augmented = not isinstance(images[0], Tensor)
    first = images[0] if augmented else images
    for _, part in groupby(range(len(first)), key=lambda index: first[index].shape):
        indices = list(part)

        def chosen(values, indices=indices):
            return [values[index] for index in indices]

        yield {
            key: [chosen(view) for view in values] if augmented else chosen(values)
            for key, values in data_batch.items()
        }


class _EveryNetwork:
    """Evaluate each network of the model on each dataset with the same evaluator.

    Metrics have the name of the network as a prefix. Only the network ``semi_test_cfg.predict_on`` writes files
    (predictions, images), since all would use the same file names. A model that is not a method is a network
    without a name. Images of different sizes in a batch are processed one after the other, since padding would
    change their predictions.

    For several datasets, give a list of loaders or a ``ConcatDataset``. The metrics of each are
    ``SET/teacher/mIoU`` or ``SET/mIoU``, and ``teacher/mIoU`` or ``mIoU`` is computed over the images of all.
    Without ``names``, the name is the first of these that differs between all datasets: the stem of
    ``ann_file``, ``data_root``, the folder of images. Otherwise the names are ``set1``, ``set2``, ... Metrics
    write files to a folder with the name of the dataset.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader or dict or list): One loader, or a list of loaders.
        evaluator (Evaluator or dict or list): Evaluator of all datasets.
        names (list[str], optional): Names of the datasets, in order.
        **kwargs: Arguments of MMEngine's loops.

    Attributes:
        sets (list[EvaluationSet]): Datasets with their loaders.
        prefixes (list[str]): Prefixes of the metrics, such as ``'night/teacher/'``.

    Raises:
        ValueError: Two datasets have the same name or different classes, or the number of names is wrong.
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
        """Names of all metrics of the loop. Those of the predicting network over all datasets come first.

        The names of each network have the order of :func:`~mmseg_semi.engine.metric_names.metric_names`. None
        if they are unknown.
        """
        names, model = metric_names(self.evaluator), unwrap(self.runner.model)
        if names is None:
            return None
        is_method = isinstance(model, SemiSegmentor)
        first = f'{model.semi_test_cfg["predict_on"]}/' if is_method else ''
        prefixes = sorted(self.prefixes, key=lambda prefix: prefix != first)
        return [f'{prefix}{name}' for prefix in prefixes for name in names]

    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Evaluate a batch. Its images may have different sizes."""
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
        """Return the metrics of the currently predicting network, on each dataset and over all."""
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
        """Disable metrics and hooks that write files. Yields False if nothing else remains."""
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
