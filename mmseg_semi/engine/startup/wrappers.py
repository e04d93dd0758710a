"""Settings of DistributedDataParallel at the top level of a config or in its wrapper."""

from __future__ import annotations

from mmengine.model import is_model_wrapper
from torch import nn

from ...models.segmentors.base import SemiSegmentor
from ...models.wrappers import SemiDistributedDataParallel
from ..hooks._common import rewrapped, unwrap

#: Settings that plain MMSegmentation configs may have at their top level.
SETTINGS = ('find_unused_parameters', 'static_graph', 'broadcast_buffers')


def check_wrapper(runner) -> None:
    """Apply settings at the top level of the config to the wrapper.

    MMEngine only reads ``find_unused_parameters`` at the top level, and only without ``model_wrapper_cfg``.

    Args:
        runner (Runner): Runner before its first iteration.

    Raises:
        ValueError: A setting has two values, the wrapper cannot train a method, or ``sync_bn`` has removed
            activations.
    """
    cfg, model = runner.cfg, unwrap(runner.model)
    chosen = dict(cfg.get('model_wrapper_cfg') or {})
    top = {key: cfg[key] for key in SETTINGS if cfg.get(key) is not None}
    for key, value in top.items():
        if chosen.get(key, value) != value:
            raise ValueError(
                f'{key}={value} at the top level of the config contradicts model_wrapper_cfg.{key}='
                f'{chosen[key]}. Remove one of them.'
            )
    if isinstance(model, SemiSegmentor):
        _check_method(runner.model, model)
    for name, layer in model.named_modules():
        # MMEngine replaces any subclass of batch normalization, but does not call the layers in it.
        if type(layer) is nn.SyncBatchNorm and layer._modules:
            raise ValueError(
                f'sync_bn has replaced {name} by a SyncBatchNorm that does not call its '
                f"{', '.join(layer._modules)}. Remove sync_bn, or use type='TIMMBackbone', which keeps them."
            )
    missing = {key: value for key, value in top.items() if key not in chosen}
    if not is_model_wrapper(runner.model) or not missing:
        return
    kind = type(runner.model).__name__
    # MMEngine's default without model_wrapper_cfg. PyTorch's default is True.
    defaults = {} if chosen else {'broadcast_buffers': False}
    cfg.model_wrapper_cfg = {'type': kind, **defaults, **chosen, **missing}
    with rewrapped(runner):
        said = ', '.join(f'{key}={value}' for key, value in missing.items())
        runner.logger.info(f'{kind} has {said}, from the top of the config.')


def _check_method(wrapped: nn.Module, model: SemiSegmentor) -> None:
    if is_model_wrapper(wrapped) and not isinstance(wrapped, SemiDistributedDataParallel):
        raise ValueError(
            f'{type(wrapped).__name__} cannot train {type(model).__name__}: it does not call its step. Set '
            "model_wrapper_cfg.type='SemiDistributedDataParallel'."
        )
