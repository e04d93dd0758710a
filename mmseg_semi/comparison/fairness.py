"""Check from their configs that methods are comparable in one table."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from mmcv.cnn.bricks import DropPath
from mmengine.config import Config, ConfigDict
from mmseg.registry import MODELS
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from ..datasets.children import build_child
from ..datasets.walk import Leaf, leaf_configs, sample_infos, stage_leaves
from ..engine.runner.staged_runner import first_difference
from ..engine.runner.stages import REFERENCE
from ..models.clock import count_steps
from .configs import accumulation_of, trainings_of

IMAGES = ('labeled images', 'unlabeled images', 'validation images')
#: Results are not comparable if one of these differs.
DECISIVE = ('steps', *IMAGES, 'metric', 'validation pipeline', 'test_cfg')
#: Differences in these are listed with the table.
TELLING = (
    'trainings beforehand',
    'labeled images per step',
    'unlabeled images per step',
    'crop',
    'network',
    'dropout',
    'augmentation of labeled images',
    'geometry of unlabeled images',
    'photometry of unlabeled images',
    'optimizer',
    'learning rate',
)
#: Geometric transforms, which labeled images and all unlabeled views share.
_GEOMETRY = (
    'RandomResize',
    'RandomShrinkOrEnlarge',
    'Resize',
    'Pad',
    'RandomFlip',
    'RandomCrop',
    'RandomRotFlip',
)
#: Prefixes of transforms that do not change images.
_BOOKKEEPING = ('Load', 'Pack', 'Check', 'Add')


def facts(cfg: Config) -> dict[str, Any]:
    """Return the facts on which a comparison depends, for the training that gives the result.

    Args:
        cfg: Resolved config of a method. Lists and folders of its data are read, but no images.

    Returns:
        A plain value for each of :data:`DECISIVE` and :data:`TELLING`. ``unlabeled images`` is None for a
        supervised method.

    Raises:
        FileNotFoundError: A list or folder of the data is missing.
        ValueError: A dataset has no image, or the training counts epochs.
    """
    *earlier, (_, last) = trainings_of(cfg).items()
    labeled, unlabeled = children(last)
    validation = stage_leaves(last, 'val')
    network = _plain(last.model.get('segmentor', last.model))
    network.pop('data_preprocessor', None)
    for head in ('decode_head', 'auxiliary_head'):
        for config in network[head] if isinstance(network.get(head), list) else [network.get(head)]:
            # A method may build its heads without dropout; `dropout` is the value of the built model.
            (config or {}).pop('dropout_ratio', None)
    test_cfg = network.pop('test_cfg', None)
    labeled_paths = images_of('labeled', labeled)
    unlabeled_paths = images_of('unlabeled', unlabeled) if unlabeled else None
    accumulation = accumulation_of(last)
    per_step, others_per_step = images_per_iteration(
        last, len(labeled_paths), len(unlabeled_paths or ())
    )
    pipeline = pipeline_of(labeled)
    geometry, photometry = _unlabeled_steps(last, {t['type'] for t in pipeline})
    wrapper = _plain(last.optim_wrapper)
    return {
        'steps': steps_of(last),
        'labeled images': labeled_paths,
        'unlabeled images': unlabeled_paths,
        'validation images': images_of('validation', validation),
        'metric': _plain(last.val_evaluator),
        'validation pipeline': pipeline_of(validation),
        'test_cfg': test_cfg,
        'trainings beforehand': _beforehand(last, earlier),
        'labeled images per step': round(per_step * accumulation, 2),
        'unlabeled images per step': unlabeled_paths and round(others_per_step * accumulation, 2),
        'crop': [_pair(t['crop_size']) for t in pipeline if t['type'] == 'RandomCrop'],
        'network': network,
        'dropout': dropout_of(last.model),
        'augmentation of labeled images': pipeline,
        'geometry of unlabeled images': geometry,
        'photometry of unlabeled images': photometry,
        'optimizer': {
            key: wrapper.get(key) for key in ('optimizer', 'paramwise_cfg', 'accumulative_counts')
        },
        'learning rate': _plain(last.param_scheduler),
    }


def differences(of: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts that differ from the reference, each with a short description.

    Unlabeled images are only compared if both have some.
    """
    found = {}
    for name in (*DECISIVE, *TELLING):
        here, there = of[name], reference[name]
        if here == there or here is None or there is None:
            continue
        if name in IMAGES:
            shared = len(set(here) & set(there))
            found[name] = f'{len(here)}, not {len(there)}, {shared} of them the same'
        elif isinstance(here, (dict, list)):
            found[name] = _changed(here, there)
        else:
            found[name] = f'{here}, not {there}'
    return found


