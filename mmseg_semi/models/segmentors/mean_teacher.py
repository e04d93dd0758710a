"""A student and its exponential moving average: the base class of methods with an EMA teacher."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from .base import SemiSegmentor

#: Decay of the teacher in trainings of 1,200 to 2,999 steps, as in those of docs/results.md.
SHORT_DECAY = 0.99


def short_decay(num_steps: int) -> float:
    """Return the decay for a training that is too short for an average over 250 steps.

    The average covers at most a twelfth of the training, but at least 10 steps: 0.9 for 120 steps or fewer,
    0.98 for 600, and 0.99 for 1,200 or more.

    Args:
        num_steps (int): Optimizer steps of the training, at least 1.
    """
    # Rounded down to thousandths.
    return min(SHORT_DECAY, max(0.9, (1000 + -12000 // num_steps) / 1000))


def averages_too_long(decay: float, num_steps: int) -> bool:
    """Whether the teacher's moving average covers too much of the training.

    Such a teacher lags behind the student until the end. A decay of 0.996 averages over about 250 steps, so the
    training needs 3,000, twelve times as many. Decays up to :data:`SHORT_DECAY` need six times as many.

    Args:
        decay (float): Weight of the teacher's current value, in [0, 1].
        num_steps (int): Optimizer steps of the training.
    """
    if num_steps < 1 or not short_decay(num_steps) < decay < 1:
        return False
    times = 12 if decay > SHORT_DECAY else 6
    return num_steps < round(times / (1 - decay))


class MeanTeacherSegmentor(SemiSegmentor):
    """Student and EMA teacher of one architecture. Methods implement :meth:`semi_loss`.

    The teacher is a copy of the student. It never receives a gradient, stays in eval mode and is part of every
    checkpoint. :class:`~mmseg_semi.engine.MeanTeacherHook` decides when it follows the student.

    Args: see :class:`SemiSegmentor`.
    """

    networks = ('student', 'teacher')
    default_predictor = 'teacher'
    required_hooks = ('MeanTeacherHook',)

    def __init__(self, segmentor: dict, **kwargs) -> None:
        super().__init__(segmentor, **kwargs)
        self.teacher = copy.deepcopy(self.student)
        self.teacher.requires_grad_(False)
        self.teacher.eval()
        # Copied from the student later, so no weights are initialized or downloaded twice.
        self.teacher._is_init = True
        # Number of averaged optimizer steps. A buffer, so that a resumed warm-up continues.
        self.register_buffer('ema_steps', torch.zeros((), dtype=torch.int64))
        self._teacher_loaded = False
        self._ema_tensors: tuple[list[Tensor], ...] | None = None
        #: Names of the buffers with infinite values when the training starts.
        self._infinite: set[str] = set()

    def train(self, mode: bool = True) -> MeanTeacherSegmentor:
        super().train(mode)
        self.teacher.eval()
        return self

    def init_weights(self) -> None:
        """Initialize the student, apply ``init_cfg``, and copy the student into the teacher."""
        super().init_weights()
        if not self._teacher_loaded:
            self.copy_student_to_teacher()

    def on_network_loaded(self, name: str) -> None:
        if name == 'teacher':
            self._teacher_loaded = True

    def start_teacher(self) -> None:
        """Copy the student into the teacher, unless a loaded checkpoint contains the teacher."""
        self._ema_tensors = None
        self._infinite = {
            key
            for key, buffer in self.student.named_buffers()
            if buffer.is_floating_point() and buffer.isinf().any()
        }
        if not self._teacher_loaded:
            self.copy_student_to_teacher()

    @torch.no_grad()
    def copy_student_to_teacher(self) -> None:
        """Set the teacher's weights and buffers to the student's values."""
        teacher, student = self.teacher.state_dict(), self.student.state_dict()
        for key, value in student.items():
            teacher[key].copy_(value)

    @torch.no_grad()
    def update_teacher(self, decay: float, average_buffers: bool = True) -> None:
        """Set teacher = decay * teacher + (1 - decay) * student, and count the step.

        Floating-point buffers (running statistics) are averaged like the weights, or copied. Integer buffers
        are always copied, since averaging ``num_batches_tracked`` would corrupt it, and so are buffers with
        infinite values at the start.

        Args:
            decay (float): Weight of the teacher's current value, in [0, 1].
            average_buffers (bool): False copies floating-point buffers.
        """
        if self._ema_tensors is None:
            self._ema_tensors = self._pair_tensors()
        params_t, params_s, floats_t, floats_s, ints_t, ints_s = self._ema_tensors
        weight = 1.0 - decay
        torch._foreach_lerp_(params_t, params_s, weight)
        if floats_t:
            torch._foreach_lerp_(floats_t, floats_s, weight if average_buffers else 1.0)
        if ints_t:
            torch._foreach_copy_(ints_t, ints_s)
        self.ema_steps += 1

    def is_averaged(self, name: str) -> bool:
        """Whether a parameter or buffer of the teacher follows the student's. Never changes in training."""
        return True

    def _pair_tensors(self) -> tuple[list[Tensor], ...]:
        """Return parameters, float buffers and other buffers of teacher and student, matched by name."""
        students = dict([*self.student.named_parameters(), *self.student.named_buffers()])

        def paired(teachers):
            return [(tensor, students[key]) for key, tensor in teachers if self.is_averaged(key)]

        pairs = paired(self.teacher.named_parameters())
        buffers = dict(self.teacher.named_buffers())
        # Attention masks have infinite values, of which an average would be NaN.
        copied = {
            key
            for key, tensor in buffers.items()
            if key in self._infinite or not tensor.is_floating_point()
        }
        floats = paired((key, tensor) for key, tensor in buffers.items() if key not in copied)
        others = paired((key, tensor) for key, tensor in buffers.items() if key in copied)
        return tuple(
            [pair[side] for pair in group] for group in (pairs, floats, others) for side in (0, 1)
        )

    def _apply(self, fn, *args, **kwargs) -> MeanTeacherSegmentor:
        # Moving a module replaces its buffers, and the cached lists would still hold the old ones.
        self._ema_tensors = None
        return super()._apply(fn, *args, **kwargs)
