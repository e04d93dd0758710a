"""Which config a method's name means, and what a comparison sets in all of them alike."""

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
from ..models.clock import count_steps

#: {method}_{head}_{network}_{schedule}_{dataset}-{crop}.py, as docs/configs.md has it.
NAME = re.compile(
    r'(?P<method>[a-z0-9-]+)_(?P<head>[a-z0-9]+)_(?P<network>[a-z0-9-]+)_'
    r'(?P<schedule>(\d+xb\d+-)?\d+(e|k|iter))_(?P<dataset>[a-z0-9]+)-(?P<crop>\d+x\d+)\.py'
)


def find_config(method: str, root: str | Path | None = None, **parts: str | None) -> Path:
    """The config of a method whose name has these parts.

    Args:
        method: first part of the name, ``imas`` or ``imas-official``; an underscore stands for a dash.
        root: folder of configs. Default: this package's.
        **parts: further parts, by the names of the groups of :data:`NAME`; None leaves one open.

    Raises:
        ValueError: There is none, or there are several; the sentence lists the candidates.
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
            f'{method!r} is not a method of {root} and no config file. Choose one of {", ".join(known)}.'
        )
    fitting = [(p, said) for p, said in mine if all(said[k] == v for k, v in wanted.items())]
    if len(fitting) == 1:
        return fitting[0][0]
    described = ', '.join(f'{key}={value}' for key, value in wanted.items()) or 'no further part'
    if fitting:
        raise ValueError(
            f'{len(fitting)} configs of {method} have {described}. Give more parts of the name, or one of '
            f'{_listed(fitting)} by its path.'
        )
    # Those that miss the least come first.
    mine.sort(key=lambda entry: sum(entry[1][key] != value for key, value in wanted.items()))
    raise ValueError(
        f'{method} has no config with {described}: it has {_listed(mine)}. Change a part, or give a config '
        'file by its path.'
    )


def _listed(found: list, most: int = 6) -> str:
    names = [path.name for path, _ in found]
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more


def drawn_seed_keys(cfg: Config) -> list[str]:
    """Dotted keys of the seeds of all sets of synthetic images: another seed draws other images everywhere."""
    return [
        f'{_dotted(leaf.key)}.seed'
        for leaf in _all_leaves(cfg)
        if leaf.dataset.get('type') == 'ShapesDataset'
    ]


def data_root_keys(cfg: Config) -> list[str]:
    """Dotted keys of the folders that the datasets of a config are below."""
    found = _all_leaves(cfg)
    dataset = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    if dataset.get('counted'):
        found.append(Leaf(dataset['counted'], 'train_dataloader.dataset.counted', 'unlabeled'))
    return [f'{_dotted(leaf.key)}.data_root' for leaf in found if leaf.dataset.get('data_root')]


def _all_leaves(cfg: Config) -> list[Leaf]:
    return [leaf for stage in ('train', 'val', 'test') for leaf in stage_leaves(cfg, stage)]


def _dotted(key: str) -> str:
    """A key as MMEngine takes it in options, where the index of a list follows a dot."""
    return key.replace('[', '.').replace(']', '')


def set_partition(cfg: Config, partition: str) -> None:
    """Let a config train on the lists of a partition.

    Args:
        cfg: resolved; it is changed.
        partition: what ``train_dataloader.dataset.partition`` takes. Where no list of a config waits for it,
            the folder of labeled.txt and unlabeled.txt below the data_root of the datasets. Or the one list of
            a supervised training, a name that ends in .txt.

    Raises:
        ValueError: One list is given to a training with unlabeled images, or the data set has no list.
    """
    dataset = cfg.train_dataloader.dataset
    if waits_for_partition(dataset):
        if not partition.endswith('.txt'):
            dataset.partition = partition
            return
        if 'ann_file' in dataset:  # of labeled images alone
            dataset.ann_file = partition
            for key in ('partition', 'counted'):
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
                f'partition={partition} is one list, and {cfg.filename} takes two. Name a folder with '
                'labeled.txt and unlabeled.txt.'
            )
        labeled.ann_file = partition
        return
    labeled.ann_file = f'{partition}/labeled.txt'
    for dataset in unlabeled:
        dataset.ann_file = f'{partition}/unlabeled.txt'


def set_length(cfg: Config, processes: int) -> None:
    """Turn a length in epochs into iterations, where ``max_iters`` is not given.

    Args:
        cfg: resolved; it is changed.
        processes: of the training.

    Raises:
        FileNotFoundError: A list or folder of the unlabeled images is missing.
        ValueError: There are none to count, or the number of epochs is not said.
    """
    epochs = cfg.train_cfg.get('epochs')
    if epochs is None or cfg.train_cfg.get('max_iters'):
        return
    loader = cfg.train_dataloader
    partition, dataset = loader.dataset.get('partition'), fill_partition(loader.dataset)
    config = dataset.get('unlabeled') or counted_images(dataset)
    if not config:
        raise ValueError(
            f'{cfg.filename} trains for {epochs} epochs of unlabeled images and has none. Give a length in '
            'iterations (--iters, or train_cfg.max_iters).'
        )
    images = len(build_child('unlabeled', {**config, 'pipeline': []}))
    share = loader.batch_size
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
    """The trainings of a config by stage, the one that makes the result last; one without stages is ``''``.

    Raises:
        ValueError: The stages do not fit each other, or none is a training.
    """
    if not cfg.get('stages'):
        return {'': cfg}
    stages = build_stages(cfg)
    found = {
        name: stage.config() for name, stage in stages.items() if isinstance(stage, TrainStage)
    }
    if not found:
        raise ValueError(f'{cfg.filename} has stages, and none of them is a TrainStage.')
    return found


def networks_of(training: Config) -> tuple[str, ...]:
    """Networks whose metrics the validation of a training reports; ``('',)`` for a plain model's."""
    kind = MODELS.get(training.model.get('type') or '')
    if not str(training.val_cfg.get('type')).startswith('TeacherStudent'):
        return ('',)
    return getattr(kind, 'networks', ('',))


def metrics_of(training: Config) -> list[str] | None:
    """Names of the metrics of a training's validation; None where one is not mmseg's IoUMetric."""
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
    """Iterations of an optimizer step of a training."""
    return training.optim_wrapper.get('accumulative_counts', 1)


def check_schedule(training: Config) -> None:
    """Refuse a schedule of which a part begins when a training, perhaps shortened, is over.

    Raises:
        ValueError: naming the part and the remedy.
    """
    length = training.train_cfg.get('max_iters')
    length = length and count_steps(length, accumulation_of(training))
    schedulers = training.get('param_scheduler') or []
    parts = schedulers if isinstance(schedulers, dict) else {'': schedulers}
    for key, several in parts.items():
        several = several if isinstance(several, (list, tuple)) else [several]
        for index, part in enumerate(several):
            begin = part.get('begin', 0)
            if length and not part.get('by_epoch', True) and begin >= length:
                name = '.'.join(filter(None, ('param_scheduler', key)))
                raise ValueError(
                    f'{name}.{index} ({part["type"]}) begins at step {begin} of a training of {length}. '
                    f'Train longer (--iters), or set an earlier {name}.{index}.begin and end of the one '
                    'before it (--method-options).'
                )
