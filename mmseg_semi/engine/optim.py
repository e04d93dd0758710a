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
    """Apply any constructor of the OpenMMLab stack to the networks inside a method.

    Constructors such as ``LearningRateDecayOptimizerConstructor`` look for ``model.backbone``, which a
    method does not have. With ``optim_wrapper=dict(constructor='NetworkOptimWrapperConstructor', ...)`` the
    first network that the method optimizes is handed to them as the model. Parameters of others that are
    updated with it (GPS: the second student; DeS4: the teacher's decoder) join the groups of those that they
    correspond to; the rest has no gradients and stays out. A method of several updates (GPS: students, teacher)
    gets a wrapper for each, all from the one config, so with its mixed precision, loss scale, clipping and
    accumulation. A model that is not a method is handed on as it is, so that one schedule serves both.

    Args:
        optim_wrapper_cfg (dict): Of the optimizer wrapper; ``network_constructor`` (default
            ``DefaultOptimWrapperConstructor``) names the constructor to apply.
        paramwise_cfg (dict, optional): Handed on to it.
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
        """The wrapper of the networks that are updated under this name."""
        first, *others = (getattr(model, network) for network in model.optimized[name])
        wrapper = self._build(first)
        alike = [model.optimized_alike()]
        alike += [dict(zip(first.parameters(), o.parameters(), strict=True)) for o in others]
        for group in wrapper.optimizer.param_groups:
            group['params'] += [pairs[p] for pairs in alike for p in group['params'] if p in pairs]
        # MMEngine logs one group more, which has no parameters.
        for group in wrapper.param_groups:
            group['lr'] *= model.lr_scale(name)
        return wrapper


@OPTIM_WRAPPERS.register_module()
class NetworkOptimWrapperDict(OptimWrapperDict):
    """MMEngine's OptimWrapperDict of wrappers that all take part in every iteration.

    It hands on how many iterations are done, without which a resumed accumulation would miscount, answers
    for all wrappers when an accumulation is complete, and keeps their gradients' norms apart in the log.

    Args:
        **wrappers (OptimWrapper): By name; built from one config.
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
    """Mixed precision in bfloat16, which needs no loss scaling, on GPU and on CPU.

    MMEngine's ``AmpOptimWrapper`` (the ``--amp`` flag) refuses to run on a CPU.

    Args:
        **kwargs: Of :class:`mmengine.optim.OptimWrapper`.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield
