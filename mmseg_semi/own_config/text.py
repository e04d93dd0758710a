"""The Python text of a config, laid out for a reader."""

from __future__ import annotations

import keyword
from dataclasses import dataclass

WIDTH = 100


class Code(str):
    """Python that stands in a config as it is, such as ``_base_.model``."""


@dataclass
class Extended:
    """``dict(base, key=value, ...)``: a dict of the config that is inherited, with other entries.

    Args:
        base (str): Python of the dict.
        changes (dict): The entries that differ.
    """

    base: str
    changes: dict


def assignment(name: str, value) -> str:
    """``name = value``, on one line where it fits."""
    return f'{name} = {python(value, used=len(name) + 3)}'


def python(value, indent: int = 0, used: int = 0) -> str:
    """Python that evaluates to a value of a config: dicts, lists, tuples, :class:`Code`, plain values.

    Args:
        value: To be written; dicts with identifiers as keys become ``dict(...)``.
        indent (int): Columns that the lines of the value are indented by.
        used (int): Columns of the first line that are taken.
    """
    opening, parts, closing = _parts(value)
    line = opening + ', '.join(name + python(item) for name, item in parts) + closing
    if isinstance(value, tuple) and len(value) == 1:
        line = line[:-1] + ',)'
    if not parts or (indent + used + len(line) < WIDTH and '\n' not in line):
        return line
    inside = indent + 4
    lines = [
        f'{" " * inside}{name}{python(item, inside, len(name) + 1)},\n' for name, item in parts
    ]
    return f'{opening}\n{"".join(lines)}{" " * indent}{closing}'


def _parts(value) -> tuple[str, list[tuple[str, object]], str]:
    """What a value opens with, its items with the text before each, and what it closes with."""
    if isinstance(value, Extended):
        return 'dict(', [('', Code(value.base)), *_named(value.changes)], ')'
    if isinstance(value, dict):
        if all(str(key).isidentifier() and not keyword.iskeyword(str(key)) for key in value):
            return 'dict(', _named(value), ')'
        return '{', [(f'{key!r}: ', item) for key, item in value.items()], '}'
    if isinstance(value, list):
        return '[', [('', item) for item in value], ']'
    if isinstance(value, tuple):
        return '(', [('', item) for item in value], ')'
    return value if isinstance(value, Code) else repr(value), [], ''


def _named(value: dict) -> list[tuple[str, object]]:
    return [(f'{key}=', item) for key, item in value.items()]
