"""Gradient accumulation, with several iterations per optimizer step, for hooks and loops."""

from __future__ import annotations


def accumulation(runner) -> int:
    """Return the iterations per optimizer step. The wrapper may still be a config."""
    wrapper = runner.optim_wrapper
    if isinstance(wrapper, dict):
        return wrapper.get('accumulative_counts', 1)
    several = getattr(wrapper, 'optim_wrappers', None) or {'': wrapper}
    return max(getattr(one, '_accumulative_counts', 1) for one in several.values())


def due_at(iteration: int, interval: int, accumulated: int, length: int, begin: int = 0) -> bool:
    """Whether an action with an ``interval`` in iterations runs at the end of this iteration.

    An action inside an accumulation is delayed to the end of its optimizer step.

    Args:
        iteration (int): 1-based number of the iteration.
        interval (int): Interval in iterations; 0 or less means never.
        accumulated (int): Iterations per optimizer step.
        length (int): Iterations of the training. The last optimizer step ends with it.
        begin (int): Iteration of the first action; 0 means the first interval.
    """
    if interval <= 0 or (iteration % accumulated and iteration != length):
        return False
    start_of_step = (iteration - 1) // accumulated * accumulated
    reached = (iteration - begin) // interval
    return reached >= 0 and reached > (start_of_step - begin) // interval
