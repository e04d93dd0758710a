"""Export a method's config and checkpoint to those of a plain MMSegmentation network."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from mmengine.config import Config
from mmseg.registry import DATASETS, HOOKS, MODELS, TRANSFORMS

from mmseg_semi.models.matching import plain_state_dict as plain_state_dict

from ..datasets.walk import loader_configs, map_leaf_configs

PACKAGE = __name__.partition('.')[0]
#: Keys besides the model that a config needs for testing and visualization.
KEPT_KEYS = (
    'env_cfg',
    'log_level',
    'log_processor',
    'vis_backends',
    'visualizer',
    'tta_model',
    'val_evaluator',
    'test_evaluator',
)
#: Folders of synthetic images after ``mmseg_semi.datasets.shapes.write_shapes`` has written them to files.
DRAWN = {
    'data_root': 'data/shapes',
    'data_prefix': {'img_path': 'img_dir', 'seg_map_path': 'ann_dir'},
    'img_suffix': '.png',
}
#: Loaders of this package that extend the stock ones under the same names.
STOCK_LOADERS = ('LoadImageFromFile', 'LoadAnnotations')
#: Transform of this package that an exported test pipeline keeps, since the metrics are those of the crop.
CROP = 'EvaluationCenterCrop'
#: Arguments of MMSegmentation's BaseSegDataset that a dataset of this package may have, too.
BASE_DATASET_KEYS = (
    'ann_file',
    'data_prefix',
    'data_root',
    'img_suffix',
    'indices',
    'metainfo',
    'reduce_zero_label',
    'seg_map_suffix',
    'test_mode',
)


def plain_values(value: Any) -> Any:
    """Return the ``dataset_meta`` of a checkpoint as plain types, which ``weights_only=True`` can load."""
    if isinstance(value, (np.ndarray, np.generic)):
        return plain_values(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain_values(item) for item in value)
    return value if isinstance(value, (bool, float, int, str, type(None))) else str(value)


def plain_config(cfg: Config, dataset_meta: dict) -> Config:
    """Return a config for the stock tools, which does not need this package.

    Args:
        cfg (Config): Config of a training with this package.
        dataset_meta (dict): ``classes`` and ``palette`` of the training set, from its checkpoint.

    Returns:
        Config: Config of the network. If the network, an evaluation set or its masks need this package, see
        :func:`own_parts`, the config contains ``custom_imports``.

    Raises:
        ValueError: The test pipeline has a transform of this package, or ``classes`` are not names, or
            ``palette`` is not a list of colors.
    """
    dataset_meta = _plain_meta(dataset_meta)
    plain = {'default_scope': 'mmseg', 'load_from': None, 'resume': False}
    plain['model'] = _plain_model(cfg.model)
    for key in KEPT_KEYS:
        if key in cfg:
            plain[key] = copy.deepcopy(cfg[key])
    for stage in ('val', 'test'):
        loaders = loader_configs(cfg, stage)
        if loaders:
            plain[f'{stage}_dataloader'] = _plain_loader(loaders, dataset_meta)
            plain[f'{stage}_cfg'] = {'type': f'{stage.capitalize()}Loop'}
    if 'tta_pipeline' in cfg:
        plain['tta_pipeline'] = _plain_pipeline(copy.deepcopy(cfg.tta_pipeline))
    hooks = copy.deepcopy(cfg.get('default_hooks', {}))
    plain['default_hooks'] = {
        name: hook
        for name, hook in hooks.items()
        if hook is None or not _is_ours(HOOKS, hook['type'])
    }
    imports = _imports(cfg, keep_own=bool(own_parts(plain)))
    if imports:
        plain['custom_imports'] = {'imports': imports, 'allow_failed_imports': False}
    return Config(plain)


def _plain_meta(dataset_meta: dict) -> dict:
    """Convert classes and palette to plain types, since a config is a program and may run them."""
    meta = {}
    if 'classes' in dataset_meta:
        classes = dataset_meta['classes']
        if not isinstance(classes, (list, tuple)) or not all(type(c) is str for c in classes):
            raise ValueError(
                f"the checkpoint's meta.dataset_meta.classes={classes!r:.80} are not a list of names. Export a "
                'checkpoint of a training.'
            )
        meta['classes'] = tuple(classes)
    if 'palette' in dataset_meta:
        palette = dataset_meta['palette']
        try:
            meta['palette'] = [[int(part) for part in color] for color in palette]
        except (TypeError, ValueError):
            meta['palette'] = [[]]
        if any(len(color) != 3 for color in meta['palette']):
            raise ValueError(
                f"the checkpoint's meta.dataset_meta.palette={palette!r:.80} is not a list of colors (red, "
                'green, blue). Export a checkpoint of a training.'
            )
    return meta


def _imports(cfg: Config, keep_own: bool) -> list[str]:
    """Return the imports of the config, such as ``mmpretrain.models``, and this package only if needed."""
    imports = cfg.get('custom_imports', {}).get('imports', [])
    imports = [imports] if isinstance(imports, str) else list(imports)
    if keep_own and PACKAGE not in imports:
        imports.append(PACKAGE)
    return [name for name in imports if keep_own or name.partition('.')[0] != PACKAGE]


def own_modules(model: dict) -> list[str]:
    """Return the types in a model's config that stock MMSegmentation cannot build."""
    types = {part['type'] for part in _configs_in(model) if _is_ours(MODELS, part['type'])}
    return sorted(types)


