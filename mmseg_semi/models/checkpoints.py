"""Safe loading of checkpoints, with one-sentence errors.

MMEngine's loaders pass every file to Python's unpickler, which runs the code in it. The loaders here replace
them when the package is imported, for local files, URLs and all other schemes. They therefore apply to
``load_from``, ``resume``, ``init_cfg``, ``pretrained`` and every tool.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import http.client
import io
import logging
import os
import os.path as osp
import pickle
import re
import tarfile
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO
from urllib.parse import urlparse

import mmengine.runner.checkpoint as mmengine_checkpoint
import torch
import torch.hub
from mmengine.dist import get_dist_info
from mmengine.fileio import get_file_backend
from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader
from torch.serialization import _is_torchscript_zip, _is_zipfile, _open_zipfile_reader

from . import safe_pickle
from .safe_pickle import ForbiddenGlobalError

#: Environment variable that allows a command to load checkpoints that may run code.
TRUST = 'MMSEG_SEMI_TRUST_CHECKPOINTS'
#: Errors of the disk, not of the internet connection.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
#: Errors of reading a file that is not a whole checkpoint, see also `_is_torn`.
_UNREADABLE = (EOFError, pickle.UnpicklingError)


class UntrustedCheckpointError(ValueError):
    """A checkpoint contains more than data."""


def load_data(file: BinaryIO, name: str, map_location=None) -> Any:
    """Load a file as ``torch.load`` does, but only data, see :mod:`~mmseg_semi.models.safe_pickle`.

    Args:
        file (BinaryIO): File that is open for reading, at its beginning.
        name (str): Name of the file in errors.
        map_location: Same as in ``torch.load``.

    Raises:
        UntrustedCheckpointError: The file contains more than data, and ``MMSEG_SEMI_TRUST_CHECKPOINTS`` is not
            1.
    """
    try:
        return _without_config(_load_checked(file, map_location))
    except ForbiddenGlobalError as error:
        if os.environ.get(TRUST) != '1':
            raise UntrustedCheckpointError(
                f'{name} asks for {error.name}, which is not data and could run code, so it was not loaded. If '
                f'you trust its author, set the environment variable {TRUST}=1.'
            ) from None
        print_log(
            f'{name} asks for {error.name}, which may run code. It is loaded because {TRUST}=1.',
            logger='current',
            level=logging.WARNING,
        )
    file.seek(0)
    return torch.load(file, map_location=map_location, weights_only=False)


def _load_checked(file: BinaryIO, map_location) -> Any:
    """``torch.load`` with our unpickler. Raises ForbiddenGlobalError for anything but data.

    Archives of TorchScript and tar archives of torch's first versions are rejected, too: torch would run or
    unpack them.
    """
    load = functools.partial(torch.load, file, map_location=map_location)
    if _is_zipfile(file):
        with _open_zipfile_reader(file) as archive:
            if _is_torchscript_zip(archive):
                raise ForbiddenGlobalError('torch.jit.load')
            module = safe_pickle.for_archive(archive)
            file.seek(0)
            return load(pickle_module=module)
    file.seek(0)
    with contextlib.suppress(tarfile.TarError), tarfile.open(fileobj=file, mode='r:'):
        raise ForbiddenGlobalError('tarfile.extract')
    file.seek(0)
    return load(pickle_module=safe_pickle)


def _without_config(checkpoint: Any) -> Any:
    """Remove ``meta['config']`` from a checkpoint, since Runner.resume would run its text.

    Only predecessors of MMEngine wrote this key. MMEngine writes ``meta['cfg']``, which nothing runs.
    """
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    if isinstance(meta, dict):
        meta.pop('config', None)
    return checkpoint


def _load_file(path: str, map_location=None, name: str | None = None) -> Any:
    with open(path, 'rb') as file:
        return load_data(file, path if name is None else name, map_location)


# Same names as in MMEngine, which logs them.
def load_from_local(filename, map_location=None) -> Any:
    """MMEngine's loader of local files, restricted to data.

    Raises:
        FileNotFoundError: The file does not exist.
        UntrustedCheckpointError: See :func:`load_data`.
        ValueError: The file is not a checkpoint, or only a part of one.
    """
    filename = osp.expanduser(filename)
    if not osp.isfile(filename):
        raise FileNotFoundError(f'{filename} can not be found. Give the path of a checkpoint.')
    try:
        return _load_file(filename, map_location)
    except (OSError, RuntimeError, *_UNREADABLE) as error:
        if not _is_torn(error):
            raise
        raise _not_a_checkpoint(filename, error) from None


def _is_torn(error: Exception) -> bool:
    """Whether the error is one of torch for a file that is not a checkpoint, or only a part of one."""
    if isinstance(error, RuntimeError):
        return bool(re.search('invalid hash|PytorchStream', str(error)))
    # Torch seeks before the beginning of a small file.
    return isinstance(error, _UNREADABLE) or getattr(error, 'errno', None) == errno.EINVAL


def _not_a_checkpoint(path: str, error: Exception) -> ValueError:
    return ValueError(
        f'{path} is not a checkpoint or only a part of one ({type(error).__name__}). Give another one that the '
        'training saved. To resume, write the path of an earlier one into last_checkpoint of the work folder.'
    )


def load_from_http(filename, map_location=None, model_dir=None, progress=None) -> Any:
    """MMEngine's loader of ``http(s)://``, restricted to data, with a remedy if there is no connection.

    MMEngine calls it for every download: pre-trained weights of an ``init_cfg``, of ``pretrained``, of names
    such as ``open-mmlab://resnet50_v1c``, and ``load_from``.

    Raises:
        ConnectionError: The URL cannot be reached, or the download is incomplete.
        OSError: The file cannot be saved.
        UntrustedCheckpointError: See :func:`load_data`.
    """
    folder = model_dir or osp.join(torch.hub.get_dir(), 'checkpoints')
    place = osp.join(folder, osp.basename(urlparse(filename).path))
    progress = os.isatty(0) if progress is None else progress
    rank, processes = get_dist_info()
    # The other processes wait for the first one. They use its file if they share its disk.
    if rank == 0:
        checkpoint = _download_and_load(filename, place, map_location, progress)
    if processes > 1:
        torch.distributed.barrier()
        if rank > 0:
            checkpoint = _download_and_load(filename, place, map_location, progress)
    return checkpoint


def _download_and_load(address: str, place: str, map_location, progress: bool) -> Any:
    try:
        if not osp.isfile(place):
            os.makedirs(osp.dirname(place), exist_ok=True)
            torch.hub.download_url_to_file(address, place, progress=progress)
        return _load_file(place, map_location, address)
    except (OSError, http.client.HTTPException, RuntimeError, *_UNREADABLE) as error:
        number = getattr(error, 'errno', None)
        if number in _DISK:
            raise OSError(
                number,
                f'{address} could not be saved as {place} ({error.strerror}). Free space or get permission to '
                'write there, or set TORCH_HOME to another folder.',
            ) from None
        # An interrupted download leaves a file that looks complete.
        if _is_torn(error):
            raise ConnectionError(
                f'{address} was downloaded incompletely ({error!r:.80}). Remove {place} if it exists and run '
                'the same command again, or save the file there yourself.'
            ) from None
        if isinstance(error, RuntimeError):
            raise
        raise ConnectionError(
            f'{address} could not be downloaded ({error!r:.100}). Download it on another machine and save '
            f'it as {place}, or set a local file in the config (`checkpoint` of the init_cfg, `pretrained` or '
            '`load_from`).'
        ) from None


def load_from_ceph(filename, map_location=None, backend='petrel') -> Any:
    """MMEngine's loader of ``s3://`` and ``petrel://``, restricted to data."""
    storage = get_file_backend(filename, backend_args={'backend': backend})
    return load_data(io.BytesIO(storage.get(filename)), filename, map_location)


