"""Find the config of a method by name, and apply common settings of a comparison."""

from __future__ import annotations

import re
from pathlib import Path

from mmengine.config import Config
from mmseg.registry import MODELS

from ..compat import config_root
from ..datasets.children import build_child
from ..datasets.partition import counted_images, fill_partition, waits_for_partition
from ..datasets.walk import Leaf, stage_leaves
from ..engine.metric_names import IOU_METRICS
from ..engine.runner.stages import TrainStage, build_stages
from ..engine.train_loops import epoch_lengths, epochs_of

#: {method}_{head}_{network}_{schedule}_{dataset}-{crop}.py, see docs/configs.md.
NAME = re.compile(
    r'(?P<method>[a-z0-9-]+)_(?P<head>[a-z0-9]+)_(?P<network>[a-z0-9-]+)_'
    r'(?P<schedule>(\d+xb\d+-)?\d+(e|k|iter))_(?P<dataset>[a-z0-9]+)-(?P<crop>\d+x\d+)\.py'
)


def find_config(method: str, root: str | Path | None = None, **parts: str | None) -> Path:
    """Return the config of a method whose name has these parts.

    Args:
        method: First part of the name, such as ``imas`` or ``imas-official``; an underscore means a dash.
        root: Folder of configs. Default: that of this package.
        **parts: Further parts, by the names of the groups of :data:`NAME`; None matches any.

    Raises:
        ValueError: No config or several configs match. The message lists the candidates.
    """
    root = Path(config_root('mmseg_semi') if root is None else root)
    method = method.replace('_', '-')
    wanted = {key: value for key, value in parts.items() if value is not None}
    named = [(path, NAME.fullmatch(path.name)) for path in sorted(root.glob('*/*.py'))]
    named = [(path, said) for path, said in named if said]
    mine = [(path, said) for path, said in named if said['method'] == method]
    if not mine:
        known = sorted({said['method'] for _, said in named})
        raise ValueError(
            f'{method!r} is neither a method of {root} nor a config file. Choose one of {", ".join(known)}.'
        )
    fitting = [(p, said) for p, said in mine if all(said[k] == v for k, v in wanted.items())]
    if len(fitting) == 1:
        return fitting[0][0]
    described = ', '.join(f'{key}={value}' for key, value in wanted.items()) or 'no further part'
    if fitting:
        raise ValueError(
            f'{len(fitting)} configs of {method} have {described}. Give more parts of the name, or the path of '
            f'one of {_listed(fitting)}.'
        )
    # Configs with the fewest mismatches come first.
    mine.sort(key=lambda entry: sum(entry[1][key] != value for key, value in wanted.items()))
    raise ValueError(
        f'{method} has no config with {described}, only {_listed(mine)}. Change a part, or give the path of a '
        'config file.'
    )


def _listed(found: list, most: int = 6) -> str:
    names = [path.name for path, _ in found]
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more


def drawn_seed_keys(cfg: Config) -> list[str]:
    """Return the dotted keys of the seeds of all synthetic datasets. Another seed gives other images."""
    return [
        f'{_dotted(leaf.key)}.seed'
        for leaf in _all_leaves(cfg)
        if leaf.dataset.get('type') == 'ShapesDataset'
    ]


def data_root_keys(cfg: Config) -> list[str]:
    """Return the dotted keys of ``data_root`` of all datasets in a config."""
    found = _all_leaves(cfg)
    dataset = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    if dataset.get('counted'):
        found.append(Leaf(dataset['counted'], 'train_dataloader.dataset.counted', 'unlabeled'))
    return [f'{_dotted(leaf.key)}.data_root' for leaf in found if leaf.dataset.get('data_root')]


def _all_leaves(cfg: Config) -> list[Leaf]:
    return [leaf for stage in ('train', 'val', 'test') for leaf in stage_leaves(cfg, stage)]


def _dotted(key: str) -> str:
    """Convert a key to MMEngine's format for options, in which the index of a list follows a dot."""
    return key.replace('[', '.').replace(']', '')


