"""Schedules of the learning rate that MMEngine lacks."""

from __future__ import annotations

import math

from mmengine.optim import _ParamScheduler
from mmseg.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class FinalPolyLR(_ParamScheduler):
    """The rate that a poly schedule ends with, all the time: ``lr * iterations^-power`` (GPS, Sec. 3.2).

    GPS trains its teacher by a poly schedule first and goes on at the rate of the last iteration,
    ``lr * (1 - (iterations - 1) / iterations)^power``: 7.3e-7 for ``lr=0.01`` and 39,338 iterations. The
    paper's schedule would be 0 only after the last iteration; MMEngine's ``PolyLR`` is 0 in the last one
    already (with ``eta_min=0``), and about at this rate in the last but one.

    Args:
        optimizer (OptimWrapper): Whose rates are set.
        power (float): Of the poly schedule.
        end (int): Iterations; a Runner sets it to those of the training.
        by_epoch (bool): Must be False, which a Runner reads as well.
        **kwargs: ``last_step`` and ``verbose`` of MMEngine's schedulers.

    Raises:
        ValueError: It counts epochs, or does not know how many iterations there are.
    """

    def __init__(
        self,
        optimizer,
        power: float = 0.9,
        end: int = math.inf,
        by_epoch: bool = True,
        **kwargs,
    ) -> None:
        if by_epoch:
            raise ValueError(
                'FinalPolyLR has by_epoch=True, but its rate follows from iterations: set by_epoch=False.'
            )
        if not end < 1e9:
            raise ValueError(
                f'FinalPolyLR has end={end}: set it to the iterations of the training, unless a Runner does.'
            )
        self.factor = end**-power
        super().__init__(optimizer, 'lr', end=end, by_epoch=False, **kwargs)

    def _get_value(self) -> list[float]:
        return [value * self.factor for value in self.base_values]
