"""Format the Python text of a config."""

from __future__ import annotations

import keyword
from dataclasses import dataclass

WIDTH = 100


class Code(str):
    """Python code that is written to a config verbatim, such as ``_base_.model``."""


@dataclass
class Extended:
    """``dict(base, key=value, ...)``: a dict of the inherited config with changed entries.

    Args:
        base (str): Python code of the dict.
        changes (dict): The changed entries.
    """

    base: str
    changes: dict


def assignment(name: str, value) -> str:
    """Return ``name = value``, on one line if it fits."""
    return f'{name} = {python(value, used=len(name) + 3)}'


def python(value, indent: int = 0, used: int = 0) -> str:
    """Return Python code of a config value: dicts, lists, tuples, :class:`Code`, plain values.

    Args:
        value: The value. Dicts with identifiers as keys become ``dict(...)``.
        indent (int): Indentation of the lines of the value, in columns.
        used (int): Columns of the first line that are already used.
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
    """Return the opening of a value, its items with their prefixes, and its closing."""
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
