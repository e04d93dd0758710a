"""Declarations of a method's settings. Checks, errors, start-up log and documentation use them.

A method declares its settings in a nested class and reads them as attributes::

    class FixMatch(SemiSegmentor):
        class Settings(MethodSettings):
            tau: float = setting(0.95, 'Confidence threshold.', low=0, high=1, source='Eq. 4')
            divisor: Literal['valid', 'area'] = setting('valid', 'Divisor of the loss.')
            cutmix: dict | None = setting({'prob': 0.5}, 'CutMix of strong views; None disables it.')

        cfg: Settings  # Settings(semi_train_cfg), e.g. Settings({'tau': 0.5, 'cutmix': {'prob': 1.0}})
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import inspect
import math
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

from mmseg.registry import TRANSFORMS


def setting(
    default: Any,
    meaning: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    source: str = '',
    reading: str = '',
    hint: str = '',
) -> Any:
    """Declare a setting of a :class:`MethodSettings`. Its annotation is the type of the setting.

    Types are ``bool``, ``int``, ``float`` (which accepts an int), ``str``, ``Literal[...]``, ``dict``, and a
    :class:`MethodSettings` for a dict with fixed keys. ``| None`` also allows None.

    A dict from the user is merged into the default, so that users can change single options. A dict with
    another ``type`` replaces the default, since another class may have other options.

    Args:
        default: A value that satisfies the annotation and the bounds.
        meaning (str): A short description for the documentation.
        low (float, optional): Minimum value.
        high (float, optional): Maximum value.
        above (float, optional): Exclusive minimum, instead of ``low``.
        below (float, optional): Exclusive maximum, instead of ``high``.
        source (str): Equation, section or code that defines the setting.
        reading (str): A phrase for the start-up log that names the decision, if the paper leaves it open or
            contradicts itself.
        hint (str): Last sentence of the errors of this setting, such as 'The paper uses 0.5.'.
    """
    return _Setting(default, meaning, low, high, above, below, source, reading, hint)


@dataclasses.dataclass(frozen=True)
class _Setting:
    """Arguments of :func:`setting` and, after the class is created, the type of the setting."""

    default: Any
    meaning: str
    low: float | None
    high: float | None
    above: float | None
    below: float | None
    source: str
    reading: str
    hint: str
    type: _Type | None = None

    @property
    def interval(self) -> str:
        """The bounds in words, such as 'in [0, 1)' or 'at least 0'; empty without bounds."""
        starts = {'at least': self.low, 'above': self.above}
        ends = {'at most': self.high, 'below': self.below}
        words = [
            f'{word} {bound}' for word, bound in {**starts, **ends}.items() if bound is not None
        ]
        if len(words) < 2:
            return ''.join(words)
        start = f'({self.above}' if self.low is None else f'[{self.low}'
        return f'in {start}, ' + (f'{self.below})' if self.high is None else f'{self.high}]')

    def value_of(self, given: Any, where: str) -> Any:
        """Check a user's value and return a copy, merged into the default.

        Raises:
            ValueError: The value is not allowed. ``where`` is its name in the error.
        """
        wanted = self._unmet(given)
        if wanted:
            raise ValueError(
                f'{where} must be {wanted}, got {given!r}.{" " * bool(self.hint)}{self.hint}'
            )
        if given is None:
            return None
        if self.type.is_nested:
            default = {} if self.default is None else self.default.as_dict()
            given = given.as_dict() if isinstance(given, MethodSettings) else given
            return self.type.kind({**default, **given}, where)
        if self.type.kind is dict:
            default = {} if self.default is None else self.default
            same_type = given.get('type', default.get('type')) == default.get('type')
            return _plain({**default, **given} if same_type else given)
        return float(given) if self.type.kind is float else given

    def _unmet(self, given: Any) -> str:
        """Return the violated requirement in words; empty if the value is allowed."""
        if not self.type.accepts(given):
            return self.type.words
        if given is None or self.type.kind not in (int, float):
            return ''
        if not math.isfinite(given):
            return 'finite'
        inside = (
            (self.low is None or given >= self.low)
            and (self.high is None or given <= self.high)
            and (self.above is None or given > self.above)
            and (self.below is None or given < self.below)
        )
        return '' if inside else self.interval


class _Type:
    """The type of a setting, as a check and in words.

    Raises:
        TypeError: :func:`setting` does not support the annotation.
    """

    _WORDS: typing.ClassVar = {
        bool: 'True or False',
        int: 'an integer',
        float: 'a number',
        str: 'a string',
        dict: 'a dict',
    }

    def __init__(self, hint: Any) -> None:
        is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
        options = typing.get_args(hint) if is_union else (hint,)
        self.optional = type(None) in options
        self.kind, *others = [option for option in options if option is not type(None)]
        is_choice = typing.get_origin(self.kind) is Literal
        self.choices = typing.get_args(self.kind) if is_choice else ()
        self.is_nested = isinstance(self.kind, type) and issubclass(self.kind, MethodSettings)
        if others or not (is_choice or self.is_nested or self.kind in self._WORDS):
            raise TypeError(
                f'{hint} cannot be the type of a setting. Use a type that setting() supports.'
            )

    @property
    def words(self) -> str:
        """Such as "a number or None"."""
        own = 'a dict' if self.is_nested else self._WORDS.get(self.kind)
        *others, last = [
            *(map(repr, self.choices) if self.choices else [own]),
            *(['None'] if self.optional else []),
        ]
        return f'{", ".join(others)} or {last}' if others else last

    def accepts(self, value: Any) -> bool:
        if value is None and self.optional:
            return True
        if self.choices:
            return any(type(value) is type(one) and value == one for one in self.choices)
        if self.is_nested:
            return isinstance(value, (dict, self.kind))
        if isinstance(value, bool):
            return self.kind is bool
        return isinstance(value, (int, float) if self.kind is float else self.kind)


@dataclasses.dataclass(init=False, frozen=True)
class MethodSettings:
    """Base class of the settings of a method. Each subclass is a frozen dataclass.

    A subclass inherits the settings of all its bases, such as those of submodules. A plain assignment
    (``tau = 0.5``) changes the default of an inherited setting. A new declaration replaces the setting.
    Objects are read-only; do not edit their dicts, either.

    Args:
        given (dict, optional): Values from the user; never edited. Default: no values.
        where (str): Name of ``given`` in errors.

    Raises:
        ValueError: A setting is unknown, has a wrong type, is out of bounds or contradicts another.
        TypeError: A subclass declares a setting without :func:`setting`, or with an unsupported type.
    """

    _own: typing.ClassVar[dict[str, _Setting]] = {}
    _settings: typing.ClassVar[dict[str, _Setting]] = {}

    def __init__(self, given: dict | None = None, where: str = 'semi_train_cfg') -> None:
        given = {} if given is None else given
        if not isinstance(given, dict):
            raise ValueError(f'{where} must be a dict, got {given!r}.')
        self._refuse_unknown(given, where)
        for name, declared in self._settings.items():
            choice = given.get(name, declared.default)
            object.__setattr__(self, name, declared.value_of(choice, f'{where}.{name}'))
        self.check()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        inherited: dict[str, _Setting] = {}
        for base in reversed(cls.__mro__[1:]):
            inherited.update(vars(base).get('_own', {}))
        own, hints = {}, typing.get_type_hints(cls)
        for name in inspect.get_annotations(cls):
            declared = vars(cls).get(name)
            if not isinstance(declared, _Setting):
                raise TypeError(f'{cls.__qualname__}.{name} must be declared with setting().')
            own[name] = dataclasses.replace(declared, type=_Type(hints[name]))
        for name, declared in inherited.items():
            if name in vars(cls) and name not in own:
                own[name] = dataclasses.replace(declared, default=vars(cls)[name])
        for name, declared in own.items():
            default = declared.value_of(
                declared.default, f'The default of {cls.__qualname__}.{name}'
            )
            own[name] = dataclasses.replace(declared, default=default)
        cls._own, cls._settings = own, {**inherited, **own}
        # All of them, since dataclasses and attribute lookup order the bases of inherited settings differently.
        cls.__annotations__ = dict.fromkeys(cls._settings, Any)
        for name in cls._settings:
            setattr(cls, name, dataclasses.field())
        dataclasses.dataclass(init=False, frozen=True)(cls)
        cls()  # the defaults must not contradict each other

    def check(self) -> None:
        """Raise ValueError if settings contradict each other. Overrides must call ``super().check()``."""

    def refuse_several(self, *names: str) -> None:
        """Raise ValueError if more than one setting for the same length in different units is set."""
        given = [f'{name}={getattr(self, name)}' for name in names if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(
                f'semi_train_cfg has {" and ".join(given)}, which set the same length. '
                'Set one of them, and the others to 0.'
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the settings by name, including nested ones, as a dict that may be edited."""
        values = {name: getattr(self, name) for name in self._settings}
        return {
            name: value.as_dict() if isinstance(value, MethodSettings) else copy.deepcopy(value)
            for name, value in values.items()
        }

    def readings(self) -> list[str]:
        """Return a line for the log for each setting that the paper leaves open."""
        return [
            f'{name}={value}{"" if value == default else " (not the default)"}: {declared.reading}'
            for name, declared, default, value in self._walk(type(self)())
            if declared.reading
        ]

    @classmethod
    def table(cls) -> str:
        """Return a Markdown table of the settings for the documentation."""
        rows = [('Setting', 'Type', 'Default', 'Meaning', 'Source'), ('---',) * 5]
        for name, declared, default, _ in cls()._walk(cls()):
            kind = ', '.join(filter(None, [declared.type.words, declared.interval]))
            shown = '' if isinstance(default, MethodSettings) else f'`{_as_code(default)}`'
            source = [declared.source, 'our reading' if declared.reading else '']
            rows.append(
                (f'`{name}`', kind, shown, declared.meaning, '; '.join(filter(None, source)))
            )
        cells = ([cell.replace('|', '\\|') for cell in row] for row in rows)
        return '\n'.join(f'| {" | ".join(row)} |' for row in cells)

    @classmethod
    def _refuse_unknown(cls, given: dict, where: str) -> None:
        unknown = sorted(str(name) for name in given if name not in cls._settings)
        if not unknown:
            return
        close = difflib.get_close_matches(unknown[0], cls._settings, n=1)
        guess = f'Did you mean {close[0]}? ' if close else ''
        raise ValueError(
            f'{where} has no setting {unknown[0]}. {guess}The settings are {", ".join(cls._settings)}.'
        )

    def _walk(
        self, defaults: MethodSettings, prefix: str = ''
    ) -> Iterator[tuple[str, _Setting, Any, Any]]:
        """Yield name, declaration, default and value of each setting. Nested ones follow their parent."""
        for name, declared in self._settings.items():
            default, value = getattr(defaults, name), getattr(self, name)
            yield prefix + name, declared, default, value
            if isinstance(value, MethodSettings):
                inner = type(value)() if default is None else default
                yield from value._walk(inner, f'{prefix}{name}.')


