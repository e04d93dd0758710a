"""Print the settings of a method as a Markdown table: type, default, meaning and source.

Settings are set in ``model.semi_train_cfg``. The table is made from the method's ``Settings`` class.
"""

from __future__ import annotations

import argparse
import importlib

from mmseg.registry import MODELS

from mmseg_semi.cli import one_sentence_errors
from mmseg_semi.models import SemiSegmentor
from mmseg_semi.models.settings import MethodSettings


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'method', metavar='METHOD', help='registered name of a method, such as IMAS'
    )
    parser.add_argument(
        '--import',
        dest='modules',
        action='append',
        default=[],
        metavar='MODULE',
        help='module that registers your own method; may be given several times',
    )
    return parser.parse_args(argv)


def import_module(name: str) -> None:
    """Import a module that registers methods.

    Raises:
        ValueError: it, or a module that it imports, is not found.
    """
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f'--import {name}: there is no module {error.name!r}. Add its folder to PYTHONPATH.'
        ) from error


def settings_of(method: str) -> type[MethodSettings]:
    """The settings that a registered method declares.

    Raises:
        ValueError: there is no such method, or it declares none.
    """
    known = [
        name
        for name, one in MODELS.module_dict.items()
        if isinstance(one, type) and (issubclass(one, SemiSegmentor) or hasattr(one, 'Settings'))
    ]
    if method not in known:
        raise ValueError(f'{method!r} is not a method. Choose one of {", ".join(sorted(known))}.')
    settings = getattr(MODELS.module_dict[method], 'Settings', None)
    if settings is None:
        raise ValueError(
            f'{method} declares no settings. Add a class Settings(MethodSettings) to it, as '
            'mmseg_semi/models/settings.py shows.'
        )
    return settings


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence_errors():
        for name in args.modules:
            import_module(name)
        print(settings_of(args.method).table())


if __name__ == '__main__':
    main()
