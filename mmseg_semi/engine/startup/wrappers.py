"""Settings of DistributedDataParallel, wherever the config has them."""

from __future__ import annotations

from mmengine.model import is_model_wrapper
from torch import nn

from ...models.segmentors.base import SemiSegmentor
from ...models.wrappers import SemiDistributedDataParallel
from ..hooks._common import rewrapped, unwrap

#: What plain MMSegmentation configs have, or are thought to have, at their top level.
SETTINGS = ('find_unused_parameters', 'static_graph', 'broadcast_buffers')


def check_wrapper(runner) -> None:
    """Hand settings that stand at the top of the config to the wrapper, which has not read them.

    MMEngine reads ``find_unused_parameters`` at the top level where there is no ``model_wrapper_cfg``, and the
    others never.

    Args:
        runner (Runner): Before its first iteration.

    Raises:
        ValueError: A setting has two values, or the wrapper cannot train a method.
    """
    cfg, model = runner.cfg, unwrap(runner.model)
    chosen = dict(cfg.get('model_wrapper_cfg') or {})
    top = {key: cfg[key] for key in SETTINGS if cfg.get(key) is not None}
    for key, value in top.items():
        if chosen.get(key, value) != value:
            raise ValueError(
                f'{key}={value} at the top of the config, and model_wrapper_cfg.{key}={chosen[key]}. Remove '
                'one of them.'
            )
    if isinstance(model, SemiSegmentor):
        _check_method(runner.model, model)
    missing = {key: value for key, value in top.items() if key not in chosen}
    if not is_model_wrapper(runner.model) or not missing:
        return
    kind = type(runner.model).__name__
    # What MMEngine sets without model_wrapper_cfg; PyTorch's own default is True.
    defaults = {} if chosen else {'broadcast_buffers': False}
    cfg.model_wrapper_cfg = {'type': kind, **defaults, **chosen, **missing}
    with rewrapped(runner):
        said = ', '.join(f'{key}={value}' for key, value in missing.items())
        runner.logger.info(f'{kind} has {said}, from the top of the config.')


def _check_method(wrapped: nn.Module, model: SemiSegmentor) -> None:
    if is_model_wrapper(wrapped) and not isinstance(wrapped, SemiDistributedDataParallel):
        raise ValueError(
            f'{type(wrapped).__name__} cannot train {type(model).__name__}, whose step it does not call. Set '
            "model_wrapper_cfg.type='SemiDistributedDataParallel'."
        )