def build_part(given: dict | None, kind: type, where: str) -> Any:
    """Build the transform defined by a setting of ``semi_train_cfg``.

    Args:
        given (dict, optional): Registered ``type`` and arguments; None returns None.
        kind (type): Required base class.
        where (str): Name of the setting.

    Raises:
        ValueError: The type is unknown or not a subclass of ``kind``, or the arguments are invalid.
    """
    if given is None:
        return None
    arguments = dict(given)
    name = arguments.pop('type')
    cls = name if isinstance(name, type) else TRANSFORMS.get(name)
    if not (isinstance(cls, type) and issubclass(cls, kind)):
        raise ValueError(
            f'semi_train_cfg.{where}.type={name!r} is neither {kind.__name__} nor a class derived from it. '
            f'Set {kind.__name__}, or register a class derived from it.'
        )
    signature = inspect.signature(cls)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise ValueError(
            f'semi_train_cfg.{where}: {cls.__name__} {error}. It takes {", ".join(signature.parameters)}.'
        ) from None
    return cls(**arguments)


def _plain(value: Any) -> Any:
    """Return a copy with plain dicts."""
    if isinstance(value, dict):
        return {key: _plain(value[key]) for key in value}
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return copy.deepcopy(value)


def _as_code(value: Any) -> str:
    """Return a value as it is written in a config."""
    if isinstance(value, dict):
        return f'dict({", ".join(f"{key}={_as_code(one)}" for key, one in value.items())})'
    return repr(value)
