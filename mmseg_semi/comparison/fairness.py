"""What methods must have in common before their figures may stand in one table, read from their configs."""

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
#: Figures are not comparable where one of these differs.
DECISIVE = ('steps', *IMAGES, 'metric', 'validation pipeline', 'test_cfg')
#: What differs here belongs to the table.
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
#: Transforms that are the same for labeled and unlabeled images, and all views.
_GEOMETRY = (
    'RandomResize',
    'RandomShrinkOrEnlarge',
    'Resize',
    'Pad',
    'RandomFlip',
    'RandomCrop',
    'RandomRotFlip',
)
#: Prefixes of transforms that change no image.
_BOOKKEEPING = ('Load', 'Pack', 'Check', 'Add')


def facts(cfg: Config) -> dict[str, Any]:
    """What a comparison depends on, of the training that makes the result.

    Args:
        cfg: resolved config of a method; its data are looked at, its images are not.

    Returns:
        A plain value for each of :data:`DECISIVE` and :data:`TELLING`; ``unlabeled images`` is None for a
        method without any.

    Raises:
        FileNotFoundError: a list or folder of the data is missing.
        ValueError: a dataset has no image, or the training counts epochs.
    """
    *earlier, (_, last) = trainings_of(cfg).items()
    labeled, unlabeled = children(last)
    validation = stage_leaves(last, 'val')
    network = _plain(last.model.get('segmentor', last.model))
    network.pop('data_preprocessor', None)
    for head in ('decode_head', 'auxiliary_head'):
        for config in network[head] if isinstance(network.get(head), list) else [network.get(head)]:
            # A method may build its heads without it: `dropout` is what it built.
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
    """Facts that differ from the reference's, each with a few words on how.

    Unlabeled images are compared where both have any.
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
    """What the others are compared with: of each fact the first method's that has it."""
    reference: dict[str, Any] = {}
    for found in all_facts:
        for name, value in found.items():
            if reference.get(name) is None:
                reference[name] = value
    return reference


def baselines(found: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The supervised method that each method's gain is over: one of the same network, else the first one.

    Args:
        found: :func:`facts` by method.

    Returns:
        By method; empty if none of them is supervised.
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
    """What the network that predicts drops in training, by module, of the model as it is built.

    Neither modules that only training needs, as U2PL's representation, nor features that a method drops by
    itself, as UniMatch does, are of that network.

    Args:
        model: config of a segmentor or a method; no weights are loaded.

    Returns:
        Share of the input, above 0: of dropout, of stochastic depth, and of attention.
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
    # Of PyTorch's attention, and of mmpretrain's.
    rate = getattr(
        module, 'dropout' if isinstance(module, nn.MultiheadAttention) else 'attn_drop', 0
    )
    return rate if isinstance(rate, float) else 0.0


def children(training: Config) -> tuple[list[Leaf], list[Leaf]]:
    """The labeled and the unlabeled datasets of a training, without those that wrap them."""
    found = leaf_configs(training.train_dataloader.dataset)
    labeled = [leaf for leaf in found if leaf.kind in (None, 'labeled')]
    return labeled, [leaf for leaf in found if leaf not in labeled]


def images_of(kind: str, datasets: Sequence[Leaf]) -> list[str]:
    """Paths of the images of datasets, with their masks', sorted; no file of them is opened.

    Raises:
        FileNotFoundError: a list or folder is missing.
        ValueError: one has no image.
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
    """The pipeline that all images of datasets go through.

    Raises:
        ValueError: there is none, or there are several.
    """
    first, *others = [_plain(leaf.dataset.get('pipeline')) for leaf in datasets]
    if first is None or any(other != first for other in others):
        keys = ' and '.join(leaf.key for leaf in datasets)
        raise ValueError(
            f'The images of {keys} have no common pipeline, so that what they go through cannot be '
            'compared. Give each of these datasets the same `pipeline`.'
        )
    return first


def iterations_of(training: Config) -> int:
    """Length of a training.

    Raises:
        ValueError: it counts epochs.
    """
    iterations = training.train_cfg.get('max_iters')
    if iterations is None:
        raise ValueError(
            f'{training.filename} trains for {training.train_cfg.get("max_epochs")} epochs of its own list, '
            'which no other method can be trained for. Give a config with train_cfg.max_iters.'
        )
    return iterations


def steps_of(training: Config) -> int:
    """Optimizer steps of a training."""
    return count_steps(iterations_of(training), accumulation_of(training))


def images_per_iteration(
    training: Config, num_labeled: int, num_pseudo: int
) -> tuple[float, float]:
    """Labeled and unlabeled images in an iteration of one process; in self-training, which mixes, the mean.

    Args:
        training: one training of a method.
        num_labeled: labeled images.
        num_pseudo: pseudo-labeled images of this training; only self-training has any.
    """
    loader = training.train_dataloader
    sampler = loader.sampler
    if 'unlabeled' in sampler:
        return float(sampler.labeled), float(sampler.unlabeled)
    if loader.dataset.type != 'SelfTrainingDataset' or not loader.dataset.get('pseudo_labeled'):
        return float(loader.batch_size), 0.0
    # As SelfTrainingDataset repeats them.
    labeled = num_labeled * max(1, -(-num_pseudo // num_labeled))
    share = labeled / (labeled + num_pseudo)
    return loader.batch_size * share, loader.batch_size * (1 - share)


def _beforehand(last: Config, earlier: list[tuple[str, Config]]) -> str:
    """Optimizer steps, and images of one in a process, of the trainings before the last one."""
    told = []
    for name, training in earlier:
        images = training.train_dataloader.batch_size * accumulation_of(training)
        told.append(f'{name} {steps_of(training)} steps of {images} images')
    start = (last.model.get('semi_train_cfg') or {}).get('teacher_checkpoint')
    if start and not start.startswith(REFERENCE):
        told.append(f'teacher of {start}')
    return ' and '.join(told) or 'none'


def _unlabeled_steps(training: Config, labeled: set[str]) -> tuple[list | None, dict | None]:
    """What shapes all views of an unlabeled image alike, and what else each of them goes through.

    Both are None without such images.

    Args:
        training: one training of a method.
        labeled: types of the transforms of the labeled images, which shape.
    """
    dataset = training.train_dataloader.dataset
    _, unlabeled = children(training)
    if not unlabeled:
        return None, None
    if dataset.get('pseudo_labeled'):  # which prepares all images that it holds by itself
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
    """Height and width, for which RandomCrop also takes one number."""
    return [size, size] if isinstance(size, int) else list(size)


def _changed(here, there) -> str:
    key, before, now = first_difference(_indexed(there), _indexed(here))
    return (
        f'{key}: {_short(now)}, not {_short(before)}'
        if key
        else f'{_short(now)}, not {_short(before)}'
    )


def _indexed(value):
    """Lists as dicts, so that a difference within is found; of another length they differ as a whole."""
    if isinstance(value, dict):
        return {str(key): _indexed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return {str(index): _indexed(item) for index, item in enumerate(value)}
    return value


def _short(value, most: int = 60) -> str:
    text = 'nothing' if value is None else str(value)
    return text if len(text) <= most else f'{text[: most - 3]}...'


def _plain(config):
    """A copy in plain dicts and lists."""
    if isinstance(config, Mapping):
        return {key: _plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [_plain(value) for value in config]
    return copy.deepcopy(config)
