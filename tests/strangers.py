"""Checkpoints of strangers: files that try to write a marker when they are loaded."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from mmengine.logging import HistoryBuffer


class Call:
    """Pickles as a call of a function, which an ordinary unpickler makes."""

    def __init__(self, function, *args) -> None:
        self.function, self.args = function, args

    def __call__(self) -> None:
        """Only what is callable may be pickled as the function of another call."""

    def __reduce__(self):
        return self.function, self.args


def attack(kind: str, marker: Path):
    """An object whose loading writes ``marker``.

    ``nested getattr`` starts at what MMEngine's history names, and ends at any function of Python.
    """
    code = f'open({str(marker)!r}, "w").close()'
    if kind == 'os.system':
        return Call(os.system, f'touch {marker}')
    if kind == 'open':
        return Call(open, str(marker), 'w')
    if kind == 'exec':
        return Call(exec, code)
    if kind == 'nested getattr':
        names = Call(getattr, Call(getattr, HistoryBuffer, 'mean'), '__globals__')
        found = Call(Call(getattr, names, 'get'), '__builtins__')
        return Call(Call(Call(getattr, found, 'get'), 'exec'), code)
    raise ValueError(kind)


#: How a file attacks, and the global that it asks for first.
ATTACKS = {
    'os.system': 'posix.system',
    'open': 'io.open',
    'exec': 'builtins.exec',
    'nested getattr': "getattr(HistoryBuffer.mean, '__globals__')",
}


def write(
    path: Path, marker: Path, kind: str = 'os.system', zipped: bool = True, **content
) -> Path:
    """Write a checkpoint that would write ``marker``, in torch's zip archive or its older format."""
    content = {'state_dict': {}, 'meta': {}, **content}
    path.parent.mkdir(parents=True, exist_ok=True)
    content['message_hub'] = attack(kind, marker)
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def check_sentence(text: str, path, name: str = 'posix.system') -> None:
    """One sentence that names the file, the global and the switch."""
    assert f'{path} asks for {name}, ' in text
    assert 'set the environment variable MMSEG_SEMI_TRUST_CHECKPOINTS=1.' in text
    assert 'Traceback' not in text
