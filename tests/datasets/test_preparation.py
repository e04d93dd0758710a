"""Files that appear whole or not at all, and are never replaced unasked."""

import argparse
import io
import os
import sys
import threading

import numpy as np
import pytest

from mmseg_semi.datasets.preparation import (
    PreparationError,
    check_counts,
    lines,
    link_once,
    png,
    run_converter,
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
    # A color image is not a label map, whatever it looks like.
    with pytest.raises(PreparationError):
        write_once(path, png(np.stack([label] * 3, axis=-1)))


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(OSError, match='No space'):
        write_once(tmp_path / 'sub' / 'a.txt', b'text')
    assert list((tmp_path / 'sub').iterdir()) == []


def test_what_a_killed_run_left_half_written_is_gone_after_the_next(tmp_path):
    (tmp_path / 'a.txt.part').write_bytes(b'te')
    write_once(tmp_path / 'a.txt', b'text')
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [('a.txt', b'text')]


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
                raise PreparationError('job 2 is broken. Fix it.')
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
        PreparationError, match=r'train 1 \(not 3\). Complete the copy, or give --partial'
    ):
        check_counts(tmp_path, dict(train=1, val=2), official, partial=False)
    assert lines(['a', 'b']) == b'a\nb\n'
    assert lines([]) == b''


def test_a_half_written_file_that_is_a_link_is_not_written_through(tmp_path):
    (tmp_path / 'mine.txt').write_bytes(b'mine')
    (tmp_path / 'a.txt.part').symlink_to(tmp_path / 'mine.txt')
    write_once(tmp_path / 'a.txt', b'text')
    assert (tmp_path / 'mine.txt').read_bytes() == b'mine'
    assert (tmp_path / 'a.txt').read_bytes() == b'text'
    assert not (tmp_path / 'a.txt').is_symlink()


@pytest.mark.parametrize(
    ('error', 'said'),
    [
        (
            OSError(28, 'No space left', '/a/b'),
            'tool: /a/b: No space left. Free some space, then run',
        ),
        (
            PermissionError(13, 'Permission denied', '/a/b'),
            '/a/b: Permission denied. Get permission',
        ),
        (OSError(5, 'Input/output error', '/a/b'), '/a/b: Input/output error. Check the disk'),
        (OSError('a sentence of\nits own.'), 'tool: a sentence of its own.'),
        (ValueError('from deep inside.'), 'tool: from deep inside.'),
    ],
)
def test_errors_of_the_disk_name_the_path_and_a_remedy(error, said):
    def convert():
        raise error

    parser = argparse.ArgumentParser('tool')
    with pytest.raises(SystemExit) as caught:
        run_converter(parser, argparse.Namespace(nproc=1), convert)
    assert said in str(caught.value)
    assert str(caught.value).endswith('.')
    assert '\n' not in str(caught.value)


def test_names_that_are_no_text_are_printed(monkeypatch):
    pipe = io.TextIOWrapper(io.BytesIO(), encoding='utf-8')
    monkeypatch.setattr(sys, 'stdout', pipe)
    run_converter(
        argparse.ArgumentParser('tool'), argparse.Namespace(nproc=1), lambda: 'a/\udcff: 3 train'
    )
    pipe.flush()
    assert pipe.buffer.getvalue() == b'a/\\udcff: 3 train\n'
