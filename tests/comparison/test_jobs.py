"""The runner of many trainings: their order, how many at a time, and what happens on an error."""

import pytest

from mmseg_semi.comparison import jobs


class Process:
    """Runs for some looks."""

    def __init__(self, looks):
        self.looks, self.ended = looks, []

    def terminate(self):
        self.ended.append('terminated')

    def wait(self):
        self.ended.append('waited for')


class Job:
    def __init__(self, name, looks, code=0):
        self.name, self.code, self.process = name, code, None
        self._looks = looks

    def start(self):
        self.process = Process(self._looks)

    def poll(self):
        self.process.looks -= 1
        return None if self.process.looks else self.code


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(jobs.time, 'sleep', lambda seconds: None)


def test_jobs_start_in_their_order_in_slots_of_their_own():
    given = [Job('a', 3), Job('b', 1, code=7), Job('c', 1), Job('d', 1)]
    told = []

    def start(job, slot):
        job.start()
        told.append(('start', job.name, slot))

    jobs.run_jobs(given, 2, start, lambda job, code: told.append(('end', job.name, code)))
    assert told == [
        ('start', 'a', 0),
        ('start', 'b', 1),
        ('end', 'b', 7),
        ('start', 'c', 1),
        ('end', 'c', 0),
        ('start', 'd', 1),
        ('end', 'a', 0),
        ('end', 'd', 0),
    ]
    assert all(job.process.ended == [] for job in given)


@pytest.mark.parametrize('fails', ['start', 'end'])
def test_an_error_leaves_nothing_running(fails):
    given = [Job('a', 5), Job('b', 1)]

    def start(job, slot):
        if fails == 'start' and job.name == 'b':
            raise OSError('no more processes')
        job.start()

    def end(job, code):
        raise OSError('no space left')

    with pytest.raises(OSError, match='no '):
        jobs.run_jobs(given, 2, start, end)
    assert given[0].process.ended == ['terminated', 'waited for']
    # One that has ended or was never started is left alone.
    assert given[1].process is None or given[1].process.ended == []


def test_a_job_prints_to_its_file_and_reads_nothing(tmp_path):
    file = tmp_path / 'output.txt'
    with file.open('w') as output:
        process = jobs.launch(['sh', '-c', 'cat; echo $A; echo wrong >&2'], output, {'A': 'said'})
    assert process.wait() == 0
    assert file.read_text() == 'said\nwrong\n'
