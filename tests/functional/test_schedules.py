"""Schedules against numbers done by hand and the properties that the methods rely on."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmseg_semi.functional import schedules


@pytest.mark.parametrize(
    ('step', 'expected'),
    [(0, 0.0), (1, 0.5), (2, 2 / 3), (9, 0.9), (98, 1 - 1 / 99), (99, 0.99), (100, 0.99)],
)
def test_ema_decay_warms_up_by_the_ratio(step, expected):
    assert schedules.ema_decay(step, 0.99) == pytest.approx(expected, rel=1e-12)


def test_ema_decay_without_warmup_is_constant():
    assert [schedules.ema_decay(step, 0.996, warmup='none') for step in (0, 1, 10**9)] == [
        0.996
    ] * 3


def test_ema_decay_copies_for_so_many_steps_and_then_goes_on_by_the_step():
    decays = [schedules.ema_decay(step, 0.99, copy_steps=3) for step in range(5)]
    assert decays == [0, 0, 0, 0.75, 0.8]
    decays = [schedules.ema_decay(step, 0.99, warmup='none', copy_steps=2) for step in range(4)]
    assert decays == [0, 0, 0.99, 0.99]


def test_ema_decay_by_the_ratio_gives_the_mean_of_all_students():
    students = [3.0, -1.0, 4.0, 1.0, 5.0, 9.0]
    teacher = 100.0
    for step, student in enumerate(students):
        decay = schedules.ema_decay(step, 0.999)
        teacher = decay * teacher + (1 - decay) * student
    assert teacher == pytest.approx(sum(students) / len(students), rel=1e-12)


@pytest.mark.parametrize('decay', [0, 1, 0.5])
def test_ema_decay_takes_the_ends_of_the_range(decay):
    value = schedules.ema_decay(10**6, decay)
    assert isinstance(value, float)
    assert value == pytest.approx(min(decay, 1 - 1 / (10**6 + 1)), rel=1e-12)


@pytest.mark.parametrize(
    ('kwargs', 'words'),
    [
        (dict(step=-1, decay=0.9), 'step is -1'),
        (dict(step=0, decay=1.1), r'decay is 1\.1'),
        (dict(step=0, decay=-0.1), r'decay is -0\.1'),
        (dict(step=0, decay=math.nan), 'decay is nan'),
        (dict(step=0, decay=0.9, warmup='linear'), "warmup is 'linear'.*'ratio' or 'none'"),
        (dict(step=0, decay=0.9, copy_steps=-2), 'copy_steps is -2'),
    ],
)
def test_ema_decay_refuses(kwargs, words):
    with pytest.raises(ValueError, match=words):
        schedules.ema_decay(**kwargs)


@pytest.mark.parametrize(
    ('epoch', 'length', 'expected'),
    [
        (1, 1, 1.0),
        (1, 2, math.exp(-0.25)),
        (1, 4, math.exp(-0.5625)),
        (0, 7, math.exp(-1)),
        (4, 4, 1.0),
        (5, 4, 1.0),
        (0, 0, 1.0),
        (3, 0, 1.0),
        (2.5, 5, math.exp(-0.25)),
    ],
)
def test_gaussian_ramp_up(epoch, length, expected):
    assert schedules.gaussian_ramp_up(epoch, length) == pytest.approx(expected, rel=1e-12)


def test_gaussian_ramp_up_starts_where_gps_starts():
    assert 0.38 < schedules.gaussian_ramp_up(1, 34) < 0.39  # VOC 1/8
    assert 0.37 < schedules.gaussian_ramp_up(1, 137) < 0.38  # Cityscapes 1/8


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300))
def test_gaussian_ramp_up_grows_to_one(epoch, length):
    weight = schedules.gaussian_ramp_up(epoch, length)
    assert math.exp(-1) <= weight <= 1
    assert (weight == 1) == (epoch >= length)
    assert weight <= schedules.gaussian_ramp_up(epoch + 1, length)


@pytest.mark.parametrize('arguments', [(-1, 5), (1, -5), (math.nan, 5), (1, math.nan)])
def test_gaussian_ramp_up_refuses(arguments):
    with pytest.raises(ValueError, match='cannot be negative'):
        schedules.gaussian_ramp_up(*arguments)


@pytest.mark.parametrize(
    ('step', 'length', 'expected'),
    [
        (0, 10, math.exp(-5)),
        (5, 10, math.exp(-1.25)),
        (8, 10, math.exp(-0.2)),
        (10, 10, 1.0),
        (11, 10, 1.0),
        (0, 0, 1.0),
        (2.5, 5, math.exp(-1.25)),
    ],
)
def test_sigmoid_ramp_up(step, length, expected):
    assert schedules.sigmoid_ramp_up(step, length) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('arguments', [(-1, 5), (1, -5), (math.nan, 5), (1, math.nan)])
def test_sigmoid_ramp_up_refuses(arguments):
    with pytest.raises(ValueError, match='cannot be negative'):
        schedules.sigmoid_ramp_up(*arguments)


def test_triangle_by_hand():
    assert [schedules.triangle(step, 8) for step in range(9)] == [
        *(0, 0.25, 0.5, 0.75, 1),
        *(0.75, 0.5, 0.25, 0),
    ]
    assert schedules.triangle(1, 3) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ('step', 'length', 'message'),
    [(0, 0, 'length is 0'), (-1, 5, 'step is -1'), (6, 5, r'step is 6, but must lie in \[0, 5\]')],
)
def test_triangle_refuses_what_is_no_training(step, length, message):
    with pytest.raises(ValueError, match=message):
        schedules.triangle(step, length)
