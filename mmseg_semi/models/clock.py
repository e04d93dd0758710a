"""The time of a training in optimizer steps, the unit of the papers."""

from __future__ import annotations

from typing import NamedTuple

from mmengine.optim import OptimWrapper, OptimWrapperDict


class Clock(NamedTuple):
    """Current optimizer step of a training.

    With ``accumulative_counts=k`` an optimizer step has k micro-batches. Each of them is one iteration of the
    Runner, and the clock shows the same step for all of them.

    Attributes:
        step (int): 0-based number of the current optimizer step.
        num_steps (int, optional): Optimizer steps of the whole training; None without a Runner.
        accumulation (int): Micro-batches per optimizer step.
        begins_step (bool): Whether the next micro-batch is the first of its step.
    """

    step: int = 0
    num_steps: int | None = None
    accumulation: int = 1
    begins_step: bool = True

    @classmethod
    def of(cls, optim_wrapper: OptimWrapper | OptimWrapperDict) -> Clock:
        """Read the clock from an optimizer wrapper, before the update of a micro-batch.

        The Runner sets the counters of the wrapper, also when it resumes a training. Several wrappers start a
        step together, so one of them is enough.
        """
        if isinstance(optim_wrapper, OptimWrapperDict):
            optim_wrapper = next(iter(optim_wrapper.values()))
        accumulation = optim_wrapper._accumulative_counts
        done, most = optim_wrapper._inner_count, optim_wrapper._max_counts
        return cls(
            step=done // accumulation,
            num_steps=None if most < 0 else count_steps(most, accumulation),
            accumulation=accumulation,
            begins_step=done % accumulation == 0,
        )


def count_steps(iterations: int, accumulation: int) -> int:
    """Return the optimizer steps in a number of iterations. The last one may have fewer micro-batches."""
    return -(-iterations // accumulation)
