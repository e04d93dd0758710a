"""Several validation or test sets in one run: loaders, names, and metrics over all of them."""

from __future__ import annotations

import os.path as osp
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from mmengine.utils import mkdir_or_exist
from torch.utils.data import ConcatDataset, DataLoader

from ...datasets.walk import concatenated, leaves


class EvaluationSet(NamedTuple):
    """One of the datasets that a loop evaluates.

    Attributes:
        name (str): Prefix of its metrics; '' for a single dataset.
        key (str): Key of the dataset in the config.
        loader (DataLoader): Loader of the dataset.
    """

    name: str
    key: str
    loader: DataLoader


class JoinedLoader:
    """The loaders of several datasets as one loader, for hooks."""

    def __init__(self, loaders: Sequence[DataLoader]) -> None:
        self.loaders = list(loaders)
        self.dataset = ConcatDataset([loader.dataset for loader in loaders])
        self.dataset.metainfo = getattr(loaders[0].dataset, 'metainfo', {})
        self.batch_size = loaders[0].batch_size
        self.num_workers = loaders[0].num_workers

    def __len__(self) -> int:
        return sum(map(len, self.loaders))

    def __iter__(self) -> Iterator[Any]:
        for loader in self.loaders:
            yield from loader


def build_sets(
    runner: Runner, loaders, stage: str, names: Sequence[str] | None = None
) -> list[EvaluationSet]:
    """Build the loader of each dataset.

    Args:
        runner: Runner that builds them.
        loaders: A loader, its config, or a list of these. The config of a ``ConcatDataset`` becomes one loader
            per dataset with the same settings. A built loader has one dataset.
        stage: 'val' or 'test'.
        names: Names of the datasets, in order. None derives them from their settings.

    Raises:
        ValueError: Two datasets have the same name or different classes, or the number of names is wrong.
    """
    key = f'{stage}_dataloader'
    several = isinstance(loaders, (list, tuple))
    own_seeds = runner._randomness_cfg.get('diff_rank_seed', False)
    found = []
    for index, loader in enumerate(loaders if several else [loaders]):
        place = f'{key}[{index}].dataset' if several else f'{key}.dataset'
        if not isinstance(loader, Mapping):
            found.append((place, loader))
            continue
        for part in concatenated(loader['dataset'], place):
            config = {**loader, 'dataset': part.dataset}
            found.append((part.key, runner.build_dataloader(config, runner.seed, own_seeds)))
    if len(found) == 1 and not names:
        return [EvaluationSet('', *found[0])]
    datasets = [loader.dataset for _, loader in found]
    names = _derived_names(datasets) if names is None else list(names)
    if len(set(names)) < len(names) or len(names) != len(found):
        raise ValueError(
            f'{stage}_cfg.names={names} must have {len(found)} different names. Give one for each of '
            f'{", ".join(place for place, _ in found)}.'
        )
    _check_classes([place for place, _ in found], datasets)
    return [EvaluationSet(name, *entry) for name, entry in zip(names, found, strict=True)]


def _derived_names(datasets: Sequence) -> list[str]:
    """Return names from the first setting that differs between all datasets, or numbers."""
    first = [leaves(dataset)[0].dataset for dataset in datasets]
    candidates = (
        [osp.splitext(osp.basename(getattr(d, 'ann_file', '') or ''))[0] for d in first],
        [osp.basename((getattr(d, 'data_root', '') or '').rstrip('/')) for d in first],
        [osp.basename(_folder(d).rstrip('/')) for d in first],
    )
    found = (names for names in candidates if all(names) and len(set(names)) == len(names))
    return next(found, [f'set{index}' for index in range(1, len(datasets) + 1)])


def _folder(dataset) -> str:
    return (getattr(dataset, 'data_prefix', None) or {}).get('img_path') or ''


def _check_classes(keys: Sequence[str], datasets: Sequence) -> None:
    classes = [(getattr(dataset, 'metainfo', None) or {}).get('classes') for dataset in datasets]
    for key, of in zip(keys, classes, strict=True):
        if list(of or ()) != list(classes[0] or ()):
            raise ValueError(
                f'{key} has the classes {of}, but {keys[0]} has {classes[0]}. Evaluate datasets with different '
                'classes in separate tests.'
            )


class Collected:
    """Collect the results of a metric over several datasets, to compute it over all of them."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._results = [(metric, []) for metric in evaluator.metrics]

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Collect the results of a dataset, and write files to a folder with its name."""
        outputs = [getattr(metric, 'output_dir', None) for metric, _ in self._results]
        try:
            for (metric, kept), output in zip(self._results, outputs, strict=True):
                metric.compute_metrics = _keeping(metric.compute_metrics, kept)
                if output is not None:
                    metric.output_dir = osp.join(output, name)
                    if is_main_process():
                        mkdir_or_exist(metric.output_dir)
            yield
        finally:
            for (metric, _), output in zip(self._results, outputs, strict=True):
                del metric.compute_metrics  # restores the method of the class
                if output is not None:
                    metric.output_dir = output

    def evaluate(self) -> dict:
        """Return the metrics over the images of all datasets, the same on every rank."""
        found = {}
        if is_main_process():  # only it has the results of all ranks
            for metric, results in self._results:
                prefix = f'{metric.prefix}/' if metric.prefix else ''
                values = metric.compute_metrics(results)
                found.update({f'{prefix}{key}': value for key, value in values.items()})
        shared = [found]
        broadcast_object_list(shared)
        return shared[0]


def _keeping(compute, kept: list):
    def computed(results):
        kept.extend(results)
        return compute(results)

    return computed