def load_from_pavi(filename, map_location=None) -> Any:
    """MMEngine's loader of ``pavi://``, restricted to data."""
    from pavi import modelcloud

    model = modelcloud.get(filename.removeprefix('pavi://'))
    with TemporaryDirectory() as folder:
        path = osp.join(folder, model.name)
        model.download(path)
        return _load_file(path, map_location, filename)


def load_from_openmmlab(filename, map_location=None) -> Any:
    """MMEngine's loader of ``open-mmlab://NAME``, restricted to data.

    Raises:
        FileNotFoundError: The name refers to a file in ``MMENGINE_HOME`` that does not exist.
    """
    name = re.sub(r'^open-?mmlab://', '', filename)
    name = mmengine_checkpoint.get_deprecated_model_names().get(name, name)
    address = mmengine_checkpoint.get_external_models()[name]
    if address.startswith(('http://', 'https://')):
        return load_from_http(address, map_location)
    return load_from_local(
        osp.join(mmengine_checkpoint._get_mmengine_home(), address), map_location
    )


# MMEngine's loaders of `torchvision://` and `mmcls://` look it up in their own module.
mmengine_checkpoint.load_from_http = load_from_http
for _prefixes, _loader in (
    ('', load_from_local),
    (('http://', 'https://'), load_from_http),
    ((r'(\S+\:)?s3://', r'(\S+\:)?petrel://'), load_from_ceph),
    ('pavi://', load_from_pavi),
    (('open-mmlab://', 'openmmlab://'), load_from_openmmlab),
):
    CheckpointLoader.register_scheme(_prefixes, _loader, force=True)


