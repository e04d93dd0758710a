"""Check that schedulers match the length of a training, also if it is resumed with another length."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

from mmengine.optim import OptimWrapperDict
from mmengine.optim.scheduler.param_scheduler import (
    INF,
    CosineAnnealingParamScheduler,
    LinearParamScheduler,
    PolyParamScheduler,
)
from mmengine.runner import EpochBasedTrainLoop

from ...models.clock import count_steps
from ..accumulation import accumulation
from ..hooks.step_scheduler_hook import StepSchedulerHook
from .lengths import parts_of

#: Key of the types of the schedulers in MMEngine's message hub, which checkpoints contain.
TYPES = 'param_scheduler_types'
#: Attributes of schedulers that change in training. The others are settings or depend on them.
_PROGRESS = {
    'monitor',  # of a plateau scheduler; the start-up check may add the name of the network
    '_global_step',
    'last_step',
    '_last_value',
    'best',
    'num_bad_epochs',
    'cooldown_counter',
    'verbose',
    'total_iters',
}


class _Start(NamedTuple):
    """A scheduler built from the config."""

    key: str
    scheduler: Any
    state: dict


class ConfiguredSchedule:
    """The schedulers of a config and those of a checkpoint.

    MMEngine overwrites the settings of schedulers by those of the checkpoint when it resumes. A training that
    is resumed with a larger ``max_iters`` would continue at the last learning rate of the old schedule, and
    another schedule in the config would be ignored.

    Args:
        runner (Runner): Runner before it loads the checkpoint.
        checkpoint (dict): Checkpoint that will be loaded.

    Raises:
        ValueError: A resumed checkpoint has schedules of other optimizer wrappers.
    """

    def __init__(self, runner, checkpoint: dict) -> None:
        self._starts = [
            _Start(key, part, copy.deepcopy(part.state_dict()))
            for key, part in parts_of(runner.param_schedulers)
        ]
        self._values = {
            name: [_scheduled_values(group, self._starts) for group in wrapper.param_groups]
            for name, wrapper in _wrappers(runner).items()
        }
        saved = checkpoint.get('param_schedulers')
        if runner._resume and saved is not None:
            _check_wrappers(saved, self._values)
        self._saved = None if saved is None else dict(_saved_parts(saved))
        info = (checkpoint.get('message_hub') or {}).get('runtime_info') or {}
        self._saved_types = info.get(TYPES)
        #: What MMEngine's message hub had when the checkpoint was saved.
        self.runtime_info = info

    def has_another_length(self, runner) -> bool:
        """Whether the checkpoint's training had another, or an unknown, number of iterations."""
        return self.runtime_info.get('max_iters') != runner.max_iters

    def differences(self) -> list[str]:
        """Return the differences between checkpoint and config, one phrase each; empty if they are equal."""
        if self._saved is None:
            return ['it has none'] if self._starts else []
        found = []
        types = self._saved_types or {}
        for key, scheduler, state in self._starts:
            name, saved = type(scheduler).__name__, self._saved.get(key)
            if saved is None:
                found.append(f'{key} ({name}) is new')
            elif types.get(key, name) != name:
                found.append(f'{key}.type={types[key]} is now {name}')
            else:
                found += _different_settings(key, saved, state)
        gone = self._saved.keys() - {start.key for start in self._starts}
        return found + [f'{key} ({types.get(key, "unknown")}) is missing' for key in sorted(gone)]

    def resume(self, runner, differences: list[str]) -> None:
        """Set schedulers and learning rates to the state of the config's schedule at the resumed iteration.

        The schedulers restart from the values of the config and repeat all steps, because MMEngine's schedulers
        are recursive: a step depends on the previous ones.

        Raises:
            ValueError: A scheduler depends on metrics of earlier validations, which are not available.
        """
        plateaus = [s for s in self._starts if getattr(s.scheduler, 'need_val_args', False)]
        if plateaus:
            return self._set_plateaus(plateaus, differences)
        for name, wrapper in _wrappers(runner).items():
            for group, values in zip(wrapper.param_groups, self._values[name], strict=True):
                group.update(copy.deepcopy(values))
        for _, scheduler, state in self._starts:
            scheduler.load_state_dict(copy.deepcopy(state))
        steps, epochs = steps_done(runner), runner.epoch
        per_epoch = steps // epochs if epochs else 0
        with warnings.catch_warnings():
            # PyTorch's order, optimizer first: the optimizer has stepped before the checkpoint was saved.
            warnings.simplefilter('ignore', UserWarning)
            for step in range(1, steps + 1):
                self._step(by_epoch=False)
                if per_epoch and step % per_epoch == 0 and step <= epochs * per_epoch:
                    self._step(by_epoch=True)

    def _step(self, by_epoch: bool) -> None:
        for start in self._starts:
            if start.scheduler.by_epoch == by_epoch:
                start.scheduler.step()

    def _set_plateaus(self, plateaus: list[_Start], differences: list[str]) -> None:
        keys = tuple(f'{start.key}.' for start in plateaus)
        others = [one for one in differences if not one.startswith(keys)]
        if others:
            kind = type(plateaus[0].scheduler).__name__
            raise ValueError(
                f'The checkpoint was saved with another schedule ({"; ".join(others)}), but {kind} depends on '
                'metrics of earlier validations, so that the rates cannot be computed again. Resume with the '
                'schedule of the checkpoint, or start a new training with load_from and no --resume.'
            )
        for _, scheduler, state in plateaus:
            scheduler.load_state_dict(copy.deepcopy(_settings(state)))


