"""A pickle module for ``torch.load`` that loads data and never calls other code.

A pickle refers to functions and classes, its globals, and the unpickler calls them. Python's unpickler calls
any function, even ``os.system``. torch's ``weights_only=True`` rejects MMEngine's checkpoints, since their log
history refers to methods of :class:`mmengine.logging.HistoryBuffer` by ``getattr``. This module accepts
tensors, numpy arrays and scalars, numbers, strings, containers and that history.

Each accepted name is replaced by a function of this module that checks its arguments, or by an object that
cannot be called. Arrays are copies of numbers and strings. Tensors must lie within their storages, and storages
within their file, so that no object overlaps the memory of another one. Only the types listed here may have
state or items.

``torch.load(file, pickle_module=safe_pickle)`` reads both formats of torch, zip archives and the older one. For
an archive, use the module that `for_archive` returns.
"""

from __future__ import annotations

import _compat_pickle
import argparse
import collections
import importlib
import pickle
import struct
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor, nn
from torch.serialization import StorageType
from torch.storage import TypedStorage, UntypedStorage

#: Methods of HistoryBuffer that checkpoints refer to.
STATISTICS = ('current', 'max', 'mean', 'min')
#: Data attributes of a HistoryBuffer.
HISTORY = ('_count_history', '_log_history', 'max_length')
#: Kinds of torch's own values, such as ``torch.float32``.
TORCH_VALUES = (torch.dtype, torch.layout, torch.memory_format, torch.qscheme)
#: Kinds of numpy's values: numbers and strings, which hold no addresses.
NUMBERS, STRINGS = 'biufc', 'SU'
#: Plain types that a pickle calls with their content.
PLAIN = (bool, bytearray, complex, dict, float, frozenset, int, list, range, set, slice, tuple)
#: Types to which a pickle adds items by key, and types to which it appends.
BY_KEY = (dict, collections.OrderedDict, collections.defaultdict, collections.Counter)
APPENDED = (list, collections.deque)

#: Errors of reading a broken pickle, in addition to UnpicklingError.
_BROKEN = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error)


