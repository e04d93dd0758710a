"""Files where MMEngine's file backends have them: on the local disk, in LMDB, in an object store, behind HTTP.

A dataset's files are read through a backend: that of the dataset's ``backend_args`` (lists and folders) or of
the loaders in its pipeline (images and masks); else by the prefix of a path, such as ``s3://``.
"""

from __future__ import annotations

import contextlib
import copy
import io
import os.path as osp
import tempfile
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmengine.fileio import BaseStorageBackend, FileClient, LocalBackend
from mmengine.fileio.backends import backends, prefix_to_backends
from mmengine.logging import print_log
from PIL import Image

from .files import missing_files, open_image

MOST_ASKED_FOR = 200
"""Files that are looked for behind a backend, where each of them is a request."""


def kind_of_backend(path: str, backend_args: Mapping | None = None) -> type[BaseStorageBackend]:
    """The class of the backend that MMEngine reads ``path`` by, which may need what is not installed here.

    Raises:
        ValueError: there is none of this name or prefix.
    """
    name = (backend_args or {}).get('backend')
    if name is None:
        # A cluster may stand before the prefix, as in 'cluster:s3://'.
        name = path.partition('://')[0].rpartition(':')[2] if '://' in path else ''
        known = prefix_to_backends
    else:
        known = backends
    if name not in known:
        raise ValueError(
            f'{path!r} is to be read by a file backend {name!r}, which is not registered. Choose one of '
            f'{sorted(filter(None, known))}, or register it (mmengine.fileio.register_backend).'
        )
    return known[name]


def backend_of(path: str, backend_args: Mapping | None = None) -> BaseStorageBackend:
    """The backend that MMEngine reads ``path`` by.

    Raises:
        ImportError: it needs a package that is not installed.
        ValueError: there is none of this name or prefix.
    """
    kind_of_backend(path, backend_args)
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


def backend_of_images(dataset, path: str) -> BaseStorageBackend:
    """The backend that the loader of a built dataset reads an image by; without a loader, the dataset's own."""
    transforms = getattr(getattr(dataset, 'pipeline', None), 'transforms', ())
    loader = next((t for t in transforms if isinstance(t, LoadImageFromFile)), None)
    if loader is not None and (loader.backend_args or loader.file_client_args):
        return backend_of_loader(loader, path)
    return backend_of(path, getattr(dataset, 'backend_args', None))


def is_local(backend: BaseStorageBackend | type) -> bool:
    """Whether a backend, or a class of them, reads the local disk."""
    return issubclass(backend if isinstance(backend, type) else type(backend), LocalBackend)


def require_listing(kind: type[BaseStorageBackend], folder: str, key: str) -> None:
    """Raise ValueError if a backend cannot list the folder of config key ``key``, as LMDB and HTTP cannot."""
    if not hasattr(kind, 'list_dir_or_file'):
        raise ValueError(
            f'{key}={folder!r} is read through {kind.__name__}, which cannot list a folder. Set ann_file '
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


def join_path(root: str, path: str) -> str:
    """``path`` below ``root``, unless it is absolute or has a prefix of its own, such as ``s3://``."""
    if not path:
        return root
    return path if osp.isabs(path) or '://' in path else osp.join(root, path)


def say_unasked(asked: int, number: int, what: str, backend: BaseStorageBackend) -> None:
    """Log for how many files behind a backend was looked, where not for all."""
    if asked == number:
        return
    why = (
        'which cannot say whether a file exists: none was looked for'
        if not asked
        else f'where each costs a request: {asked} of {number} were looked for'
    )
    print_log(f'The {what} are read through {type(backend).__name__}, {why}.', logger='current')


def local_loader(loader):
    """A copy of a loader that reads the local disk."""
    loader = copy.copy(loader)
    loader.backend_args = loader.file_client_args = None
    return loader


@contextlib.contextmanager
def local_copy(path: str, backend: BaseStorageBackend) -> Iterator[str]:
    """A copy of a file in a temporary folder, under its own name, while it is looked at.

    Raises:
        FileNotFoundError: there is no such file.
    """
    with tempfile.TemporaryDirectory() as folder:
        name = osp.join(folder, osp.basename(path))
        with open(name, 'wb') as file:
            file.write(read_bytes(path, backend))
        yield name
