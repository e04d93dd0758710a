"""Partitions of a training set into labeled and unlabeled images.

An *order* of all ids comes first; its first so many are labeled. So the labeled lists of all sizes of one
order are nested. ``split_lists.py`` reads the lists of the literature, ``fingerprints.py`` tells them apart.
"""

import hashlib
import random
import re
from fractions import Fraction
from itertools import pairwise

import numpy as np


def make_partition(ids, fraction, seed):
    """Draw a partition: ``random.Random(seed)`` shuffles the sorted ids, the first are labeled.

    With one seed the labeled lists of several fractions are nested: that of 1/16 is contained in
    that of 1/8, and so on. Python keeps ``random.Random`` and its ``shuffle`` the same over
    versions, so the lists are the same everywhere.

    Args:
        ids (Iterable[str]): Image ids in any order, without duplicates; not changed.
        fraction (float | fractions.Fraction): Labeled share, in (0, 1);
            ``round(len(ids) * fraction)`` images are labeled.
        seed (int): Of the shuffle.

    Returns:
        tuple[list[str], list[str]]: The labeled and the unlabeled ids, each sorted.

    Raises:
        ValueError: If ``fraction`` is out of range, an id occurs twice, or one of the two lists
            would be empty.
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
    """The sorted ids as ``random.Random(seed)`` shuffles them.

    Raises:
        ValueError: an id occurs twice.
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
    """An order in which every class is shown by as many of the first images as it can be.

    The ids are shuffled as by :func:`random_order`. Then, again and again, the class that the fewest of the
    chosen images show is taken (of equals, the one that fewest images show at all, then the first),
    and the next image of the shuffled list that shows it is chosen. A class all of whose images are chosen
    is out. Images that show no class come last, as shuffled. An image shows a class from ``min_pixels``
    pixels on. All of it is arithmetic of whole numbers, the same everywhere.

    Args:
        ids (Sequence[str]): N image ids, without duplicates.
        pixels (np.ndarray): (N, C) pixels of each class, a row for each of ``ids``.
        seed (int): Of the shuffle.
        min_pixels (int): At least 1.

    Returns:
        list[str]: The ids.

    Raises:
        ValueError: an id occurs twice, or ``pixels`` is of other images.
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
    chosen = {}  # in the order of choice
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
    """The first ``count`` ids of an order and the others, each sorted."""
    return sorted(order[:count]), sorted(order[count:])


def parse_size(text):
    """What '1/8', '0.125' or '92' says: a ``Fraction`` in (0, 1), or a number of images.

    Raises:
        ValueError: it says neither.
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
    """How a folder of a partition is called: '1_8' for the share 1/8, '92' for 92 images."""
    return f'{size.numerator}_{size.denominator}' if isinstance(size, Fraction) else str(size)


def labeled_count(size, total):
    """Number of labeled images: a number as it is, a share of ``total`` rounded (half to even).

    Raises:
        ValueError: none or all of the images would be labeled.
    """
    count = round(total * size) if isinstance(size, Fraction) else size
    if not 0 < count < total:
        raise ValueError(
            f'{size} of {total} images makes {count} labeled and {total - count} unlabeled ones. Give a size '
            'that leaves both lists filled.'
        )
    return count


def order_free_hash(ids):
    """SHA-256 of the sorted ids, each once, joined by line feeds, in hexadecimal digits."""
    text = '\n'.join(sorted(set(ids)))
    # Names of files need not be UTF-8; Python keeps their bytes as surrogates.
    return hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()
