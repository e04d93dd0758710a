"""When the EMA teacher follows the student."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmseg.registry import HOOKS

from ...functional.schedules import ema_decay
from ...models.clock import count_steps
from ...models.segmentors.mean_teacher import MeanTeacherSegmentor
from ..accumulation import accumulation
from ._common import unwrap


@HOOKS.register_module()
class MeanTeacherHook(Hook):
    """Average the student into the teacher after every optimizer step.

    The decay of 0-based step i is 0 while i < copy_steps (the teacher is a copy), then
    ``min(1 - 1 / (i + 1), decay)`` with ``warmup='ratio'``, or ``decay`` without warm-up. Steps are
    counted in a buffer of the model, over the whole training, and resume with it; the micro-iterations
    of an accumulated step count once.

    Args:
        decay (float): Weight of the teacher's own past, in [0, 1]. iMAS: 0.996.
        warmup (str): ``'ratio'`` or ``'none'``.
        copy_epochs (int): Passes over the unlabeled list, from the start of the training, during which the
            teacher is a copy. iMAS's official code: 1. U2PL's: 2 on VOC (a supervised epoch and the first
            semi-supervised one, in which both networks share their storage), 1 on Cityscapes.
        copy_steps (int): The same in optimizer steps; the larger of the two rules.
        buffers (str): ``'average'`` floating-point buffers like weights, or ``'copy'`` them.
    """

    # Before the hooks that save and log, which run at lower priorities.
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
            raise ValueError(f'decay={decay} is out of range. Give a number in [0, 1].')
        if warmup not in ('ratio', 'none'):
            raise ValueError(f"warmup='{warmup}' is unknown. Choose 'ratio' or 'none'.")
        if buffers not in ('average', 'copy'):
            raise ValueError(f"buffers='{buffers}' is unknown. Choose 'average' or 'copy'.")
        if copy_epochs < 0 or copy_steps < 0:
            raise ValueError(
                f'copy_epochs={copy_epochs} and copy_steps={copy_steps} must not be negative.'
            )
        self.decay = decay
        self.warmup = warmup
        self.copy_epochs = copy_epochs
        self.copy_steps = copy_steps
        self.average_buffers = buffers == 'average'

    @property
    def reading(self) -> str:
        """The rule of the decay, for the first lines of the log."""
        rule = f'min(1 - 1 / (i + 1), {self.decay})' if self.warmup == 'ratio' else f'{self.decay}'
        copied = max((self.copy_epochs, 'passes'), (self.copy_steps, 'steps'))
        start = f', 0 during the first {copied[0]} {copied[1]}' if copied[0] else ''
        return f"the teacher's decay at step i: {rule}{start}"

    def before_train(self, runner) -> None:
        model = unwrap(runner.model)
        if not isinstance(model, MeanTeacherSegmentor):
            raise ValueError(
                f'MeanTeacherHook found a {type(model).__name__}, which has no teacher. Remove the hook from '
                'custom_hooks, or train a method with an EMA teacher.'
            )
        model.start_teacher()
        # Read once: a step that asked the device for its number would wait for it.
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
                f'(copy_epochs={self.copy_epochs}, copy_steps={self.copy_steps}) and the training has '
                f'{num_steps}: it will never be an average. Lower them.'
            )

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if not runner.optim_wrapper.should_update():
            return
        decay = ema_decay(self._step, self.decay, warmup=self.warmup, copy_steps=self._copy_steps)
        unwrap(runner.model).update_teacher(decay, self.average_buffers)
        self._step += 1
        runner.message_hub.update_scalar('train/ema_decay', decay)
