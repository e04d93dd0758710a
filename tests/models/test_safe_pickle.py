"""The unpickler of checkpoints builds data, and calls nothing that a file could do harm with."""

import argparse
import collections
import io
import pickle
import random
import re
import sys
import tarfile
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import strangers
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub

from mmseg_semi.models import checkpoints, safe_pickle


def saved(value, **kwargs):
    file = io.BytesIO()
    torch.save(value, file, **kwargs)
    file.seek(0)
    return file


def loaded(value, **kwargs):
    return checkpoints.load_data(saved(value, **kwargs), 'a.pth')


class ForgedHistory:
    """A HistoryBuffer whose pickle has this state."""

    def __init__(self, **state):
        self.state = state

    def __reduce__(self):
        return HistoryBuffer, (), self.state


FORMATS = {
    'zip': {},
    'older': {'_use_new_zipfile_serialization': False},
    'protocol 4': {'pickle_protocol': 4},
    'protocol 5': {'pickle_protocol': 5},
}
VALUES = {
    'numbers': [1, 1 << 70, 1.5, True, None, 1j],
    'texts': ['ä', b'\x00\xff', bytearray(b'a')],
    'containers': [(1,), {'a': [2]}, {1, 2}, frozenset([1]), slice(1, 2), range(3)],
    'collections': [
        collections.OrderedDict(a=1),
        collections.defaultdict(list, a=[1]),
        collections.Counter('aab'),
        collections.deque([1, 2]),
    ],
    'torch': [torch.Size([1, 2]), torch.device('cpu'), torch.float16],
    'numpy scalars': [np.float64(2), np.int64(3), np.bool_(True), np.float32(0.1)],
    'python state': random.getstate(),
    'config': [ConfigDict(classes=('a', 'b'), nested=dict(c=[1]))],
}


@pytest.mark.parametrize('form', FORMATS)
@pytest.mark.parametrize('name', VALUES)
def test_data_is_read_as_it_was(name, form):
    found = loaded(VALUES[name], **FORMATS[form])
    assert found == VALUES[name]
    assert str(found) == str(VALUES[name])


@pytest.mark.parametrize('form', FORMATS)
def test_arrays_and_states_of_numpy(form):
    arrays = [
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.ones((2, 3), np.float32)),
        np.array(['ab', 'c']),
        np.zeros((0, 2), bool),
        np.random.get_state()[1],
    ]
    for array, found in zip(arrays, loaded(arrays, **FORMATS[form]), strict=True):
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize('form', FORMATS)
def test_tensors_of_all_kinds(form):
    kinds = (torch.float64, torch.bfloat16, torch.float16, torch.int8, torch.bool, torch.complex64)
    tensors = [torch.tensor([0, 1, 1]).to(kind) for kind in kinds]
    tensors += [torch.ones(2, 3).t(), torch.ones(6)[2:], torch.ones(1).expand(3), torch.ones(0, 2)]
    tensors += [torch.tensor(2.0), torch.nn.Parameter(torch.ones(2))]
    for tensor, found in zip(tensors, loaded(tensors, **FORMATS[form]), strict=True):
        assert type(found) is type(tensor)
        assert (found.dtype, found.stride()) == (tensor.dtype, tensor.stride())
        assert torch.equal(found, tensor)
    shared = torch.arange(4)
    first, second = loaded([shared, shared[1:]], **FORMATS[form])
    first[1] = 9
    assert second[0] == 9
    assert loaded(torch.nn.Linear(2, 3).state_dict(), **FORMATS[form])._metadata['']['version'] == 1


@pytest.mark.parametrize('form', FORMATS)
def test_history_of_the_log(form):
    hub = MessageHub.get_instance(f'history {form}')
    for value in (3.0, 1.0):
        hub.update_scalar('train/loss', value)
    hub.update_info('iter', 2)
    state = loaded({'message_hub': hub.state_dict()}, **FORMATS[form])['message_hub']
    buffer = state['log_scalars']['train/loss']
    assert type(buffer) is HistoryBuffer
    assert (buffer.current(), buffer.max(), buffer.mean()) == (1.0, 3.0, 2.0)
    assert state['runtime_info']['iter'] == 2
    other = MessageHub.get_instance(f'other {form}')
    other.load_state_dict(state)
    assert other.get_scalar('train/loss').statistics('min') == 1.0


