"""Let a resumed run use the same random numbers as an uninterrupted run."""

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

#: Number of words in the state of numpy's Mersenne Twister.
_NUMPY_WORDS = 624


@HOOKS.register_module()
class ResumableRandomnessHook(Hook):
    """Seed every rank differently, and save the random states with each checkpoint.

    The states are those of Python, numpy and torch in the training process, which dropout and CutMix use. They
    are seeded with (seed, rank) before the training. Validation and the creation of the loader's iterators do
    not change them, since an uninterrupted run validates and creates iterators at other times than a resumed
    run. The states of all ranks are gathered before a checkpoint, because MMEngine only saves on rank 0.

    The random numbers of the data only depend on the seed and the position, see PositionSampler.
    """

    # Before the hooks that save and after those that update weights.
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
                f'The resumed run needs the random states of {get_world_size()} processes, but the checkpoint '
                f'has {found}. The random numbers will differ from those of an uninterrupted run. Resume with '
                'the same number of processes to avoid this.'
            )
            return
        # Checkpoints are loaded to the device. A process that gathers tensors of other devices would use these.
        self._restored = {
            key: state.cpu() if isinstance(state, torch.Tensor) else state
            for key, state in states[get_rank()].items()
        }

    def _reseed(self, runner, sampler: PositionSampler, seed: int) -> None:
        # Without a seed in the config, the sampler was built with a new random seed.
        if sampler.seed == seed:
            return
        sampler.seed = seed
        loop = runner.train_loop
        if isinstance(loop, IterBasedTrainLoop):
            # Upstream MMEngine has already created it, and its workers have loaded images by the other seed.
            loop.dataloader_iterator = type(loop.dataloader_iterator)(loop.dataloader)

    def before_train(self, runner) -> None:
        self._started = False

    def before_train_epoch(self, runner) -> None:
        if self._started:
            self._kept = _random_state()

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        # Not in before_train, since the loader's iterator is created after it and uses a random number.
        if not self._started:
            self._started = True
            if self._restored is not None:
                _set_random_state(self._restored)
                self._restored = None
            else:
                _seed_everything(runner.seed, get_rank(), runner.iter)
        else:
            self._put_back()
        # Remove the states, so that a checkpoint at an unexpected time does not save old ones.
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
            # States of the resumed iteration. Its checkpoint is saved again if it is the best.
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
    # 0 in a new run. A run without restored states gets another seed.
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
    if not 0 <= position <= _NUMPY_WORDS:  # numpy would read outside the state
        raise ValueError(
            f'The checkpoint is broken: its position in the random state of numpy is {position}, but the state '
            f'has {_NUMPY_WORDS} words. Resume from another checkpoint.'
        )
    np.random.set_state(state['numpy'])
    torch.set_rng_state(state['torch'])
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'])


def _gather_states() -> list[dict]:
    return all_gather_object(_random_state())
