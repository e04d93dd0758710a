"""When GPS's ramp-up ends: means over an epoch of what labeled batches say."""

import pytest
import torch

from mmseg_semi.models.ramp_up import AdaptiveRampUp


@pytest.fixture
def ramp_up():
    return AdaptiveRampUp()


def observe(ramp_up, students, teacher, has_label=True):
    ramp_up.observe(torch.tensor(students), torch.tensor(teacher), torch.tensor(has_label))


def test_epoch_means_decide_and_the_latch_holds(ramp_up):
    # One batch in which the students are better does not decide.
    observe(ramp_up, 0.25, 1.0)
    observe(ramp_up, 3.0, 1.0)
    assert ramp_up.end_epoch(1) == (1.625, 1.0)
    assert ramp_up.latch_epoch == 0
    assert not ramp_up.labeled_sums.any()
    observe(ramp_up, 0.5, 1.0)
    ramp_up.end_epoch(2)
    assert ramp_up.latch_epoch == 2
    # It stays, at the first epoch that ended the ramp-up.
    for epoch, students in ((3, 9.0), (4, 0.1)):
        observe(ramp_up, students, 1.0)
        ramp_up.end_epoch(epoch)
    assert ramp_up.latch_epoch == 2


def test_equal_means_end_the_ramp_up(ramp_up):
    observe(ramp_up, 0.75, 0.75)
    ramp_up.end_epoch(5)
    assert ramp_up.latch_epoch == 5


def test_void_batches_and_broken_losses_do_not_count(ramp_up):
    observe(ramp_up, 0.0, 0.0, has_label=False)
    observe(ramp_up, float('nan'), 1.0)
    observe(ramp_up, 1.0, float('inf'))
    assert ramp_up.end_epoch(1) is None
    assert ramp_up.latch_epoch == 0
    observe(ramp_up, 2.0, 1.0)
    observe(ramp_up, 0.0, 0.0, has_label=False)
    assert ramp_up.end_epoch(2) == (2.0, 1.0)
    assert ramp_up.latch_epoch == 0


def test_comparison_can_be_left_out(ramp_up):
    observe(ramp_up, 0.5, 1.0)
    assert ramp_up.end_epoch(1, adaptive=False) == (0.5, 1.0)
    assert ramp_up.latch_epoch == 0


def test_sums_are_exact_and_begin_forgets_them(ramp_up):
    # In float32, 1 is lost beside 2^24.
    for value in (2.0**24, 1.0, 1.0):
        observe(ramp_up, value, 0.0)
    assert ramp_up.labeled_sums.tolist() == [2.0**24 + 2, 0.0, 3.0]
    ramp_up.latch_epoch.fill_(3)
    ramp_up.begin()
    assert not ramp_up.labeled_sums.any()
    assert ramp_up.latch_epoch == 0
    assert ramp_up.state_dict().keys() == {'labeled_sums', 'latch_epoch'}
