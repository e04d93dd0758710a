"""Optimizer wrappers for networks inside a method."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from torch import nn

from ..models.segmentors.base import SemiSegmentor


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class NetworkOptimWrapperConstructor:
    """Apply any constructor of the OpenMMLab stack to the network inside a method.

    Constructors such as ``LearningRateDecayOptimizerConstructor`` look for ``model.backbone``, which a
    method does not have. With ``optim_wrapper=dict(constructor='NetworkOptimWrapperConstructor', ...)`` the
    student is handed to them as the model. What else a method optimises (DeS4: the teacher's decoder) joins the
    groups of the student's parameters that it corresponds to; the rest has no gradients and stays out.
    A model that is not a method is handed on as it is, so that one schedule serves both.

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
        constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(
            {
                'type': self.network_constructor,
                'optim_wrapper_cfg': copy.deepcopy(self.optim_wrapper_cfg),
                'paramwise_cfg': copy.deepcopy(self.paramwise_cfg),
            }
        )
        if not isinstance(model, SemiSegmentor):
            return constructor(model)
        wrapper = constructor(model.student)
        alike = model.optimized_alike()
        for group in wrapper.optimizer.param_groups:
            group['params'] += [alike[param] for param in group['params'] if param in alike]
        return wrapper


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
