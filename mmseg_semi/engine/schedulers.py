"""Schedules of the learning rate that MMEngine lacks."""

from __future__ import annotations

import math

from mmengine.optim import PolyLR, _ParamScheduler
from mmseg.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class NonzeroPolyLR(PolyLR):
    """Poly decay as the papers print it: ``lr * (1 - s / S)^power`` at step s = 0, ..., S - 1.

    The last step has ``lr * S^-power``. MMEngine's ``PolyLR`` divides by S - 1, so that its last step has the
    rate ``eta_min`` and changes nothing where that is 0.

    S is ``end - begin``, and s counts from ``begin``. Behind a warm-up of W steps that ends at the full rate
    (``begin=W``) the decay therefore starts from the full rate, as with MMEngine's ``PolyLR``. Like that class,
    each step multiplies the rate that is there, so that an overlapping warm-up or another scheduler's change
    stays in force; a rate computed from the first one alone would erase it.

    Args:
        optimizer (OptimWrapper): Its rates are set.
        eta_min (float): The rate that would be reached at step S, which is one after the last.
        power (float): Exponent of the decay; the papers have 0.9.
        begin (int): First step.
        end (int): First step after the decay; by default a Runner sets it to the length of the training.
        last_step (int): Of MMEngine's schedulers.
        by_epoch (bool): Whether a step is an epoch. ``convert_to_iter_based=True`` beside it in a config turns
            epochs into iterations, and with gradient accumulation into optimizer steps.
        verbose (bool): Of MMEngine's schedulers.

    Raises:
        ValueError: ``end`` is not larger than ``begin``.
    """

    def _get_value(self) -> list[float]:
        left = self.end - self.begin - self.last_step
        factor = (left / (left + 1)) ** self.power if self.last_step else 1.0
        return [
            (group[self.param_name] - self.eta_min) * factor + self.eta_min
            for group in self.optimizer.param_groups
        ]


@PARAM_SCHEDULERS.register_module()
class FinalPolyLR(_ParamScheduler):
    """The rate of a poly schedule's last step, all the time: ``lr * S^-power`` (GPS, Sec. 3.2).

    GPS trains its teacher by a poly schedule first and continues at the rate of its last step, s = S - 1 of
    :class:`NonzeroPolyLR`: 7.3e-7 for ``lr=0.01`` and S = 39,338.

    Args:
        optimizer (OptimWrapper): Whose rates are set.
        power (float): Of the poly schedule.
        end (int): S, in optimizer steps; a Runner sets it to those of the training.
        by_epoch (bool): Must be False, which a Runner reads as well.
        **kwargs: ``last_step`` and ``verbose`` of MMEngine's schedulers.

    Raises:
        ValueError: It counts epochs, or does not know how many steps there are.
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
                'FinalPolyLR has by_epoch=True, but its rate follows from steps. Set by_epoch=False.'
            )
        if not end < 1e9:
            raise ValueError(
                f'FinalPolyLR has end={end}. Set it to the number of optimizer steps of the training.'
            )
        self.power = power
        super().__init__(optimizer, 'lr', end=end, by_epoch=False, **kwargs)

    def _get_value(self) -> list[float]:
        return [value * self.end**-self.power for value in self.base_values]
