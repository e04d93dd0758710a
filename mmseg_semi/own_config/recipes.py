"""Settings, hooks and views of the methods for own data, read from the configs of this package."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field

from mmengine.config import Config

from ..comparison import find_config
from ..compat import config_path
from .stock import check_training, pretrained

#: Methods and their names.
METHODS = {
    'unimatch_v2': 'UniMatch V2',
    'imas': 'iMAS',
    'fixmatch': 'FixMatch',
    'unimatch': 'UniMatch',
    'prevmatch': 'PrevMatch',
    'corrmatch': 'CorrMatch',
    'mean_teacher': 'Mean Teacher',
    'cutmix_seg': 'CutMix-Seg',
    'cps': 'CPS',
    'u2pl': 'U2PL',
    'esl': 'ESL',
    'des4': 'DeS4',
    'gps': 'GPS',
    'st': 'ST',
    'stpp': 'ST++',
}
#: The recommended methods (docs/results.md): for pretrained networks, and from scratch.
FOR_PRETRAINED, FROM_SCRATCH = 'unimatch_v2', 'imas'
#: Methods that train the plain network several times, on pseudo-labels of an earlier training.
SELF_TRAINING = ('st', 'stpp')
#: Methods without a config for own data. They use the settings of their papers.
_BY_RUNTIME = {'esl': 'ESL', 'des4': 'DeS4', 'st': None}


@dataclass(frozen=True)
class Recipe:
    """The parts of a config that a method adds.

    Attributes:
        name (str): Key of :data:`METHODS`.
        source (str): Config from which it was read.
        model (dict): Its ``model`` without ``segmentor`` and ``data_preprocessor``; empty for self-training.
        views (list[dict]): Transforms of unlabeled images after the geometry; in self-training, of
            pseudo-labeled images.
        no_dropout (bool): Whether the head that labels must have no dropout.
        runtime (dict): Further keys of the config.
    """

    name: str
    source: str
    model: dict
    views: list[dict]
    no_dropout: bool = False
    runtime: dict = field(default_factory=dict)


def method_name(given: str) -> str:
    """Return the key of :data:`METHODS` for a name with dashes, ``++``, upper or lower case.

    Raises:
        ValueError: The method is unknown.
    """
    name = given.lower().replace('-', '_').replace('++', 'pp')
    if name not in METHODS:
        close = difflib.get_close_matches(name, METHODS, n=1)
        hint = f' Did you mean {close[0]}?' if close else ''
        raise ValueError(f'--method {given} is unknown.{hint} Choose one of {", ".join(METHODS)}.')
    return name


def default_method(cfg: Config, name: str) -> str:
    """Return the recommended method for the network of a supervised training.

    Args:
        cfg (Config): The resolved config of the supervised training.
        name (str): Name of the config in errors.

    Raises:
        ValueError: ``cfg`` is not a supervised training.
    """
    check_training(cfg, name)
    return FROM_SCRATCH if pretrained(cfg) is None else FOR_PRETRAINED


def read_recipe(method: str) -> Recipe:
    """Return the recipe of a method of :data:`METHODS`."""
    if method in _BY_RUNTIME:
        path = config_path(f'mmseg_semi::_base_/runtime/{method}_runtime.py')
    else:
        path = find_config(method, head='deeplabv3plus', network='r50-d8', dataset='own')
    cfg = Config.fromfile(path).to_dict()
    keys = ('custom_hooks', 'log_processor', 'env_cfg', 'runner_type', 'stages')
    runtime = {key: cfg[key] for key in keys if key in cfg}
    # MMSegmentation's runtime has the rest of it.
    timeout = runtime.pop('env_cfg', {}).get('dist_cfg', {}).get('timeout')
    if timeout is not None:
        runtime['env_cfg'] = {'dist_cfg': {'timeout': timeout}}
    if method in SELF_TRAINING:
        runtime.pop('log_processor')
        strong = Config.fromfile(
            config_path('mmseg_semi::_base_/datasets/strong_augmentation.py')
        ).to_dict()['strong']
        return Recipe(method, path.name, {}, strong, runtime=runtime)
    if method in _BY_RUNTIME:
        model = {'type': _BY_RUNTIME[method], 'semi_test_cfg': {'predict_on': 'teacher'}}
        # CutMix is the only strong augmentation.
        return Recipe(method, path.name, model, [{'type': 'PackUnlabeledInputs'}], runtime=runtime)
    model = cfg['model']
    pipeline = cfg['train_dataloader']['dataset']['unlabeled']['pipeline']
    pad = [transform['type'] for transform in pipeline].index('Pad')
    return Recipe(
        method,
        path.name,
        {key: model[key] for key in ('type', 'semi_train_cfg', 'semi_test_cfg') if key in model},
        pipeline[pad + 1 :],
        no_dropout=model['segmentor']['decode_head'].get('dropout_ratio') == 0,
        runtime=runtime,
    )