def own_parts(plain: Mapping) -> list[str]:
    """Return what stock MMSegmentation does not have in the config of :func:`plain_config`."""
    found = {*own_modules(plain['model'])}
    for key in ('val_dataloader', 'test_dataloader', 'tta_pipeline'):
        for part in _configs_in(plain.get(key)):
            if _is_ours(DATASETS, part['type']) or part['type'] == CROP:
                found.add(part['type'])
            elif part['type'] == 'LoadAnnotations' and 'drawn_on' in part:
                found.add(f'LoadAnnotations(drawn_on={part["drawn_on"]!r})')
    return sorted(found)


def _plain_model(model: dict) -> dict:
    inner = model.get('segmentor')
    plain = copy.deepcopy(model if inner is None else inner)
    if inner is not None:
        method = MODELS.get(model['type'])
        plain = method.network_config(plain, method.Settings(model.get('semi_train_cfg')))
    preprocessor = copy.deepcopy(model.get('data_preprocessor') or plain['data_preprocessor'])
    preprocessor.pop('non_blocking', None)
    # One of the supported versions of mmseg only normalizes images with 1 or 3 channels.
    stock = len(preprocessor.get('mean') or [0]) in (1, 3)
    kind = 'SegDataPreProcessor' if stock else 'MultiBranchDataPreprocessor'
    plain['data_preprocessor'] = dict(preprocessor, type=kind)
    # The weights come from the checkpoint, so pre-trained weights need not be downloaded.
    # Not every class has these settings.
    for part in (plain, plain['backbone'], plain.get('neck') or {}):
        for key in ('pretrained', 'init_cfg'):
            if key in part:
                part[key] = None
    for name in ('decode_head', 'auxiliary_head'):
        heads = plain.get(name)
        for head in _configs_in(heads):
            if 'loss_decode' in head:
                head['loss_decode'] = _plain_loss(head['loss_decode'])
    return plain


def _plain_loss(loss: dict | list) -> dict | list:
    """Replace the losses by a stock one: prediction does not need a loss, but the stock head builds it."""
    if isinstance(loss, (list, tuple)):
        return [_plain_loss(item) for item in loss]
    if not _is_ours(MODELS, loss['type']):
        return loss
    return {'type': 'CrossEntropyLoss', 'loss_weight': loss.get('loss_weight', 1.0)}


def _plain_loader(loaders: list, dataset_meta: dict) -> dict:
    """Return one loader. MMEngine's loops accept only one, so several datasets are concatenated."""
    datasets = [
        map_leaf_configs(
            copy.deepcopy(loader['dataset']),
            lambda leaf: _plain_dataset(leaf.dataset, dataset_meta),
        )
        for _, loader in loaders
    ]
    plain = copy.deepcopy(loaders[0][1])
    # MMEngine's loops do not split a batch of images that differ in size.
    plain['batch_size'] = 1
    plain['dataset'] = datasets[0]
    if len(datasets) > 1:
        plain['dataset'] = {'type': 'ConcatDataset', 'datasets': datasets}
    return plain


def _plain_dataset(dataset: dict, dataset_meta: dict) -> dict:
    if dataset['type'] == 'CheckedDataset':
        dataset = {**dataset, 'type': dataset['of']}
        del dataset['of']
    pipeline = _plain_pipeline(dataset.get('pipeline', []))
    # No dataset of MMSegmentation maps the values of masks.
    if not _is_ours(DATASETS, dataset['type']) or dataset['type'] == 'MappedSegDataset':
        return {**dataset, 'pipeline': pipeline}
    plain = {key: dataset[key] for key in BASE_DATASET_KEYS if key in dataset}
    plain['type'] = 'BaseSegDataset'
    plain['metainfo'] = {
        key: dataset_meta[key] for key in ('classes', 'palette') if key in dataset_meta
    }
    drawn = any(map(_draws, dataset.get('pipeline', [])))
    own = inspect.signature(DATASETS.get(dataset['type'])).parameters
    defaults = {key: own[key].default for key in BASE_DATASET_KEYS if key in own}
    return {
        **defaults,
        **(DRAWN if drawn else {}),
        **plain,
        'pipeline': pipeline,
    }


def _plain_pipeline(pipeline: list) -> list:
    plain = []
    for transform in pipeline:
        if transform['type'] in STOCK_LOADERS:
            # The stock loaders load images and masks as they are displayed.
            displayed = transform.get('drawn_on') in (None, 'displayed')
            left_out = ('drawn_on',) if displayed else ()
            plain.append({key: v for key, v in transform.items() if key not in left_out})
        elif not _is_ours(TRANSFORMS, transform['type']) or transform['type'] == CROP:
            plain.append(transform)
        elif _draws(transform):
            # Synthetic images are read from files.
            plain += [{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations'}]
        else:
            raise ValueError(
                f'the test pipeline has {transform["type"]}, a transform of {PACKAGE}. Use stock transforms.'
            )
    return plain


def _draws(transform: dict) -> bool:
    kind = transform['type']
    return kind not in STOCK_LOADERS and _is_ours(TRANSFORMS, kind) and kind.startswith('Load')


def _configs_in(value) -> list[dict]:
    """Yield all dicts with a ``type`` inside a config value."""
    if isinstance(value, dict):
        inside = [part for item in value.values() for part in _configs_in(item)]
        return [value, *inside] if isinstance(value.get('type'), str) else inside
    if isinstance(value, (list, tuple)):
        return [part for item in value for part in _configs_in(item)]
    return []


def _is_ours(registry, name: str) -> bool:
    cls = registry.get(name)
    if cls is None or cls.__module__.partition('.')[0] != PACKAGE:
        return False
    # Without this package, the name leads to the stock class that ours stands in for.
    return all(base.__name__ != name for base in getattr(cls, '__bases__', ()))