def test_history_does_not_change_the_methods_of_others():
    before = dict(HistoryBuffer._statistics_methods)

    found = loaded(ForgedHistory(statistics_methods={'mean': dict}, max_length=5))
    assert found.max_length == 5
    assert HistoryBuffer._statistics_methods == before


@pytest.mark.parametrize('form', FORMATS)
@pytest.mark.parametrize('kind', strangers.ATTACKS)
def test_files_that_would_write_a_marker(kind, form, tmp_path):
    marker = tmp_path / 'marker'
    file = saved({'state_dict': {}, 'x': strangers.attack(kind, marker)}, **FORMATS[form])
    with pytest.raises(checkpoints.UntrustedCheckpointError) as error:
        checkpoints.load_data(file, 'a.pth')
    strangers.check_sentence(str(error.value), 'a.pth', strangers.ATTACKS[kind])
    assert str(error.value).count('. ') <= 1
    assert '\n' not in str(error.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    ('value', 'name'),
    [
        (strangers.Call(getattr, HistoryBuffer, 'register_statistics'), 'getattr(HistoryBuffer, '),
        (strangers.Call(getattr, dict, 'get'), "getattr(dict, 'get')"),
        (strangers.Call(np.dtype, [('a', 'O')]), "numpy.dtype([('a', 'O')])"),
        (strangers.Call(np.dtype, 'O,i4'), "numpy.dtype('O,i4')"),
        (np.zeros(2, 'i4,i4'), "numpy.dtype('V8')"),
        (np.zeros(2, 'M8[s]'), "numpy.dtype('M8')"),
        (np.array([1, 'a'], object), "numpy.dtype('O8')"),
        (argparse.Namespace(__array_interface__={}), "the attributes ['__array_interface__'] of"),
        (ForgedHistory(max_length='5'), 'max_length of a HistoryBuffer as str'),
        (ForgedHistory(_log_history=[1.0]), '_log_history of a HistoryBuffer as list'),
        (torch.eye(2).to_sparse(), 'torch._utils._rebuild_sparse_tensor'),
        (torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8), 'torch._utils._rebuild_qt'),
        (SimpleNamespace(a=1), 'types.SimpleNamespace'),
        (torch.nn.Linear(1, 1), 'torch.nn.modules.linear.Linear'),
        (strangers.Call(__import__('codecs').encode, 'a', 'rot13'), "_codecs.encode to 'rot13'"),
    ],
)
def test_what_is_no_data_is_named(value, name):
    with pytest.raises(checkpoints.UntrustedCheckpointError) as error:
        loaded(value)
    assert f'a.pth asks for {name}' in str(error.value)


@pytest.mark.parametrize('target', [HistoryBuffer, collections.OrderedDict, strangers.Call])
def test_classes_have_no_state(target):
    """``setattr`` on a class would change it for everyone."""

    class Forged:
        def __reduce__(self):
            return getattr, (HistoryBuffer, 'mean'), (None, {'x': 1})

    with pytest.raises(
        checkpoints.UntrustedCheckpointError, match=r'asks for a state of HistoryBuffer\.mean'
    ):
        loaded(Forged())
    # PROTO 2, GLOBAL, EMPTY_DICT, BUILD, STOP
    name = f'{target.__module__}\n{target.__qualname__}\n'.encode()
    with pytest.raises(safe_pickle.ForbiddenGlobalError):
        safe_pickle.load(io.BytesIO(b'\x80\x02c' + name + b'}b.'))


MEMORY = {
    'an array that is called': strangers.Call(np.ndarray, (1,), 'O', b'12345678'),
    'bytes over an array': strangers.Call(
        np.ones(1).__reduce_ex__(5)[0], np.ones(2), np.dtype('u8'), (2,), 'C'
    ),
    'an array of another shape': strangers.Call(
        np.zeros(1).__reduce__()[0], np.ndarray, (1,), b'O'
    ),
    'a tensor of texts': strangers.Call(
        torch._utils._rebuild_device_tensor_from_numpy, np.array(['a']), torch.int64, 'cpu', False
    ),
    'a tensor that is not a tensor': strangers.Call(
        torch._tensor._rebuild_from_type_v2, HistoryBuffer.current, torch.Tensor, (), {'a': 1}
    ),
    'attributes of another kind': strangers.Call(
        torch._utils._rebuild_parameter_with_state, argparse.Namespace(), True, (), {'a': 1}
    ),
    'a factory': strangers.Call(collections.defaultdict, torch._utils._rebuild_tensor),
    'a storage that is called': strangers.Call(torch.FloatStorage, 3),
    'a statistic that is called': strangers.Call(
        strangers.Call(getattr, HistoryBuffer, 'current'), argparse.Namespace(_log_history=[1])
    ),
}


