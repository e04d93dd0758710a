"""Update the EMA teacher."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmseg.registry import HOOKS

from ...functional.schedules import ema_decay
from ...models.clock import count_steps
from ...models.segmentors.mean_teacher import (
    MeanTeacherSegmentor,
    averages_too_long,
    short_decay,
)
from ..accumulation import accumulation
from ._common import unwrap


@HOOKS.register_module()
class MeanTeacherHook(Hook):
    """Average the student into the teacher after every optimizer step.

    The decay of 0-based step i is 0 while i < copy_steps (the teacher is a copy), then
    ``min(1 - 1 / (i + 1), decay)`` with ``warmup='ratio'``, or ``decay`` without warm-up. A buffer of the model
    counts the steps of the whole training, so that a resumed training continues. The micro-batches of an
    accumulated step count once.

    Args:
        decay (float): Weight of the teacher's current value, in [0, 1]. iMAS: 0.996.
        warmup (str): ``'ratio'`` or ``'none'``.
        copy_epochs (int): Number of first epochs over the unlabeled images in which the teacher is a copy. Code
            of iMAS: 1. Code of U2PL: 2 on VOC (one supervised epoch, and the first semi-supervised epoch, in
            which both networks share their storage), 1 on Cityscapes.
        copy_steps (int): Same in optimizer steps. The larger of both applies.
        buffers (str): ``'average'`` floating-point buffers like weights, or ``'copy'`` them.
    """

    # Before the hooks that save and log, which have lower priorities.
    priority = 'NORMAL'

    def __init__(
        self,
        decay: float = 0.996,
        warmup: str = 'ratio',
        copy_epochs: int = 0,
        copy_steps: int = 0,
        buffers: str = 'average',
    ) -> None:
        if not 0 <= decay <= 1:
            raise ValueError(f'decay must be in [0, 1], got {decay}.')
        if warmup not in ('ratio', 'none'):
            raise ValueError(f"warmup='{warmup}' is unknown. Choose 'ratio' or 'none'.")
        if buffers not in ('average', 'copy'):
            raise ValueError(f"buffers='{buffers}' is unknown. Choose 'average' or 'copy'.")
        if copy_epochs < 0 or copy_steps < 0:
            raise ValueError(
                f'copy_epochs={copy_epochs} and copy_steps={copy_steps} must be at least 0.'
            )
        self.decay = decay
        self.warmup = warmup
        self.copy_epochs = copy_epochs
        self.copy_steps = copy_steps
        self.average_buffers = buffers == 'average'

    @property
    def reading(self) -> str:
        """Rule of the decay, for the first lines of the log."""
        rule = f'min(1 - 1 / (i + 1), {self.decay})' if self.warmup == 'ratio' else f'{self.decay}'
        copied = max((self.copy_epochs, 'passes'), (self.copy_steps, 'steps'))
        start = f', 0 during the first {copied[0]} {copied[1]}' if copied[0] else ''
        return f"the teacher's decay at step i: {rule}{start}"

    def before_train(self, runner) -> None:
        model = unwrap(runner.model)
        if not isinstance(model, MeanTeacherSegmentor):
            raise ValueError(
                f'MeanTeacherHook does not support {type(model).__name__}, which has no EMA teacher. Remove '
                'the hook from custom_hooks, or train a method with an EMA teacher.'
            )
        model.start_teacher()
        # Read once, since reading the buffer in a step would wait for the device.
        self._step = int(model.ema_steps)
        self._copy_steps = self.copy_steps
        accumulated = accumulation(runner)
        if self.copy_epochs:
            sampler = runner.train_dataloader.sampler
            if not hasattr(sampler, 'iters_per_epoch'):
                raise ValueError(
                    f'copy_epochs={self.copy_epochs} needs a LabeledUnlabeledSampler, not '
                    f'{type(sampler).__name__}. Give copy_steps instead.'
                )
            epoch_steps = max(1, sampler.iters_per_epoch // accumulated)
            self._copy_steps = max(self._copy_steps, self.copy_epochs * epoch_steps)
        num_steps = count_steps(runner.max_iters, accumulated)
        if 0 < num_steps <= self._copy_steps:
            runner.logger.warning(
                f'The teacher is a copy of the student for {self._copy_steps} optimizer steps '
                f'(copy_epochs={self.copy_epochs}, copy_steps={self.copy_steps}), but the training has only '
                f'{num_steps}. The teacher never becomes an average. Lower copy_epochs and copy_steps.'
            )
        elif averages_too_long(self.decay, num_steps):
            runner.logger.warning(
                f'The teacher averages over about {round(1 / (1 - self.decay))} optimizer steps '
                f'(MeanTeacherHook.decay={self.decay}), but the training has only {num_steps}, so the teacher '
                f'lags behind the student. Set decay={short_decay(num_steps)}.'
            )

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if not runner.optim_wrapper.should_update():
            return
        decay = ema_decay(self._step, self.decay, warmup=self.warmup, copy_steps=self._copy_steps)
        unwrap(runner.model).update_teacher(decay, self.average_buffers)
        self._step += 1
        runner.message_hub.update_scalar('train/ema_decay', decay)
