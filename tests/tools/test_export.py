"""tools/export.py from its command line; what it writes runs where this package cannot be imported."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from processes import ENVIRONMENT, STOCK_TOOLS, TOOLS, run_tool
from tiny_run import NUMBERS, SIZE, STARTS, dump, tiny_config, write_images

from mmseg_semi.datasets.shapes import write_shapes

# Stands for a machine on which mmseg_semi was never installed: every attempt to import it fails.
WITHOUT_PACKAGE = """
import json, runpy, sys


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == 'mmseg_semi':
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, Refuse())
from mmseg.apis import MMSegInferencer

test, image, *exports = sys.argv[1:]
found = {}
for export in exports:
    folder, weights, data_root = export.split(',')
    inferencer = MMSegInferencer(f'{folder}/config.py', f'{folder}/{weights}', device='cpu')
    prediction = inferencer(image, return_datasamples=True)
    found[folder] = prediction.pred_sem_seg.data[0].tolist()
    options = ['--cfg-options', f'test_dataloader.dataset.data_root={data_root}']
    where = ['--work-dir', f'{folder}/tested']
    sys.argv = [test, f'{folder}/config.py', f'{folder}/{weights}', *where, *options]
    runpy.run_path(test, run_name='__main__')
assert not any(name.startswith('mmseg_semi') for name in sys.modules)
json.dump(found, open('predictions.json', 'w'))
"""


STOCK_HEAD = {'model__semi_train_cfg__segmentation_head': None}


def logged(work_dir):
    (path,) = work_dir.glob('*/*.json')
    return json.loads(path.read_text())


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Trainings of 2 iterations: iMAS and ESL on synthetic images, supervised on files; and both as files."""
    folder = tmp_path_factory.mktemp('export')
    images = write_images(folder / 'images')
    write_shapes(folder / 'drawn', NUMBERS['val'], image_size=SIZE, start=STARTS['val'])
    short = {'train_cfg__max_iters': 2, 'train_cfg__val_interval': 9}
    trainings = {
        'imas': tiny_config(folder / 'imas', **short),
        'plain': tiny_config(folder / 'plain', None, images=images, **short),
        'esl': tiny_config(folder / 'esl', 'ESL', **short, **STOCK_HEAD),
    }
    for name, config in trainings.items():
        result = run_tool(
            TOOLS / 'train.py', dump(config, folder / f'{name}_config.py'), cwd=folder
        )
        assert result.code == 0, result.output
    return folder


def export(folder, name, *arguments):
    checkpoint = f'{name}/iter_2.pth'
    return run_tool(TOOLS / 'export.py', f'{name}_config.py', checkpoint, *arguments, cwd=folder)


