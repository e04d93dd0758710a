"""Settings of DistributedDataParallel, wherever the config has them."""

from __future__ import annotations

from mmengine.model import is_model_wrapper

from ...models.segmentors.base import SemiSegmentor
from ...models.wrappers import SemiDistributedDataParallel
from ..hooks._common import rewrapped, unwrap

#: What plain MMSegmentation configs have, or are thought to have, at their top level.
SETTINGS = ('find_unused_parameters', 'static_graph', 'broadcast_buffers')


def check_wrapper(runner) -> None:
    """Hand settings of the wrapper that stand at the top of the config to the wrapper, which has not read them.

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
                f'{key}={value} at the top of the config, and model_wrapper_cfg.{key}={chosen[key]}. Remove one '
                'of them.'
            )
    if isinstance(model, SemiSegmentor):
        _check_method(runner, model, {**chosen, **top})
    missing = {key: value for key, value in top.items() if key not in chosen}
    read = {'find_unused_parameters'} if not chosen else set()
    if not is_model_wrapper(runner.model) or missing.keys() <= read:
        return
    kind = type(runner.model).__name__
    cfg.model_wrapper_cfg = {'type': kind, **chosen, **missing}
    with rewrapped(runner):
        runner.logger.info(f'{kind} has {missing}, from the top of the config.')


def _check_method(runner, model: SemiSegmentor, settings: dict) -> None:
    name = type(model).__name__
    if is_model_wrapper(runner.model) and not isinstance(
        runner.model, SemiDistributedDataParallel
    ):
        raise ValueError(
            f'{type(runner.model).__name__} cannot train {name}, whose step it does not call. Set '
            "model_wrapper_cfg.type='SemiDistributedDataParallel'."
        )
