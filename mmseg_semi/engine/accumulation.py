"""What hooks and loops ask about gradient accumulation, which makes an optimizer step of several iterations."""

from __future__ import annotations


def accumulation(runner) -> int:
    """Iterations of one optimizer step; also before the Runner has built the wrapper from its config."""
    wrapper = runner.optim_wrapper
    if isinstance(wrapper, dict):
        return wrapper.get('accumulative_counts', 1)
    several = getattr(wrapper, 'optim_wrappers', None) or {'': wrapper}
    return max(getattr(one, '_accumulative_counts', 1) for one in several.values())


def due_at(iteration: int, interval: int, accumulated: int, length: int, begin: int = 0) -> bool:
    """Whether what is due every ``interval`` iterations is done at the end of this one.

    What falls inside an accumulation is put off to the end of its optimizer step.

    Args:
        iteration (int): Its number, from 1.
        interval (int): In iterations; at most 0 is never.
        accumulated (int): Iterations of a step.
        length (int): Iterations of the training, with which the last step ends.
        begin (int): The iteration at which it is due for the first time; 0 is at the first interval.
    """
    if interval <= 0 or (iteration % accumulated and iteration != length):
        return False
    start_of_step = (iteration - 1) // accumulated * accumulated
    reached = (iteration - begin) // interval
    return reached >= 0 and reached > (start_of_step - begin) // interval