def read_checkpoint(path: str) -> dict:
    """Load the checkpoint at a path or URL to the CPU.

    Returns:
        dict: ``state_dict`` and the other entries that the training saved.

    Raises:
        ConnectionError: The URL cannot be reached.
        OSError: The download cannot be saved.
        ValueError: The file is not a checkpoint of MMEngine, is broken, or contains more than data.
    """
    checkpoint = _read(path)
    if not isinstance(checkpoint, dict) or 'state_dict' not in checkpoint:
        raise ValueError(f'{path} has no state_dict. Give a checkpoint that the training saved.')
    return checkpoint


def read_weights(path: str) -> dict[str, torch.Tensor]:
    """Load the weights in a file: a state dict, or a checkpoint that has one as ``state_dict`` or ``model``.

    Raises:
        ValueError: The file has no weights, is broken, or contains more than data.
    """
    weights = _read(path)
    for key in ('state_dict', 'model'):
        weights = weights.get(key, weights) if isinstance(weights, dict) else None
    if not weights or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise ValueError(f'{path} has no weights. Give a state dict, or a checkpoint with one.')
    return weights


def write_weights(path: str, weights: dict[str, torch.Tensor], overwrite: bool = False) -> None:
    """Save weights to a file, which is complete or does not exist; its folder is created.

    Raises:
        FileExistsError: The file exists, and ``overwrite`` is False.
        OSError: The file cannot be written.
    """
    check_new(path, overwrite)
    aside = f'{path}.part'
    try:
        os.makedirs(osp.dirname(path) or '.', exist_ok=True)
        with open(aside, 'wb') as file:
            torch.save(weights, file)
        os.replace(aside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.remove(aside)
        raise OSError(f'{path} cannot be written ({error.strerror}). Name another file.') from None


def check_new(path: str, overwrite: bool) -> None:
    """Raise FileExistsError if a file to write exists, unless ``overwrite`` is True."""
    if osp.exists(path) and not overwrite:
        raise FileExistsError(
            f'{path} exists already. Name another file, or add --overwrite to replace it.'
        )


def _read(path: str) -> Any:
    try:
        return CheckpointLoader.load_checkpoint(path, map_location='cpu')
    except (pickle.UnpicklingError, EOFError, OSError, RuntimeError) as error:
        if isinstance(error, ConnectionError) or getattr(error, 'errno', None) in _DISK:
            raise
        raise _not_a_checkpoint(path, error) from None
