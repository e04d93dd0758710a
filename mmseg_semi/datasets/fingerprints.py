"""Which published partition is this? Labeled lists of the literature, told by their fingerprints.

``fingerprints.json`` holds facts about each list and not the list: its count, its order-free hash, and a
*sketch*, the smallest :data:`SKETCH_SIZE` of the hashes of its names. ``tools/make_fingerprints.py`` makes it.

A name is the last part of an id, so neither the layout of the folders nor the order of the list matters.
A sketch is a random sample of its list: the share of it that another list holds estimates the share of the list
that the other holds. It is exact where the sketch is the whole list; else its standard error is at most 3 %.
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
_DIGITS = 10  # of a hash in a sketch: 40 bits, so that 10⁴ names meet one of 256 by chance in 1 of 4·10⁵ cases


class Published(NamedTuple):
    """A list of the literature.

    Attributes:
        dataset (str): A key of :data:`TITLES`.
        role (str): 'labeled', or the whole 'train' or 'val' list.
        count (int): Images.
        sha256 (str): Order-free hash of the names.
        names (tuple[tuple[str, str], ...]): Family and published name, of all under which it is known;
            whole lists have no family.
        sketch (frozenset[str]): The smallest hashes of names.
        common (dict[str, int]): Names in common with each rival, by its hash.
    """

    dataset: str
    role: str
    count: int  # type: ignore[assignment]  # hides tuple.count
    sha256: str
    names: tuple[tuple[str, str], ...]
    sketch: frozenset[str]
    common: dict[str, int]

    def is_rival(self, other: Published) -> bool:
        """Whether papers could take one for the other: labeled lists of one dataset and about one count."""
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
    """What a list has in common with a published one.

    Attributes:
        published (Published): The other.
        common (int): Names in both.
        exact (bool): Whether ``common`` is counted; else it is estimated.
    """

    published: Published
    common: int
    exact: bool

    def __str__(self) -> str:
        about = '' if self.exact else 'about '
        return f'{self.published}, {about}{self.common} of them in common'


class Identity(NamedTuple):
    """What is known of a list.

    Attributes:
        count (int): Of its names.
        sha256 (str): Order-free hash of the names.
        match (Published | None): The published list that it is.
        overlaps (list[Overlap]): With the other labeled lists, by falling Jaccard index.
    """

    count: int  # type: ignore[assignment]  # hides tuple.count
    sha256: str
    match: Published | None
    overlaps: list[Overlap]

    @property
    def rivals(self) -> list[Overlap]:
        """Other lists that could be taken for the match; their results are not comparable."""
        if self.match is None:
            return []
        return [overlap for overlap in self.overlaps if self.match.is_rival(overlap.published)]

    def sentence(self, least: float = 0.0) -> str:
        """What the list is, in one sentence without the full stop.

        Args:
            least: share of the list above which what it has in common with the nearest published one is said.
        """
        if self.match is not None:
            role = {'train': 'the whole training set of ', 'val': 'the validation set of '}
            return f'{role.get(self.match.role, "")}{self.match}'
        nearest = self.overlaps[0] if self.overlaps else None
        if nearest is None or nearest.common <= least * self.count:
            return 'unknown, no published partition'
        return f'unknown, no published partition; nearest: {nearest}'


def image_names(paths: Iterable[str]) -> list[str]:
    """The names that fingerprints are made of: last parts of ids or image paths, without ending."""
    names = (path.replace('\\', '/').rpartition('/')[2] for path in paths)
    endings = ('.jpg', '.jpeg', '.png')
    bare = (osp.splitext(name)[0] if name.lower().endswith(endings) else name for name in names)
    return [name.removesuffix('_leftImg8bit') for name in bare]


def describe(dataset: str, role: str, names: Sequence, ids: Iterable[str]) -> Published:
    """The facts about a list that enter a registry.

    Args:
        dataset, role, names: see :class:`Published`.
        ids: of its images, or their paths.
    """
    images = set(image_names(ids))
    sketch = frozenset(sorted(map(_hash, images))[:SKETCH_SIZE])
    known = tuple((family, name) for family, name in names)
    return Published(dataset, role, len(images), order_free_hash(images), known, sketch, {})


def identify(ids: Iterable[str], registry: Sequence[Published] | None = None) -> Identity:
    """Find the published list that has the same images, and those that share some.

    Args:
        ids: of the labeled images, or their paths, in any order.
        registry: of published lists; None is that of the package.
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
    """The lists of a registry file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a registry.
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
    """The lists of the content of a registry file.

    Args:
        content: of the file.
        path: its name, for errors.

    Raises:
        ValueError: it is not a registry.
    """
    try:
        return tuple(map(_read_entry, json.loads(content)['lists']))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(
            f'{path} is not a registry of partitions. Make it by tools/make_fingerprints.py.'
        ) from None


def registry_text(entries: Iterable[Published]) -> str:
    """The content of a registry file, the same for the same lists in any order."""
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
