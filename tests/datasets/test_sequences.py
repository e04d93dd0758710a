"""Frames of a video by their names."""

import os
import random
from pathlib import Path

import pytest

from mmseg_semi.datasets.sequences import frame_of, near_frames

CAMVID = Path(
    os.environ.get('CAMVID_ROOT', Path(__file__).parents[2] / '..' / 'shared' / 'data' / 'camvid')
)


@pytest.mark.parametrize(
    ('name', 'frame'),
    [
        ('0001TP_006690', ('0001TP_*', 6690)),
        ('0006R0_f03570', ('0006R0_f*', 3570)),
        ('drive/0007', ('drive/*', 7)),
        ('7_left', ('*_left', 7)),
        ('12', ('*', 12)),
        ('aachen/aachen_000000_000019', ('aachen/aachen_000000_*', 19)),
        ('cat', None),
        ('2007_000032', None),
        ('JPEGImages/2011_003276', None),
    ],
)
def test_frame(name, frame):
    assert frame_of(name) == frame


def test_neighbors_by_hand():
    others = ['a_010', 'a_100', 'b_020', 'cat']
    names = ['a_040', 'a_070', 'a_071', 'b_050', 'c_020', 'dog', 'a_100']
    found = near_frames(names, others, within=30)
    assert found == [
        ('a_040', 'a_010', 30),
        ('a_070', 'a_100', 30),
        ('a_071', 'a_100', 29),
        ('b_050', 'b_020', 30),
    ]
    assert near_frames(names, others, within=0) == []
    assert near_frames(['a_100'], ['a_100', 'a_101'], within=1) == [('a_100', 'a_101', 1)]


def test_neighbors_against_all_pairs():
    rng = random.Random(0)
    pool = [f'{s}{i:04d}' for s in 'ab' for i in range(300)]
    names, others = rng.sample(pool, 60), rng.sample(pool, 40)
    found = {near.name: near.distance for near in near_frames(names, others, within=5)}
    for name in names:
        distances = [
            abs(int(name[1:]) - int(o[1:])) for o in others if o[0] == name[0] and o != name
        ]
        nearest = min(distances)
        assert found.get(name) == (nearest if nearest <= 5 else None)


def test_camvid_val_is_a_clip_of_a_drive_in_train():
    if not (CAMVID / 'splits').is_dir():
        pytest.skip(f'no CamVid at {CAMVID}. Set CAMVID_ROOT')
    train, val = ((CAMVID / f'splits/{part}.txt').read_text().split() for part in ('train', 'val'))
    assert len(near_frames(val, train, within=30)) == 0
    assert len(near_frames(val, train, within=60)) == 26
    assert {near.other[:7] for near in near_frames(val, train, within=60)} == {'0016E5_'}