@pytest.mark.parametrize('name', MEMORY)
def test_no_call_reaches_memory_or_attributes(name):
    with pytest.raises(checkpoints.UntrustedCheckpointError, match='asks for '):
        loaded(MEMORY[name])


def test_arrays_of_a_file_are_copies():
    content = b'immutable!'
    rebuild = torch._utils._rebuild_device_tensor_from_numpy
    view = strangers.Call(np.ones(1).__reduce_ex__(5)[0], content, np.dtype('u1'), (10,), 'C')
    kept, array, tensor = loaded(
        [content, view, strangers.Call(rebuild, view, torch.uint8, 'cpu', False)], pickle_protocol=5
    )
    array[0] = tensor[0] = ord('I')
    assert kept == content


def pickled(*parts):
    """A pickle of protocol 2 from its opcodes, read by the module."""
    return safe_pickle.load(io.BytesIO(b'\x80\x02' + b''.join(parts) + b'.'))


LATIN1 = b'X\x06\x00\x00\x00latin1\x86R'
EMPTY = (
    b'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85'
    b'c_codecs\nencode\nX\x01\x00\x00\x00b' + LATIN1 + b'\x87R'
)
STATE = (
    b'(K\x01K\x02\x85cnumpy\ndtype\nX\x02\x00\x00\x00u1\x89\x88\x87R\x89'
    b'c_codecs\nencode\nX\x02\x00\x00\x00ab' + LATIN1 + b't'
)


def test_an_array_gets_its_state_once():
    """A second state would free memory that a view may still lie over."""
    assert pickled(EMPTY, STATE, b'b').tolist() == [97, 98]
    with pytest.raises(safe_pickle.ForbiddenGlobalError, match='the state of a numpy array twice'):
        pickled(EMPTY, STATE, b'b', STATE, b'b')


@pytest.mark.parametrize(
    ('parts', 'what'),
    [
        ((EMPTY, STATE, b'bK\x00K\x01s'), 'items of ndarray'),
        ((EMPTY, STATE, b'b(K\x00K\x01u'), 'items of ndarray'),
        ((b'ctorch\nFloatStorage\nK\x01a',), 'items of FloatStorage'),
        ((b'ctorch\nfloat32\n(K\x01e',), 'items of dtype'),
        ((b'ctorch\nFloatStorage\n}b',), 'a state of FloatStorage'),
        ((b'ctorch\nFloatStorage\n)\x81',), 'an instance of FloatStorage'),
        ((b'ccollections\nOrderedDict\n)}\x92',), 'an instance of OrderedDict'),
        ((b'(ctorch\nFloatStorage\no',), 'a call of FloatStorage'),
        ((b'(iposix\nsystem\n',), 'posix.system'),
        ((b'\x82\x01',), 'the extension 1'),
    ],
)
def test_items_state_and_instances_of_other_kinds(parts, what):
    with pytest.raises(safe_pickle.ForbiddenGlobalError, match=f'asks for {re.escape(what)}'):
        pickled(*parts)


def test_attributes_of_tensors_are_left_out():
    tensor = torch.ones(2)
    tensor.note = 'x'
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.note = 'x'
    for found in loaded([tensor, parameter]):
        assert not hasattr(found, 'note')
        assert found.detach().equal(torch.ones(2))


def resized(form, size, stride, offset=0):
    """A file with a tensor of four values, whose pickle says this of it."""

    class Forged:
        def __init__(self):
            self.storage = torch.arange(4.0)._typed_storage()

        def __reduce__(self):
            rebuild, hooks = torch._utils._rebuild_tensor_v2, collections.OrderedDict()
            return rebuild, (self.storage, offset, size, stride, False, hooks)

    return saved(Forged(), **FORMATS[form])