def continue_schedule(runner, configured: ConfiguredSchedule | None) -> None:
    """Let a resumed training follow the schedule of its config, and log differences to the checkpoint.

    If the schedules are equal, the state that MMEngine restored does not change.

    Args:
        runner (Runner): Runner before its first iteration, in a new or resumed training.
        configured (ConfiguredSchedule, optional): Schedules of config and loaded checkpoint.

    Raises:
        ValueError: The checkpoint is at or after the end of the training, or its schedule has ended.
    """
    resumed = runner.iter > 0 and configured is not None
    if resumed:
        _check_not_over(runner)
        differences = configured.differences()
        if differences:
            before = _rates(runner)
            configured.resume(runner, differences)
            runner.logger.warning(
                f'The checkpoint was saved with another schedule than the config has: '
                f'{"; ".join(differences)}. From iteration {runner.iter} on the schedule is that of the '
                f'config: the learning rate is {_rates(runner)} (in the checkpoint {before}).'
            )
    _check_ends(runner, resumed and configured.has_another_length(runner))
    # Saved in all further checkpoints, since the state of schedulers does not contain their types.
    types = {key: type(part).__name__ for key, part in parts_of(runner.param_schedulers)}
    runner.message_hub.update_info(TYPES, types)


def steps_done(runner) -> int:
    """Return how often iteration-based schedulers have been stepped, in optimizer steps or iterations."""
    return runner.iter // accumulation(runner) if _in_steps(runner) else runner.iter


def _in_steps(runner) -> bool:
    return any(isinstance(hook, StepSchedulerHook) for hook in runner.hooks)


def _check_not_over(runner) -> None:
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    done, most, name = (
        (runner.epoch, runner.max_epochs, 'epoch')
        if by_epoch
        else (runner.iter, runner.max_iters, 'iter')
    )
    if done > most:
        raise ValueError(
            f'The checkpoint is from {name} {done}, and train_cfg.max_{name}s={most}, so the training is '
            f'finished. Set train_cfg.max_{name}s above {done}, or resume an earlier checkpoint (by load_from).'
        )


def _check_ends(runner, prolonged: bool) -> None:
    """Warn about decays of the learning rate that do not end with the training, and about late warm-ups.

    Raises:
        ValueError: The training is resumed with another length at the end of such a decay.
    """
    schedulers = runner.param_schedulers
    several = isinstance(schedulers, dict)
    for name, group in schedulers.items() if several else [('', schedulers or [])]:
        _check_warm_ups(runner, name, group)
        decays = [
            (index, one)
            for index, one in enumerate(group)
            if isinstance(one, (PolyParamScheduler, CosineAnnealingParamScheduler))
            and one.param_name == 'lr'
        ]
        if not decays:
            continue
        index, one = decays[-1]
        length, done, unit = _clock_of(runner, one)
        key = _key(name, index)
        remedy = f'Set {key}.end={length}, or remove it to use the length of the training.'
        if length < one.end < INF and not _converted(runner, one):
            runner.logger.warning(
                f'{key} ({type(one).__name__}) ends at {unit} {one.end}, but the training has {length}, so '
                f'the learning rate does not reach its end. {remedy}'
            )
            continue
        # A schedule that continues after the decay, such as a constant rate, is intended.
        if max(other.end for other in group if other.by_epoch == one.by_epoch) >= length:
            continue
        said = f'{key} ({type(one).__name__}) ends at {unit} {one.end} of {length}'
        if prolonged and done >= one.end:
            raise ValueError(
                f'{said}, but the resumed training is at {unit} {done}, so that its learning rate would stay '
                f'at {_rates(runner, name)}. {remedy}'
            )
        runner.logger.warning(f'{said}. The learning rate is constant after it. {remedy}')


