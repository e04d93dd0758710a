"""Cheap questions to the file system at start-up."""

import os
from collections.abc import Iterable


class Folders:
    """Which local files exist, at the price of listing each folder once."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}

    def __contains__(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self._names:
            try:
                self._names[folder] = set(os.listdir(folder or '.'))
            except OSError:
                self._names[folder] = set()
        return name in self._names[folder]


def missing_files(paths: Iterable[str]) -> list[str]:
    """Those of the local ``paths`` at which there is no file; remote ones (``s3://``) are not asked for."""
    folders = Folders()
    return [path for path in paths if '://' not in path and path not in folders]


def real_paths(paths: Iterable[str]) -> Iterable[str]:
    """Each path with its links resolved, folders only once."""
    folders: dict[str, str] = {}
    for path in paths:
        if os.path.islink(path):
            yield os.path.realpath(path)
            continue
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        yield os.path.join(folders[folder], name)
