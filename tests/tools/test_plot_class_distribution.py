"""tools/plot_class_distribution.py on what a training has written."""

import json
import re

import pytest
from PIL import Image
from processes import TOOLS, run_tool
from tiny_run import dump, tiny_config

from mmseg_semi.datasets.shapes import CLASSES
from mmseg_semi.visualization import read_distributions, save_distribution


def write(folder, *records):
    folder = folder / '20260101_000000' / 'vis_data'
    folder.mkdir(parents=True)
    lines = [
        {
            'step': step,
            'labeled_share/road': 0.75,
            'labeled_share/sky': 0.25,
            'pseudo_label_share/road': road,
            'pseudo_label_share/sky': sky,
        }
        for step, road, sky in records
    ]
    lines.insert(1, {'step': 50, 'loss': 1.0})
    (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)) + '\n')


def plot(folder, *arguments):
    return run_tool(TOOLS / 'plot_class_distribution.py', *arguments, cwd=folder)


def test_records_are_read(tmp_path):
    write(tmp_path, (100, 0.0, 0.0), (200, 0.9, 0.1))
    records = read_distributions(tmp_path)
    assert list(records) == [200]
    assert records[200]['labeled'] == {'road': 0.75, 'sky': 0.25}
    assert records[200]['pseudo_labels'] == {'road': 0.9, 'sky': 0.1}


def test_picture_of_several_trainings(tmp_path):
    write(tmp_path / 'first', (100, 0.5, 0.5), (200, 0.9, 0.1))
    write(tmp_path / 'second', (200, 1.0, 0.0))
    result = plot(tmp_path, 'first', 'second', '--out', 'bars.png')
    assert result.code == 0, result.output
    assert 'road: 75.00 (labels), 90.00 (first: pseudo-labels, iteration 200), 100.00 (sec' in (
        result.output
    )
    with Image.open(tmp_path / 'bars.png') as picture:
        assert picture.size == (750, 600)
    result = plot(tmp_path, 'first', '--iteration', '100')
    assert 'sky: 25.00 (labels), 50.00 (pseudo-labels, iteration 100)' in result.output
    assert (tmp_path / 'class_distribution.png').is_file()


def test_bad_input_is_said_in_one_sentence(tmp_path):
    write(tmp_path / 'first', (100, 0.5, 0.5))
    result = plot(tmp_path, 'first', '--iteration', '7')
    assert result.code == 1
    assert 'first has no record of iteration 7. Choose one of 100.' in result.last_line
    result = plot(tmp_path, 'nothing')
    assert result.code == 1
    assert 'nothing has no record of pseudo-labels in' in result.last_line
    with pytest.raises(ValueError, match='b has other classes than a'):
        save_distribution(tmp_path / 'x.png', {'a': {'road': 1.0}, 'b': {'sky': 1.0}})


def test_training_to_picture(tmp_path):
    config = tiny_config(
        tmp_path / 'work', 'DeS4', train_cfg__max_iters=7, train_cfg__val_interval=99
    )
    result = run_tool(TOOLS / 'train.py', dump(config, tmp_path / 'config.py'), cwd=tmp_path)
    assert result.code == 0, result.output
    assert 'Share of pseudo-labels (of labels) in percent' in result.output
    assert re.search(r'prototype_drift: \d', result.output)
    records = read_distributions(tmp_path / 'work')
    assert list(records) == [6, 7]
    for shares in records[6].values():
        assert list(shares) == list(CLASSES)
        assert sum(shares.values()) == pytest.approx(1)
    result = plot(tmp_path, 'work')
    assert result.code == 0, result.output
