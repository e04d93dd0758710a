"""Learning rate schedulers that MMEngine lacks."""

from __future__ import annotations

import math

from mmengine.optim import PolyLR, _ParamScheduler
from mmseg.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class NonzeroPolyLR(PolyLR):
    """Poly decay as in the papers: ``lr * (1 - s / S)^power`` at step s = 0, ..., S - 1.

    The last step has the learning rate ``lr * S^-power``. MMEngine's ``PolyLR`` divides by S - 1, so that its
    last step has the learning rate ``eta_min`` and, if that is 0, no effect.

    S is ``end - begin``, and s counts from ``begin``. After a warm-up of W steps that ends at the full learning
    rate (``begin=W``), the decay therefore starts from the full rate, as with MMEngine's ``PolyLR``. Like
    ``PolyLR``, each step multiplies the current learning rate. This keeps the effect of an overlapping warm-up
    or another scheduler.

    Args:
        optimizer (OptimWrapper): Optimizer whose learning rates are set.
        eta_min (float): Learning rate at step S, one step after the last.
        power (float): Exponent of the decay. The papers use 0.9.
        begin (int): First step.
        end (int): First step after the decay. Default: a Runner sets it to the length of the training.
        last_step (int): Same as in MMEngine's schedulers.
        by_epoch (bool): Whether a step is an epoch. With ``convert_to_iter_based=True`` in the config, epochs
            are converted to iterations, and with gradient accumulation to optimizer steps.
        verbose (bool): Same as in MMEngine's schedulers.

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
    """Constant learning rate of the last step of a poly schedule: ``lr * S^-power`` (GPS, Sec. 3.2).

    GPS pre-trains its teacher with a poly schedule and continues at the learning rate of its last step,
    s = S - 1 of :class:`NonzeroPolyLR`. For ``lr=0.01`` and S = 39,338 this is 7.3e-7.

    Args:
        optimizer (OptimWrapper): Optimizer whose learning rates are set.
        power (float): Exponent of the poly schedule.
        end (int): S, in optimizer steps. A Runner sets it to the length of the training.
        by_epoch (bool): Must be False. A Runner also reads it.
        **kwargs: ``last_step`` and ``verbose`` of MMEngine's schedulers.

    Raises:
        ValueError: ``by_epoch`` is True, or ``end`` is not set.
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
                'FinalPolyLR has by_epoch=True, but its rate depends on steps. Set by_epoch=False.'
            )
        if not end < 1e9:
            raise ValueError(
                f'FinalPolyLR has end={end}. Set it to the number of optimizer steps of the training.'
            )
        self.power = power
        super().__init__(optimizer, 'lr', end=end, by_epoch=False, **kwargs)

    def _get_value(self) -> list[float]:
        return [value * self.end**-self.power for value in self.base_values]
