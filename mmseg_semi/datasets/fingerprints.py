"""Identify published partitions by fingerprints of their labeled lists.

``fingerprints.json`` stores facts about each list, not the list: its length, its order-free hash and a
*sketch*, the :data:`SKETCH_SIZE` smallest hashes of its names. ``tools/make_fingerprints.py`` creates it.

A name is the last part of an id, so neither the folder layout nor the order of the list matters. A sketch is a
random sample of its list: the share of the sketch that another list contains estimates the share of the list
that the other list contains. The estimate is exact if the sketch is the whole list; otherwise its standard
error is at most 3 %.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os.path as osp
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .splits import order_free_hash

SKETCH_SIZE = 256
REGISTRY = osp.join(osp.dirname(__file__), 'fingerprints.json')
TITLES = {'voc12': 'Pascal VOC 2012', 'cityscapes': 'Cityscapes'}
_DIGITS = 10  # of a hash in a sketch: 40 bits, so 10⁴ names match one of 256 by chance in 1 of 4·10⁵ cases


class Published(NamedTuple):
    """A list from the literature.

    Attributes:
        dataset (str): A key of :data:`TITLES`.
        role (str): 'labeled', or 'train' or 'val' for a whole list.
        count (int): Number of images.
        sha256 (str): Order-free hash of the names.
        names (tuple[tuple[str, str], ...]): All (family, published name) pairs of the list; whole lists have no
            family.
        sketch (frozenset[str]): The smallest hashes of names.
        common (dict[str, int]): Number of common names with each rival, by its hash.
    """

    dataset: str
    role: str
    count: int  # type: ignore[assignment]  # hides tuple.count
    sha256: str
    names: tuple[tuple[str, str], ...]
    sketch: frozenset[str]
    common: dict[str, int]

    def is_rival(self, other: Published) -> bool:
        """Whether the two can be confused: labeled lists of one dataset with about the same count."""
        return (
            self.sha256 != other.sha256
            and self.role == other.role == 'labeled'
            and self.dataset == other.dataset
            and abs(self.count - other.count) <= 0.01 * min(self.count, other.count)
        )

    def __str__(self) -> str:
        families = ' = '.join(dict.fromkeys(family for family, _ in self.names if family))
        known_as = ', '.join(name for _, name in self.names)
        title = TITLES.get(self.dataset, self.dataset)
        return f'{title}, {families}{", " if families else ""}{self.count} images ({known_as})'


class Overlap(NamedTuple):
    """Overlap of a list with a published list.

    Attributes:
        published (Published): The published list.
        common (int): Number of names in both.
        exact (bool): Whether ``common`` is counted; otherwise it is estimated.
    """

    published: Published
    common: int
    exact: bool

    def __str__(self) -> str:
        about = '' if self.exact else 'about '
        return f'{self.published}, {about}{self.common} of them in common'


class Identity(NamedTuple):
    """Result of identifying a list.

    Attributes:
        count (int): Number of names.
        sha256 (str): Order-free hash of the names.
        match (Published | None): The published list with the same names.
        overlaps (list[Overlap]): Overlaps with the other labeled lists, by decreasing Jaccard index.
    """

    count: int  # type: ignore[assignment]  # hides tuple.count
    sha256: str
    match: Published | None
    overlaps: list[Overlap]

    @property
    def rivals(self) -> list[Overlap]:
        """Return other lists that could be confused with the match; their results are not comparable."""
        if self.match is None:
            return []
        return [overlap for overlap in self.overlaps if self.match.is_rival(overlap.published)]

    def sentence(self, least: float = 0.0) -> str:
        """Return one sentence, without the full stop, that identifies the list.

        Args:
            least: Name the nearest published list only if it shares more than this fraction of the list.
        """
        if self.match is not None:
            role = {'train': 'the whole training set of ', 'val': 'the validation set of '}
            return f'{role.get(self.match.role, "")}{self.match}'
        nearest = self.overlaps[0] if self.overlaps else None
        if nearest is None or nearest.common <= least * self.count:
            return 'unknown, no published partition'
        return f'unknown, no published partition; nearest: {nearest}'


def image_names(paths: Iterable[str]) -> list[str]:
    """Return the names that fingerprints use: last parts of ids or image paths, without ending."""
    names = (path.replace('\\', '/').rpartition('/')[2] for path in paths)
    endings = ('.jpg', '.jpeg', '.png')
    bare = (osp.splitext(name)[0] if name.lower().endswith(endings) else name for name in names)
    return [name.removesuffix('_leftImg8bit') for name in bare]


def describe(dataset: str, role: str, names: Sequence, ids: Iterable[str]) -> Published:
    """Return the registry entry of a list.

    Args:
        dataset, role, names: See :class:`Published`.
        ids: Ids or paths of its images.
    """
    images = set(image_names(ids))
    sketch = frozenset(sorted(map(_hash, images))[:SKETCH_SIZE])
    known = tuple((family, name) for family, name in names)
    return Published(dataset, role, len(images), order_free_hash(images), known, sketch, {})


def identify(ids: Iterable[str], registry: Sequence[Published] | None = None) -> Identity:
    """Find the published list with the same images, and the lists that share some of them.

    Args:
        ids: Ids or paths of the labeled images, in any order.
        registry: Published lists. Default: the registry of the package.
    """
    registry = published() if registry is None else registry
    names = set(image_names(ids))
    sha256 = order_free_hash(names)
    match = next((entry for entry in registry if entry.sha256 == sha256), None)
    hashes, counted = set(map(_hash, names)), match.common if match else {}
    overlaps = [
        Overlap(entry, counted[entry.sha256], True)
        if entry.sha256 in counted
        else _estimate(hashes, entry)
        for entry in registry
        if entry.role == 'labeled' and entry.sha256 != sha256
    ]
    overlaps.sort(key=lambda o: -o.common / (len(names) + o.published.count - o.common))
    return Identity(len(names), sha256, match, overlaps)


def _estimate(hashes: set[str], entry: Published) -> Overlap:
    found, exact = len(entry.sketch & hashes), len(entry.sketch) == entry.count
    common = found if exact else round(found / len(entry.sketch) * entry.count)
    return Overlap(entry, min(common, len(hashes)), exact)


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:_DIGITS]


@functools.cache
def published(path: str = REGISTRY) -> tuple[Published, ...]:
    """Return the lists of a registry file.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not a registry.
    """
    try:
        with open(path, 'rb') as file:
            content = file.read()
    except FileNotFoundError:
        raise FileNotFoundError(
            f'{path} does not exist. Make it by tools/make_fingerprints.py, or install the package again.'
        ) from None
    return read_registry(content, path)


def read_registry(content: bytes, path: str) -> tuple[Published, ...]:
    """Parse the content of a registry file.

    Args:
        content: Content of the file.
        path: Name of the file for error messages.

    Raises:
        ValueError: The content is not a registry.
    """
    try:
        return tuple(map(_read_entry, json.loads(content)['lists']))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(
            f'{path} is not a registry of partitions. Make it by tools/make_fingerprints.py.'
        ) from None


def registry_text(entries: Iterable[Published]) -> str:
    """Return the content of a registry file; it does not depend on the order of the lists."""
    ordered = sorted(entries, key=lambda e: (e.dataset, e.role, e.count, e.names))
    lists = [{**e._asdict(), 'sketch': ''.join(sorted(e.sketch))} for e in ordered]
    about = (
        'Counts, SHA-256 of the sorted image names, and the smallest hashes of names of published lists. See '
        'fingerprints.py. Made by tools/make_fingerprints.py.'
    )
    return json.dumps({'about': about, 'lists': lists}, indent=1) + '\n'


def _read_entry(entry: dict) -> Published:
    sketch = entry['sketch']
    hashes = frozenset(sketch[i : i + _DIGITS] for i in range(0, len(sketch), _DIGITS))
    return Published(
        **{**entry, 'names': tuple(map(tuple, entry['names'])), 'sketch': hashes},
    )
