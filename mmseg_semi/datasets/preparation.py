"""Shared code of the dataset converters: atomic writes, counts, progress bars.

A converter checks everything first, then passes one job per file to :func:`write_all`. Running it again
completes an interrupted run. Existing files with other content are not changed.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from .files import open_image

VOID = 255
"""Label of pixels without a class."""
_AGAIN = 'then run the command again, which continues where it stopped'
_DISK_REMEDIES = {
    errno.ENOSPC: f'Free some space, {_AGAIN}',
    errno.EDQUOT: f'Free some space, {_AGAIN}',
    errno.EACCES: 'Get permission to read or write it, or give another path',
    errno.EPERM: 'Get permission to read or write it, or give another path',
    errno.EROFS: 'Give a writable target',
    errno.ENOTDIR: 'A file stands where a folder is needed. Move it or name another target',
    errno.EEXIST: 'A file stands where a folder is needed. Move it or name another target',
    errno.ENAMETOOLONG: 'Shorten the name, or name another target',
}
_Item = TypeVar('_Item')
_Result = TypeVar('_Result')


class PreparationError(ValueError):
    """A problem with a dataset's source or target and its remedy, in one sentence."""


def require_folder(path: Path, remedy: str) -> None:
    """Raise PreparationError with ``remedy`` unless ``path`` is a folder."""
    if not path.is_dir():
        raise PreparationError(f'{path} is not a folder. {remedy}.')


def require_file(path: Path, remedy: str) -> None:
    """Raise PreparationError with ``remedy`` unless ``path`` is a file."""
    if not path.is_file():
        raise PreparationError(f'{path} does not exist. {remedy}.')


def read_text(path: Path, remedy: str) -> str:
    """Return the text of a list; PreparationError with ``remedy`` if it cannot be read."""
    require_file(path, remedy)
    try:
        return path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise PreparationError(
            f'{path} is not text in UTF-8 (byte {error.start} is {error.object[error.start]:#04x}). {remedy}.'
        ) from None


@contextmanager
def decoding(path: Path, remedy: str) -> Iterator[None]:
    """Convert any exception of a decoder to a PreparationError that ends with ``remedy``."""
    try:
        yield
    except PreparationError:
        raise
    except Exception as error:  # Pillow's plug-ins raise many types for broken files
        said = ' '.join(str(error).split()).rstrip('.') or type(error).__name__
        if said.startswith(str(path)):  # the message is already a full sentence
            raise PreparationError(f'{said}.') from None
        raise PreparationError(f'{path} cannot be read as an image ({said}). {remedy}.') from None


def read_image(path: Path, remedy: str) -> np.ndarray:
    """Return the pixels of an image as Pillow decodes them; see :func:`decoding` for errors."""
    with decoding(path, remedy), open_image(path) as image:
        return np.array(image)


def check_counts(
    source: Path, found: Mapping[str, int], official: Mapping[str, int], partial: bool
) -> None:
    """Raise PreparationError if the counts of a source differ from the official ones, unless ``partial``."""
    wrong = {name: count for name, count in found.items() if count != official[name]}
    if wrong and not partial:
        said = ', '.join(f'{name} {count} (not {official[name]})' for name, count in wrong.items())
        raise PreparationError(
            f'{source} has other counts than the dataset: {said}. Complete the copy, or give --partial '
            'to use only a part of the dataset.'
        )


def png(label: np.ndarray, palette: Sequence[Sequence[int]] | None = None) -> bytes:
    """Encode a uint8 label map (H, W) as PNG, with an optional palette (RGB per class)."""
    image = Image.fromarray(label)
    if palette is not None:
        table = np.zeros((256, 3), dtype=np.uint8)
        table[: len(palette)] = palette
        image.putpalette(table.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, 'PNG')
    return buffer.getvalue()


def lines(ids: Sequence[str]) -> bytes:
    """Return the content of a list file: one id per line."""
    return ''.join(f'{name}\n' for name in ids).encode()


