"""The time of a training, in the unit of the papers: optimizer steps."""

from __future__ import annotations

from typing import NamedTuple

from mmengine.optim import OptimWrapper, OptimWrapperDict


class Clock(NamedTuple):
    """Which optimizer step a training is in.

    With ``accumulative_counts=k`` an optimizer step has k micro-batches, each of which is an iteration of the
    Runner. The clock stands still during the k of them.

    Attributes:
        step (int): Optimizer steps done before the running one, so its 0-based number.
        num_steps (int, optional): Optimizer steps of the whole training; None where no Runner has told.
        accumulation (int): Micro-batches of a step.
        begins_step (bool): Whether the coming micro-batch is the first of its step.
    """

    step: int = 0
    num_steps: int | None = None
    accumulation: int = 1
    begins_step: bool = True

    @classmethod
    def of(cls, optim_wrapper: OptimWrapper | OptimWrapperDict) -> Clock:
        """Read the clock from an optimizer wrapper, before the update of a micro-batch.

        The Runner tells the wrapper where a resumed training is, before its first iteration. Several
        wrappers begin a step together, so the first one answers for all.
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
    """Optimizer steps of a training of so many iterations; the last one may have fewer micro-batches."""
    return -(-iterations // accumulation)
