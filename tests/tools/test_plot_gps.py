"""tools/plot_gps.py on what a training has written."""

import json

import pytest
from PIL import Image
from processes import TOOLS, run_tool
from tiny_run import dump, tiny_config

from mmseg_semi.visualization import read_curves


def write(folder, run, *records):
    folder = folder / run / 'vis_data'
    folder.mkdir(parents=True)
    # The last line was cut off by a kill.
    text = '\n'.join(map(json.dumps, records)) + '\n{"step": 9, "ramp_'
    (folder / 'scalars.json').write_text(text)


def test_resumed_run_replaces_what_it_repeats(tmp_path):
    write(tmp_path, '1', *({'step': step, 'ramp_up_weight': 0.1 * step} for step in (1, 2, 3)))
    write(tmp_path, '2', {'step': 4, 'ramp_up_weight': 1.0}, {'step': 3, 'ramp_up_weight': 0.9})
    curves = read_curves(tmp_path, 'ramp_up_weight', 'unknown')
    assert curves == {'ramp_up_weight': ([1, 2, 3, 4], [0.1, 0.2, 0.9, 1.0])}
    with pytest.raises(ValueError, match='has no record of unknown'):
        read_curves(tmp_path, 'unknown')


def test_training_to_picture(tmp_path):
    config = tiny_config(tmp_path / 'work', 'GPS', train_cfg__max_iters=9)
    result = run_tool(TOOLS / 'train.py', dump(config, tmp_path / 'config.py'), cwd=tmp_path)
    assert result.code == 0, result.output
    assert 'agreement_teacher_student1: ' in result.output
    result = run_tool(TOOLS / 'plot_gps.py', 'work', '--out', 'curves.png', cwd=tmp_path)
    assert result.code == 0, result.output
    for name in ('ramp_up_weight', 'labeled_ce_students', 'epoch_ce_teacher', 'agreement_students'):
        assert f'  {name}: ' in result.output
    with Image.open(tmp_path / 'curves.png') as picture:
        assert picture.size == (1050, 1080)
    steps, _ = read_curves(tmp_path / 'work', 'epoch_ce_teacher')['epoch_ce_teacher']
    assert steps == [4, 8]


def test_other_folder_is_told_in_one_sentence(tmp_path):
    result = run_tool(TOOLS / 'plot_gps.py', 'nothing', cwd=tmp_path)
    assert result.code == 1
    assert result.last_line.startswith('plot_gps: nothing has no record of ramp_up_weight')
