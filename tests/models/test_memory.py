"""Prototypes and the bank: first in, first out, the same on all ranks, and only what is finite."""

import pytest
import torch
from ddp_steps import remember_parts
from ranks import run_on_ranks

from mmseg_semi.models import NegativeMemoryBank, PartMemoryBank, PartPrototypes

C, K, Q, D = 2, 2, 3, 4


def step(*pushes, num_images=2):
    """Means and presence of images from (image, class, part, value)."""
    means, present = torch.zeros(num_images, C, K, D), torch.zeros(num_images, C, K).bool()
    for image, c, k, value in pushes:
        means[image, c, k] = value
        present[image, c, k] = True
    return means, present


def content(bank):
    """The stored values of each queue, by slot."""
    queues = bank.entries.view(C * K, Q, D)
    assert (queues == queues[..., :1]).all()
    return [queue[:n, 0].tolist() for queue, n in zip(queues, bank.fill.tolist(), strict=True)]


def test_queues_fill_and_then_lose_their_oldest():
    bank = PartMemoryBank(C, K, Q, D)
    assert bank.entries.shape == (C * K * Q, D)
    bank.push(*step((0, 0, 0, 1.0), (1, 0, 0, 2.0), (1, 1, 1, 7.0)))
    assert content(bank) == [[1, 2], [], [], [7]]
    bank.push(*step((0, 0, 0, 3.0), (1, 0, 0, 4.0)))
    assert content(bank) == [[4, 2, 3], [], [], [7]]
    bank.push(*step((1, 0, 0, 5.0), (0, 1, 0, 9.0)))
    assert content(bank) == [[4, 5, 3], [], [9], [7]]
    assert bank.cursor.tolist() == [2, 0, 1, 1]
    # What was not to be stored left no trace.
    assert (bank.rows[-1] == 0).all()


def test_of_more_than_a_queue_holds_the_last_stay():
    bank = PartMemoryBank(C, K, Q, D)
    bank.push(*step((0, 0, 0, 8.0)))
    bank.push(*step(*((i, 0, 0, float(i)) for i in range(5)), num_images=5))
    # Slots 1, 2, 0, 1, 2 in turn.
    assert content(bank)[0] == [2, 3, 4]
    assert bank.cursor[0] == 0


def test_equals_a_list_over_many_random_pushes():
    generator = torch.Generator().manual_seed(0)
    bank, queues = PartMemoryBank(C, K, Q, D), [[] for _ in range(C * K)]
    for _ in range(30):
        means = torch.rand(4, C, K, 1, generator=generator).expand(-1, -1, -1, D)
        present = torch.rand(4, C, K, generator=generator) < 0.4
        bank.push(means, present)
        for value, there in zip(means[..., 0].flatten(1), present.flatten(1), strict=True):
            for queue, v, t in zip(queues, value.tolist(), there.tolist(), strict=True):
                queue.extend([v] * t)
    for found, queue in zip(content(bank), queues, strict=True):
        assert sorted(found) == sorted(queue[-Q:])


def test_means_that_are_not_finite_are_not_stored():
    bank = PartMemoryBank(C, K, Q, D)
    means, present = step((0, 0, 0, float('nan')), (0, 1, 0, float('inf')), (1, 0, 0, 2.0))
    bank.push(means, present)
    assert content(bank) == [[2], [], [], []]
    assert bank.rows.isfinite().all()


def prototypes(decay):
    memory = PartPrototypes(C, K, D, decay)
    memory.start(0, torch.ones(2, D))
    memory.start(1, torch.zeros(0, D))
    return memory


