"""A pickle module for ``torch.load`` that builds data and calls nothing else.

A pickle names functions and classes, its globals, and has them called. Python's unpickler calls whatever a file
names, ``os.system`` as well; ``weights_only=True`` of torch calls too little for MMEngine's checkpoints, whose
history of the log names methods of :class:`mmengine.logging.HistoryBuffer` by ``getattr``. This module admits
tensors, numpy arrays and scalars, numbers, strings, containers and that history.

``torch.load(file, pickle_module=safe_pickle)`` reads both formats of torch, zip archives and the older one.
"""

from __future__ import annotations

import _compat_pickle
import argparse
import collections
import importlib
import pickle
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import HistoryBuffer
from torch import nn

#: Methods of HistoryBuffer that its buffers name in a checkpoint.
STATISTICS = ('current', 'max', 'mean', 'min')
#: Attributes of a HistoryBuffer that are its data.
HISTORY = ('_count_history', '_log_history', 'max_length')
#: Functions and classes of torch that a tensor or what describes one is made by, where this torch has them.
TORCH = {
    'torch': ('Size', 'Tensor', 'device'),
    'torch._tensor': ('_rebuild_from_type_v2',),
    'torch._utils': (
        '_rebuild_device_tensor_from_cpu_tensor',
        '_rebuild_device_tensor_from_numpy',
        '_rebuild_meta_tensor_no_storage',
        '_rebuild_nested_tensor',
        '_rebuild_parameter',
        '_rebuild_parameter_with_state',
        '_rebuild_qtensor',
        '_rebuild_sparse_csr_tensor',
        '_rebuild_sparse_tensor',
        '_rebuild_tensor',
        '_rebuild_tensor_v2',
        '_rebuild_tensor_v3',
    ),
    'torch.nn': ('Parameter',),
    'torch.nn.parameter': ('Buffer', 'Parameter'),
    'torch.serialization': ('_get_layout',),
    'torch.storage': ('TypedStorage', 'UntypedStorage'),
}
#: Kinds of torch's own values, such as ``torch.float32``.
TORCH_VALUES = (torch.dtype, torch.layout, torch.memory_format, torch.qscheme)


#: What reading a broken pickle ends in, besides what the unpickler calls so itself.
_BROKEN = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error)


