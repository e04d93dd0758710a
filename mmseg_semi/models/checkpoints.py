"""Reading MMEngine's checkpoints, and saying in one sentence when a file is none or cannot be had."""

import errno
import http.client
import os
import pickle
import re
from urllib.parse import urlparse

import mmengine.runner.checkpoint as mmengine_checkpoint
import torch.hub
from mmengine.runner.checkpoint import CheckpointLoader

#: Errors that no network is to blame for.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
#: What reading a part of a checkpoint ends in, beside RuntimeErrors.
_UNREADABLE = (EOFError, pickle.UnpicklingError)
_download = mmengine_checkpoint.load_from_http


def load_from_http(filename, map_location=None, model_dir=None, **kwargs) -> dict:
    """MMEngine's loader of ``http(s)://``, which says what to do where there is no network.

    MMEngine calls it for whatever is downloaded: pre-trained weights of an ``init_cfg``, of ``pretrained``,
    of names such as ``open-mmlab://resnet50_v1c``, and ``load_from``.

    Raises:
        ConnectionError: the address cannot be reached, or not be read to its end.
        OSError: the disk does not take the file.
    """
    folder = model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints')
    place = os.path.join(folder, os.path.basename(urlparse(filename).path))
    try:
        return _download(filename, map_location, model_dir, **kwargs)
    except (OSError, http.client.HTTPException, RuntimeError, *_UNREADABLE) as error:
        number = getattr(error, 'errno', None)
        if number in _DISK:
            raise OSError(
                number,
                f'{filename} could not be saved as {place} ({error.strerror}): free space or get permission to '
                'write there, or let TORCH_HOME name another folder.',
            ) from None
        torn = isinstance(error, RuntimeError) and re.search(
            'invalid hash|PytorchStream', str(error)
        )
        # A connection that ends early leaves a file that looks finished.
        if torn or isinstance(error, _UNREADABLE) or number == errno.EINVAL:
            raise ConnectionError(
                f'{filename} was not downloaded whole ({error!r:.80}): remove {place}, if it is there, and run '
                'the same command again, or save the file there yourself.'
            ) from None
        if isinstance(error, RuntimeError):
            raise
        raise ConnectionError(
            f'{filename} could not be downloaded ({error!r:.100}): fetch it on a machine with a network and '
            f'save it as {place}, where it is looked for first, or name a local file in the config instead '
            '(`checkpoint` of the init_cfg, `pretrained` or `load_from`).'
        ) from None


# Loaders of other schemes look for it in their own module.
mmengine_checkpoint.load_from_http = load_from_http
CheckpointLoader.register_scheme(('http://', 'https://'), load_from_http, force=True)


def read_checkpoint(path: str) -> dict:
    """The checkpoint at a path or address, its tensors on the CPU.

    Returns:
        dict: With ``state_dict`` and whatever else the training saved.

    Raises:
        ConnectionError: the address cannot be reached.
        OSError: the disk does not take the file.
        ValueError: the file is none of MMEngine's, or broken.
    """
    try:
        checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    except (pickle.UnpicklingError, EOFError, OSError, RuntimeError) as error:
        if isinstance(error, ConnectionError) or getattr(error, 'errno', None) in _DISK:
            raise
        raise ValueError(
            f'{path} is no checkpoint or only a part of one ({error!r:.80}): give one that the training saved.'
        ) from None
    if not isinstance(checkpoint, dict) or 'state_dict' not in checkpoint:
        raise ValueError(f'{path} has no state_dict: give a checkpoint that the training saved.')
    return checkpoint
