"""What docs/small_network.md says: its commands on small folders, and the teacher of every config on it."""

import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmseg.datasets import ADE20KDataset
from processes import ROOT, run_tool
from test_own_data import write_data
from tiny import tiny_segmentor

from mmseg_semi.engine.runner.stages import build_stages

PAGE = (ROOT / 'docs' / 'small_network.md').read_text(encoding='utf-8')
#: Of the student and of the run, so that they take seconds.
SMALL = {
    'model.backbone.init_cfg': None,
    'model.backbone.embed_dims': 4,
    'model.backbone.num_layers': [1, 1, 1, 1],
    'model.decode_head.in_channels': [4, 8, 20, 32],
    'model.decode_head.channels': 8,
    'train_cfg': {'max_iters': 2, 'val_interval': 2},
    'param_scheduler': [{'type': 'NonzeroPolyLR', 'power': 1.0, 'eta_min': 0.0, 'by_epoch': False}],
    'stages.label.scales': [1.0],
    'stages.label.num_workers': 0,
}
LOADER = {'num_workers': 0, 'persistent_workers': False}


def config_block(name):
    return re.search(rf'`{name}`[^`]*?\n\n```python\n(.*?)```', PAGE, re.DOTALL).group(1)


def first_config():
    return re.search(r'2\. Write `small\.py`.*?```python\n(.*?)```', PAGE, re.DOTALL).group(1)


def commands():
    """The commands of the first section, in their order."""
    section = PAGE.split('\n## ')[1]
    blocks = re.findall(r'```bash\n(.*?)```', section, re.DOTALL)
    return [line.split() for block in blocks for line in block.splitlines()]


def shrink(path):
    """Cut the networks and lengths of a config down, in the file itself."""
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(SMALL)
    teacher = tiny_segmentor(num_classes=2)
    teacher['data_preprocessor'].update(size=(518, 518))
    cfg.teacher.model = teacher
    cfg.teacher.train_cfg = {'max_iters': 2, 'val_interval': 2}
    for part in (cfg, cfg.teacher):
        for stage in ('train', 'val', 'test'):
            part[f'{stage}_dataloader'].update(LOADER)
    cfg.dump(path)


def _built(path):
    cfg = Config.fromfile(path)
    cfg.work_dir = 'work'
    return cfg


@pytest.mark.slow
def test_from_the_data_to_the_exported_network(tmp_path):
    """Every command in its order, on the config as it stands; only networks and lengths are made small."""
    write_data(tmp_path / 'drawn')
    for kind, place in (('img_dir', 'images'), ('ann_dir', 'masks')):
        (tmp_path / place).mkdir()
        for file in (tmp_path / 'drawn/data/cracks' / kind).rglob('*.*'):
            file.rename(tmp_path / place / file.name)
    config = tmp_path / 'small.py'
    config.write_text(first_config())
    teacher = build_stages(_built(config))
    assert teacher['teacher'].config().model.backbone.type == 'mmpretrain.VisionTransformer'
    assert teacher['teacher'].config().train_dataloader.dataset.data_root == 'data/cracks'
    listed = commands()
    assert [Path(words[1]).name for words in listed] == [
        'folders.py', 'check_data.py', 'train.py', 'test.py', 'export.py', 'test.py',
    ]  # fmt: skip
    for words in listed:
        if Path(words[1]).name == 'train.py':
            shrink(config)
        words = [word.replace('iter_20000', 'iter_2') for word in words]
        result = run_tool(ROOT / words[1], *words[2:], cwd=tmp_path)
        assert result.code == 0, result.output[-3000:]
        if Path(words[1]).name == 'export.py':
            assert 'they need no mmseg_semi' in result.output
    exported = Config.fromfile(tmp_path / 'exported' / 'config.py')
    assert exported.model.backbone.type == 'MixVisionTransformer'
    assert not {'teacher', 'stages', 'runner_type'} & exported.keys()
    masks = list((tmp_path / 'work_dirs/small/label').glob('*.png'))
    assert len(masks) == 2


@pytest.fixture
def pages_configs(tmp_path):
    (tmp_path / 'small.py').write_text(first_config())

    def write(name):
        (tmp_path / name).write_text(config_block(name))
        return build_stages(_built(tmp_path / name))

    return write


def test_the_small_network_alone(pages_configs, tmp_path):
    lines = re.search(r'`alone\.py` with the two lines `(.*?)` and `(.*?)`', PAGE).groups()
    (tmp_path / 'alone.py').write_text('\n'.join(lines))
    stage = build_stages(_built(tmp_path / 'alone.py'))['teacher']
    assert stage.config().model.backbone.type == 'MixVisionTransformer'
    assert stage.config().model.decode_head.num_classes == 2


def test_a_larger_teacher(pages_configs):
    stage = pages_configs('large.py')['teacher']
    stage.check()
    model = stage.config().model
    assert (model.backbone.arch, model.neck.channels) == ('large', 1024)
    assert model.decode_head.num_classes == 2


def test_a_teacher_of_other_classes(pages_configs):
    stages = pages_configs('ade20k.py')
    stages['teacher'].check()
    assert stages['teacher'].config().model.decode_head.num_classes == 150
    assert stages['teacher'].config().test_dataloader.dataset.type == 'ADE20KDataset'
    names = ADE20KDataset.METAINFO['classes']
    found = stages['teacher'].label_map.indices(names, 150, 'the teacher')
    assert [found.count(index) for index in (0, 1, 255)] == [3, 4, 143]


def test_a_teacher_that_is_trained_already(pages_configs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stages = pages_configs('given.py')
    with pytest.raises(
        FileNotFoundError, match=r"teacher_checkpoint='work_dirs/cracks/iter_20000.pth'"
    ):
        stages['teacher'].check()


def test_soft_labels(pages_configs):
    stages = pages_configs('soft.py')
    for stage in stages.values():
        stage.check()
    assert stages['student'].config().train_dataloader.dataset.pseudo_labeled.soft is True
