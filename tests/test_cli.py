"""What MMEngine says of a config in its own words is said in those of the package."""

import argparse
import os
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from torch.utils.data import DataLoader

from mmseg_semi import cli
from mmseg_semi.cli import merge_options, read_config

TOOLS = Path(__file__).parents[1] / 'tools'


@pytest.fixture
def config(tmp_path):
    """A config whose base is named as MMEngine does not read it, and one that inherits it."""
    (tmp_path / 'base.py').write_text("_base_ = 'mmseg_semi::_base_/runtime/default_runtime.py'\n")
    path = tmp_path / 'config.py'
    path.write_text("_base_ = './base.py'\n")
    return path


def test_plain_name_of_a_base_is_explained(config):
    with pytest.raises(ValueError, match=r"a plain 'mmseg_semi::\.\.\.' in _base_") as error:
        read_config(config)
    assert "_base_ = __import__('mmseg_semi').bases('mmseg_semi::...')" in str(error.value)
    assert str(config) in str(error.value)


def test_the_way_that_is_named_is_read(config):
    config.write_text(
        "_base_ = __import__('mmseg_semi').bases('mmseg_semi::_base_/runtime/default_runtime.py')\n"
    )
    assert read_config(config).default_scope == 'mmseg'


@pytest.mark.parametrize('tool', ['train', 'test', 'export', 'browse_dataset'])
def test_tools_say_so(tool, config, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(TOOLS))
    name = f'{tool}_tool_of_test_cli'
    import importlib.util

    spec = importlib.util.spec_from_file_location(name, TOOLS / f'{tool}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    checkpoint = config.with_name('checkpoint.pth')
    checkpoint.write_bytes(b'')
    given = {'test': [str(checkpoint)], 'export': [str(checkpoint), str(config.parent / 'out')]}
    monkeypatch.setattr(sys, 'argv', [tool, str(config), *given.get(tool, [])])
    with pytest.raises(SystemExit) as end:
        module.main()
    said = f'{end.value} {capsys.readouterr().err}'
    assert "bases('mmseg_semi::...')" in said


@pytest.mark.parametrize(('launcher', 'rank'), [('mpi', '3'), ('none', '1')])
def test_local_rank_of_openmpi(launcher, rank, config, monkeypatch):
    """MMEngine wraps a model for the GPU of LOCAL_RANK."""
    config.write_text('model = {}')
    monkeypatch.setenv('OMPI_COMM_WORLD_LOCAL_RANK', '3')
    monkeypatch.setenv('LOCAL_RANK', '')
    monkeypatch.delenv('LOCAL_RANK')
    options = {'config': str(config), 'launcher': launcher, 'local_rank': 1, 'cfg_options': None}
    cli.load_config(argparse.Namespace(**options), matching=False)
    assert os.environ['LOCAL_RANK'] == rank


SETTINGS = {'train_cfg': {'max_iters': 30}, 'optim_wrapper': {'optimizer': {'lr': 0.1}}, 'own': 1}


@pytest.mark.parametrize(
    ('key', 'near'),
    [
        ('optim_wraper.optimizer.lr', r'Did you mean optim_wrapper\.optimizer\.lr\?'),
        ('traincfg.max_iters', r'Did you mean train_cfg\.max_iters\?'),
        ('max_iters', r'Did you mean train_cfg\.max_iters\?'),
        ('optimizer.lr', r'Did you mean optim_wrapper\.optimizer\.lr\?'),
        ('zzz', r'Give a key of the config\.'),
    ],
)
def test_an_override_without_effect_is_refused(key, near):
    cfg = Config(SETTINGS)
    with pytest.raises(ValueError, match=rf'--cfg-options {key}=3 has no effect, .*{near}'):
        merge_options(cfg, {'own': 2, key: 3})
    assert cfg._cfg_dict.to_dict() == SETTINGS


def test_overrides_of_the_config_and_of_the_runner_are_merged(capsys):
    cfg = Config(SETTINGS)
    merge_options(cfg, None)
    merge_options(
        cfg, {'own': 2, 'train_cfg.new': 4, 'randomness.seed': 5, 'auto_scale_lr.enable': True}
    )
    assert (cfg.own, cfg.train_cfg.new, cfg.randomness.seed) == (2, 4, 5)
    assert cfg.auto_scale_lr.enable is True
    assert capsys.readouterr().err == (
        'warning: --cfg-options own=2 only changes a variable of the config. The settings that use own keep '
        'its old value. Change those settings.\n'
    )


@pytest.mark.parametrize('rank', [0, 1])
def test_traceback_is_in_the_log_or_printed_by_further_processes(
    rank, tmp_path, monkeypatch, capsys
):
    log = tmp_path / 'run.log'
    logger = MMLogger(f'test_cli_{rank}', log_file=str(log) if rank == 0 else None)
    monkeypatch.setattr(MMLogger, 'get_current_instance', classmethod(lambda cls: logger))
    monkeypatch.setattr(cli, 'get_rank', lambda: rank)
    with pytest.raises(SystemExit, match=r'^error: tau=2 is wrong\.$'), cli.one_sentence_errors():
        raise ValueError('tau=2 is wrong.')
    said = log.read_text() if rank == 0 else capsys.readouterr().err
    assert 'Traceback' in said
    assert "raise ValueError('tau=2 is wrong.')" in said
    if rank == 0:
        assert f'The traceback is in {log}.' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('options', 'name', 'message'),
    [
        (
            {'val_dataloader.num_worker': 2},
            'num_worker',
            'val_dataloader.num_worker=2: .* mean val_dataloader.num_workers',
        ),
        (
            {'model.backbone.depth': 3},
            'backbone',
            r'model.backbone=\{...\}: .* Did you mean model.segmentor.backbone',
        ),
        (
            {'hooks.0.every': 4},
            'every',
            'hooks.0.every=4: DataLoader has no setting every. Remove it, or correct',
        ),
        (
            {'train.extra': 1, 'val.extra': 2},
            'extra',
            'train.extra=1 or val.extra=2: DataLoader has no setting extra',
        ),
    ],
)
def test_unknown_setting_below_the_top_level_is_named(options, name, message):
    cfg = Config(
        dict(
            val_dataloader=dict(num_workers=1, dataset={}),
            model=dict(segmentor=dict(backbone=dict(depth=18))),
            hooks=[dict(type='A')],
        )
    )
    cfg.merge_from_dict(options)
    with pytest.raises(ValueError, match=message), cli.unknown_settings(cfg):
        DataLoader([], **{name: 1})


def test_other_type_errors_keep_their_kind():
    cfg = Config(dict(model=dict(depth=18)))
    for wrong in (lambda: DataLoader([], other=1), lambda: len(3)):
        with pytest.raises(TypeError), cli.unknown_settings(cfg):
            wrong()