def test_prototypes_follow_the_mean_over_all_pixels():
    memory = prototypes(0.9)
    means, counts = torch.zeros(2, C, K, D), torch.zeros(2, C, K, dtype=torch.int64)
    means[0, 0, 0], counts[0, 0, 0] = 3.0, 1
    means[1, 0, 0], counts[1, 0, 0] = 7.0, 3
    means[1, 1, 0], counts[1, 1, 0] = 5.0, 2
    # Image by image, as the micro-batches of a step bring them.
    for i in range(2):
        memory.collect(means[i : i + 1], counts[i : i + 1])
    assert memory.vectors[0, 0].tolist() == [1] * D
    memory.commit()
    assert memory.vectors[0, 0].tolist() == pytest.approx([0.9 + 0.1 * 6] * D)
    # Absent: as it was. Without a value yet: set.
    assert memory.vectors[0, 1].tolist() == [1] * D
    assert memory.vectors[1, 0].tolist() == [5] * D
    assert memory.valid.tolist() == [[True, True], [True, False]]
    # The sums of a step are not those of the next one, nor of one that was skipped.
    before = memory.vectors.clone()
    memory.collect(means, counts)
    memory.discard()
    memory.commit()
    assert torch.equal(memory.vectors, before)
    assert not any('pending' in key for key in memory.state_dict())


def test_prototypes_take_finite_means_only():
    memory = prototypes(0.5)
    means, counts = torch.full((1, C, K, D), float('nan')), torch.ones(1, C, K, dtype=torch.int64)
    means[0, 0, 1] = 2.0
    memory.collect(means, counts)
    memory.commit()
    assert memory.vectors.isfinite().all()
    assert memory.vectors[0].tolist() == [[1] * D, [1.5] * D]
    assert memory.valid.tolist() == [[True, True], [False, False]]


def test_absent_class_shows_its_first_part_and_later_parts_stay_out():
    memory = prototypes(0.99)
    features, label = torch.randn(1, D, 3, 3), torch.ones(1, 3, 3, dtype=torch.int64)
    assert (memory.assign(features, label) == 0).all()
    memory.collect(torch.full((1, C, K, D), 0.1), torch.tensor([[[0, 0], [4, 0]]]))
    memory.commit()
    assert memory.valid.tolist() == [[True, True], [True, False]]
    assert (memory.assign(-features, label) == 0).all()


@pytest.mark.parametrize('other', [PartPrototypes(C, K + 1, D), PartPrototypes(C, K, D + 1)])
def test_checkpoint_of_another_shape_is_refused(other):
    with pytest.raises(ValueError, match=r"'vectors' has shape .*. Set num_parts, queue_size"):
        PartPrototypes(C, K, D).load_state_dict(other.state_dict())


@pytest.mark.slow
def test_ranks_remember_the_same_in_their_order(tmp_path):
    one = remember_parts(0, 1)
    first, second = run_on_ranks(remember_parts, 2, tmp_path, 2)
    for key, value in one.items():
        assert torch.equal(first[key], second[key]), key
        if key == 'vectors':  # summed in another order
            torch.testing.assert_close(first[key], value)
        else:
            assert torch.equal(first[key], value), key


def negatives(bank):
    """The stored values of each class, by slot."""
    ends = bank.starts + bank.fill
    return [bank.entries[a:b, 0].tolist() for a, b in zip(bank.starts, ends, strict=True)]


def test_background_has_a_longer_queue():
    bank = NegativeMemoryBank(3, 2, 4, D)
    assert bank.entries.shape == (4 + 2 + 2, D)
    for step_ in range(3):
        values = torch.arange(2.0) + 2 * step_
        features = values[:, None, None].expand(2, 3, D)
        bank.append(features, torch.tensor([[1, 1, 0], [1, 0, 0]]).bool())
    # Class 0 had 0 to 5 and lost the first two, class 1 had 0, 2, 4, class 2 nothing.
    assert negatives(bank) == [[4, 5, 2, 3], [4, 2], []]
    assert bank.cursor.tolist() == [2, 1, 0]
    bank.append(torch.full((1, 3, D), torch.nan), torch.ones(1, 3).bool())
    assert bank.fill.tolist() == [4, 2, 0]


def test_negatives_of_another_size_are_refused_by_name():
    saved = NegativeMemoryBank(3, 2, 4, D).state_dict()
    assert saved.keys() == {'rows', 'cursor', 'fill'}
    with pytest.raises(
        ValueError, match='Set queue_size, background_queue_size and representation'
    ):
        NegativeMemoryBank(3, 2, 5, D).load_state_dict(saved)
