"""The adaptive ramp-up of GPS, which ends when the students have caught up with the teacher."""

from __future__ import annotations

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmseg.registry import HOOKS

from ...functional.schedules import gaussian_ramp_up
from ...models.clock import Clock, count_steps
from ...models.segmentors.gps import GPS
from ..accumulation import accumulation
from ._common import unwrap


@HOOKS.register_module()
class AdaptiveRampUpHook(Hook):
    """Set the weight of GPS's feedback, and end its ramp-up when the students have caught up (Eq. 9).

    In epoch e of E (from 1) the weight is ``exp(-(1 - e/E)^2)``, so it starts near 0.37. It is 1 after the
    first epoch in which the students' mean cross-entropy on the labeled images is at most the teacher's. An
    epoch is one pass over the unlabeled images. The sums and the result of the comparison are buffers of the
    model (:class:`~mmseg_semi.models.ramp_up.AdaptiveRampUp`), so that a resumed training continues the
    ramp-up. A training that starts at iteration 0 restarts it, even if it loads a checkpoint.

    Epochs and the compared losses start at the optimizer step ``unlabeled_start``, which the paper does not
    have. Before this step there is no feedback and the weight is 0.

    With ``guidance='ramp_down'`` the weight of the teacher's guidance is ``exp(-((e - 1)/E)^2)``, that of epoch
    E + 1 - e without the comparison. It depends on the step alone.

    The hook also loads the initial weights of the teacher.

    Args:
        adaptive (bool): False disables the comparison. The ramp-up then ends with the training.

    Raises:
        ValueError: The model is not GPS, or the length of an epoch is unknown.
    """

    # Before the hooks that save and log, which have lower priorities.
    priority = 'NORMAL'

    def __init__(self, adaptive: bool = True) -> None:
        self.adaptive = adaptive

    def before_train(self, runner) -> None:
        model, sampler = unwrap(runner.model), runner.train_dataloader.sampler
        if not isinstance(model, GPS):
            raise ValueError(
                f'AdaptiveRampUpHook does not support {type(model).__name__}, which has no ramp-up. Remove the '
                'hook from custom_hooks, or train GPS.'
            )
        if not hasattr(sampler, 'iters_per_epoch'):
            raise ValueError(
                f'AdaptiveRampUpHook does not support {type(sampler).__name__}, which has no length of an '
                'epoch. Use LabeledUnlabeledSampler.'
            )
        model.start_teacher()
        if runner.iter == 0:
            model.ramp_up.begin()
        self._start = model.unlabeled_start
        accumulated = accumulation(runner)
        num_steps = count_steps(runner.max_iters, accumulated)
        self._length = max(1, sampler.iters_per_epoch // accumulated)
        self._epochs = max(1, -(-(num_steps - self._start) // self._length))
        # Read once, since reading the buffer in a step would wait for the device.
        latch_epoch = int(model.ramp_up.latch_epoch)
        self._latched = latch_epoch > 0
        if self._latched:
            outcome = f'the ramp-up ended with epoch {latch_epoch}'
        else:
            outcome = f'the weight of the feedback reaches 1 in epoch {self._epochs}'
            outcome += ' or once the students have caught up' if self.adaptive else ''
        if self._start:
            outcome += f'; epochs count from step {self._start}, the start of the unlabeled loss'
        runner.logger.info(
            f'GPS: {self._epochs} epochs of {self._length} steps, {num_steps} in all; {outcome}.'
        )

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        step = Clock.of(runner.optim_wrapper).step - self._start
        epoch = step // self._length + 1
        ramp_up = unwrap(runner.model).ramp_up
        ramp_up.weight = self._weight(epoch)
        # No image is guided before the first epoch.
        ramp_up.guidance = gaussian_ramp_up(self._epochs + 1 - max(1, epoch), self._epochs)

    def _weight(self, epoch: int) -> float:
        if epoch < 1:
            return 0.0
        if self._latched:
            return 1.0
        return gaussian_ramp_up(epoch, self._epochs)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        model = unwrap(runner.model)
        runner.message_hub.update_scalar('train/ramp_up_weight', model.ramp_up.weight)
        if model.cfg.guidance == 'ramp_down':
            runner.message_hub.update_scalar('train/guidance_weight', model.ramp_up.guidance)
        if not runner.optim_wrapper.should_update():
            return
        epoch, rest = divmod(model.clock.step + 1 - self._start, self._length)
        if rest or epoch < 1:
            return
        means = model.ramp_up.end_epoch(epoch, self.adaptive)
        if means is None:
            return
        students, teacher = means
        if is_main_process():
            scalars = {'epoch': epoch, 'epoch_ce_students': students, 'epoch_ce_teacher': teacher}
            runner.visualizer.add_scalars(scalars, step=runner.iter + 1)
        if not self._latched and model.ramp_up.latch_epoch:
            self._latched = True
            runner.logger.info(
                f'In epoch {epoch} the cross-entropy of the labeled images was {students:.4f} (students) and '
                f'{teacher:.4f} (teacher). The ramp-up ends, and the weight of the feedback is now 1.'
            )