@pytest.mark.slow
def test_exports_predict_and_score_alike_without_the_package(folder):
    for name in ('teacher', 'student', 'model', 'esl'):
        training = {'model': 'plain', 'esl': 'esl'}.get(name, 'imas')
        network = () if name != 'student' else ('--network', 'student')
        result = export(folder, training, f'exported_{name}', *network)
        assert result.code == 0, result.output
        assert 'they need no mmseg_semi' in result.output
    exports = [
        'exported_teacher,teacher.pth,drawn',
        'exported_student,student.pth,drawn',
        'exported_model,model.pth,images',
        'exported_esl,teacher.pth,drawn',
    ]
    script = folder / 'without_package.py'
    script.write_text(WITHOUT_PACKAGE)
    image = next((folder / 'drawn' / 'img_dir').iterdir())
    run = subprocess.run(
        [sys.executable, script, STOCK_TOOLS / 'test.py', image, *exports],
        cwd=folder,
        env=ENVIRONMENT | {'PYTHONPATH': '', 'PATH': ''},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    expected = {}
    for training in ('imas', 'plain', 'esl'):
        where = folder / f'tested_{training}'
        result = run_tool(
            *(TOOLS / 'test.py', f'{training}_config.py', f'{training}/iter_2.pth'),
            *('--work-dir', where),
            cwd=folder,
        )
        assert result.code == 0, result.output
        expected[training] = logged(where)
    for name in ('teacher', 'student'):
        got = logged(folder / f'exported_{name}' / 'tested')
        assert got['mIoU'] == expected['imas'][f'{name}/mIoU']
        assert got['aAcc'] == expected['imas'][f'{name}/aAcc']
    assert logged(folder / 'exported_model' / 'tested')['mIoU'] == expected['plain']['mIoU']
    assert logged(folder / 'exported_esl' / 'tested')['mIoU'] == expected['esl']['teacher/mIoU']
    predictions = json.loads((folder / 'predictions.json').read_text())
    assert len(predictions['exported_teacher']) == SIZE[0]
    assert len(torch.tensor(predictions['exported_teacher']).unique()) > 1


def test_an_earlier_export_is_not_overwritten_unasked(folder):
    assert export(folder, 'imas', 'again').code == 0
    before = (folder / 'again' / 'teacher.pth').stat().st_mtime_ns
    refused = export(folder, 'imas', 'again')
    assert refused.code == 1
    assert refused.last_line == (
        'export: again/config.py exists already. Add --overwrite to replace it.'
    )
    assert (folder / 'again' / 'teacher.pth').stat().st_mtime_ns == before
    assert export(folder, 'imas', 'again', '--overwrite').code == 0
    assert (folder / 'again' / 'teacher.pth').stat().st_mtime_ns > before


def test_what_is_read_is_not_replaced(folder):
    """The config and the checkpoint have the names of an export."""
    mine = folder / 'mine'
    mine.mkdir()
    shutil.copy(folder / 'imas_config.py', mine / 'config.py')
    shutil.copy(folder / 'imas' / 'iter_2.pth', mine / 'teacher.pth')
    before = {path: path.read_bytes() for path in mine.iterdir()}
    refused = run_tool(
        *(TOOLS / 'export.py', 'mine/config.py', 'mine/teacher.pth', 'mine', '--overwrite'),
        cwd=folder,
    )
    assert refused.last_line == (
        'export: mine/config.py is mine/config.py, which the export reads. Give another folder as OUT_DIR.'
    )
    assert {path: path.read_bytes() for path in mine.iterdir()} == before


def test_export_of_the_network_that_the_config_predicts_with(folder):
    options = ('--cfg-options', 'model.semi_test_cfg.predict_on=student')
    assert export(folder, 'imas', 'by_config', *options).code == 0
    weights = torch.load(folder / 'by_config' / 'student.pth', weights_only=False)
    trained = torch.load(folder / 'imas' / 'iter_2.pth', weights_only=False)['state_dict']
    assert weights['state_dict']
    for key, value in weights['state_dict'].items():
        assert torch.equal(value, trained[f'student.{key}'])
    assert weights['meta']['iter'] == 2
    assert weights['meta']['dataset_meta']['classes'][1] == 'disk'
    assert weights['meta'].keys() == {'dataset_meta', 'epoch', 'iter', 'seed'}


def test_network_with_a_module_of_the_package_says_so(folder):
    options = ('--cfg-options', 'model.segmentor.backbone.type=CeilPoolResNetV1c')
    result = export(folder, 'imas', 'own', *options)
    assert result.code == 0, result.output
    assert 'the config has CeilPoolResNetV1c, so that they import mmseg_semi' in result.output


@pytest.mark.parametrize(
    ('name', 'arguments', 'sentence'),
    [
        ('imas', ('x', '--network', 'pupil'), "the checkpoint has no network 'pupil', .*"),
        (
            'plain',
            ('x', '--network', 'teacher'),
            '--network teacher does not work with plain_config.py',
        ),
        ('none', ('x',), 'none_config.py does not exist. Give the path of a file.'),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(folder, name, arguments, sentence):
    result = export(folder, name, *arguments)
    assert result.code == 1
    assert re.match(f'export: {sentence}', result.last_line)
    assert 'Traceback' not in result.output
    assert not (folder / 'x').exists()


def test_checkpoint_of_a_plain_training_is_refused_for_a_method(folder):
    arguments = ('imas_config.py', 'plain/iter_2.pth', 'x')
    result = run_tool(TOOLS / 'export.py', *arguments, cwd=folder)
    assert result.code == 1
    assert "the checkpoint has no network 'teacher'" in result.last_line
    assert 'Traceback' not in result.output


@pytest.mark.parametrize('kind', ['text', 'truncated', 'weights'])
def test_file_that_is_no_checkpoint(folder, kind):
    path = folder / f'{kind}.pth'
    trained = (folder / 'imas' / 'iter_2.pth').read_bytes()
    path.write_bytes({'text': b'no checkpoint', 'truncated': trained[:5000], 'weights': b''}[kind])
    if kind == 'weights':
        torch.save({'backbone.weight': torch.ones(1)}, path)
    result = run_tool(TOOLS / 'export.py', 'imas_config.py', path.name, 'x', cwd=folder)
    assert result.code == 1
    expected = 'has no state_dict' if kind == 'weights' else 'is not a checkpoint or only a part'
    assert result.last_line.startswith(f'export: {kind}.pth {expected}')
    assert 'Traceback' not in result.output


@pytest.mark.parametrize(
    ('method', 'head'), [('ESL', 'DeepClassifierHead'), ('DeS4', 'PrototypeHead')]
)
def test_method_with_a_head_of_its_own_says_so(folder, method, head):
    name = f'own_{method}'
    config = tiny_config(folder / name, method, train_cfg__max_iters=1)
    dump(config, folder / f'{name}_config.py')
    result = run_tool(TOOLS / 'train.py', f'{name}_config.py', cwd=folder)
    assert result.code == 0, result.output
    result = run_tool(
        *(TOOLS / 'export.py', f'{name}_config.py', f'{name}/iter_1.pth', f'exported_{name}'),
        cwd=folder,
    )
    assert result.code == 0, result.output
    assert f'the config has {head}, so that they import mmseg_semi' in result.output
    tested = run_tool(
        *(STOCK_TOOLS / 'test.py', f'exported_{name}/config.py', f'exported_{name}/teacher.pth'),
        *('--cfg-options', 'test_dataloader.dataset.data_root=drawn'),
        cwd=folder,
    )
    assert tested.code == 0, tested.output
    own = run_tool(
        *(TOOLS / 'test.py', f'{name}_config.py', f'{name}/iter_1.pth', '--work-dir'),
        f'tested_{name}',
        cwd=folder,
    )
    assert own.code == 0, own.output
    scores = (
        re.findall(r'teacher/mIoU: (\S+)', own.output),
        re.findall(r' mIoU: (\S+)', tested.output),
    )
    assert scores[0][-1] == scores[1][-1]