class ForbiddenGlobalError(ValueError):
    """A pickle asks for something that is no data.

    Args:
        name (str): What it asks for, such as ``posix.system``.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f'The pickle asks for {name}, which is no data.')
        self.name = name


def _encode(text: str, encoding: str) -> bytes:
    """Bytes, which older protocols write as text; other encodings than this one unpack or transform."""
    if encoding != 'latin1':
        raise ForbiddenGlobalError(f'_codecs.encode to {encoding!r}')
    return text.encode('latin1')


def _no_bytes() -> bytes:
    """Older protocols write empty bytes as a call without arguments."""
    return b''


def _statistic(owner: Any, name: str) -> Callable:
    """``getattr``, for the methods that a HistoryBuffer names: of anything else it would lead to any code."""
    if owner is not HistoryBuffer or name not in STATISTICS:
        raise ForbiddenGlobalError(
            f'getattr({getattr(owner, "__name__", owner)!s:.80}, {name!r:.80})'
        )
    return getattr(HistoryBuffer, name)


def _dtype(spec: str, align: bool = False, copy: bool = False) -> np.dtype:
    """A numpy dtype of numbers, strings or objects; of records, objects could lie over other fields."""
    dtype = np.dtype(spec, copy=bool(copy)) if isinstance(spec, str) else None
    if dtype is None or dtype.fields is not None or dtype.subdtype is not None:
        raise ForbiddenGlobalError(f'numpy.dtype({spec!r:.80})')
    return dtype


def _known_globals() -> dict[tuple[str, str], Any]:
    """What a pickle may name, by module and name."""
    plain = (bool, bytearray, complex, dict, float, frozenset, int, list, range, set, slice, tuple)
    known: dict[tuple[str, str], Any] = {}
    known.update({('builtins', kind.__name__): kind for kind in plain})
    known['builtins', 'getattr'] = _statistic
    known['_codecs', 'encode'] = _encode
    known['builtins', 'bytes'] = _no_bytes
    for kind in (
        collections.OrderedDict,
        collections.Counter,
        collections.defaultdict,
        collections.deque,
    ):
        known['collections', kind.__name__] = kind
    known['argparse', 'Namespace'] = argparse.Namespace
    known['numpy', 'ndarray'], known['numpy', 'dtype'] = np.ndarray, _dtype
    for core in ('numpy.core', 'numpy._core'):
        # Reading numpy's own names, which moved in numpy 2, from what numpy itself writes.
        reconstruct, scalar = np.zeros(1).__reduce__()[0], np.float64(1).__reduce__()[0]
        known[f'{core}.multiarray', '_reconstruct'] = reconstruct
        known[f'{core}.multiarray', 'scalar'] = scalar
        known[f'{core}.numeric', '_frombuffer'] = np.zeros(1).__reduce_ex__(5)[0]
    history = 'mmengine.logging.history_buffer'
    known[history, 'HistoryBuffer'] = HistoryBuffer
    for name in STATISTICS:
        known[history, f'HistoryBuffer.{name}'] = getattr(HistoryBuffer, name)
    known['mmengine.config.config', 'Config'] = Config
    known['mmengine.config.config', 'ConfigDict'] = ConfigDict
    for module, names in TORCH.items():
        found = importlib.import_module(module)
        known.update(
            {(module, name): getattr(found, name) for name in names if hasattr(found, name)}
        )
    for module in ('torch', 'torch.cuda'):
        for name, value in vars(importlib.import_module(module)).items():
            storage = name.endswith('Storage') and isinstance(value, type)
            if storage or isinstance(value, TORCH_VALUES):
                known[module, name] = value
    return known


KNOWN = _known_globals()


class Unpickler(pickle._Unpickler):
    """Python's unpickler, restricted to :data:`KNOWN` and to objects whose state is known to be data.

    Raises:
        ForbiddenGlobalError: The pickle asks for anything else.
        pickle.UnpicklingError: It is broken.
    """

    # In Python, not in C, because only there the state of objects can be looked at before it is set.
    dispatch = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        if self.proto < 3:
            # Older protocols have the names of Python 2.
            renamed = _compat_pickle.IMPORT_MAPPING.get(module, module), name
            module, name = _compat_pickle.NAME_MAPPING.get((module, name), renamed)
        try:
            return KNOWN[module, name]
        except KeyError:
            raise ForbiddenGlobalError(f'{module}.{name}') from None

    def load(self) -> Any:
        try:
            return super().load()
        except (ForbiddenGlobalError, pickle.UnpicklingError, EOFError, RuntimeError):
            raise
        except _BROKEN as error:
            # The unpickler in C calls a broken pickle by one name.
            raise pickle.UnpicklingError(f'{type(error).__name__}: {error}') from error

    def load_build(self) -> None:
        """Set the state of the object on the stack, which classes and functions do not have."""
        owner, state = self.stack[-2], self.stack[-1]
        kind = type(owner)
        if kind is HistoryBuffer and isinstance(state, dict):
            # Without its table of methods, which is the class's and would be changed for all buffers.
            self.stack[-1] = {key: state[key] for key in HISTORY if key in state}
        elif kind in (collections.OrderedDict, argparse.Namespace):
            if not isinstance(state, dict):
                raise ForbiddenGlobalError(f'a state of {kind.__name__} that is no dict')
        elif isinstance(owner, np.dtype):
            self.stack[-1] = _order_alone(owner, state)
        elif kind not in (np.ndarray, torch.Tensor, nn.Parameter, Config):
            raise ForbiddenGlobalError(f'a state of {getattr(owner, "__name__", kind.__name__)}')
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build


def _order_alone(dtype: np.dtype, state: tuple) -> tuple:
    """The state of a dtype with nothing but the byte order taken from the pickle."""
    if any(part is not None for part in (*state[2:5], *state[8:])):
        raise ForbiddenGlobalError('numpy.dtype of records or dates')
    sized = dtype.kind in 'SUV'
    size = (dtype.itemsize, dtype.alignment) if sized else (-1, -1)
    return (3, state[1], None, None, None, *size, dtype.flags)


def load(file: Any, **kwargs: Any) -> Any:
    """Read one pickle from an open file; the arguments are those of :func:`pickle.load`."""
    return Unpickler(file, **kwargs).load()
