import os
import random
from fractions import Fraction
from pathlib import Path

import pytest

from mmseg_semi.datasets.splits import make_partition

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
        pytest.skip(f'no CamVid at {CAMVID}; set CAMVID_ROOT')
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
