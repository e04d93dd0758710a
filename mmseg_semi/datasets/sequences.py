"""Video frames: find images of one list with a neighboring frame in another list, by file name."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable
from typing import NamedTuple

_LAST_NUMBER = re.compile(r'(\D*(?:\d+\D+)*)(\d+)(\D*)', re.ASCII)
# VOC's numbers identify photographs of a year, not frames.
_STILL = re.compile(r'20\d\d_\d{6}', re.ASCII)


class Neighbor(NamedTuple):
    """An image, the nearest frame of the other list, and the frames between them."""

    name: str
    other: str
    distance: int


def frame_of(name: str) -> tuple[str, int] | None:
    """Return sequence and frame number from an image name without ending; the last run of digits is the number.

    '0001TP_006690' is frame 6690 of '0001TP_'. The result is None for names without digits and Pascal VOC
    names.
    """
    found = _LAST_NUMBER.fullmatch(name)
    if found is None or _STILL.fullmatch(name.rpartition('/')[2]):
        return None
    return f'{found[1]}*{found[3]}', int(found[2])


def near_frames(names: Iterable[str], others: Iterable[str], within: int) -> list[Neighbor]:
    """Find the images with a neighboring frame of the same sequence in the other list.

    Args:
        names: Ids of the images.
        others: Ids of the images to search for neighbors.
        within: Maximum difference of frame numbers; 0 finds none.

    Returns:
        list[Neighbor]: One for each of ``names`` that has a neighbor, in their order.
    """
    if within < 1:
        return []
    sequences: dict[str, list[tuple[int, str]]] = {}
    for other in others:
        if frame := frame_of(other):
            sequences.setdefault(frame[0], []).append((frame[1], other))
    for frames in sequences.values():
        frames.sort()
    found = []
    for name in names:
        sequence, number = frame_of(name) or ('', 0)
        frames = sequences.get(sequence, [])
        place = bisect.bisect_left(frames, (number,))
        candidates = frames[max(0, place - 1) : place + 2]
        near = min(
            (Neighbor(name, other, abs(n - number)) for n, other in candidates if other != name),
            key=lambda neighbor: neighbor.distance,
            default=None,
        )
        if near is not None and near.distance <= within:
            found.append(near)
    return found
