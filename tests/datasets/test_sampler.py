"""The samplers: their streams, shares, passes and seekability."""

import itertools
import time
from collections import Counter
from types import SimpleNamespace

import pytest

from mmseg_semi.datasets import LabeledUnlabeledSampler, ShuffledSampler, sampler


def make(num_labeled, num_unlabeled, labeled, unlabeled, rank=0, world_size=1, seed=3, **settings):
    dataset = SimpleNamespace(num_labeled=num_labeled, num_unlabeled=num_unlabeled)
    made = LabeledUnlabeledSampler(dataset, labeled, unlabeled, seed=seed, **settings)
    made.rank, made.world_size = rank, world_size
    return made


def batches(made, count):
    size = made.labeled + made.unlabeled
    drawn = list(itertools.islice(made, count * size))
    return [drawn[i : i + size] for i in range(0, len(drawn), size)]


def test_make_up_and_positions():
    for t, batch in enumerate(batches(make(5, 7, 2, 3), 10)):
        assert [index < 5 for index, _ in batch] == [True, True, False, False, False]
        assert [k for _, k in batch] == [2 * t, 2 * t + 1, 3 * t, 3 * t + 1, 3 * t + 2]
        assert all(0 <= index < 12 and type(index) is int for index, _ in batch)


def test_every_pass_has_each_sample_once_in_another_order():
    drawn = list(itertools.chain(*batches(make(5, 7, 2, 3), 35)))
    labeled = [index for index, _ in drawn if index < 5]
    unlabeled = [index for index, _ in drawn if index >= 5]
    passes = [labeled[i : i + 5] for i in range(0, 70, 5)]
    assert all(sorted(p) == [0, 1, 2, 3, 4] for p in passes)
    assert len(set(map(tuple, passes))) > 10
    passes = [tuple(unlabeled[i : i + 7]) for i in range(0, 105, 7)]
    assert all(sorted(p) == list(range(5, 12)) for p in passes)
    assert len(set(passes)) == len(passes)


def test_first_place_is_uniform():
    """Over 4000 passes each of 4 images comes first about 1000 times (5 sigma: 137)."""
    order = sampler._Order(seed=0, kind=0, length=4)
    first = Counter(order[4 * k] for k in range(4000))
    assert all(abs(first[i] - 1000) < 137 for i in range(4))


def test_order_is_the_same_for_ever():
    """Literal values: a run must be resumable with another numpy."""
    drawn = [index for index, _ in itertools.islice(make(5, 7, 2, 3, seed=0), 15)]
    assert drawn == [3, 2, 11, 9, 10, 1, 0, 8, 6, 5, 4, 2, 7, 6, 8]


def test_two_ranks_draw_what_one_draws():
    one = batches(make(5, 13, 4, 6), 20)
    for rank in range(2):
        for whole, half in zip(one, batches(make(5, 13, 2, 3, rank, 2), 20), strict=True):
            assert half == whole[2 * rank : 2 * rank + 2] + whole[4 + 3 * rank : 7 + 3 * rank]


def test_ranks_have_disjoint_shares_of_a_pass():
    seen = [
        {index for batch in batches(make(1, 32, 1, 2, rank, 4), 4) for index, _ in batch[1:]}
        for rank in range(4)
    ]
    assert sorted(itertools.chain(*seen)) == list(range(1, 33))


