"""Files that appear whole or not at all, and are never replaced unasked."""

import os
import threading

import numpy as np
import pytest

from mmseg_semi.datasets.preparation import (
    PreparationError,
    check_counts,
    lines,
    link_once,
    png,
    write_all,
    write_once,
)


def test_equal_pixels_are_an_equal_file(tmp_path):
    label = np.arange(6, dtype=np.uint8).reshape(2, 3)
    path = tmp_path / 'a.png'
    write_once(path, png(label, [[1, 2, 3]]))
    before = path.read_bytes()
    write_once(path, png(label))  # other bytes, the same indices
    assert path.read_bytes() == before
    label[0, 0] = 9
    with pytest.raises(PreparationError, match=r'a\.png exists with another content'):
        write_once(path, png(label))
    write_once(path, png(label), overwrite=True)
    assert path.read_bytes() == png(label)
    # A colour image is no label map, whatever it looks like.
    with pytest.raises(PreparationError):
        write_once(path, png(np.stack([label] * 3, axis=-1)))


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(OSError, match='No space'):
        write_once(tmp_path / 'sub' / 'a.txt', b'text')
    assert list((tmp_path / 'sub').iterdir()) == []


def test_what_is_there_but_no_file_is_never_replaced(tmp_path):
    (tmp_path / 'a.txt').mkdir()
    with pytest.raises(PreparationError, match='exists with another content'):
        write_once(tmp_path / 'a.txt', b'text')
    (tmp_path / 'dangling').symlink_to(tmp_path / 'nowhere')
    with pytest.raises(PreparationError, match='exists with another content'):
        write_once(tmp_path / 'dangling', b'text')
    with pytest.raises(PreparationError, match='exists with another content'):
        link_once(tmp_path / 'dangling', tmp_path / 'a.txt')


@pytest.mark.parametrize('nproc', [1, 3])
def test_the_first_failure_ends_the_run_and_keeps_what_is_written(tmp_path, nproc):
    started = []

    def job(number):
        def make():
            started.append(number)
            if number == 2:
                raise PreparationError('job 2 is broken: mend it.')
            return b'text'

        return tmp_path / f'{number}.txt', make

    with pytest.raises(PreparationError, match='job 2 is broken'):
        write_all([job(number) for number in range(200)], 'files', nproc=nproc)
    assert {'0.txt', '1.txt'} <= set(os.listdir(tmp_path))
    assert len(started) < 200
    assert not [name for name in os.listdir(tmp_path) if name.endswith('.part')]
    assert threading.active_count() < 20


def test_counts_and_lists(tmp_path):
    official = dict(train=3, val=2)
    check_counts(tmp_path, dict(train=3, val=2), official, partial=False)
    check_counts(tmp_path, dict(train=1, val=2), official, partial=True)
    with pytest.raises(
        PreparationError, match=r'train 1 \(not 3\); complete the copy, or give --partial'
    ):
        check_counts(tmp_path, dict(train=1, val=2), official, partial=False)
    assert lines(['a', 'b']) == b'a\nb\n'
    assert lines([]) == b''
