"""Folders that are begun, filled and finished; files that are whole or not there."""

import json
import os

import pytest

from mmseg_semi.self_training.output import (
    BEGUN,
    OutputFolder,
    make_folders,
    on_first_rank,
    whole_file,
    write_bytes,
    write_lines,
)

SETTINGS = {'sha256': 'abc', 'scales': (0.5, 1.0)}


def folder(path, **settings):
    return OutputFolder(
        str(path), 'summary.json', {**SETTINGS, **settings}, {'checkpoint': 'x.pth'}
    )


def listing(path):
    return {name: (path / name).read_bytes() for name in sorted(os.listdir(path))}


def test_a_folder_from_its_beginning_to_its_end(tmp_path):
    path = tmp_path / 'new' / 'out'
    assert folder(path).begin() is None
    begun = json.loads((path / BEGUN).read_text())
    assert begun == {'checkpoint': 'x.pth', 'settings': {'sha256': 'abc', 'scales': [0.5, 1.0]}}
    (path / 'mask.png').write_bytes(b'1')
    again = folder(path)
    assert again.begin() is None
    summary = again.finish({'images': 1})
    assert summary == {**begun, 'images': 1}
    assert sorted(os.listdir(path)) == ['mask.png', 'summary.json']
    assert folder(path).begin() == summary


def test_a_folder_without_a_result_takes_other_settings(tmp_path):
    """The first command ended before its first result, for example because of a wrong checkpoint."""
    folder(tmp_path).begin()
    assert folder(tmp_path, scales=[1.0]).begin() is None
    assert json.loads((tmp_path / BEGUN).read_text())['settings']['scales'] == [1.0]
    (tmp_path / 'mask.png').write_bytes(b'1')
    with pytest.raises(ValueError, match='was started with scales'):
        folder(tmp_path).begin()


def test_killed_between_the_last_two_steps(tmp_path):
    folder(tmp_path).begin()
    mark = (tmp_path / BEGUN).read_bytes()
    summary = folder(tmp_path).finish({})
    (tmp_path / BEGUN).write_bytes(mark)
    assert folder(tmp_path).begin() == summary


@pytest.mark.parametrize('finished', [False, True])
def test_other_settings_are_refused_and_nothing_is_touched(tmp_path, finished):
    folder(tmp_path).begin()
    (tmp_path / 'mask.png').write_bytes(b'1')
    if finished:
        folder(tmp_path).finish({})
    before = listing(tmp_path)
    message = r'was started with scales=\[0.5, 1.0\] and not with \[1.0\]. Name another folder'
    with pytest.raises(ValueError, match=message):
        folder(tmp_path, scales=[1.0]).begin()
    with pytest.raises(ValueError, match='started with flip=null and not with true'):
        folder(tmp_path, flip=True).begin()
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('photo.jpg', b'x', r'has other files, such as photo.jpg. Name an empty'),
        (BEGUN, b'[]', r'begun.json is not from this tool'),
        ('summary.json', b'{"a": 1}', r'summary.json is not from this tool'),
        ('summary.json', b'{"settings"', r'summary.json is not from this tool'),
    ],
)
def test_what_was_there_before_is_left_alone(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        folder(tmp_path).begin()
    assert str(tmp_path) in str(error.value)
    assert listing(tmp_path) == {name: content}


def test_a_beginning_that_was_killed_is_no_obstacle(tmp_path):
    (tmp_path / f'.partial.{BEGUN}').write_bytes(b'{"set')
    assert folder(tmp_path).begin() is None


def test_a_class_in_a_setting_is_taken_as_a_string(tmp_path):
    assert folder(tmp_path, kind=OutputFolder).begin() is None
    (tmp_path / 'mask.png').write_bytes(b'1')
    assert folder(tmp_path, kind=OutputFolder).begin() is None
    with pytest.raises(ValueError, match='started with kind='):
        folder(tmp_path, kind=dict).begin()


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / 'x.bin'
    write_bytes(str(path), b'before')

    def fail():
        with whole_file(str(path)) as aside, open(aside, 'wb') as file:
            file.write(b'half')
            raise OSError(28, 'No space left on device')

    with pytest.raises(OSError, match=r'x.bin cannot be written \(No space left'):
        fail()
    assert listing(tmp_path) == {'x.bin': b'before'}
    with whole_file(str(path)) as aside:
        assert aside.endswith('.bin')
        assert os.path.dirname(aside) == str(tmp_path)
        with open(aside, 'wb') as file:
            file.write(b'after')
        assert path.read_bytes() == b'before'
    assert listing(tmp_path) == {'x.bin': b'after'}


def test_lines(tmp_path):
    write_lines(str(tmp_path / 'x.txt'), ['a/b', 'ü'])
    assert (tmp_path / 'x.txt').read_bytes() == 'a/b\nü\n'.encode()
    write_lines(str(tmp_path / 'x.txt'), [])
    assert (tmp_path / 'x.txt').read_bytes() == b''


def test_a_path_that_cannot_be(tmp_path):
    (tmp_path / 'file').write_text('')
    for attempt in (
        lambda: folder(tmp_path / 'file' / 'out').begin(),
        lambda: folder(tmp_path / 'file').begin(),
        lambda: make_folders([str(tmp_path / 'file' / 'sub' / 'x.png')]),
    ):
        with pytest.raises(
            OSError, match=r'file.* cannot be written \(.*run the same command again'
        ):
            attempt()


def test_the_first_rank_speaks_for_all():
    assert on_first_rank(max, 1, 2) == 2
    with pytest.raises(ValueError, match='invalid literal'):
        on_first_rank(int, 'x')


def test_an_error_that_cannot_be_sent_is_raised_as_its_text():
    class Local(ValueError):  # a local class cannot be pickled
        pass

    def fail():
        raise Local('tau=2')

    with pytest.raises(RuntimeError, match=r'^Local: tau=2$'):
        on_first_rank(fail)
