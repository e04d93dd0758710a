"""tools/draw_esl.py from its command line, on a training of a second."""

import numpy as np
import pytest
from PIL import Image
from processes import TOOLS, run_tool
from tiny_run import dump, tiny_config


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('draw')
    for name, method, parts in (('esl', 'ESL', 2), ('soft', 'ESL', 0), ('imas', 'IMAS', None)):
        config = tiny_config(folder / name, method, train_cfg__max_iters=3)
        if parts is not None:
            config.model.semi_train_cfg.update(num_parts=parts, anchor_threshold=0.1)
        result = run_tool(TOOLS / 'train.py', dump(config, folder / f'{name}.py'), cwd=folder)
        assert result.code == 0, result.output
    return folder


def draw(folder, name, *arguments):
    checkpoint = f'{name}/iter_3.pth'
    return run_tool(TOOLS / 'draw_esl.py', f'{name}.py', checkpoint, *arguments, cwd=folder)


@pytest.mark.slow
@pytest.mark.parametrize('embedding', ['tsne', 'pca'])
def test_pictures_of_labels_and_features(folder, embedding):
    where = f'drawn_{embedding}'
    result = draw(folder, 'esl', '--output-dir', where, '--num', '3', '--embedding', embedding)
    assert result.code == 0, result.output
    assert result.output.splitlines()[-2:] == [f'{where}/labels.png', f'{where}/features.png']
    labels = np.asarray(Image.open(folder / where / 'labels.png'))
    # Images of 32 x 32, five times enlarged: six columns, three rows with captions.
    assert labels.shape == (6 + 20 + 3 * (160 + 6 + 20), 6 + 6 * (160 + 6), 3)
    features = np.asarray(Image.open(folder / where / 'features.png').convert('RGB'))
    assert len(np.unique(features.reshape(-1, 3), axis=0)) > 20


def test_without_parts_there_is_one_picture(folder):
    result = draw(folder, 'soft', '--num', '1', '--output-dir', 'soft_drawn')
    assert result.code == 0, result.output
    labels = np.asarray(Image.open(folder / 'soft_drawn' / 'labels.png'))
    assert labels.shape[1] == 6 + 5 * (160 + 6)
    assert not (folder / 'soft_drawn' / 'features.png').exists()


def test_bad_input_is_said_in_one_sentence(folder):
    other = draw(folder, 'imas')
    assert other.code == 1
    assert other.last_line == (
        'draw_esl: imas.py trains a IMAS. Give a config and a checkpoint of ESL.'
    )
    missing = run_tool(TOOLS / 'draw_esl.py', 'esl.py', 'esl/iter_9.pth', cwd=folder)
    assert missing.code == 1
    assert 'draw_esl: The checkpoint esl/iter_9.pth does not exist' in missing.last_line
