"""What our tools make of a config's name: the work folder of a partition, and old names."""

import argparse
from pathlib import Path

import pytest
from mmengine.config import Config

from mmseg_semi.cli import load_config
from mmseg_semi.compat import bases, renamed_config
from mmseg_semi.engine.runner.stages import build_stages

ROOT = Path(__file__).resolve().parents[2]
LEAD = 'imas/imas_deeplabv3plus_r101-d16_4xb8-80e_voc12-513x513.py'
OLD = 'imas/imas_deeplabv3plus_r101-d16_4xb8-80e_voc12-classic-183-513x513.py'


def arguments(config, **options):
    return argparse.Namespace(
        config=str(config),
        cfg_options=options.pop('cfg_options', None),
        launcher='none',
        local_rank=0,
        work_dir=options.pop('work_dir', None),
    )


def test_each_partition_has_a_work_folder():
    stem = Path(LEAD).stem
    cfg = load_config(arguments(ROOT / 'configs' / LEAD))
    assert cfg.work_dir == f'work_dirs/{stem}_classic-1464'
    options = {'train_dataloader.dataset.partition': 'blender-cps/662'}
    cfg = load_config(arguments(ROOT / 'configs' / LEAD, cfg_options=options))
    assert cfg.work_dir == f'work_dirs/{stem}_blender-cps-662'
    assert load_config(arguments(ROOT / 'configs' / LEAD, work_dir='here')).work_dir == 'here'
    (own,) = (ROOT / 'configs/imas').glob('imas_deeplabv3plus_r50-d8*_own-*')
    assert load_config(arguments(own)).work_dir == f'work_dirs/{own.stem}'


def test_an_old_name_is_answered_with_the_new_command():
    option = 'train_dataloader.dataset.partition=classic/183'
    assert renamed_config(f'somewhere/configs/{OLD}') == (LEAD, option)
    assert renamed_config('configs/imas/mine.py') is None
    with pytest.raises(FileNotFoundError) as error:
        load_config(arguments(f'configs/{OLD}'))
    assert f'was renamed. Give configs/{LEAD} --cfg-options {option}' in str(error.value)
    for ask in (bases, lambda name: load_config(arguments(name))):
        with pytest.raises(FileNotFoundError) as error:
            ask(f'mmseg_semi::{OLD}')
        assert f'was renamed to mmseg_semi::{LEAD}, with {option}.' in str(error.value)
    # The lead's partition needs no option.
    old = OLD.replace('classic-183', 'classic-1464')
    with pytest.raises(FileNotFoundError, match=r'513x513\.py instead'):
        load_config(arguments(f'configs/{old}'))


def test_the_teacher_of_gps_is_trained_for_as_long_as_all_three_networks():
    (file,) = (ROOT / 'configs/gps').glob('gps_deeplabv3plus_r50-d16*_voc12-*')
    cfg = Config.fromfile(file)
    cfg.work_dir = 'work'
    cfg.train_dataloader.dataset.partition = 'blender-cps/662'
    teacher = build_stages(cfg)['teacher'].config()
    dataset = teacher.train_dataloader.dataset
    assert teacher.train_cfg == cfg.train_cfg
    assert dataset.partition == 'blender-cps/662'
    assert dataset.counted.ann_file == 'splits/{partition}/unlabeled.txt'
    assert 'pipeline' not in dataset.counted
    # 2 labeled images of a process, as many as the method learns unlabeled ones.
    assert teacher.train_dataloader.batch_size == 2
