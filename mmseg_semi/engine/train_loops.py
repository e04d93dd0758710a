"""Training loops that never stop inside an optimizer step."""

from __future__ import annotations

from itertools import islice

from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmseg.registry import LOOPS

from ..models.clock import count_steps
from .accumulation import accumulation, due_at
from .startup.lengths import check_lengths


@LOOPS.register_module()
class WholeStepIterTrainLoop(IterBasedTrainLoop):
    """``IterBasedTrainLoop`` that puts a validation inside an accumulation off to the end of its step.

    With ``accumulative_counts=k`` an optimizer step has k iterations. ``max_iters``, ``val_begin`` and
    ``val_interval`` are iterations, as in MMEngine.

    Args: see :class:`mmengine.runner.IterBasedTrainLoop`.

    Raises:
        ValueError: A scheduler begins when the training is over.
    """

    def __init__(self, runner, dataloader, max_iters: int, **kwargs) -> None:
        super().__init__(runner, dataloader, max_iters, **kwargs)
        accumulated = accumulation(runner)
        # Here, because the Runner builds the schedulers right after this loop, before any hook is called.
        check_lengths(runner.param_schedulers, 1, count_steps(max_iters, accumulated), accumulated)

    def run(self) -> None:
        accumulated = accumulation(self.runner)
        if self.runner.val_loop is not None and self.val_interval % accumulated:
            self.runner.logger.info(
                f'val_interval={self.val_interval} falls inside optimizer steps of accumulative_counts='
                f'{accumulated} iterations: each validation is put off to the end of its step.'
            )
        return super().run()

    def _decide_current_val_interval(self) -> None:
        super()._decide_current_val_interval()
        accumulated = accumulation(self.runner)
        if accumulated > 1:
            # What the inherited loop asks of the interval is whether it divides the current iteration.
            due = due_at(self._iter, self.val_interval, accumulated, self._max_iters)
            self.val_interval = self._iter if due else self._iter + 1


@LOOPS.register_module()
class WholeStepEpochTrainLoop(EpochBasedTrainLoop):
    """``EpochBasedTrainLoop`` whose epochs are whole optimizer steps.

    With ``accumulative_counts=k`` an epoch has ``batches // k`` steps, and the batches that are left over are
    not used, as with ``drop_last``. So checkpoints and validations of epochs fall between two steps.

    Args: see :class:`mmengine.runner.EpochBasedTrainLoop`.

    Raises:
        ValueError: An epoch has fewer batches than a step, or a scheduler begins when the training is over.
    """

    def __init__(self, runner, dataloader, max_epochs: int, **kwargs) -> None:
        super().__init__(runner, dataloader, max_epochs, **kwargs)
        accumulated = accumulation(runner)
        self._batches = len(self.dataloader) // accumulated * accumulated
        if not self._batches:
            raise ValueError(
                f'An epoch has {len(self.dataloader)} batches, and a step of accumulative_counts='
                f'{accumulated} needs more: lower optim_wrapper.accumulative_counts or '
                'train_dataloader.batch_size.'
            )
        self._max_iters = self._max_epochs * self._batches
        num_steps = self._max_iters // accumulated
        check_lengths(runner.param_schedulers, max_epochs, num_steps, accumulated)

    def run_epoch(self) -> None:
        """Iterate one epoch."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for index, data_batch in enumerate(islice(self.dataloader, self._batches)):
            self.run_iter(index, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1
