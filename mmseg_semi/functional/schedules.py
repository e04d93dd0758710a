"""Schedules: the decay of an EMA teacher and the ramp-ups of loss weights."""

from __future__ import annotations

import math


def ema_decay(
    step: int,
    decay: float,
    *,
    warmup: str = 'ratio',
    copy_steps: int = 0,
) -> float:
    """Weight of the teacher's old value in its average after one optimizer step.

    'ratio' is the warm-up min(1 - 1 / (step + 1), decay) of U2PL, iMAS and UniMatch V2: the teacher is the mean
    of all students so far, until `decay` is reached. At step 0 it is a copy.

    Args:
        step: Optimizer steps before this one, from 0.
        decay: Final value, in [0, 1]: 0.996 (iMAS), 0.99 (U2PL).
        warmup: 'ratio', or 'none' for `decay` from the start.
        copy_steps: Number of first steps in which the teacher copies the student (decay 0).

    Returns:
        The decay in [0, 1]; teacher ← decay · teacher + (1 - decay) · student.

    Raises:
        ValueError: if an argument is out of range or `warmup` unknown.
    """
    if step < 0:
        raise ValueError(f'step is {step}, but steps are counted from 0.')
    if not 0 <= decay <= 1:
        raise ValueError(f'decay is {decay}, but must lie in [0, 1].')
    if warmup not in ('ratio', 'none'):
        raise ValueError(f"warmup is {warmup!r}, but must be 'ratio' or 'none'.")
    if copy_steps < 0:
        raise ValueError(f'copy_steps is {copy_steps}, but cannot be negative.')
    if step < copy_steps:
        return 0.0
    return float(min(1 - 1 / (step + 1), decay) if warmup == 'ratio' else decay)


def gaussian_ramp_up(epoch: float, length: float) -> float:
    """Weight exp(-(1 - epoch / length)^2), which rises to 1 at `length` and remains 1 (GPS, Eq. 9).

    Unlike the ramp-up of temporal ensembling, the exponent has no factor 5: the weight starts near 0.37.

    Args:
        epoch: Epochs since the start; GPS counts from 1.
        length: Epoch at which the weight reaches 1; 0 means no ramp-up.

    Returns:
        The weight in [1/e, 1].

    Raises:
        ValueError: if an argument is negative.
    """
    if not epoch >= 0:
        raise ValueError(f'epoch is {epoch}, but cannot be negative.')
    if not length >= 0:
        raise ValueError(f'length is {length}, but cannot be negative; 0 means no ramp-up.')
    return 1.0 if epoch >= length else math.exp(-((1 - epoch / length) ** 2))


def sigmoid_ramp_up(step: float, length: float) -> float:
    """Weight exp(-5 (1 - step / length)^2), which rises to 1 at `length` and remains 1.

    This is the "sigmoid-shaped" ramp-up of the consistency weight in Mean Teacher (appendix B), from temporal
    ensembling (Laine and Aila, 2017). It starts near 0.007 and is 0.29 at the middle.

    Args:
        step: Optimizer steps or epochs since the start, from 0.
        length: Time at which the weight reaches 1, in the same unit; 0 means no ramp-up.

    Returns:
        The weight in [exp(-5), 1].

    Raises:
        ValueError: if an argument is negative.
    """
    if not step >= 0:
        raise ValueError(f'step is {step}, but cannot be negative.')
    if not length >= 0:
        raise ValueError(f'length is {length}, but cannot be negative; 0 means no ramp-up.')
    return 1.0 if step >= length else math.exp(-5 * (1 - step / length) ** 2)


def triangle(step: float, length: float) -> float:
    """Weight that rises from 0 to 1 at the middle of a training and falls to 0 at its end (PrevMatch's code).

    Args:
        step: Optimizer steps or epochs since the start, from 0.
        length: Length of the training, in the same unit.

    Returns:
        The weight 1 - |2 step / length - 1|, in [0, 1].

    Raises:
        ValueError: if `length` is not positive or `step` lies outside [0, length].
    """
    if not length > 0:
        raise ValueError(f'length is {length}, but a training has at least one step.')
    if not 0 <= step <= length:
        raise ValueError(
            f'step is {step}, but must lie in [0, {length}], the length of the training.'
        )
    return 1 - abs(2 * step / length - 1)
