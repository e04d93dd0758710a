"""A killed and resumed run draws the random numbers of the run that was not killed."""

from __future__ import annotations

import random

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop
from mmseg.registry import HOOKS

from ...datasets import PositionSampler
from ._common import is_training, save_due

#: Words of the Mersenne Twister, which numpy draws one after the other.
_NUMPY_WORDS = 624


@HOOKS.register_module()
class ResumableRandomnessHook(Hook):
    """Give every rank its own random stream, and save it with each checkpoint.

    The stream is that of Python, numpy and torch in the training process: dropout, boxes, triggers. It
    starts from (seed, rank), whatever was drawn while building. Validation and the making of the loader's
    iterators are kept apart from it, since a resumed run does not repeat the validation of the iteration
    that it resumes from and makes an iterator where the other one has one. The states of all ranks are
    gathered before a save is due, because MMEngine saves on rank 0 alone.

    The data's randomness is addressed by position and needs no state but the seed, see
    PositionSampler.
    """

    # Before the hooks that save, after those that update weights.
    priority = 'BELOW_NORMAL'

    def __init__(self) -> None:
        self._gathered: list[dict] | None = None
        self._restored: dict | None = None
        self._kept: dict | None = None
        self._started = False

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        if not runner._resume or not is_training(runner):
            return
        sampler = runner.train_dataloader.sampler
        if isinstance(sampler, PositionSampler):
            self._reseed(runner, sampler, checkpoint.get('sampler_seed', sampler.seed))
        states = checkpoint.get('random_states')
        if states is None or len(states) != get_world_size():
            found = 'none' if states is None else f'those of {len(states)} processes'
            runner.logger.warning(
                f'The checkpoint has the random states of {get_world_size()} processes: found {found}, so '
                'the resumed run will draw other random numbers than an uninterrupted one.'
            )
            return
        self._restored = states[get_rank()]

    def _reseed(self, runner, sampler: PositionSampler, seed: int) -> None:
        # A config without a seed draws another one each time, and the sampler was built with that.
        if sampler.seed == seed:
            return
        sampler.seed = seed
        loop = runner.train_loop
        if isinstance(loop, IterBasedTrainLoop):
            # Upstream MMEngine has made it already, and its workers have loaded what the other seed chose.
            loop.dataloader_iterator = type(loop.dataloader_iterator)(loop.dataloader)

    def before_train(self, runner) -> None:
        self._started = False

    def before_train_epoch(self, runner) -> None:
        if self._started:
            self._kept = _random_state()

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        # Not in before_train: making the loader's iterator, which follows it, draws a number.
        if not self._started:
            self._started = True
            if self._restored is not None:
                _set_random_state(self._restored)
                self._restored = None
            else:
                _seed_everything(runner.seed, get_rank(), runner.iter)
        else:
            self._put_back()
        # Whoever saves at a moment that is not foreseen here must not save the states of an earlier one.
        self._gathered = None

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if save_due(runner):
            self._gathered = _gather_states()

    def after_train_epoch(self, runner) -> None:
        self._gathered = _gather_states()

    def before_val(self, runner) -> None:
        if self._started:
            self._kept = _random_state()
            self._gathered = _gather_states()
        elif self._restored is not None:
            # Of the iteration that is resumed, whose checkpoint is saved again where it is the best.
            self._gathered = all_gather_object(self._restored)

    def after_val(self, runner) -> None:
        self._put_back()

    def _put_back(self) -> None:
        if self._kept is not None:
            _set_random_state(self._kept)
            self._kept = None

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        if self._gathered is not None:
            checkpoint['random_states'] = self._gathered
        sampler = runner.train_dataloader.sampler
        if isinstance(sampler, PositionSampler):
            checkpoint['sampler_seed'] = sampler.seed


def _seed_everything(seed: int, rank: int, iteration: int) -> None:
    # 0 for a fresh run; a run that could not restore its states starts a stream of its own.
    words = np.random.SeedSequence([seed, rank, iteration]).generate_state(2, np.uint32)
    random.seed(int(words[0]))
    np.random.seed(int(words[0]))
    torch.manual_seed(int(words[1]))


def _random_state() -> dict:
    state = {
        'python': random.getstate(),
        'numpy': np.random.get_state(),
        'torch': torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: dict) -> None:
    random.setstate(state['python'])
    position = state['numpy'][2]
    if not 0 <= position <= _NUMPY_WORDS:  # numpy would read beyond them
        raise ValueError(
            f'The checkpoint has {position} as the position in the random state of numpy, which has '
            f'{_NUMPY_WORDS} words: it is broken. Resume from another checkpoint.'
        )
    np.random.set_state(state['numpy'])
    # Checkpoints are loaded onto the device; generator states live on the host.
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


def _gather_states() -> list[dict]:
    return all_gather_object(_random_state())
