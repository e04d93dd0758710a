"""The converter of deep-stem ImageNet weights."""

import importlib.util
from pathlib import Path

import pytest
import torch
from mmseg.registry import MODELS
from processes import run_tool

import mmseg_semi  # noqa: F401  registers the backbone

TOOL = Path(__file__).resolve().parents[2] / 'tools/model_converters/deep_stem_resnet.py'
spec = importlib.util.spec_from_file_location('deep_stem_resnet', TOOL)
converter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(converter)


def _network():
    return MODELS.build(
        {
            'type': 'CeilPoolResNetV1c',
            'depth': 50,
            'stem_channels': 128,
            'base_channels': 4,
            'norm_cfg': {'type': 'BN'},
        }
    )


def _torchvision_names(weights):
    named = {'fc.weight': torch.zeros(3, 2), 'fc.bias': torch.zeros(3)}
    for key, value in weights.items():
        if key.startswith('stem.7.'):
            key = 'bn1.' + key[len('stem.7.') :]
        elif key.startswith('stem.'):
            key = 'conv1.' + key[len('stem.') :]
        named[key] = value
    return named


def test_files_that_are_there_stay(tmp_path):
    source = tmp_path / 'source.pth'
    torch.save(_torchvision_names(_network().state_dict()), source)
    before = source.read_bytes()
    for arguments, said in (
        ([source, source], f'{source} exists already. Name another file, or add --overwrite'),
        (
            [tmp_path / 'text.pth', tmp_path / 'new.pth'],
            'text.pth is not a checkpoint or only a part',
        ),
        (
            [tmp_path / 'list.pth', tmp_path / 'new.pth'],
            'list.pth has no weights. Give a state dict',
        ),
        ([source, source / 'new.pth'], 'new.pth cannot be written (File exists). Name another'),
    ):
        (tmp_path / 'text.pth').write_text('hello')
        torch.save([1, 2], tmp_path / 'list.pth')
        result = run_tool(TOOL, *arguments, cwd=tmp_path)
        assert result.code == 1
        assert said in result.last_line
    assert source.read_bytes() == before
    assert not (tmp_path / 'new.pth').exists()
    # Nor does a part of a file stay, where its place is taken by a folder.
    (tmp_path / 'folder').mkdir()
    result = run_tool(TOOL, source, tmp_path / 'folder', '--overwrite', cwd=tmp_path)
    assert 'folder cannot be written (Is a directory). Name another file.' in result.last_line
    assert not list(tmp_path.glob('*.part'))
    converter.main([str(source), str(source), '--overwrite'])
    _network().load_state_dict(torch.load(source, weights_only=True))


@pytest.mark.parametrize('wrapped', [False, True])
def test_weights_load_completely(tmp_path, wrapped):
    weights = _network().state_dict()
    source = _torchvision_names(weights)
    torch.save({'state_dict': source} if wrapped else source, tmp_path / 'source.pth')
    converter.main([str(tmp_path / 'source.pth'), str(tmp_path / 'new' / 'resnet.pth')])
    converted = torch.load(tmp_path / 'new' / 'resnet.pth', weights_only=True)
    _network().load_state_dict(converted)
    assert converted.keys() == weights.keys()
    assert all(torch.equal(converted[key], weights[key]) for key in weights)


def test_refuses_another_stem():
    source = _torchvision_names(_network().state_dict())
    source['conv1.0.weight'] = torch.zeros(32, 3, 3, 3)
    with pytest.raises(converter.ConversionError, match=r'\[32, 64, 128\] channels.*v1s'):
        converter.rename(source)
    # A plain 7x7 stem.
    with pytest.raises(converter.ConversionError, match=r'\[0, 0, 0\] channels'):
        converter.rename({'conv1.weight': torch.zeros(64, 3, 7, 7)})


def test_command_line_says_one_sentence(tmp_path):
    done = run_tool(TOOL, tmp_path / 'none.pth', tmp_path / 'new.pth', cwd=tmp_path)
    assert done.code == 1
    assert done.last_line.endswith(
        'none.pth does not exist. Give the downloaded checkpoint as SRC.'
    )
    assert 'Traceback' not in done.output
