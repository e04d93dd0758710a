"""The tools on checkpoints of another method: they score the network that predicts, or nothing."""

import json
import re

import pytest
import torch
import trained
from mmseg.registry import MODELS
from processes import TOOLS, run_tool
from tiny_run import dump, tiny_config, write_images

from mmseg_semi.datasets.shapes import CLASSES, PALETTE


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Configs of iMAS, CPS and the plain network, and checkpoints of CPS and GPS."""
    folder = tmp_path_factory.mktemp('other_checkpoints')
    images = write_images(folder / 'images')
    for name, method in (('imas', 'IMAS'), ('cps', 'CPS'), ('gps', 'GPS'), ('plain', None)):
        config = tiny_config(folder / 'work' / name, method, images=images)
        # A plain config as users have it: no code of this package but what the tools import.
        config.custom_hooks = [] if method is None else config.custom_hooks
        if method is None:
            config.test_cfg = {'type': 'TestLoop'}
        dump(config, folder / f'{name}.py')
        torch.manual_seed(len(name))
        model = MODELS.build(config.model)
        model.init_weights()
        meta = {'cfg': config.pretty_text, 'dataset_meta': {'classes': CLASSES, 'palette': PALETTE}}
        torch.save({'state_dict': model.state_dict(), 'meta': meta}, folder / f'{name}.pth')
    trained.write_pool(folder / 'pool', [(32, 32), (32, 32)])
    weights = {'conv1.weight': torch.ones(2), 'fc.weight': torch.ones(2)}
    torch.save({'state_dict': weights}, folder / 'encoder.pth')
    return folder


def scores(folder, config, checkpoint, *arguments):
    where = f'tested_{config}_{checkpoint}{len(arguments)}'
    result = run_tool(
        *(TOOLS / 'test.py', f'{config}.py', f'{checkpoint}.pth', '--work-dir', where, *arguments),
        cwd=folder,
    )
    assert result.code == 0, result.output
    (path,) = (folder / where).glob('*/*.json')
    return json.loads(path.read_text()), result.output


@pytest.mark.parametrize('arguments', [(), ('--tta',)])
def test_scores_are_those_of_the_network_that_predicts(folder, arguments):
    expected = scores(folder, 'cps', 'cps', *arguments)[0]['student1/mIoU']
    plain, output = scores(folder, 'plain', 'cps', *arguments)
    assert plain['mIoU'] == expected
    assert len(re.findall('loads the student1, which predicts', output)) == 1
    assert scores(folder, 'imas', 'cps', *arguments)[0]['teacher/mIoU'] == expected


@pytest.mark.parametrize(
    ('tool', 'arguments'),
    [
        ('test.py', ('{}.py', 'encoder.pth')),
        ('export.py', ('{}.py', 'encoder.pth', 'out')),
        ('pseudo_label.py', ('{}.py', 'encoder.pth', 'pool', 'labels')),
        ('select_reliable.py', ('{}.py', 'pool', 'x_{}', '--checkpoints', '{}.pth', 'encoder.pth')),
    ],
)
@pytest.mark.parametrize('config', ['imas', 'plain'])
def test_no_tool_uses_a_network_that_was_not_loaded(folder, config, tool, arguments):
    arguments = [argument.format(config) for argument in arguments]
    result = run_tool(TOOLS / tool, *arguments, cwd=folder)
    assert result.code != 0, result.output
    assert not re.search(r'mIoU: \d', result.output)
    assert re.search('does not fit|no network|neither a network', result.last_line), result.output


@pytest.mark.parametrize('config', ['imas', 'plain'])
def test_export_takes_the_network_that_predicts(folder, config):
    out = f'exported_{config}'
    result = run_tool(TOOLS / 'export.py', f'{config}.py', 'gps.pth', out, cwd=folder)
    assert result.code == 0, result.output
    assert 'has the networks student1, student2, teacher: the export loads the student1' in (
        result.output.replace(' of GPS', '')
    )
    # As data alone, whatever the types were in the training's checkpoint.
    exported = torch.load(folder / out / 'student1.pth', weights_only=True)
    state = torch.load(folder / 'gps.pth', weights_only=True)['state_dict']
    assert tuple(exported['meta']['dataset_meta']['classes']) == tuple(CLASSES)
    for key, value in exported['state_dict'].items():
        assert torch.equal(value, state[f'student1.{key}'])


def test_pseudo_labels_are_those_of_the_network_that_predicts(folder):
    for config, checkpoint in (('plain', 'cps'), ('cps', 'cps')):
        result = run_tool(
            *(TOOLS / 'pseudo_label.py', f'{config}.py', f'{checkpoint}.pth', 'pool', config),
            *('--num-workers', '0'),
            cwd=folder,
        )
        assert result.code == 0, result.output
    masks = sorted(path.relative_to(folder / 'plain') for path in (folder / 'plain').rglob('*.png'))
    assert len(masks) == 2
    for mask in masks:
        assert (folder / 'plain' / mask).read_bytes() == (folder / 'cps' / mask).read_bytes()
