"""Numbers that follow from the time alone: the decay of an EMA teacher and the ramp-ups of weights."""

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

    'ratio' is the warm-up min(1 - 1 / (step + 1), decay) of U2PL, iMAS and UniMatch V2: the teacher is
    the plain mean of the students so far, until `decay` takes over. At step 0 it is a copy.

    Args:
        step: optimizer steps done before this one, from 0.
        decay: the constant reached in the end, in [0, 1]: 0.996 (iMAS), 0.99 (U2PL).
        warmup: 'ratio', or 'none' for `decay` from the start.
        copy_steps: for so many steps the teacher copies the student (decay 0).

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
    """Weight exp(-(1 - epoch / length)^2) that grows to 1 at `length` and stays there (GPS, Eq. 9).

    There is no factor 5 in the exponent, unlike in the ramp-up of temporal ensembling: the weight
    starts near 0.37.

    Args:
        epoch: epochs since the start; GPS counts from 1.
        length: the epoch at which the weight reaches 1; 0 means no ramp-up.

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
    """Weight exp(-5 (1 - step / length)^2) that grows to 1 at `length` and stays there.

    The "sigmoid-shaped" ramp-up of the consistency weight in Mean Teacher (appendix B), which is that of
    temporal ensembling (Laine and Aila, 2017): it starts near 0.007 and passes 0.29 half-way.

    Args:
        step: optimizer steps or epochs since the start, from 0.
        length: when the weight reaches 1, in the same unit; 0 means no ramp-up.

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
    """Weight that grows from 0 to 1 at the middle of a training and falls to 0 at its end (PrevMatch's code).

    Args:
        step: optimizer steps or epochs since the start, from 0.
        length: of the training, in the same unit.

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
