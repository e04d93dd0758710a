"""The memory that a training keeps, counted without taking it."""

import importlib.util
from pathlib import Path

import pytest
import torch
from mmseg.registry import MODELS
from tiny_run import METHODS, dump, tiny_config

TOOL = Path(__file__).parents[2] / 'tools' / 'memory.py'
spec = importlib.util.spec_from_file_location('memory_tool', TOOL)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


@pytest.mark.parametrize('method', METHODS)
def test_counts_are_those_of_the_real_model(tmp_path, method):
    cfg = tiny_config(tmp_path, method)
    model = tool.build_on_meta(cfg)
    assert all(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    rows = tool.count(model, cfg)
    real = MODELS.build(cfg.model)
    for kind in ('parameters', 'buffers'):
        tensors = getattr(real, kind)()
        expected = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        found = (row for name, row in rows.items() if kind in name)
        assert sum(row.total() for row in found) == expected
    trained = sum(one.numel() * 4 for one in real.parameters() if one.requires_grad)
    assert rows['gradients'] == {'float32': trained}
    for name in real.networks:
        network = getattr(real, name)
        mine = sum(one.numel() * 4 for one in network.parameters())
        assert rows[f'parameters of {name}'] == {'float32': mine}


@pytest.mark.parametrize(('optimizer', 'copies'), [('SGD', 0), ('Momentum', 1), ('AdamW', 2)])
def test_state_of_optimizers(tmp_path, optimizer, copies):
    cfg = tiny_config(tmp_path, 'IMAS')
    momentum = {'momentum': 0.9} if optimizer == 'Momentum' else {}
    cfg.optim_wrapper.optimizer = {
        'type': optimizer.replace('Momentum', 'SGD'),
        'lr': 0.1,
        **momentum,
    }
    rows = tool.count(tool.build_on_meta(cfg), cfg)
    state, weights = rows.get('optimizer state', {}).get('float32', 0), rows['gradients']['float32']
    # AdamW also counts steps, a number for each parameter.
    assert copies * weights <= state < copies * weights + 1000


def test_prints_a_table(tmp_path, capsys):
    tool.main([str(dump(tiny_config(tmp_path, 'IMAS'), tmp_path / 'config.py'))])
    output = capsys.readouterr().out
    assert output.startswith('| GB | float32 |')
    assert '\n| parameters of teacher | 0.000 |' in output
    assert output.endswith('Activations are not counted.\n')


def test_one_sentence_errors(tmp_path):
    with pytest.raises(SystemExit, match='does not exist'):
        tool.main([str(tmp_path / 'missing.py')])
    cfg = tiny_config(tmp_path, 'IMAS')
    cfg.pop('optim_wrapper')
    with pytest.raises(SystemExit, match='has no optim_wrapper'):
        tool.main([str(dump(cfg, tmp_path / 'config.py'))])


def test_a_model_that_reads_values_is_refused(monkeypatch, tmp_path):
    def build(_):
        return torch.ones(1).item()

    monkeypatch.setattr(tool.MODELS, 'build', build)
    with pytest.raises(ValueError, match=r'^IMAS cannot be built without values \('):
        tool.build_on_meta(tiny_config(tmp_path, 'IMAS'))