def set_partition(cfg: Config, partition: str) -> None:
    """Let a config train on the lists of a partition.

    Args:
        cfg: The resolved config; it is changed.
        partition: Value of ``train_dataloader.dataset.partition``. If the config does not use it in a list, the
            folder of labeled.txt and unlabeled.txt below the data_root of the datasets. For a supervised
            training, also a single list, with a name that ends in .txt.

    Raises:
        ValueError: A training with unlabeled images got a single list, or the dataset has no list.
    """
    dataset = cfg.train_dataloader.dataset
    if waits_for_partition(dataset):
        if not partition.endswith('.txt'):
            dataset.partition = partition
            return
        if 'ann_file' in dataset:  # labeled images only
            dataset.ann_file = partition
            for key in ('partition', 'counted', 'counted_batch'):
                dataset.pop(key, None)
            return
    found = stage_leaves(cfg, 'train')
    lists = {
        'labeled': [leaf for leaf in found if leaf.kind in (None, 'labeled')],
        'unlabeled': [leaf for leaf in found if leaf.kind in ('unlabeled', 'pseudo_labeled')],
    }
    for name, datasets in lists.items():
        if len(datasets) > 1:
            keys = ' and '.join(leaf.key for leaf in datasets)
            raise ValueError(
                f'{cfg.filename} has {len(datasets)} {name} datasets, {keys}, and a partition names one '
                'list. Leave the partition out.'
            )
    labeled, unlabeled = lists['labeled'][0].dataset, [leaf.dataset for leaf in lists['unlabeled']]
    if 'ann_file' not in labeled:
        raise ValueError(
            f'{cfg.filename} trains on a {labeled["type"]} without ann_file. Leave the partition out.'
        )
    if partition.endswith('.txt'):
        if unlabeled:
            raise ValueError(
                f'partition={partition} is one list, but {cfg.filename} needs two. Give a folder with '
                'labeled.txt and unlabeled.txt.'
            )
        labeled.ann_file = partition
        return
    labeled.ann_file = f'{partition}/labeled.txt'
    for dataset in unlabeled:
        dataset.ann_file = f'{partition}/unlabeled.txt'


def set_length(cfg: Config, processes: int) -> None:
    """Convert a length in epochs to iterations, unless ``max_iters`` is set.

    Args:
        cfg: The resolved config; it is changed.
        processes: Number of processes of the training.

    Raises:
        FileNotFoundError: A list or folder of the unlabeled images is missing.
        ValueError: There are no images to count, or the number of epochs is missing.
    """
    epochs = cfg.train_cfg.get('epochs')
    if epochs is None or cfg.train_cfg.get('max_iters'):
        return
    loader = cfg.train_dataloader
    partition, dataset = loader.dataset.get('partition'), fill_partition(loader.dataset)
    config = dataset.get('unlabeled') or counted_images(dataset)
    if not config:
        raise ValueError(
            f'{cfg.filename} trains for {epochs} epochs of unlabeled images but has none. Give a length in '
            'iterations (--iters, or train_cfg.max_iters).'
        )
    images = len(build_child('unlabeled', {**config, 'pipeline': []}))
    share = loader.dataset.get('counted_batch') or loader.batch_size
    if 'unlabeled' in loader.sampler:
        share = loader.sampler.unlabeled // loader.sampler.get('unlabeled_streams', 1)
    accumulated = accumulation_of(cfg)
    lengths = epoch_lengths(
        images,
        share * accumulated * processes,
        accumulated,
        epochs_of(epochs, partition),
        cfg.train_cfg.get('val_every', 1),
    )
    cfg.train_cfg.max_iters = lengths.max_iters
    cfg.train_cfg.setdefault('val_interval', lengths.val_interval)


def trainings_of(cfg: Config) -> dict[str, Config]:
    """Return the trainings of a config by stage. The last one gives the result; without stages, it is ``''``.

    Raises:
        ValueError: The stages are inconsistent, or none of them is a training.
    """
    if not cfg.get('stages'):
        return {'': cfg}
    stages = build_stages(cfg)
    found = {
        name: stage.config() for name, stage in stages.items() if isinstance(stage, TrainStage)
    }
    if not found:
        raise ValueError(f'{cfg.filename} has stages, but none is a TrainStage. Add one.')
    return found


def networks_of(training: Config) -> tuple[str, ...]:
    """Return the networks whose metrics a validation reports; ``('',)`` for a plain model."""
    kind = MODELS.get(training.model.get('type') or '')
    if not str(training.val_cfg.get('type')).startswith('TeacherStudent'):
        return ('',)
    return getattr(kind, 'networks', ('',))


def metrics_of(training: Config) -> list[str] | None:
    """Return the names of the metrics of a validation; None if one is not mmseg's IoUMetric."""
    evaluators = training.val_evaluator
    found = ['aAcc']
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        if evaluator.get('type') not in ('IoUMetric', 'ClassIoUMetric'):
            return None
        wanted = evaluator.get('iou_metrics', ['mIoU'])
        for name in [wanted] if isinstance(wanted, str) else wanted:
            found += IOU_METRICS.get(name, ())
    return list(dict.fromkeys(found))


def accumulation_of(training: Config) -> int:
    """Return the iterations per optimizer step of a training."""
    return training.optim_wrapper.get('accumulative_counts', 1)
