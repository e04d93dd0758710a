import hashlib
import os
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmseg_semi.datasets.splits import (
    balanced_order,
    cut_order,
    labeled_count,
    make_partition,
    order_free_hash,
    parse_size,
    random_order,
    size_name,
)

CAMVID = Path(
    os.environ.get('CAMVID_ROOT', Path(__file__).parents[2] / '..' / 'shared' / 'data' / 'camvid')
)


def test_partition_by_hand():
    ids = list('abcdefgh')
    random.Random(5).shuffle(ids)
    labeled, unlabeled = make_partition('hgfedcba', 1 / 4, seed=5)
    assert labeled == sorted(ids[:2])
    assert unlabeled == sorted(ids[2:])


def test_partitions_are_disjoint_complete_and_nested():
    ids = [f'{i:03d}' for i in range(367)]
    sizes, inner = [], set()
    for denominator in (16, 8, 4, 2):
        labeled, unlabeled = make_partition(ids, Fraction(1, denominator), seed=1)
        assert sorted(labeled + unlabeled) == ids
        assert inner < set(labeled)
        inner = set(labeled)
        sizes.append(len(labeled))
    assert sizes == [23, 46, 92, 184]


@pytest.mark.parametrize('denominator', [16, 8, 4, 2])
def test_rule_gives_the_published_camvid_lists(denominator):
    if not (CAMVID / 'splits').is_dir():
        pytest.skip(f'no CamVid at {CAMVID}. Set CAMVID_ROOT')
    names = (CAMVID / 'splits' / 'train.txt').read_text().split()
    for seed in range(3):
        folder = CAMVID / 'splits' / f'1_{denominator}' / f'seed{seed}'
        labeled, unlabeled = make_partition(names, 1 / denominator, seed)
        assert labeled == (folder / 'labeled.txt').read_text().split()
        assert unlabeled == (folder / 'unlabeled.txt').read_text().split()


@pytest.mark.parametrize(
    ('ids', 'fraction', 'message'),
    [
        ('abc', 0.0, 'fraction=0.0'),
        ('abc', 1.5, 'fraction=1.5'),
        ('abca', 0.5, "id 'a' occurs twice"),
        ('abc', 0.01, 'empty'),
    ],
)
def test_bad_input(ids, fraction, message):
    with pytest.raises(ValueError, match=message):
        make_partition(ids, fraction, 0)


def test_order_is_the_shuffle_that_partitions_are_cut_from():
    order = random_order('hgfedcba', seed=5)
    ids = list('abcdefgh')
    random.Random(5).shuffle(ids)
    assert order == ids
    for count in (1, 3, 7):
        assert cut_order(order, count) == (sorted(ids[:count]), sorted(ids[count:]))
    assert cut_order(order, 2) == make_partition('abcdefgh', 1 / 4, seed=5)


# ------------------------------------------------------------------------------------ balanced


def test_balanced_order_by_hand():
    ids = list('abcdef')
    o = random_order(ids, seed=3)
    shown_by = {0: o, 1: [o[4], o[5]], 2: [o[3]]}
    pixels = np.array([[7 * (name in shown_by[c]) for c in range(3)] for name in ids])
    # Class 2 is the rarest, then class 1 is not shown yet and has one more image, then all show class 0.
    expected = [o[3], o[4], o[5], o[0], o[1], o[2]]
    assert balanced_order(ids, pixels, seed=3) == expected
    back = list(reversed(ids))
    assert balanced_order(back, pixels[::-1], seed=3) == expected


def test_an_image_shows_a_class_from_min_pixels_on():
    ids = list('abcdef')
    o = random_order(ids, seed=0)
    pixels = np.array([[9, 4 if name == o[5] else 3 * (name == o[4])] for name in ids])
    assert balanced_order(ids, pixels, seed=0)[0] == o[4]
    assert balanced_order(ids, pixels, seed=0, min_pixels=4)[0] == o[5]
    assert balanced_order(ids, pixels, seed=0, min_pixels=10) == o


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 5))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_balanced_order_shows_every_class_as_soon_as_it_can(seed, number, classes):
    rng = np.random.default_rng(seed)
    ids = [f'{i:02d}' for i in range(number)]
    pixels = rng.integers(0, 2, (number, classes)) * rng.integers(0, 3, (number, classes))
    order = balanced_order(ids, pixels, seed)
    assert sorted(order) == ids
    shows = pixels[[int(name) for name in order]] > 0
    occurs = int((shows.sum(0) > 0).sum())
    assert (shows[:occurs].sum(0) > 0).sum() == occurs
    for count in range(number):  # an image without a class never comes before one with a class
        assert shows[count].any() or not shows[count:].any()


def test_balanced_order_wants_a_row_for_each_id():
    with pytest.raises(ValueError, match='pixels has 2 rows for 3 ids'):
        balanced_order('abc', np.zeros((2, 4)), seed=0)


# ------------------------------------------------------------------------------------ sizes


@pytest.mark.parametrize(
    ('text', 'size', 'name', 'of_367'),
    [
        ('1/8', Fraction(1, 8), '1_8', 46),
        ('0.125', Fraction(1, 8), '1_8', 46),
        ('1/2', Fraction(1, 2), '1_2', 184),
        ('2/16', Fraction(1, 8), '1_8', 46),
        ('92', 92, '92', 92),
        ('1', 1, '1', 1),
    ],
)
def test_sizes(text, size, name, of_367):
    assert parse_size(text) == size
    assert size_name(parse_size(text)) == name
    assert labeled_count(parse_size(text), 367) == of_367


@pytest.mark.parametrize('text', ['0', '-1', '1/0', '9/8', '1.0', '', 'half', '1/-8', 'nan', '٣'])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match='is neither a share between 0 and 1'):
        parse_size(text)


@pytest.mark.parametrize('size', [8, 9, Fraction(1, 100)])
def test_both_lists_must_be_filled(size):
    with pytest.raises(ValueError, match='Give a size that leaves both lists filled'):
        labeled_count(size, 8)


def test_hash_by_hand():
    known = hashlib.sha256(b'a\nb\nc/d').hexdigest()
    assert order_free_hash(['c/d', 'a', 'b']) == order_free_hash(['b', 'a', 'c/d', 'a']) == known
    assert order_free_hash(['a', 'b']) != known