@pytest.mark.parametrize('form', FORMATS)
@pytest.mark.parametrize(
    ('size', 'stride', 'offset'),
    [((5,), (1,), 0), ((2, 2), (3, 1), 0), ((1,), (1,), 4), ((2,), (), 0), ((2,), (-1,), 3)],
)
def test_a_tensor_lies_within_its_storage(form, size, stride, offset):
    """torch would let the storage grow, and free the memory that others lie over."""
    assert checkpoints.load_data(resized(form, (2, 2), (2, 1)), 'a.pth').tolist() == [
        [0, 1],
        [2, 3],
    ]
    assert checkpoints.load_data(resized(form, (2,), (0,), 3), 'a.pth').tolist() == [3, 3]
    with pytest.raises(pickle.UnpicklingError, match='broken: it has a tensor of size'):
        checkpoints.load_data(resized(form, size, stride, offset), 'a.pth')


def rewritten(value, change):
    """The archive of a value with ``change(name, content)`` as the content of each of its files."""
    file = io.BytesIO()
    with zipfile.ZipFile(saved(value)) as before, zipfile.ZipFile(file, 'w') as after:
        for name in before.namelist():
            after.writestr(name, change(name, before.read(name)))
    file.seek(0)
    return file


def test_a_storage_is_as_large_as_its_record():
    tensor = torch.arange(4.0)
    same = rewritten(tensor, lambda name, content: content)
    assert checkpoints.load_data(same, 'a.pth').equal(tensor)
    short = rewritten(tensor, lambda name, content: content[: 4 if '/data/' in name else None])
    with pytest.raises(pickle.UnpicklingError, match='a storage of 16 bytes in a record of 4'):
        checkpoints.load_data(short, 'a.pth')


def test_bytes_are_not_swapped():
    other = {'little': b'big', 'big': b'little'}[sys.byteorder]
    file = rewritten(
        torch.ones(2), lambda name, content: other if name.endswith('byteorder') else content
    )
    with pytest.raises(checkpoints.UntrustedCheckpointError, match='asks for the byte order'):
        checkpoints.load_data(file, 'a.pth')


def test_the_text_that_resuming_would_run_is_left_out():
    checkpoint = {'meta': {'config': 'raise SystemExit', 'cfg': 'a = 1'}, 'state_dict': {}}
    assert loaded(checkpoint) == {'meta': {'cfg': 'a = 1'}, 'state_dict': {}}


def test_a_config_is_a_plain_dict():
    """Keys of a ConfigDict are attributes, and numpy asks any object for ``__array_interface__``."""
    found = loaded(ConfigDict(a=1, __array_interface__={'version': 3}))
    assert type(found) is dict
    assert np.asarray(found).dtype == object


def test_archives_of_files_are_refused(tmp_path):
    """torch would unpack its first format, hard links and modes included, before it reads a pickle."""
    victim = tmp_path / 'victim'
    victim.write_text('mine')
    victim.chmod(0o600)
    with tarfile.open(tmp_path / 'a.pth', 'w') as archive:
        link = tarfile.TarInfo('storages')
        link.type, link.linkname, link.mode = tarfile.LNKTYPE, str(victim), 0o777
        archive.addfile(link)
    with pytest.raises(checkpoints.UntrustedCheckpointError, match=r'asks for tarfile\.extract'):
        checkpoints.load_from_local(str(tmp_path / 'a.pth'))
    assert victim.stat().st_mode & 0o777 == 0o600


def test_program_of_torchscript_is_refused():
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Identity(), torch.ones(1)), file)
    file.seek(0)
    with pytest.raises(checkpoints.UntrustedCheckpointError, match=r'asks for torch\.jit\.load'):
        checkpoints.load_data(file, 'a.pth')


@pytest.mark.parametrize('content', [b'', b'no checkpoint', b'\x80\x02}q\x00(X', b'\x80\x02h\x05.'])
def test_broken_files_end_as_with_pythons_unpickler(content):
    with pytest.raises((pickle.UnpicklingError, EOFError)):
        checkpoints.load_data(io.BytesIO(content), 'a.pth')


@pytest.mark.parametrize('form', FORMATS)
def test_switch_for_those_who_trust_a_file(form, tmp_path, monkeypatch):
    marker = tmp_path / 'marker'
    file = saved(strangers.attack('open', marker), **FORMATS[form])
    for value in ('', '0', 'no'):
        monkeypatch.setenv('MMSEG_SEMI_TRUST_CHECKPOINTS', value)
        with pytest.raises(checkpoints.UntrustedCheckpointError):
            checkpoints.load_data(file, 'a.pth')
        file.seek(0)
    assert not marker.exists()
    monkeypatch.setenv('MMSEG_SEMI_TRUST_CHECKPOINTS', '1')
    checkpoints.load_data(file, 'a.pth')
    assert marker.exists()
