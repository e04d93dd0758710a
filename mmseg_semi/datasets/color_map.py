"""Color maps: which class each color of a mask means. Read color maps, convert color masks to class indices."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

VOID = 255
VOID_NAMES = ('void', 'ignore', 'unlabeled', 'unlabelled')
"""Names (lowercase) of colors that mean void."""
_HEADING = ({'r', 'red'}, {'g', 'green'}, {'b', 'blue'})


class ColorMap(NamedTuple):
    """Classes with their colors.

    Attributes:
        classes (tuple[str]): Class names, in the order of their indices.
        palette (tuple[tuple[int, int, int]]): RGB color of each class.
        void (tuple[tuple[int, int, int]]): RGB colors that become 255.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    void: tuple[tuple[int, int, int], ...] = ()


def read_color_map(path: str | Path) -> ColorMap:
    """Read a color map from a ``.json``, ``.csv`` or text file; class indices follow the order of entries.

    - JSON: ``{"name": [r, g, b], ...}`` or ``[{"name": ..., "color": [r, g, b]}, ...]``.
    - CSV and text: one name and three numbers per line, in either order, separated by commas, semicolons,
      spaces or tabs (``road 128 64 128``; CamVid's ``128 64 128  road``). A first line such as ``name,r,g,b``
      is a heading. Lines that begin with ``#`` are comments.

    Colors whose name is in ``VOID_NAMES`` become void (255) and get no index.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The color map is invalid; the message names the entry.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f'The color map {path} does not exist. Give a .json, .csv or .txt file.'
        )
    try:
        text = path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError:
        raise ValueError(f'The color map {path} is not text in UTF-8. Save it as such.') from None
    return parse_color_map(text, str(path), path.suffix.lower() == '.json')


def parse_color_map(text: str, source: str, is_json: bool = False) -> ColorMap:
    """Same as :func:`read_color_map`, for the text of a file; error messages name ``source``."""
    entries = _json_entries(text, source) if is_json else _line_entries(text, source)
    names: dict[str, tuple[int, int, int]] = {}
    colors: dict[tuple[int, int, int], str] = {}
    void = []
    for where, name, color in entries:
        if color in colors:
            raise ValueError(
                f'{source}{where} gives {name!r} the color {_said(color)}, which {colors[color]!r} has '
                'already. '
                'Give every class a different color.'
            )
        if name in names:
            raise ValueError(
                f'{source}{where} names {name!r} a second time. Give every class a different name.'
            )
        colors[color] = name
        names[name] = color
        if name.lower() in VOID_NAMES:
            void.append(color)
    classes = tuple(name for name in names if name.lower() not in VOID_NAMES)
    if not 0 < len(classes) <= VOID:
        raise ValueError(
            f'{source} has {len(classes)} classes. Give from 1 to {VOID}, one per line, such as "road 128 '
            '64 128".'
        )
    return ColorMap(classes, tuple(names[name] for name in classes), tuple(void))


class _TwiceError(Exception):
    """A JSON object contains a key twice."""


def _json_entries(text: str, source: str) -> list[tuple[str, str, tuple[int, int, int]]]:
    def pairs(items: list) -> dict:
        found = dict(items)
        if len(found) < len(items):  # json would silently keep the last one
            raise _TwiceError
        return found

    try:
        content = json.loads(text, object_pairs_hook=pairs)
    except _TwiceError:
        raise ValueError(f'{source} has a key twice. Give every class a different name.') from None
    except (ValueError, RecursionError) as error:  # also for integers with thousands of digits
        reason = ' '.join(str(error).split())
        raise ValueError(f'{source} is not JSON ({reason}). Correct it.') from None
    if isinstance(content, Mapping):
        content = [dict(name=name, color=color) for name, color in content.items()]
    if not isinstance(content, list):
        raise ValueError(
            f'{source} must hold {{"name": [r, g, b], ...}}, not {type(content).__name__}.'
        )
    entries = []
    for number, entry in enumerate(content, start=1):
        where = f' entry {number}'
        if not isinstance(entry, Mapping) or not isinstance(entry.get('name'), str):
            raise ValueError(
                f'{source}{where} has no name. Write {{"name": "road", "color": [r, g, b]}}.'
            )
        color = entry.get('color')
        if not isinstance(color, list) or any(type(value) is not int for value in color):
            raise ValueError(
                f'{source}{where} ({entry["name"]!r}) has no color. Write "color": [r, g, b].'
            )
        entries.append((where, _name(entry['name'], source, where), _color(color, source, where)))
    return entries


def _line_entries(text: str, source: str) -> list[tuple[str, str, tuple[int, int, int]]]:
    entries, first = [], True
    for number, line in enumerate(re.split(r'\r\n|\r|\n', text), start=1):
        where = f' line {number}'
        if not line.strip() or line.lstrip().startswith('#'):
            continue
        fields = _fields(line)
        lowered = {field.lower() for field in fields}
        heading = first and all(lowered & column for column in _HEADING)
        is_number = [re.fullmatch(r'[0-9]{1,9}', field) is not None for field in fields]
        first = False
        if heading and not any(is_number):
            continue
        name_first, color_first = all(is_number[-3:]), all(is_number[:3])
        # A number before a name and a color could be an index; the first three numbers could be the color.
        if len(fields) < 4 or name_first == color_first or (name_first and is_number[0]):
            raise ValueError(
                f'{source}{where} is {line.strip()!r}. Write a name and three whole numbers and no other '
                'column, such as "road 128 64 128".'
            )
        words, color = (fields[:-3], fields[-3:]) if name_first else (fields[3:], fields[:3])
        name = _name(' '.join(words), source, where)
        entries.append((where, name, _color([int(value) for value in color], source, where)))
    return entries


def _fields(line: str) -> list[str]:
    separator = next((s for s in ';,' if s in line), None)
    if separator is None:
        return line.split()
    try:
        row = next(csv.reader([line], delimiter=separator))
    except csv.Error:  # the caller reports the malformed line
        return []
    return [field.strip() for field in row if field.strip()]


def _name(name: str, source: str, where: str) -> str:
    name = name.strip()
    if not name or not name.isprintable():
        raise ValueError(f'{source}{where} has the name {name!r}. Give one of printable letters.')
    return name


def _color(values: list[int], source: str, where: str) -> tuple[int, int, int]:
    if len(values) != 3 or not all(0 <= value <= 255 for value in values):
        raise ValueError(
            f'{source}{where} has the color {values}. Give red, green and blue from 0 to 255.'
        )
    red, green, blue = values
    return red, green, blue


def _said(color) -> str:
    return ' '.join(str(value) for value in color)


def code(rgb: np.ndarray) -> np.ndarray:
    """Encode colors, uint8 (..., 3), as one number each: 65536 red + 256 green + blue, int32 (...)."""
    rgb = rgb.astype(np.int32)
    return (rgb[..., 0] << 16) | (rgb[..., 1] << 8) | rgb[..., 2]


def decode(rgb: np.ndarray, colors: ColorMap) -> tuple[np.ndarray, dict[tuple[int, int, int], int]]:
    """Convert a color mask to class indices.

    Args:
        rgb: Color mask, uint8 (H, W, 3).
        colors: Class of each color.

    Returns:
        tuple: Class indices, uint8 (H, W), 255 for void and unknown colors; and the pixel count of each unknown
        color, most frequent first.
    """
    label = _table(colors)[code(rgb)]
    unknown = {}
    if (label < 0).any():
        found, counts = np.unique(code(rgb[label < 0]), return_counts=True)
        unknown = {
            (int(c) >> 16, int(c) >> 8 & 255, int(c) & 255): int(n)
            for c, n in zip(found, counts, strict=True)
        }
        label = np.where(label < 0, VOID, label)
    return label.astype(np.uint8), dict(sorted(unknown.items(), key=lambda item: -item[1]))


@lru_cache(maxsize=1)
def _table(colors: ColorMap) -> np.ndarray:
    """int16 (2 ** 24,): class index of each :func:`code`, 255 for void and -1 for unknown colors."""
    table = np.full(1 << 24, -1, dtype=np.int16)
    table[code(np.array(colors.palette))] = np.arange(len(colors.palette))
    if colors.void:
        table[code(np.array(colors.void))] = VOID
    return table