def write_once(path: Path, content: bytes, overwrite: bool = False) -> None:
    """Write a file atomically; a file with equal content is not changed.

    PNG files are equal if their pixels are, whatever their compression.

    Raises:
        PreparationError: The file exists with other content, and ``overwrite`` is False.
    """
    if path.is_symlink() or path.exists():
        if not overwrite:
            if path.is_file() and _equal(path, content):
                return
            raise PreparationError(_differs(path))
        if path.is_symlink():  # never change the target of a link
            path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.part')
    part.unlink(missing_ok=True)  # of an interrupted run, or a link to keep from following
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def link_once(path: Path, source: Path, overwrite: bool = False) -> None:
    """Make ``path`` a link to ``source``; an equal link, or a copy of the same bytes, is not changed.

    Raises:
        PreparationError: Something else exists at ``path``, and ``overwrite`` is False.
    """
    if path.is_symlink() or path.exists():
        if path.exists() and os.path.samefile(path, source):
            return
        if not overwrite:
            if path.is_file() and path.read_bytes() == source.read_bytes():
                return
            raise PreparationError(_differs(path))
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(source.resolve())


def run_all(
    function: Callable[[_Item], _Result], items: Sequence[_Item], what: str, nproc: int = 1
) -> list[_Result]:
    """Call ``function`` on every item with a progress bar; return the results in order.

    Args:
        function: Function of one item.
        items: Its arguments.
        what: Noun for the progress bar.
        nproc: Number of threads; decoding and compression run in parallel.

    Raises:
        PreparationError: From the first item that fails; waiting items are not started.
    """
    with ThreadPoolExecutor(nproc) as pool:
        try:
            return list(tqdm(pool.map(function, items), what, len(items), unit='file'))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def write_all(
    jobs: Sequence[tuple[Path, Callable[[], bytes] | Path]],
    what: str,
    overwrite: bool = False,
    nproc: int = 1,
) -> None:
    """Run all jobs behind a progress bar.

    Args:
        jobs: Pairs of a target and its content: a function that returns bytes, or a file to link to.
        what: Noun for the progress bar.
        overwrite: Whether to replace files that differ.
        nproc: Number of threads.

    Raises:
        PreparationError: From the first job that fails; files already written remain.
    """

    def run(job: tuple[Path, Callable[[], bytes] | Path]) -> None:
        target, source = job
        if callable(source):
            write_once(target, source(), overwrite)
        else:
            link_once(target, source, overwrite)

    run_all(run, jobs, what, nproc)


def add_arguments(parser: argparse.ArgumentParser, partial: str | None = None) -> None:
    """Add the arguments that every converter has; ``partial`` describes what ``--partial`` accepts."""
    if partial:
        parser.add_argument('--partial', action='store_true', help=partial)
    parser.add_argument('--overwrite', action='store_true', help='replace files that differ')
    parser.add_argument('--nproc', type=int, default=1, help='threads (default: 1)')


def run_converter(parser: argparse.ArgumentParser, options, convert: Callable[[], str]) -> None:
    """Run a converter and print its result; print its errors, and disk errors, as one sentence."""
    if options.nproc < 1:
        parser.error(f'--nproc {options.nproc} must be at least 1.')
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')  # names of files need not be UTF-8
    try:
        print(convert())
    except OSError as error:
        sys.exit(f'{parser.prog}: {_disk_error(error)}')
    except (ValueError, ImportError) as error:
        sys.exit(f'{parser.prog}: {error}')


def _disk_error(error: OSError) -> str:
    if error.errno is None or error.filename is None:
        return ' '.join(str(error).split())
    remedy = _DISK_REMEDIES.get(error.errno, f'Check the disk, {_AGAIN}')
    return f'{error.filename}: {error.strerror}. {remedy}.'


def _differs(path: Path) -> str:
    return f'{path} exists with another content. Give --overwrite to replace it, or another target.'


def _equal(path: Path, content: bytes) -> bool:
    found = path.read_bytes()
    if found == content or path.suffix.lower() != '.png':
        return found == content
    try:
        with open_image(io.BytesIO(found)) as mine, open_image(io.BytesIO(content)) as new:
            # Compare the indices of palette images; their colors do not matter.
            modes = {'P' if image.mode == 'L' else image.mode for image in (mine, new)}
            return len(modes) == 1 and np.array_equal(np.asarray(mine), np.asarray(new))
    except (OSError, ValueError, SyntaxError):  # broken files
        return False