@pytest.mark.parametrize('world_size', [1, 2])
def test_two_streams_learn_and_paste_each_image_once_in_a_pass(world_size):
    learned, pasted = [], []
    for rank in range(world_size):
        made = make(3, 24, 1, 12 // world_size, rank, world_size, unlabeled_streams=2)
        assert made.iters_per_epoch == 4
        assert len(made) == 4 * (1 + 12 // world_size)
        half = 6 // world_size
        for batch in batches(made, 8):
            learned.append([index for index, _ in batch[1 : 1 + half]])
            pasted.append([index for index, _ in batch[1 + half :]])
    for of_ranks in (learned, pasted):
        for first in (0, 4):
            drawn = [
                batch for rank in range(world_size) for batch in of_ranks[8 * rank + first :][:4]
            ]
            assert sorted(itertools.chain(*drawn)) == list(range(3, 27))
    # In other orders: some 1 image of 24 is its own partner.
    pairs = zip(itertools.chain(*learned), itertools.chain(*pasted), strict=True)
    assert sum(a == b for a, b in pairs) < 8


def test_two_streams_of_two_ranks_are_those_of_one():
    one = batches(make(5, 13, 4, 12, unlabeled_streams=2), 9)
    for rank in range(2):
        halves = batches(make(5, 13, 2, 6, rank, 2, unlabeled_streams=2), 9)
        for whole, half in zip(one, halves, strict=True):
            labeled, first, second = whole[:4], whole[4:10], whole[10:]
            mine = slice(3 * rank, 3 * rank + 3)
            assert half == labeled[2 * rank : 2 * rank + 2] + first[mine] + second[mine]


def test_first_of_two_streams_is_the_only_one_of_one_and_no_position_comes_twice():
    one, two = batches(make(5, 7, 1, 3), 20), batches(make(5, 7, 1, 6, unlabeled_streams=2), 20)
    assert [[i for i, _ in b[1:]] for b in one] == [[i for i, _ in b[1:4]] for b in two]
    positions = [position for batch in two for _, position in batch[1:]]
    assert sorted(positions) == list(range(120))
    made = make(5, 7, 1, 6, unlabeled_streams=2)
    made.skip(13 * 7)
    assert batches(made, 7) == two[13:]


def test_seed_changes_both_orders_and_nothing_else_does():
    drawn = batches(make(6, 6, 6, 6), 2)
    other = batches(make(6, 6, 6, 6, seed=4), 2)
    assert drawn == batches(make(6, 6, 6, 6), 2)
    assert drawn[0][:6] != other[0][:6]
    assert drawn[0][6:] != other[0][6:]
    assert [i for i, _ in drawn[0][:6]] != [i - 6 for i, _ in drawn[0][6:]]


@pytest.mark.parametrize(
    ('num_labeled', 'num_unlabeled', 'labeled', 'unlabeled'),
    [(1, 9, 4, 4), (2, 3, 4, 4), (100, 3, 2, 2), (1, 1, 1, 1)],
)
def test_odd_sizes(num_labeled, num_unlabeled, labeled, unlabeled):
    made = make(num_labeled, num_unlabeled, labeled, unlabeled)
    drawn = list(itertools.chain(*batches(made, 50)))
    counts = Counter(index for index, _ in drawn)
    for first, number, share in (
        (0, num_labeled, labeled),
        (num_labeled, num_unlabeled, unlabeled),
    ):
        draws = [counts[i] for i in range(first, first + number)]
        assert sum(draws) == 50 * share
        assert max(draws) - min(draws) <= 1
    assert made.iters_per_epoch == max(1, num_unlabeled // unlabeled)


@pytest.mark.parametrize('iterations', [0, 1, 7, 1000, 123456789])
def test_skip_equals_consuming(iterations):
    made = make(5, 7, 2, 3, rank=1, world_size=2)
    made.skip(iterations * 5)
    resumed = batches(made, 3)
    if iterations <= 1000:
        assert resumed == batches(make(5, 7, 2, 3, rank=1, world_size=2), iterations + 3)[-3:]
    assert resumed[0][0][1] == (2 * iterations + 1) * 2
    made.skip(iterations * 5)  # absolute, not relative
    assert batches(made, 3) == resumed


def test_endless_ignores_the_epoch():
    made = make(5, 7, 2, 3)
    before = batches(made, 5)
    made.set_epoch(3)
    assert batches(made, 5) == before


def test_finite_epochs_continue_the_endless_stream():
    endless = batches(make(5, 7, 1, 2), 12)
    made = make(5, 7, 1, 2, endless=False)
    assert made.iters_per_epoch == 3
    assert len(made) == 9
    drawn = []
    for epoch in range(4):
        made.set_epoch(epoch)
        assert len(list(made)) == 9
        drawn += batches(made, 3)
    assert drawn == endless


def test_iters_per_epoch_counts_all_ranks():
    assert make(5, 100, 2, 8).iters_per_epoch == 12
    assert make(5, 100, 2, 8, world_size=4).iters_per_epoch == 3


def test_a_million_images():
    made = make(1_000_000, 1_000_000, 8, 8)
    start = time.perf_counter()
    list(itertools.islice(made, 16 * 1000))
    assert time.perf_counter() - start < 5  # two permutations and 16000 tuples: some 0.3 s


def test_seed_none_takes_one_from_mmengine(monkeypatch):
    monkeypatch.setattr(sampler, 'sync_random_seed', lambda: 17)
    assert make(2, 2, 1, 1, seed=None).seed == 17


@pytest.mark.parametrize(
    ('settings', 'said'),
    [
        (dict(labeled=0), 'labeled=0 makes batches without labeled samples. Set labeled'),
        (dict(unlabeled=-1), 'unlabeled=-1 makes batches without unlabeled samples'),
        (dict(labeled=2.0), r'labeled=2\.0'),
        (dict(seed=-1), 'seed=-1'),
        (dict(unlabeled_streams=3), 'unlabeled_streams=3 is unknown. Choose 1, or 2'),
        (
            dict(unlabeled=3, unlabeled_streams=2),
            'unlabeled=3 cannot be shared .* Make unlabeled even',
        ),
    ],
)
def test_bad_settings(settings, said):
    with pytest.raises(ValueError, match=said):
        make(**{**dict(num_labeled=2, num_unlabeled=2, labeled=1, unlabeled=1), **settings})


def test_needs_a_labeled_unlabeled_dataset():
    with pytest.raises(ValueError, match=r"not list. Set .*'LabeledUnlabeledDataset'"):
        LabeledUnlabeledSampler([1, 2], 1, 1)


def test_bad_skips():
    with pytest.raises(ValueError, match=r'Set train_dataloader\.batch_size=5'):
        make(5, 7, 2, 3).skip(8)
    with pytest.raises(ValueError, match='endless=True'):
        make(5, 7, 2, 3, endless=False).skip(10)


# ------------------------------------------------------------------------------------ ShuffledSampler


class Positioned(list):
    """A list of samples that claims to be seeded by position."""

    num_pseudo_labeled = 0


def shuffled(length, rank=0, world_size=1, seed=3, **settings):
    made = ShuffledSampler(Positioned(range(length)), seed=seed, **settings)
    made.rank, made.world_size = rank, world_size
    return made


def test_shuffled_passes_have_each_sample_once_in_another_order():
    drawn = list(itertools.islice(shuffled(7, endless=True), 70))
    assert [position for _, position in drawn] == list(range(70))
    passes = [tuple(index for index, _ in drawn[i : i + 7]) for i in range(0, 70, 7)]
    assert all(sorted(one) == list(range(7)) for one in passes)
    assert len(set(passes)) == 10


def test_shuffled_ranks_share_what_one_draws():
    one = list(itertools.islice(shuffled(7, endless=True), 40))
    two = [list(itertools.islice(shuffled(7, rank, 2, endless=True), 20)) for rank in range(2)]
    assert two == [one[0::2], one[1::2]]


def test_shuffled_epochs_continue():
    sampler = shuffled(7, world_size=2)
    assert len(sampler) == 3
    epochs = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
    stream = list(itertools.islice(shuffled(7, world_size=2, endless=True), 12))
    assert list(itertools.chain(*epochs)) == stream


def test_shuffled_skip_is_absolute():
    sampler = shuffled(7, rank=1, world_size=2, endless=True)
    whole = list(itertools.islice(sampler, 20))
    sampler.skip(13)
    assert list(itertools.islice(sampler, 7)) == whole[13:]
    with pytest.raises(ValueError, match='ShuffledSampler cannot skip -1'):
        sampler.skip(-1)
    with pytest.raises(ValueError, match='endless=False cannot resume under iteration-based'):
        shuffled(7).skip(3)


def test_shuffled_needs_a_dataset_that_takes_positions():
    with pytest.raises(ValueError, match='needs a SelfTrainingDataset, not list'):
        ShuffledSampler([1, 2])
