"""The clock of a training counts optimizer steps, which it reads from the optimizer wrapper."""

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn

from mmseg_semi.models.clock import Clock, count_steps


def wrapper(accumulated):
    network = nn.Linear(1, 1)
    made = OptimWrapper(torch.optim.SGD(network.parameters(), 0.1), accumulative_counts=accumulated)
    return network, made


@pytest.mark.parametrize('several', [False, True])
def test_steps_of_a_training(several):
    network, one = wrapper(3)
    made = OptimWrapperDict(students=one, teacher=wrapper(3)[1]) if several else one
    assert Clock.of(made) == (0, None, 3, True)
    one.initialize_count_status(network, 0, 8)
    clocks = []
    for _ in range(8):
        clocks.append(Clock.of(made))
        one.update_params(network(torch.ones(1, 1)).sum())
    # The last step has two micro-batches.
    assert [clock.step for clock in clocks] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert [clock.begins_step for clock in clocks] == [True, False, False] * 2 + [True, False]
    assert {clock.num_steps for clock in clocks} == {3}


def test_resumed_training():
    network, one = wrapper(4)
    one.initialize_count_status(network, 8, 40)
    assert Clock.of(one) == (2, 10, 4, True)
    one.initialize_count_status(network, 9, 40)
    assert Clock.of(one) == (2, 10, 4, False)


def test_number_of_steps():
    assert [count_steps(n, 3) for n in (0, 1, 3, 4, 6)] == [0, 1, 1, 2, 2]
