"""Files where MMEngine's file backends have them: on the local disk, in LMDB, in an object store, behind HTTP.

What a dataset's files lie behind is said by its own ``backend_args`` (lists and folders) and by those of the
loaders in its pipeline (images and masks); else by the prefix of a path, such as ``s3://``.
"""

from __future__ import annotations

import io
import os.path as osp
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from mmengine import fileio
from mmengine.fileio import BaseStorageBackend, FileClient, HardDiskBackend, LocalBackend
from PIL import Image

from .files import missing_files, open_image

MOST_ASKED_FOR = 200
"""Files that are looked for behind a backend, where each of them is a request."""


def backend_of(path: str, backend_args: Mapping | None = None) -> BaseStorageBackend:
    """The backend that MMEngine reads ``path`` by."""
    # The one instance that loaders get as well: LMDB opens a database only once in a process.
    args = dict(backend_args) if backend_args else None
    return fileio.get_file_backend(path, backend_args=args, enable_singleton=True)


def backend_of_loader(loader, path: str) -> BaseStorageBackend:
    """The backend that a loader, mmcv's or the config of one, reads ``path`` by.

    Args:
        loader: with ``backend_args``, or with ``file_client_args`` as older configs say it.
        path: of an image or a mask.
    """
    of = loader if isinstance(loader, Mapping) else vars(loader)
    if of.get('file_client_args'):
        return FileClient.infer_client(dict(of['file_client_args']), path).client
    return backend_of(path, of.get('backend_args'))


def is_local(backend: BaseStorageBackend) -> bool:
    """Whether a backend reads the local disk."""
    return isinstance(backend, (LocalBackend, HardDiskBackend))


def can_list(backend: BaseStorageBackend) -> bool:
    """Whether a backend can tell what is in a folder; LMDB and HTTP cannot."""
    return hasattr(backend, 'list_dir_or_file')


def require_listing(backend: BaseStorageBackend, folder: str, key: str) -> None:
    """Raise ValueError if a backend cannot tell what is in the folder that config key ``key`` names."""
    if not can_list(backend):
        raise ValueError(
            f'{key}={folder!r} lies behind {type(backend).__name__}, which cannot list a folder: set ann_file '
            'to a list of the images, one id per line.'
        )


def read_bytes(path: str, backend: BaseStorageBackend | None = None) -> bytes:
    """The content of a file.

    Args:
        path: of the file, or its key.
        backend: that has it; None for the one that the path's prefix says.

    Raises:
        FileNotFoundError: there is no such file.
    """
    content = (backend or backend_of(path)).get(path)
    if content is None:  # what LMDB gives for a key that it does not have
        raise FileNotFoundError(f'{path} is not in {type(backend).__name__}.')
    return bytes(content)


def open_stored_image(path: str, backend: BaseStorageBackend | None = None) -> Image.Image:
    """As :func:`~mmseg_semi.datasets.files.open_image`, of a file behind a backend; None for the local disk.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: as Pillow raises it.
    """
    if backend is None or is_local(backend):
        return open_image(path)
    return open_image(io.BytesIO(read_bytes(path, backend)))


def spread(number: int, most: int) -> list[int]:
    """At most ``most`` of the indices 0 ... number-1, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, number - 1, min(number, most)).round().astype(int)).tolist()


def look_for(paths: Sequence[str], backend: BaseStorageBackend) -> tuple[list[str], int]:
    """Look for files: for all on the local disk, for at most :data:`MOST_ASKED_FOR` behind another backend.

    Returns:
        tuple: Those that are missing, and for how many was looked; 0 where the backend cannot tell.
    """
    if is_local(backend):
        return missing_files(paths), len(paths)
    if not hasattr(backend, 'exists'):
        return [], 0
    asked = [paths[index] for index in spread(len(paths), MOST_ASKED_FOR)] if paths else []
    return [path for path in asked if not backend.exists(path)], len(asked)


def list_files(folder: str, backend: BaseStorageBackend) -> Iterable[str]:
    """Paths of all files below a folder, relative to it, with '/'."""
    found = backend.list_dir_or_file(folder, list_dir=False, recursive=True)
    return (name.replace(osp.sep, '/') for name in found)
