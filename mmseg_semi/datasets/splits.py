"""Partitions of a training set into labelled and unlabelled images."""

import random
from itertools import pairwise


def make_partition(ids, fraction, seed):
    """Draw a partition: ``random.Random(seed)`` shuffles the sorted ids, the first are labelled.

    With one seed the labelled lists of several fractions are nested: that of 1/16 is contained in
    that of 1/8, and so on. Python keeps ``random.Random`` and its ``shuffle`` the same over
    versions, so the lists are the same everywhere.

    Args:
        ids (Iterable[str]): Image ids in any order, without duplicates; not changed.
        fraction (float | fractions.Fraction): Labelled share, in (0, 1);
            ``round(len(ids) * fraction)`` images are labelled.
        seed (int): Of the shuffle.

    Returns:
        tuple[list[str], list[str]]: The labelled and the unlabelled ids, each sorted.

    Raises:
        ValueError: If ``fraction`` is out of range, an id occurs twice, or one of the two lists
            would be empty.
    """
    if not 0 < fraction < 1:
        raise ValueError(
            f'make_partition: fraction={fraction} is not between 0 and 1; '
            'give the labelled share, for example 1 / 16.'
        )
    ids = sorted(ids)
    twice = next((a for a, b in pairwise(ids) if a == b), None)
    if twice is not None:
        raise ValueError(f'make_partition: id {twice!r} occurs twice; list every image once.')
    count = round(len(ids) * fraction)
    if not 0 < count < len(ids):
        raise ValueError(
            f'make_partition: fraction={fraction} of {len(ids)} ids leaves one of the two lists '
            'empty; give another fraction or more images.'
        )
    random.Random(seed).shuffle(ids)
    return sorted(ids[:count]), sorted(ids[count:])
