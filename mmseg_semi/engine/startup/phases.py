"""Check in which part of a training the unlabeled loss is on."""

from __future__ import annotations

from ...models.segmentors.base import SemiSegmentor
from .schedule import ConfiguredSchedule

#: Key of the first and the last step with the unlabeled loss in MMEngine's message hub, which checkpoints
#: contain.
PHASE = 'unlabeled_phase'


def check_phases(runner, model: SemiSegmentor, configured: ConfiguredSchedule | None) -> None:
    """Warn if unlabeled images have no effect, or if a resumed training switches their loss on or off.

    A fraction of the training is another step if the training has another length.

    Args:
        runner (Runner): Runner before its first iteration, in a new or resumed training.
        model (SemiSegmentor): Its model, which knows the length of the training.
        configured (ConfiguredSchedule, optional): What is known of the loaded checkpoint.
    """
    step, length = model.clock.step, model.clock.num_steps
    if length is None:  # a loop of MMEngine, which does not tell it
        return
    start, end = model.unlabeled_start, model.unlabeled_end
    if start >= length:
        runner.logger.warning(
            f'The unlabeled loss starts at step {start}, but the training has {length} steps, so unlabeled '
            'images have no effect. Train longer, or start earlier (model.semi_train_cfg.unlabeled_start).'
        )
    before = configured.runtime_info.get(PHASE) if runner.iter and configured else None
    if before is not None and _is_on(step, *before) != _is_on(step, start, end):
        runner.logger.warning(
            f'At step {step}, this training has the unlabeled loss {_told(start, end)}, and that of the '
            f'checkpoint had it {_told(*before)}. Fractions of another length are other steps. Set '
            'unlabeled_start or unlabeled_end_fraction of model.semi_train_cfg to keep them.'
        )
    # Saved in all further checkpoints.
    runner.message_hub.update_info(PHASE, [start, end])


def _is_on(step: int, start: int, end: int | None) -> bool:
    return start <= step and (end is None or step < end)


def _told(start: int, end: int | None) -> str:
    return f'from step {start} on' if end is None else f'from step {start} until step {end}'
