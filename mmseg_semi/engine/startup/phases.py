"""Check in which part of a training the unlabeled loss is on."""

from __future__ import annotations

from ...models.clock import count_steps
from ...models.segmentors.base import SemiSegmentor
from ..accumulation import accumulation
from .schedule import ConfiguredSchedule

_FRACTIONS = ('unlabeled_start_fraction', 'unlabeled_end_fraction')


def check_phases(runner, model: SemiSegmentor, configured: ConfiguredSchedule | None) -> None:
    """Warn if unlabeled images have no effect, or if another length switches their loss on or off.

    Args:
        runner (Runner): Runner before its first iteration, in a new or resumed training.
        model (SemiSegmentor): Its model, which knows the length of the training.
        configured (ConfiguredSchedule, optional): What is known of the loaded checkpoint.
    """
    step, length = model.clock.step, model.clock.num_steps
    if length is None:  # a loop of MMEngine, which does not tell it
        return
    if model.unlabeled_start >= length:
        runner.logger.warning(
            f'The unlabeled loss starts at step {model.unlabeled_start}, but the training has {length} steps, '
            'so unlabeled images have no effect. Train longer, or start earlier '
            '(model.semi_train_cfg.unlabeled_start).'
        )
    saved = configured and configured.saved_length
    if not runner.iter or not saved:
        return
    before = count_steps(saved, accumulation(runner))
    was_on, is_on = (_is_on(model, step, total) for total in (before, length))
    if was_on == is_on:
        return
    moved = {key: getattr(model.cfg, key) for key in _FRACTIONS}
    moved = {key: value for key, value in moved.items() if 0 < value < 1}
    steps = ', '.join(
        f'{key}={value:.4g} is step {round(value * length)} instead of {round(value * before)}'
        for key, value in moved.items()
    )
    remedy = ', '.join(f'{key}={value * before / length:.4g}' for key, value in moved.items())
    states = ('off', 'on')
    runner.logger.warning(
        f'The checkpoint is of a training of {before} steps, and this one has {length}: {steps}. At step '
        f'{step}, the unlabeled loss is therefore {states[is_on]} instead of {states[was_on]}. Set '
        f'model.semi_train_cfg.{remedy} to keep these steps.'
    )


def _is_on(model: SemiSegmentor, step: int, length: int) -> bool:
    """Whether the unlabeled loss would be on at a step of a training of this length, in steps."""
    start, end = (getattr(model.cfg, key) for key in _FRACTIONS)
    first = round(start * length) if start else model.unlabeled_start
    return step >= first and (end == 1 or step < round(end * length))
