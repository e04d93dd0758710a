"""Optimizer wrappers for networks inside a method."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from torch import nn

from ..models.segmentors.base import SemiSegmentor


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class NetworkOptimWrapperConstructor:
    """Apply any optimizer constructor of OpenMMLab to the networks inside a method.

    Constructors such as ``LearningRateDecayOptimizerConstructor`` expect ``model.backbone``, which a method
    does not have. With ``optim_wrapper=dict(constructor='NetworkOptimWrapperConstructor', ...)`` the
    constructor gets the first optimized network as the model. The parameters of other networks that are updated
    with it (GPS: the second student; DeS4: the teacher's decoder) are added to the groups of the corresponding
    parameters. The remaining parameters have no gradients and are left out. A method with several updates (GPS:
    students and teacher) gets one wrapper per update with the same settings, such as mixed precision, loss
    scale, clipping and accumulation. A model that is not a method is passed unchanged, so that both can use the
    same config.

    Args:
        optim_wrapper_cfg (dict): Config of the optimizer wrapper. ``network_constructor`` selects the
            constructor. Default: ``DefaultOptimWrapperConstructor``.
        paramwise_cfg (dict, optional): Passed to the constructor.

    Raises:
        ValueError: In a call: a key of ``paramwise_cfg.custom_keys`` begins with the name of a network.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        if not isinstance(optim_wrapper_cfg, dict):
            raise TypeError(
                f'optim_wrapper_cfg should be a dict, but got {type(optim_wrapper_cfg)}.'
            )
        self.optim_wrapper_cfg = copy.deepcopy(optim_wrapper_cfg)
        self.network_constructor = self.optim_wrapper_cfg.pop(
            'network_constructor', 'DefaultOptimWrapperConstructor'
        )
        self.paramwise_cfg = paramwise_cfg

    def __call__(self, model: nn.Module) -> OptimWrapper:
        if is_model_wrapper(model):
            model = model.module
        if not isinstance(model, SemiSegmentor):
            return self._build(model)
        wrappers = {name: self._build_for(model, name) for name in model.optimized}
        if len(wrappers) == 1:
            return wrappers.popitem()[1]
        return NetworkOptimWrapperDict(**wrappers)

    def _build(self, network: nn.Module) -> OptimWrapper:
        constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(
            {
                'type': self.network_constructor,
                'optim_wrapper_cfg': copy.deepcopy(self.optim_wrapper_cfg),
                'paramwise_cfg': copy.deepcopy(self.paramwise_cfg),
            }
        )
        return constructor(network)

    def _build_for(self, model: SemiSegmentor, name: str) -> OptimWrapper:
        """Build the wrapper of the networks of this update."""
        keys = (self.paramwise_cfg or {}).get('custom_keys') or {}
        absolute = [key for key in keys if key.startswith(tuple(f'{n}.' for n in model.networks))]
        if absolute:
            network, _, rest = absolute[0].partition('.')
            raise ValueError(
                f'paramwise_cfg.custom_keys has {absolute[0]!r}, but its keys are names inside the network, '
                f'without {network!r}. Set {rest!r}, which applies to all optimized networks.'
            )
        first, *others = (getattr(model, network) for network in model.optimized[name])
        wrapper = self._build(first)
        alike = [model.optimized_alike()]
        alike += [dict(zip(first.parameters(), o.parameters(), strict=True)) for o in others]
        for group in wrapper.optimizer.param_groups:
            group['params'] += [pairs[p] for pairs in alike for p in group['params'] if p in pairs]
        # An additional group without parameters, which MMEngine logs.
        for group in wrapper.param_groups:
            group['lr'] *= model.lr_scale(name)
        return wrapper


@OPTIM_WRAPPERS.register_module()
class NetworkOptimWrapperDict(OptimWrapperDict):
    """MMEngine's OptimWrapperDict for wrappers that all step in every iteration.

    It passes the number of iterations to the wrappers, which a resumed accumulation needs. It reports for all
    wrappers whether an accumulation is complete, and logs their gradient norms separately.

    Args:
        **wrappers (OptimWrapper): Wrappers by name, built from the same config.
    """

    def __init__(self, **wrappers: OptimWrapper) -> None:
        super().__init__(**wrappers)
        for name, wrapper in wrappers.items():
            if wrapper.clip_grad_kwargs:
                wrapper.grad_name = f'{name}.{wrapper.grad_name}'

    @property
    def _accumulative_counts(self) -> int:
        return next(self.values())._accumulative_counts

    def initialize_count_status(self, model: nn.Module, cur_iter: int, max_iters: int) -> None:
        for wrapper in self.values():
            wrapper.initialize_count_status(model, cur_iter, max_iters)

    def should_update(self) -> bool:
        return all(wrapper.should_update() for wrapper in self.values())

    def should_sync(self) -> bool:
        return all(wrapper.should_sync() for wrapper in self.values())


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Mixed precision in bfloat16 without loss scaling, on GPU and CPU.

    MMEngine's ``AmpOptimWrapper`` (the ``--amp`` flag) does not support the CPU.

    Args:
        **kwargs: Arguments of :class:`mmengine.optim.OptimWrapper`.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield
