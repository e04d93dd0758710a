"""File names: which are images, which are hidden, and which existing file a wrong path may mean.

Hidden are names that begin with a dot, of files or folders (``._x.png``, ``.ipynb_checkpoints/``,
``.DS_Store``), and Windows' ``Thumbs.db``. They are never images of a dataset.
"""

from __future__ import annotations

import os
import os.path as osp
import unicodedata
from collections.abc import Iterable, Iterator

IMAGE_ENDINGS = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
"""Default endings of image files, in lowercase."""
_OF_SYSTEMS = ('thumbs.db', 'ehthumbs.db', 'desktop.ini')


def is_hidden(name: str) -> bool:
    """Whether a path, relative to the searched folder, is hidden or in a hidden folder."""
    parts = name.replace('\\', '/').split('/')
    return any(part.startswith('.') for part in parts) or parts[-1].lower() in _OF_SYSTEMS


def is_image(name: str) -> bool:
    """Whether a name has an image ending, in any case."""
    return name.lower().endswith(IMAGE_ENDINGS)


def files_below(folder: str) -> Iterator[str]:
    """Yield the relative paths of all files below a local folder, including hidden ones."""
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = osp.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in names:
            yield osp.relpath(osp.join(place, name), folder)


def left_out(folder: str) -> list[str]:
    """Report the hidden image files below a local folder, if there are any."""
    hidden = sorted(name for name in files_below(folder) if is_image(name) and is_hidden(name))
    if not hidden:
        return []
    return [
        f'{len(hidden)} hidden image file(s) of {folder} are left out, the first is {hidden[0]}: names of '
        'files or folders begin with a dot.'
    ]


def alike(path: str) -> str:
    """Suggest the file that a missing local path may mean: other case, ending or Unicode form; or return ''."""
    folder, name = osp.split(path)
    try:
        there = sorted(os.listdir(folder or '.'))
    except OSError:
        return ''
    found = next((other for other in there if _plain(other) == _plain(name)), None)
    if found is not None:
        same = unicodedata.normalize('NFC', found) == unicodedata.normalize('NFC', name)
        how = 'another Unicode form of its letters' if same else 'another case'
        return f' ({found} is there, in {how})'
    stem = _plain(osp.splitext(name)[0])
    found = next((o for o in there if is_image(o) and _plain(osp.splitext(o)[0]) == stem), None)
    return f' ({found} is there)' if found is not None else ''


def endings(names: Iterable[str]) -> str:
    """Return the endings of names with their counts, most frequent first."""
    counts: dict[str, int] = {}
    for name in names:
        ending = osp.splitext(name)[1] or osp.basename(name)
        counts[ending] = counts.get(ending, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ', '.join(f'{count} {ending}' for ending, count in ordered[:5])


def _plain(name: str) -> str:
    return unicodedata.normalize('NFC', name).casefold()