def common_reference(all_facts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the reference for the comparison: each fact of the first method that has it."""
    reference: dict[str, Any] = {}
    for found in all_facts:
        for name, value in found.items():
            if reference.get(name) is None:
                reference[name] = value
    return reference


def baselines(found: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the supervised baseline of each method: one with the same network, or else the first one.

    Args:
        found: :func:`facts` by method.

    Returns:
        Baseline by method; empty if no method is supervised.
    """
    supervised = [method for method, of in found.items() if of['unlabeled images'] is None]
    return {
        method: next(
            (other for other in supervised if _same_network(found[other], of)), supervised[0]
        )
        for method, of in found.items()
        if supervised
    }


def _same_network(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one[fact] == other[fact] for fact in ('network', 'dropout'))


def dropout_of(model: Mapping) -> dict[str, float]:
    """Return the dropout rates in training of the network that predicts, by module of the built model.

    They do not include modules for training only, such as the representation head of U2PL, and features that a
    method drops itself, such as in UniMatch.

    Args:
        model: Config of a segmentor or a method; no weights are loaded.

    Returns:
        Rates above 0 of dropout, stochastic depth, and attention.
    """
    with torch.random.fork_rng(devices=[]):
        built = MODELS.build(ConfigDict(_plain(model)))
    apart = tuple(getattr(built, 'training_only', ()))
    rates = {
        name: _drop_rate(module)
        for name, module in getattr(built, 'predictor', built).named_modules()
        if not name.startswith(apart)
    }
    return {name: rate for name, rate in rates.items() if rate}


def _drop_rate(module: nn.Module) -> float:
    if isinstance(module, _DropoutNd):
        return module.p
    if isinstance(module, DropPath):
        return module.drop_prob
    # Attention of PyTorch and of mmpretrain.
    rate = getattr(
        module, 'dropout' if isinstance(module, nn.MultiheadAttention) else 'attn_drop', 0
    )
    return rate if isinstance(rate, float) else 0.0


def children(training: Config) -> tuple[list[Leaf], list[Leaf]]:
    """Return the labeled and the unlabeled datasets of a training, without their wrappers."""
    found = leaf_configs(training.train_dataloader.dataset)
    labeled = [leaf for leaf in found if leaf.kind in (None, 'labeled')]
    return labeled, [leaf for leaf in found if leaf not in labeled]


def images_of(kind: str, datasets: Sequence[Leaf]) -> list[str]:
    """Return the sorted paths of images and masks of datasets, without opening them.

    Raises:
        FileNotFoundError: A list or folder is missing.
        ValueError: A dataset has no image.
    """
    found = []
    for leaf in datasets:
        name = kind if kind == 'validation' else None
        config = {**_plain(leaf.dataset), 'pipeline': []}
        child = build_child(kind, config, name=name, key=leaf.key)
        found += [
            ' '.join(filter(None, map(info.get, ('img_path', 'seg_map_path'))))
            for info in sample_infos(child)
        ]
    return sorted(found)


def pipeline_of(datasets: Sequence[Leaf]) -> list:
    """Return the common pipeline of all datasets.

    Raises:
        ValueError: The datasets have no pipeline or different ones.
    """
    first, *others = [_plain(leaf.dataset.get('pipeline')) for leaf in datasets]
    if first is None or any(other != first for other in others):
        keys = ' and '.join(leaf.key for leaf in datasets)
        raise ValueError(
            f'The datasets {keys} have different pipelines, so that they cannot be compared. Give each of '
            'these datasets the same `pipeline`.'
        )
    return first


def iterations_of(training: Config) -> int:
    """Return the length of a training in iterations.

    Raises:
        ValueError: The training counts epochs.
    """
    iterations = training.train_cfg.get('max_iters')
    if iterations is None:
        raise ValueError(
            f'{training.filename} has train_cfg.max_epochs={training.train_cfg.get("max_epochs")}, epochs of '
            'its own list, which other methods do not have. Give a config with train_cfg.max_iters.'
        )
    return iterations


def steps_of(training: Config) -> int:
    """Return the optimizer steps of a training."""
    return count_steps(iterations_of(training), accumulation_of(training))


def images_per_iteration(
    training: Config, num_labeled: int, num_pseudo: int
) -> tuple[float, float]:
    """Return labeled and unlabeled images per iteration and process; expected values for self-training.

    Args:
        training: One training of a method.
        num_labeled: Number of labeled images.
        num_pseudo: Number of pseudo-labeled images of this training; only for self-training.
    """
    loader = training.train_dataloader
    sampler = loader.sampler
    if 'unlabeled' in sampler:
        return float(sampler.labeled), float(sampler.unlabeled)
    if loader.dataset.type != 'SelfTrainingDataset' or not loader.dataset.get('pseudo_labeled'):
        return float(loader.batch_size), 0.0
    # Repeated as in SelfTrainingDataset.
    labeled = num_labeled * max(1, -(-num_pseudo // num_labeled))
    share = labeled / (labeled + num_pseudo)
    return loader.batch_size * share, loader.batch_size * (1 - share)


def _beforehand(last: Config, earlier: list[tuple[str, Config]]) -> str:
    """Describe optimizer steps and images per step and process of the trainings before the last one."""
    told = []
    for name, training in earlier:
        images = training.train_dataloader.batch_size * accumulation_of(training)
        told.append(f'{name} {steps_of(training)} steps of {images} images')
    start = (last.model.get('semi_train_cfg') or {}).get('teacher_checkpoint')
    if start and not start.startswith(REFERENCE):
        told.append(f'teacher of {start}')
    return ' and '.join(told) or 'none'


def _unlabeled_steps(training: Config, labeled: set[str]) -> tuple[list | None, dict | None]:
    """Return the geometric transforms that all views of an unlabeled image share, and the others of each view.

    Both are None without unlabeled images.

    Args:
        training: One training of a method.
        labeled: Types of the geometric transforms of labeled images.
    """
    dataset = training.train_dataloader.dataset
    _, unlabeled = children(training)
    if not unlabeled:
        return None, None
    if dataset.get('pseudo_labeled'):  # has its own pipeline for its images
        key = 'train_dataloader.dataset.pseudo_labeled'
        unlabeled = [Leaf(dataset.pseudo_labeled, key, 'pseudo_labeled')]
    known = {*_GEOMETRY, *labeled}
    geometry, views = [], {'all views': []}
    for step in pipeline_of(unlabeled):
        if step['type'] == 'MultiBranch':
            views.update({name: steps for name, steps in step.items() if isinstance(steps, list)})
        else:
            (geometry if step['type'] in known else views['all views']).append(step)
    views = {name: _changing(steps) for name, steps in views.items()}
    return _changing(geometry), {name: steps for name, steps in views.items() if steps}


def _changing(steps: list[dict]) -> list[dict]:
    return [step for step in steps if not step['type'].startswith(_BOOKKEEPING)]


def _pair(size) -> list:
    """Return height and width, which RandomCrop also accepts as one number."""
    return [size, size] if isinstance(size, int) else list(size)


def _changed(here, there) -> str:
    key, before, now = first_difference(_indexed(there), _indexed(here))
    return (
        f'{key}: {_short(now)}, not {_short(before)}'
        if key
        else f'{_short(now)}, not {_short(before)}'
    )


def _indexed(value):
    """Convert lists to dicts to find differences inside. Lists of different lengths differ as a whole."""
    if isinstance(value, dict):
        return {str(key): _indexed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return {str(index): _indexed(item) for index, item in enumerate(value)}
    return value


def _short(value, most: int = 60) -> str:
    text = 'nothing' if value is None else str(value)
    return text if len(text) <= most else f'{text[: most - 3]}...'


def _plain(config):
    """Return a copy with plain dicts and lists."""
    if isinstance(config, Mapping):
        return {key: _plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [_plain(value) for value in config]
    return copy.deepcopy(config)