def _check_warm_ups(runner, name: str, group: list) -> None:
    for index, one in enumerate(group):
        warm_up = isinstance(one, LinearParamScheduler) and one.start_factor < one.end_factor
        if not warm_up or one.param_name != 'lr':
            continue
        if _converted(runner, one):
            continue
        length, _, unit = _clock_of(runner, one)
        if one.begin < length < one.end:
            runner.logger.warning(
                f'{_key(name, index)} ({type(one).__name__}) is a warm-up to {unit} {one.end}, but the '
                f'training has only {length}, so the learning rate never reaches its full value. Set a '
                f'smaller {_key(name, index)}.end, or train longer.'
            )


def _converted(runner, scheduler) -> bool:
    """Whether StepSchedulerHook has already compared the end of a scheduler with the optimizer steps."""
    return not scheduler.by_epoch and accumulation(runner) > 1 and _in_steps(runner)


def _key(wrapper: str, index: int) -> str:
    return '.'.join(filter(None, ('param_scheduler', wrapper, str(index))))


def _clock_of(runner, scheduler) -> tuple[int, int, str]:
    """Return length and progress of the training in the unit that a scheduler counts."""
    if scheduler.by_epoch:
        return runner.max_epochs, runner.epoch, 'epoch'
    length = (
        count_steps(runner.max_iters, accumulation(runner))
        if _in_steps(runner)
        else runner.max_iters
    )
    return length, steps_done(runner), 'step'


def _check_wrappers(saved: dict | list, current: dict) -> None:
    """Raise ValueError if a checkpoint has schedules of other optimizer wrappers than ``current``."""
    found = set(saved) if isinstance(saved, dict) else {''}
    if found != current.keys():
        names = [', '.join(sorted(one)) or 'a single one' for one in (found, current)]
        raise ValueError(
            f'The checkpoint has schedules of the optimizer wrappers {names[0]}, but the config has '
            f'{names[1]}, as for another method. Resume with the config of the checkpoint, or start a new '
            'training with load_from and no --resume.'
        )


def _wrappers(runner) -> dict[str, Any]:
    wrapper = runner.optim_wrapper
    return dict(wrapper.items()) if isinstance(wrapper, OptimWrapperDict) else {'': wrapper}


def _rates(runner, wrapper: str | None = None) -> str:
    rates = {
        name: max(group['lr'] for group in one.param_groups)
        for name, one in _wrappers(runner).items()
        if wrapper is None or name == wrapper
    }
    return ', '.join(f'{rate:.4g}{f" ({name})" if name else ""}' for name, rate in rates.items())


def _scheduled_values(group: dict, starts: list[_Start]) -> dict:
    """Return the values of a parameter group that schedulers change, and their initial values."""
    names = {start.scheduler.param_name for start in starts}
    keys = {*names, *(f'initial_{name}' for name in names)}
    if 'momentum' in names and 'betas' in group:
        keys.add('betas')
    return {key: copy.deepcopy(group[key]) for key in keys if key in group}


def _saved_parts(saved: dict | list) -> Iterator[tuple[str, dict]]:
    for name, states in saved.items() if isinstance(saved, dict) else [('', saved)]:
        for index, state in enumerate(states):
            yield _key(name, index), state


def _settings(state: dict) -> dict:
    return {
        key: value for key, value in state.items() if key not in _PROGRESS and not callable(value)
    }


def _different_settings(key: str, saved: dict, state: dict) -> list[str]:
    before, now = _settings(saved), _settings(state)
    found = []
    for name in [*now, *(before.keys() - now.keys())]:
        if before.get(name) == now.get(name):
            continue
        if name == 'base_values':
            pairs = zip(before.get(name, ()), now[name], strict=False)
            first, second = next(((a, b) for a, b in pairs if a != b), ('other groups', 'these'))
            found.append(f'the base rate of {key}, {first}, is now {second}')
        else:
            found.append(f'{key}.{name}={before.get(name)} is now {now.get(name)}')
    return found
