"""Folders of results, which are started with their settings, filled file by file, and marked as finished.

Files are written atomically: under another name, which is then renamed. `begun.json` with the settings starts a
folder. A summary, which is written last, marks it as finished. Folders with other settings are not changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import os.path as osp
import pickle
from collections.abc import Callable, Iterable, Iterator

from mmengine.dist import broadcast_object_list, is_main_process

from mmseg_semi.datasets.names import is_hidden

BEGUN = 'begun.json'
_ASIDE = '.partial.'


def on_first_rank(function: Callable, *args):
    """Call a function on rank 0; every rank returns its result or raises its error.

    An error that cannot be sent to other ranks becomes a RuntimeError with its type and text.
    """
    outcome = [None, None]
    if is_main_process():
        try:
            outcome[0] = function(*args)
        except Exception as error:  # any error, since the other ranks must not wait forever
            outcome[1] = _sendable(error)
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # e.g. it holds an open file, or its class takes other arguments
        return RuntimeError(f'{type(error).__name__}: {error}')
    return error


@contextlib.contextmanager
def writing(path: str) -> Iterator[None]:
    """Turn a file system error into one sentence with a remedy.

    Raises:
        OSError: The path cannot be written; the message has the path, the reason and the remedy.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            f'{path} cannot be written ({reason}). Free space there or name another folder, and run the same '
            'command again, which continues where this one ended.'
        ) from None


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[str]:
    """Provide a temporary name beside ``path``, with its ending; rename it to ``path`` at the end.

    Raises:
        OSError: The file cannot be written, see `writing`; the temporary file is removed.
    """
    folder, name = osp.split(path)
    aside = osp.join(folder, _ASIDE + name)
    with writing(path):
        try:
            yield aside
            os.replace(aside, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.remove(aside)
            raise


def write_bytes(path: str, content: bytes) -> None:
    """Write a file atomically."""
    with whole_file(path) as aside, open(aside, 'wb') as file:
        file.write(content)


def write_lines(path: str, lines: Iterable[str]) -> None:
    """Write a text file atomically, one line each."""
    write_bytes(path, ''.join(f'{line}\n' for line in lines).encode())


def make_folders(paths: Iterable[str]) -> None:
    """Create the folders of these files."""
    for folder in sorted({osp.dirname(path) for path in paths}):
        with writing(folder):
            os.makedirs(folder, exist_ok=True)


class OutputFolder:
    """A folder of results and the settings that produced them.

    Args:
        path: Path of the folder; created if missing.
        summary_name: Name of the JSON file that marks the folder as finished.
        settings: All settings that change the results, as JSON values; others, such as a class instead of its
            name, are stored as strings.
        remarks: Further content of `begun.json`, such as the path of the checkpoint; not compared.
    """

    def __init__(self, path: str, summary_name: str, settings: dict, remarks: dict) -> None:
        self.path = path
        self._summary = osp.join(path, summary_name)
        self._begun = osp.join(path, BEGUN)
        self._settings = json.loads(json.dumps(settings, default=str))
        self._remarks = remarks

    def file(self, name: str) -> str:
        """Return the path of a file in the folder."""
        return osp.join(self.path, name)

    def begin(self) -> dict | None:
        """Begin or continue the folder; every rank calls this method.

        Returns:
            dict, optional: The summary if the folder is finished.

        Raises:
            OSError: The folder cannot be written.
            ValueError: The folder holds something else, which does not change.
        """
        return on_first_rank(self._begin)

    def finish(self, summary: dict) -> dict:
        """Write and return the summary that marks the folder as finished; every rank calls this method."""
        return on_first_rank(self._finish, summary)

    def _begin(self) -> dict | None:
        summary = self._read(self._summary)
        if summary is not None:
            self._check(summary)
            return summary
        begun = self._read(self._begun)
        with writing(self.path):
            os.makedirs(self.path, exist_ok=True)
            names = [name for name in os.listdir(self.path) if not is_hidden(name)]
        names = [name for name in names if name != BEGUN]
        if begun is not None and names:
            self._check(begun)
            return None
        # Without a result, as after an error at the start, the settings may change.
        if names:
            raise ValueError(
                f'{self.path} has other files, such as {min(names)}. Name an empty or a new folder.'
            )
        self._write(self._begun, self._remarks)
        return None

    def _finish(self, summary: dict) -> dict:
        self._write(self._summary, {**self._remarks, **summary})
        with writing(self._begun):
            os.remove(self._begun)
        return self._read(self._summary)

    def _write(self, path: str, content: dict) -> None:
        text = json.dumps({**content, 'settings': self._settings}, indent=1)
        write_bytes(path, text.encode())

    def _read(self, path: str) -> dict | None:
        if not osp.isfile(path):
            return None
        with open(path, encoding='utf-8') as file:
            try:
                content = json.load(file)
            except ValueError:
                content = None
        if not isinstance(content, dict) or 'settings' not in content:
            raise ValueError(
                f'{path} is not from this tool. Name an empty or a new folder instead of {self.path}.'
            )
        return content

    def _check(self, content: dict) -> None:
        before, now = content['settings'], self._settings
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                was, wanted = (_short(settings.get(key)) for settings in (before, now))
                raise ValueError(
                    f'{self.path} was started with {key}={was} and not with {wanted}. Name another folder, or '
                    'remove this one to start over.'
                )


def _short(value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f'{text[:90]}...{text[-16:]}'