class ForbiddenGlobalError(ValueError):
    """A pickle refers to something that is not data.

    Args:
        name (str): The name in the pickle, such as ``posix.system``.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f'The pickle asks for {name}, which is not data.')
        self.name = name


class Name:
    """A name in a pickle. It cannot be called and has no state.

    Args:
        name (str): The name in errors.
        call (Callable, optional): Function that builds data from the arguments in the pickle.
        new (type, optional): Type of which the pickle may create empty instances.
    """

    __slots__ = ('call', 'name', 'new')

    def __init__(self, name: str, call: Callable | None = None, new: type | None = None) -> None:
        self.name, self.call, self.new = name, call, new


def _require(condition: bool, asked: str) -> None:
    if not condition:
        raise ForbiddenGlobalError(asked)


def _require_whole(condition: bool, found: str) -> None:
    if not condition:
        raise pickle.UnpicklingError(f'broken: it has {found}')


def _encode(text: str, encoding: str) -> bytes:
    """Bytes, which older protocols write as text; other encodings could unpack or transform."""
    _require(type(text) is str and encoding == 'latin1', f'_codecs.encode to {encoding!r:.80}')
    return text.encode('latin1')


def _no_bytes() -> bytes:
    """Older protocols write empty bytes as a call without arguments."""
    return b''


def _statistic(owner: Any, name: str) -> Name:
    """``getattr`` for the methods that a HistoryBuffer refers to; for other objects it could reach any code."""
    said = getattr(owner, 'name', type(owner).__name__)
    known = owner is HISTORY_BUFFER and name in STATISTICS
    _require(known, f'getattr({said!s:.80}, {name!r:.80})')
    return Name(f'HistoryBuffer.{name}')


def _history_buffer() -> HistoryBuffer:
    return HistoryBuffer()


HISTORY_BUFFER = Name('HistoryBuffer', _history_buffer, HistoryBuffer)


def _default_dict(factory: Any = None, *items: dict) -> collections.defaultdict:
    plain = None if factory is None else getattr(factory, 'new', None)
    _require(factory is None or plain in PLAIN, f'defaultdict of {factory!r:.80}')
    return collections.defaultdict(plain, *items)


def _counter(items: dict) -> collections.Counter:
    _require(type(items) is dict, 'a Counter of no dict')
    return collections.Counter(items)


def _config_dict(items: dict) -> dict:
    """Return a plain dict: items of a ConfigDict are also attributes, such as ``__array_interface__``."""
    _require(type(items) is dict, 'a ConfigDict of no dict')
    return dict(items)


def _plain_attributes(state: dict, kind: str) -> dict:
    """Return the attributes of a Namespace; names with underscores are rejected, since libraries read them."""
    special = [key for key in state if type(key) is not str or key.startswith('__')]
    _require(not special, f'the attributes {special!r:.80} of a {kind}')
    return state


def _history(state: dict) -> dict:
    """Return the data of a HistoryBuffer without its table of methods, which all buffers share."""
    found = {key: state[key] for key in HISTORY if key in state}
    for key, value in found.items():
        numbers = type(value) is np.ndarray and value.dtype.kind in NUMBERS and value.ndim == 1
        known = type(value) is int if key == 'max_length' else numbers
        _require(known, f'{key} of a HistoryBuffer as {type(value).__name__}')
    return found


# --- numpy ---------------------------------------------------------------------------------------


def _dtype(spec: str, align: bool = False, copy: bool = False) -> np.dtype:
    """Return a numpy dtype of numbers or strings; others hold addresses or depend on more state."""
    # Always copy: the pickle sets the state of the dtype, and numpy's own dtypes are shared.
    dtype = np.dtype(spec, copy=True) if type(spec) is str else None
    known = dtype is not None and dtype.kind in NUMBERS + STRINGS and dtype.subdtype is None
    _require(known, f'numpy.dtype({spec!r:.80})')
    return dtype


def _order_alone(dtype: np.dtype, state: tuple) -> tuple:
    """Return the state of a dtype that takes only the byte order from the pickle."""
    if any(part is not None for part in (*state[2:5], *state[8:])):
        raise ForbiddenGlobalError('numpy.dtype of records or dates')
    sized = dtype.kind in STRINGS
    size = (dtype.itemsize, dtype.alignment) if sized else (-1, -1)
    return (3, state[1], None, None, None, *size, dtype.flags)


NDARRAY = Name('numpy.ndarray')
#: numpy's function, whose name moved in numpy 2.
_SCALAR = np.float64(1).__reduce__()[0]


def _empty_array(subtype: Any, shape: tuple, kind: Any) -> np.ndarray:
    """Return an empty array; the pickle sets its state next."""
    _require(subtype is NDARRAY and shape == (0,), f'a numpy array of shape {shape!r:.80}')
    return np.empty(0, np.int8)


def _set_array(array: np.ndarray, state: tuple) -> None:
    """Set the content of an empty array. This frees its memory, which no other object uses."""
    _, shape, dtype, fortran, content = state
    _require(array.size == 0 and type(shape) is tuple, 'the state of a numpy array twice')
    _require(isinstance(dtype, np.dtype) and type(content) is bytes, 'a numpy array over memory')
    np.ndarray.__setstate__(array, (1, shape, dtype, bool(fortran), content))


def _array_of_bytes(content: bytes | bytearray, dtype: np.dtype, shape: tuple, order: str):
    known = isinstance(dtype, np.dtype) and type(content) in (bytes, bytearray)
    _require(known, 'a numpy array over memory')
    return np.frombuffer(content, dtype).reshape(shape, order=order).copy(order='K')


def _numpy_scalar(dtype: np.dtype, content: bytes) -> np.generic:
    known = isinstance(dtype, np.dtype) and type(content) is bytes
    _require(known, 'a numpy scalar of no bytes')
    return _SCALAR(dtype, content)


# --- torch ---------------------------------------------------------------------------------------


def _check_view(storage: Any, offset: Any, size: Any, stride: Any, item: int | None = None) -> None:
    """Check that a tensor lies within its storage. A larger one would resize the storage under other tensors.

    Args:
        storage: Storage from the file.
        offset, size, stride: Numbers of items.
        item: Bytes per item. Default: that of the storage.
    """
    _require(isinstance(storage, (TypedStorage, UntypedStorage)), 'a tensor of no storage')
    sides = (tuple, torch.Size)
    known = type(size) in sides and type(stride) in sides and len(size) == len(stride)
    known = known and all(type(n) is int and n >= 0 for n in (offset, *size, *stride))
    _require_whole(known, f'a tensor of size {size!r:.80} and stride {stride!r:.80}')
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if isinstance(storage, TypedStorage):
        item = torch._utils._element_size(storage.dtype) if item is None else item
        storage = storage._untyped_storage
    found = storage.nbytes()
    inside = 0 in size or (last + 1) * (item or 1) <= found
    _require_whole(inside, f'a tensor of size {size!r:.80} in {found} bytes')


def _check_metadata(metadata: Any) -> None:
    _require(metadata is None or type(metadata) is dict, 'a tensor whose metadata is not a dict')


# Hooks belong to a computation, not to the tensor, so they are left out.


def _tensor(storage, offset, size, stride) -> Tensor:
    _check_view(storage, offset, size, stride)
    return torch._utils._rebuild_tensor(storage, offset, size, stride)


def _tensor_v2(
    storage, offset, size, stride, requires_grad, _hooks, metadata: dict | None = None
) -> Tensor:
    _check_view(storage, offset, size, stride)
    _check_metadata(metadata)
    hooks = collections.OrderedDict()
    return torch._utils._rebuild_tensor_v2(
        storage, offset, size, stride, bool(requires_grad), hooks, metadata
    )


def _tensor_v3(
    storage, offset, size, stride, requires_grad, _hooks, dtype, metadata: dict | None = None
) -> Tensor:
    _require(isinstance(dtype, torch.dtype), 'a tensor of no dtype')
    _check_view(storage, offset, size, stride, dtype.itemsize)
    _check_metadata(metadata)
    hooks = collections.OrderedDict()
    return torch._utils._rebuild_tensor_v3(
        storage, offset, size, stride, bool(requires_grad), hooks, dtype, metadata
    )


def _parameter(data: Tensor, requires_grad: bool, *_) -> nn.Parameter:
    """Return a parameter without the hooks and attributes in the pickle."""
    _require(type(data) is Tensor, f'a Parameter of {type(data).__name__}')
    return nn.Parameter(data, bool(requires_grad))


def _typed_tensor(build: Any, kind: Any, arguments: tuple, _state: Any) -> Tensor:
    """Return a tensor without the attributes in the pickle."""
    known = build in REBUILDS and kind in (TENSOR, PARAMETER) and type(arguments) is tuple
    _require(known, f'a tensor built by {getattr(build, "name", type(build).__name__)}')
    return build.call(*arguments)


def _tensor_of_array(
    data: np.ndarray, dtype: torch.dtype, device: str, requires_grad: bool
) -> Tensor:
    known = type(data) is np.ndarray and data.dtype.kind in NUMBERS
    known = known and isinstance(dtype, torch.dtype) and type(device) is str
    _require(known, 'a tensor of no numpy array')
    # Copy, since the array may be over read-only memory.
    tensor = torch.from_numpy(data.copy()).to(device=device, dtype=dtype)
    return tensor.requires_grad_(bool(requires_grad))


def _size(sides: tuple) -> torch.Size:
    _require(all(type(side) is int for side in sides), 'a torch.Size of no integers')
    return torch.Size(sides)


def _device(kind: str, *index: int) -> torch.device:
    _require(type(kind) is str, 'a torch.device of no name')
    return torch.device(kind, *index)


TENSOR, PARAMETER = Name('torch.Tensor'), Name('torch.nn.Parameter')
REBUILDS = tuple(
    Name(f'torch._utils.{name}', call)
    for name, call in {
        '_rebuild_tensor': _tensor,
        '_rebuild_tensor_v2': _tensor_v2,
        '_rebuild_tensor_v3': _tensor_v3,
        '_rebuild_parameter': _parameter,
        '_rebuild_parameter_with_state': _parameter,
        '_rebuild_device_tensor_from_numpy': _tensor_of_array,
    }.items()
)


def _known_globals() -> dict[tuple[str, str], Any]:
    """Return what a pickle may refer to, by module and name: Names, and values that cannot be called."""
    known: dict[tuple[str, str], Any] = {
        ('builtins', kind.__name__): Name(kind.__name__, kind, kind) for kind in PLAIN
    }
    known['builtins', 'getattr'] = Name('getattr', _statistic)
    known['builtins', 'bytes'] = Name('bytes', _no_bytes)
    known['_codecs', 'encode'] = Name('_codecs.encode', _encode)
    for name, call in {
        'OrderedDict': collections.OrderedDict,
        'Counter': _counter,
        'defaultdict': _default_dict,
        'deque': collections.deque,
    }.items():
        known['collections', name] = Name(name, call)
    known['argparse', 'Namespace'] = Name('Namespace', None, argparse.Namespace)
    known['numpy', 'ndarray'], known['numpy', 'dtype'] = NDARRAY, Name('numpy.dtype', _dtype)
    for core in ('numpy.core', 'numpy._core'):  # numpy 1 and 2
        known[f'{core}.multiarray', '_reconstruct'] = Name('_reconstruct', _empty_array)
        known[f'{core}.multiarray', 'scalar'] = Name('scalar', _numpy_scalar)
        known[f'{core}.numeric', '_frombuffer'] = Name('_frombuffer', _array_of_bytes)
    history = 'mmengine.logging.history_buffer'
    known[history, 'HistoryBuffer'] = HISTORY_BUFFER
    for name in STATISTICS:
        known[history, f'HistoryBuffer.{name}'] = Name(f'HistoryBuffer.{name}')
    known['mmengine.config.config', 'ConfigDict'] = Name('ConfigDict', _config_dict)
    for rebuild in REBUILDS:
        known['torch._utils', rebuild.name.rpartition('.')[2]] = rebuild
    known['torch._tensor', '_rebuild_from_type_v2'] = Name('_rebuild_from_type_v2', _typed_tensor)
    known['torch', 'Size'], known['torch', 'device'] = Name('Size', _size), Name('device', _device)
    known['torch', 'Tensor'] = TENSOR
    for module in ('torch.nn', 'torch.nn.parameter'):
        known[module, 'Parameter'] = PARAMETER
    # torch uses these classes to tell the type of a storage in the file; they are not called.
    known['torch.storage', 'TypedStorage'] = TypedStorage
    known['torch.storage', 'UntypedStorage'] = UntypedStorage
    for module in ('torch', 'torch.cuda'):
        for name, value in vars(importlib.import_module(module)).items():
            storage = name.endswith('Storage') and isinstance(value, type)
            if storage or isinstance(value, TORCH_VALUES):
                known[module, name] = value
    return known


KNOWN = _known_globals()


def _said(value: Any) -> str:
    return (
        value.name if isinstance(value, Name) else getattr(value, '__name__', type(value).__name__)
    )


class Unpickler(pickle._Unpickler):
    """Python's unpickler, restricted to :data:`KNOWN`, and to items and state of the kinds listed here.

    Raises:
        ForbiddenGlobalError: The pickle asks for anything else.
        pickle.UnpicklingError: It is broken.
    """

    # The Python implementation, since only it allows a check of each step.
    dispatch = dict(pickle._Unpickler.dispatch)
    #: Reader of the archive with the pickle; None for the older format, whose storages contain their sizes.
    archive: Any = None

    def find_class(self, module: str, name: str) -> Any:
        if self.proto < 3:
            # Older protocols use the names of Python 2.
            renamed = _compat_pickle.IMPORT_MAPPING.get(module, module), name
            module, name = _compat_pickle.NAME_MAPPING.get((module, name), renamed)
        try:
            return KNOWN[module, name]
        except KeyError:
            raise ForbiddenGlobalError(f'{module}.{name}') from None

    def get_extension(self, code: int) -> None:
        raise ForbiddenGlobalError(f'the extension {code}')

    def load(self) -> Any:
        if self.archive is not None:
            read, seen = self.persistent_load, set()

            def checked(said: Any) -> Any:
                self._check_record(said, seen)
                return read(said)

            self.persistent_load = checked
        try:
            return super().load()
        except (ForbiddenGlobalError, pickle.UnpicklingError, EOFError, RuntimeError):
            raise
        except _BROKEN as error:
            # The unpickler in C uses one error type for a broken pickle.
            raise pickle.UnpicklingError(f'{type(error).__name__}: {error}') from error

    def _check_record(self, said: Any, seen: set) -> None:
        """Check that a storage of an archive is as large as its record; torch reads beyond a smaller record."""
        known = type(said) is tuple and len(said) == 5 and said[0] == 'storage'
        _require(known, 'an object that is not a storage')
        _, kind, key, _, count = said
        known = kind is UntypedStorage or type(kind) in (type(torch.FloatStorage), StorageType)
        _require(known and type(key) is str, f'a storage of {_said(kind)}')
        _require_whole(type(count) is int and count >= 0, f'a storage of {count!r:.80} values')
        if key in seen:  # torch has read it
            return
        seen.add(key)
        bytes_each = 1 if kind is UntypedStorage else torch._utils._element_size(kind.dtype)
        found = len(self.archive.get_record(f'data/{key}'))
        said = count * bytes_each
        _require_whole(found == said, f'a storage of {said} bytes in a record of {found}')

    def load_reduce(self) -> None:
        """Call a known function."""
        arguments = self.stack.pop()
        name = self.stack[-1]
        callable_ = isinstance(name, Name) and name.call is not None and type(arguments) is tuple
        _require(callable_, f'a call of {_said(name)}')
        self.stack[-1] = name.call(*arguments)

    dispatch[pickle.REDUCE[0]] = load_reduce

    def load_newobj(self) -> None:
        """Create an empty instance."""
        arguments = self.stack.pop()
        name = self.stack.pop()
        known = isinstance(name, Name) and name.new in (HistoryBuffer, argparse.Namespace)
        _require(known and arguments == (), f'an instance of {_said(name)}')
        self.append(name.new.__new__(name.new))

    dispatch[pickle.NEWOBJ[0]] = load_newobj

    def load_newobj_ex(self) -> None:
        """Reject the opcode, which plain data does not need."""
        raise ForbiddenGlobalError(f'an instance of {_said(self.stack[-3])}')

    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex

    def _instantiate(self, name: Any, arguments: list) -> None:
        """Handle the opcodes of protocol 0 that call a named object."""
        self.stack.append(name)
        self.stack.append(tuple(arguments))
        self.load_reduce()

    def load_build(self) -> None:
        """Set the state of the object on the stack, if its type may have a state."""
        state = self.stack.pop()
        owner = self.stack[-1]
        kind = type(owner)
        if kind is np.ndarray:
            _set_array(owner, state)
        elif isinstance(owner, np.dtype):
            owner.__setstate__(_order_alone(owner, state))
        else:
            known = kind in (HistoryBuffer, collections.OrderedDict, argparse.Namespace)
            _require(known, f'a state of {_said(owner)}')
            _require(type(state) is dict, f'a state of {kind.__name__} that is not a dict')
            if kind is HistoryBuffer:
                owner.__init__()
                state = _history(state)
            elif kind is collections.OrderedDict:
                state = {'_metadata': state['_metadata']} if '_metadata' in state else {}
            else:
                state = _plain_attributes(state, kind.__name__)
            vars(owner).update(state)

    dispatch[pickle.BUILD[0]] = load_build

    def load_setitem(self) -> None:
        _require(type(self.stack[-3]) in BY_KEY, f'items of {_said(self.stack[-3])}')
        super().load_setitem()

    dispatch[pickle.SETITEM[0]] = load_setitem

    def load_setitems(self) -> None:
        owner = self.metastack[-1][-1]
        _require(type(owner) in BY_KEY, f'items of {_said(owner)}')
        super().load_setitems()

    dispatch[pickle.SETITEMS[0]] = load_setitems

    def load_append(self) -> None:
        _require(type(self.stack[-2]) in APPENDED, f'items of {_said(self.stack[-2])}')
        super().load_append()

    dispatch[pickle.APPEND[0]] = load_append

    def load_appends(self) -> None:
        owner = self.metastack[-1][-1]
        _require(type(owner) in APPENDED, f'items of {_said(owner)}')
        super().load_appends()

    dispatch[pickle.APPENDS[0]] = load_appends

    def load_additems(self) -> None:
        owner = self.metastack[-1][-1]
        _require(type(owner) is set, f'items of {_said(owner)}')
        super().load_additems()

    dispatch[pickle.ADDITEMS[0]] = load_additems


def for_archive(archive: Any) -> SimpleNamespace:
    """Return this module for the pickles of an archive; storages are checked against their records.

    Args:
        archive: ``torch.PyTorchFileReader`` of the archive.

    Raises:
        ForbiddenGlobalError: The archive has another byte order; torch would swap bytes in place.
    """
    order = archive.get_record('byteorder') if archive.has_record('byteorder') else None
    order = sys.byteorder if order is None else order.decode('latin1')
    _require(order == sys.byteorder, f'the byte order {order!r:.80}')
    kind = type('Unpickler', (Unpickler,), {'archive': archive})
    return SimpleNamespace(
        Unpickler=kind, load=lambda file, **kwargs: kind(file, **kwargs).load(), __name__=__name__
    )


def load(file: Any, **kwargs: Any) -> Any:
    """Read one pickle from an open file; see :func:`pickle.load` for the arguments."""
    return Unpickler(file, **kwargs).load()
