"""Partitions of a training set into labeled and unlabeled images.

An *order* of all ids comes first; its first ids are labeled. So the labeled lists of all sizes from one order
are nested. ``split_lists.py`` reads the lists of the literature; ``fingerprints.py`` identifies them.
"""

import hashlib
import random
import re
from fractions import Fraction
from itertools import pairwise

import numpy as np


def make_partition(ids, fraction, seed):
    """Draw a partition: ``random.Random(seed)`` shuffles the sorted ids; the first ids are labeled.

    The labeled lists of one seed are nested: that of 1/16 is contained in that of 1/8, and so on. Python
    guarantees the output of ``random.Random`` and its ``shuffle`` across versions, so the lists are the same
    everywhere.

    Args:
        ids (Iterable[str]): Image ids in any order, without duplicates; not changed.
        fraction (float | fractions.Fraction): Labeled share, in (0, 1);
            ``round(len(ids) * fraction)`` images are labeled.
        seed (int): Seed of the shuffle.

    Returns:
        tuple[list[str], list[str]]: The labeled and the unlabeled ids, each sorted.

    Raises:
        ValueError: ``fraction`` is out of range, an id occurs twice, or one of the two lists would be empty.
    """
    if not 0 < fraction < 1:
        raise ValueError(
            f'make_partition: fraction={fraction} is not between 0 and 1. '
            'Give the labeled share, for example 1 / 16.'
        )
    order = random_order(ids, seed)
    count = round(len(order) * fraction)
    if not 0 < count < len(order):
        raise ValueError(
            f'make_partition: fraction={fraction} of {len(order)} ids leaves one of the two lists '
            'empty. Give another fraction or more images.'
        )
    return cut_order(order, count)


def random_order(ids, seed):
    """Return the sorted ids shuffled by ``random.Random(seed)``.

    Raises:
        ValueError: An id occurs twice.
    """
    ids = sorted(ids)
    twice = next((a for a, b in pairwise(ids) if a == b), None)
    if twice is not None:
        raise ValueError(
            f'make_partition: id {twice!r} occurs twice. List every image once, under a name of its own.'
        )
    random.Random(seed).shuffle(ids)
    return ids


def balanced_order(ids, pixels, seed, min_pixels=1):
    """Return an order whose first images show all classes as evenly as possible.

    The ids are shuffled as by :func:`random_order`. Each step takes the class that the fewest chosen images
    show (ties: the class that the fewest images show at all, then the first class) and chooses the next
    shuffled image that shows it. A class is done when all of its images are chosen. Images that show no class
    come last, as shuffled. An image shows a class if it has at least ``min_pixels`` pixels of it. The
    computation uses only integers, so the order is the same everywhere.

    Args:
        ids (Sequence[str]): N image ids, without duplicates.
        pixels (np.ndarray): (N, C), pixels of each class, one row per id.
        seed (int): Seed of the shuffle.
        min_pixels (int): Minimum number of pixels, at least 1.

    Returns:
        list[str]: The ids.

    Raises:
        ValueError: An id occurs twice, or ``pixels`` has another number of rows.
    """
    ids = list(ids)
    if len(pixels) != len(ids):
        raise ValueError(
            f'balanced_order: pixels has {len(pixels)} rows for {len(ids)} ids. Give one row per id.'
        )
    row = {name: i for i, name in enumerate(ids)}
    order = random_order(ids, seed)
    shows = np.asarray(pixels)[[row[name] for name in order]] >= min_pixels
    occurs = shows.sum(0)
    waiting = {c: iter(np.flatnonzero(shows[:, c]).tolist()) for c in np.flatnonzero(occurs)}
    shown = np.zeros(shows.shape[1], dtype=np.int64)
    chosen = {}  # ordered by time of choice
    while waiting:
        poorest = min(waiting, key=lambda c: (shown[c], occurs[c], c))
        image = next((i for i in waiting[poorest] if i not in chosen), None)
        if image is None:
            del waiting[poorest]
            continue
        chosen[image] = True
        shown += shows[image]
    rest = [i for i in range(len(order)) if i not in chosen]
    return [order[i] for i in (*chosen, *rest)]


def cut_order(order, count):
    """Split an order into its first ``count`` ids and the others, each sorted."""
    return sorted(order[:count]), sorted(order[count:])


def parse_size(text):
    """Parse '1/8', '0.125' or '92': a ``Fraction`` in (0, 1), or a number of images.

    Raises:
        ValueError: The text is neither.
    """
    try:
        size = int(text) if re.fullmatch(r'\d+', text, re.ASCII) else Fraction(text)
    except (ValueError, ZeroDivisionError):
        size = None
    if size is None or size <= 0 or (isinstance(size, Fraction) and size >= 1):
        raise ValueError(
            f'{text!r} is neither a share between 0 and 1, such as 1/8 or 0.125, nor a number of images, such '
            'as 92. Give one of these.'
        )
    return size


def size_name(size):
    """Return the folder name of a partition: '1_8' for the share 1/8, '92' for 92 images."""
    return f'{size.numerator}_{size.denominator}' if isinstance(size, Fraction) else str(size)


def labeled_count(size, total):
    """Return the number of labeled images: a number itself, or a share of ``total``, rounded half to even.

    Raises:
        ValueError: None or all of the images would be labeled.
    """
    count = round(total * size) if isinstance(size, Fraction) else size
    if not 0 < count < total:
        raise ValueError(
            f'{size} of {total} images makes {count} labeled and {total - count} unlabeled ones. Give a size '
            'that leaves both lists filled.'
        )
    return count


def order_free_hash(ids):
    """Return the hexadecimal SHA-256 of the sorted unique ids, joined by line feeds."""
    text = '\n'.join(sorted(set(ids)))
    # File names need not be UTF-8; Python keeps such bytes as surrogates.
    return hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()
