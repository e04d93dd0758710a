"""File access through MMEngine's file backends: local disk, LMDB, object stores and HTTP.

The ``backend_args`` of a dataset choose the backend of its lists and folders; those of the loaders in its
pipeline choose the backend of images and masks. Without them, the prefix of a path decides, such as ``s3://``.
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
"""Maximum number of files to look for behind a backend where each lookup is a request."""


def kind_of_backend(path: str, backend_args: Mapping | None = None) -> type[BaseStorageBackend]:
    """Return the backend class that MMEngine uses for ``path``; its package may not be installed.

    Raises:
        ValueError: No backend has this name or prefix.
    """
    name = (backend_args or {}).get('backend')
    if name is None:
        # A cluster name may precede the prefix, as in 'cluster:s3://'.
        name = path.partition('://')[0].rpartition(':')[2] if '://' in path else ''
        known = prefix_to_backends
    else:
        known = backends
    if name not in known:
        raise ValueError(
            f'{path!r} needs the file backend {name!r}, which is not registered. Choose one of '
            f'{sorted(filter(None, known))}, or register it (mmengine.fileio.register_backend).'
        )
    return known[name]


def backend_of(path: str, backend_args: Mapping | None = None) -> BaseStorageBackend:
    """Return the backend that MMEngine uses for ``path``.

    Raises:
        ImportError: The backend needs a package that is not installed.
        ValueError: No backend has this name or prefix.
    """
    kind_of_backend(path, backend_args)
    # Share the instance that loaders use: LMDB opens a database only once per process.
    args = dict(backend_args) if backend_args else None
    return fileio.get_file_backend(path, backend_args=args, enable_singleton=True)


def backend_of_loader(loader, path: str) -> BaseStorageBackend:
    """Return the backend with which a loader of mmcv, built or as a config, reads ``path``.

    Args:
        loader: Loader with ``backend_args``, or with ``file_client_args`` as in older configs.
        path: Path of an image or a mask.
    """
    of = loader if isinstance(loader, Mapping) else vars(loader)
    if of.get('file_client_args'):
        return FileClient.infer_client(dict(of['file_client_args']), path).client
    return backend_of(path, of.get('backend_args'))


def backend_of_images(dataset, path: str) -> BaseStorageBackend:
    """Return the backend of a built dataset's image loader, or the dataset's own if it has no loader."""
    transforms = getattr(getattr(dataset, 'pipeline', None), 'transforms', ())
    loader = next((t for t in transforms if isinstance(t, LoadImageFromFile)), None)
    if loader is not None and (loader.backend_args or loader.file_client_args):
        return backend_of_loader(loader, path)
    return backend_of(path, getattr(dataset, 'backend_args', None))


def is_local(backend: BaseStorageBackend | type) -> bool:
    """Whether a backend, or a backend class, reads the local disk."""
    return issubclass(backend if isinstance(backend, type) else type(backend), LocalBackend)


def require_listing(kind: type[BaseStorageBackend], folder: str, key: str) -> None:
    """Raise ValueError if the backend cannot list the folder of config key ``key`` (LMDB and HTTP cannot)."""
    if not hasattr(kind, 'list_dir_or_file'):
        raise ValueError(
            f'{key}={folder!r} is read through {kind.__name__}, which cannot list a folder. Set ann_file '
            'to a list of the images, one id per line.'
        )


def read_bytes(path: str, backend: BaseStorageBackend | None = None) -> bytes:
    """Read the content of a file.

    Args:
        path: Path or key of the file.
        backend: Backend that has the file. Default: the one of the path's prefix.

    Raises:
        FileNotFoundError: The file does not exist.
    """
    content = (backend or backend_of(path)).get(path)
    if content is None:  # LMDB returns None for a missing key
        raise FileNotFoundError(f'{path} is not in {type(backend).__name__}.')
    return bytes(content)


def open_stored_image(path: str, backend: BaseStorageBackend | None = None) -> Image.Image:
    """Open an image through a backend, see :func:`~mmseg_semi.datasets.files.open_image`; None: local disk.

    Raises:
        FileNotFoundError: The file does not exist.
        OSError: Pillow cannot open the image.
    """
    if backend is None or is_local(backend):
        return open_image(path)
    return open_image(io.BytesIO(read_bytes(path, backend)))


def spread(number: int, most: int) -> list[int]:
    """Return at most ``most`` of the indices 0 ... number-1, evenly spread, with the first and the last."""
    return np.unique(np.linspace(0, number - 1, min(number, most)).round().astype(int)).tolist()


def look_for(paths: Sequence[str], backend: BaseStorageBackend) -> tuple[list[str], int]:
    """Look for files: all on the local disk, at most :data:`MOST_ASKED_FOR` behind another backend.

    Returns:
        tuple: The missing paths, and the number of files looked for (0 if the backend cannot tell).
    """
    if is_local(backend):
        return missing_files(paths), len(paths)
    if not hasattr(backend, 'exists'):
        return [], 0
    asked = [paths[index] for index in spread(len(paths), MOST_ASKED_FOR)] if paths else []
    return [path for path in asked if not backend.exists(path)], len(asked)


def join_path(root: str, path: str) -> str:
    """Join ``path`` to ``root``, unless it is absolute or has its own prefix, such as ``s3://``."""
    if not path:
        return root
    return path if osp.isabs(path) or '://' in path else osp.join(root, path)


def say_unasked(asked: int, number: int, what: str, backend: BaseStorageBackend) -> None:
    """Log how many files behind a backend were looked for, if not all were."""
    if asked == number:
        return
    why = (
        'which cannot tell whether a file exists, so none was checked'
        if not asked
        else f'where each check is a request, so only {asked} of {number} were checked'
    )
    print_log(f'The {what} are read through {type(backend).__name__}, {why}.', logger='current')


def local_loader(loader):
    """Return a copy of a loader that reads the local disk."""
    loader = copy.copy(loader)
    loader.backend_args = loader.file_client_args = None
    return loader


@contextlib.contextmanager
def local_copy(path: str, backend: BaseStorageBackend) -> Iterator[str]:
    """Provide a copy of a file in a temporary folder, with the same name, inside a ``with`` block.

    Raises:
        FileNotFoundError: The file does not exist.
    """
    with tempfile.TemporaryDirectory() as folder:
        name = osp.join(folder, osp.basename(path))
        with open(name, 'wb') as file:
            file.write(read_bytes(path, backend))
        yield name
