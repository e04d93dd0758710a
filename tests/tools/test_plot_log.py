"""tools/plot_log.py on what trainings have written."""

import json

import pytest
from PIL import Image
from processes import TOOLS, run_tool
from tiny_run import dump, tiny_config

from mmseg_semi.visualization import read_curves, save_curves


def write(folder, start, *records):
    """The log of one start of a training, whose last line was cut off by a kill."""
    folder = folder / start / 'vis_data'
    folder.mkdir(parents=True)
    text = '\n'.join(map(json.dumps, records)) + '\n{"step": 9, "lo'
    (folder / 'scalars.json').write_text(text)


def trained(step, loss):
    return {'iter': step, 'step': step, 'loss': loss}


def plot(folder, *arguments):
    return run_tool(TOOLS / 'plot_log.py', *arguments, cwd=folder)


def test_later_start_replaces_all_from_its_first_iteration(tmp_path):
    # The first start logged each 10 iterations and was killed at 50; the second resumed at 20 and logs each 20.
    write(tmp_path, '1', *(trained(step, step / 10) for step in (10, 20, 30, 40, 50)))
    write(tmp_path, '2', trained(40, -4.0), {'step': 45, 'mIoU': 7.0}, trained(60, -6.0))
    assert read_curves(tmp_path, 'loss', 'mIoU') == {
        'loss': ([10, 20, 30, 40, 60], [1.0, 2.0, 3.0, -4.0, -6.0]),
        'mIoU': ([45], [7.0]),
    }
    # A third start from the beginning.
    write(tmp_path, '3', trained(10, 8.0))
    assert read_curves(tmp_path, 'loss') == {'loss': ([10], [8.0])}


def test_validations_by_epoch_stand_at_their_iterations(tmp_path):
    first = [trained(50, 1.0), {'step': 1, 'mIoU': 10.0}, trained(100, 0.5)]
    write(tmp_path, '1', *first, {'step': 2, 'mIoU': 20.0})
    # Resumed after the second epoch; the third one ends before the next record of training.
    write(tmp_path, '2', {'step': 3, 'mIoU': 30.0}, trained(150, 0.25), {'step': 4, 'mIoU': 40.0})
    assert read_curves(tmp_path, '*o*') == {
        'loss': ([50, 100, 150], [1.0, 0.5, 0.25]),
        'mIoU': ([50, 100, 150], [10.0, 30.0, 40.0]),
    }


def test_keys_are_names_patterns_or_metrics_of_all_networks(tmp_path):
    record = {'step': 5, 'teacher/mIoU': 2.0, 'student/mIoU': 1.0, 'mIoU_of_all': 3.0, 'lr': 0.1}
    write(tmp_path, '1', record, {'step': 6, 'lr': 'unknown'})
    assert list(read_curves(tmp_path, 'mIoU')) == ['teacher/mIoU', 'student/mIoU']
    assert list(read_curves(tmp_path, 'lr', 'student/*')) == ['lr', 'student/mIoU']
    assert read_curves(tmp_path, '?r')['lr'] == ([5], [0.1])
    with pytest.raises(ValueError, match=r'no scalar loss .* Choose from lr, mIoU_of_all, student'):
        read_curves(tmp_path, 'lr', 'loss')


def test_two_runs_on_two_axes(tmp_path):
    for run, value in (('first', 1.0), ('second', 2.0)):
        records = trained(50, value), trained(100, value / 2), {'step': 100, 'mIoU': 10 * value}
        write(tmp_path / run / 'joint', '1', *records)
    result = plot(
        tmp_path, 'first', 'second', '--stage', 'joint', '--keys', 'loss', 'mIoU', '--keys', 'loss'
    )
    assert result.code == 0, result.output
    lines = result.output.splitlines()
    assert lines[lines.index('log.png shows, first and last:') + 1 :] == [
        '  first: loss: 1 (50), 0.5 (100)',
        '  second: loss: 2 (50), 1 (100)',
        '  first: mIoU: 10 (100), 10 (100)',
        '  second: mIoU: 20 (100), 20 (100)',
        '  first: 1 (50), 0.5 (100)',
        '  second: 2 (50), 1 (100)',
    ]
    with Image.open(tmp_path / 'log.png') as picture:
        assert picture.size == (1050, 720)
    result = plot(tmp_path, 'first', '--stage', 'joint')
    assert result.last_line == 'first: iter, loss, mIoU'
    result = plot(tmp_path, 'first', '--keys', 'loss')
    assert result.code == 1
    assert result.last_line.endswith('scalars.json. Choose one of its stages: joint.')


def test_second_axis_stands_on_the_right(tmp_path):
    curve = ([1, 2], [0.5, 0.25])
    save_curves(tmp_path / 'log.svg', [{'left': {'a': curve}, 'right': {'b': curve, 'c': curve}}])
    assert (tmp_path / 'log.svg').read_text(encoding='utf-8').count('<g id="axes_') == 2


def test_bad_input_is_said_in_one_sentence(tmp_path):
    write(tmp_path / 'run', '1', trained(50, 1.0))
    for arguments, message in {
        (
            'run',
            '--keys',
            'hardness',
        ): 'error: run has no scalar hardness in */vis_data/scalars.json. Choose from iter, loss.',
        (
            'nothing',
            '--keys',
            'loss',
        ): 'error: nothing has no record in */vis_data/scalars.json. Give the '
        'work directory of a training.',
    }.items():
        result = plot(tmp_path, *arguments)
        assert (result.code, result.last_line) == (1, message)
    (log,) = (tmp_path / 'run').rglob('scalars.json')
    log.write_text('\n' + log.read_text())  # an empty line says nothing
    assert plot(tmp_path, 'run', '--keys', 'loss').code == 0
    log.write_text(log.read_text().replace('{', '', 1))
    result = plot(tmp_path, 'run', '--keys', 'loss')
    assert result.last_line.endswith(
        'scalars.json line 2 is not a complete record. Remove the line.'
    )
    log.write_text(log.read_text().replace('\n', '\n{', 1))
    result = plot(tmp_path, 'run', '--keys', 'loss', '--out', 'log.xyz')
    assert result.code == 1
    assert result.last_line.startswith("error: Format 'xyz' is not supported")


def test_training_to_picture(tmp_path):
    config = tiny_config(tmp_path / 'work', 'GPS', train_cfg__max_iters=9)
    result = run_tool(TOOLS / 'train.py', dump(config, tmp_path / 'config.py'), cwd=tmp_path)
    assert result.code == 0, result.output
    assert 'agreement_teacher_student1: ' in result.output
    panels = [
        *('--keys', 'ramp_up_weight', '--keys', 'labeled_ce_*', 'epoch_ce_*'),
        *('--keys', 'agreement_*', '--keys', 'loss_fps', 'mIoU'),
    ]
    result = plot(tmp_path, 'work', *panels, '--out', 'curves.png')
    assert result.code == 0, result.output
    assert '  ramp_up_weight: ' in result.output
    for name in (
        *('labeled_ce_students', 'epoch_ce_teacher', 'agreement_students'),
        *('loss_fps', 'student1/mIoU', 'teacher/mIoU'),
    ):
        assert f'  {name}: ' in result.output
    with Image.open(tmp_path / 'curves.png') as picture:
        assert picture.size == (1050, 1440)
    steps, _ = read_curves(tmp_path / 'work', 'epoch_ce_teacher')['epoch_ce_teacher']
    assert steps == [4, 8]
