"""Score files: one line per image while scoring, one table at the end.

Each rank appends to its own file. When a call starts, rank 0 gathers the scores of earlier calls with any
number of ranks. An incomplete last line, from an interrupted call, is dropped.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from mmengine.dist import get_rank

from .output import write_bytes, writing

SCORES = 'scores.csv'
_PARTS = 'scores_so_far'
_GATHERED = f'{_PARTS}.csv'
_PATTERN = f'{_PARTS}*.csv'
_HEADER = ['id', 'score', 'reliable']


def gather_parts(folder: str) -> dict[str, float]:
    """Gather the scores of earlier calls, by id, into one file; call it only on rank 0."""
    found = {}
    paths = sorted(Path(folder).glob(_PATTERN))
    for path in paths:
        content = path.read_bytes()
        # Cut bytes, not text: an incomplete line may end within a character.
        whole = content[: content.rfind(b'\n') + 1].decode()
        found.update({name: float(score) for name, score in csv.reader(io.StringIO(whole))})
    if found:
        write_bytes(os.path.join(folder, _GATHERED), _csv(found.items()))
    for path in paths:
        if path.name != _GATHERED:
            path.unlink()
    return found


def remove_parts(folder: str) -> None:
    """Remove the files that `gather_parts` reads."""
    for path in Path(folder).glob(_PATTERN):
        path.unlink()


class ScoreFile:
    """This rank's scores, appended as they are computed; the file is created with the first score."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, f'{_PARTS}_rank{get_rank()}.csv')

    def append(self, scores: dict[str, float]) -> None:
        """Add scores by id.

        Raises:
            OSError: The file cannot be written; repeating the call continues.
        """
        with writing(self._path), open(self._path, 'ab') as file:
            file.write(_csv(scores.items()))


def write_table(
    path: str, ids: Sequence[str], scores: Sequence[float], reliable: Sequence[bool]
) -> None:
    """Write all scores in the order of the list; `reliable` is 1 or 0."""
    rows = zip(ids, scores, map(int, reliable), strict=True)
    write_bytes(path, _csv([_HEADER, *rows]))


def read_table(path: str) -> tuple[list[str], list[float], list[bool]]:
    """Read ids, scores and whether they are reliable, in the order of the list."""
    with open(path, newline='', encoding='utf-8') as file:
        rows = list(csv.reader(file))[1:]
    return (
        [row[0] for row in rows],
        [float(row[1]) for row in rows],
        [row[2] == '1' for row in rows],
    )


def _csv(rows) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)
    return text.getvalue().encode()
