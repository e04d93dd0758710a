"""What the README promises, run as a reader would."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from PIL import Image

from mmseg_semi.datasets.shapes import CLASSES, write_shapes

ROOT = Path(__file__).resolve().parent.parent


def block_after(heading, language):
    """The first code block of a language below a heading of the README."""
    text = (ROOT / 'README.md').read_text()
    section = text[text.index(f'## {heading}\n') :]
    return re.search(rf'```{language}\n(.*?)```', section, re.DOTALL).group(1)


@pytest.mark.slow
def test_ten_lines_of_config_train_on_your_own_data(tmp_path):
    """The block as it stands; only the network's size is cut down, since this machine may have no GPU."""
    config = block_after('Your own data', 'python')
    assert len([line for line in config.splitlines() if line.strip()]) <= 12
    names = tuple(CLASSES)
    config = config.replace("('background', 'crack')", repr(names))
    config = config.replace('num_classes=2', f'num_classes={len(names)}')
    config = config.replace(
        '[[0, 0, 0], [255, 0, 0]]', repr([[i, i, i] for i in range(len(names))])
    )
    (tmp_path / 'cracks.py').write_text(config)
    root = tmp_path / 'data' / 'cracks'
    write_shapes(tmp_path / 'drawn', 8)
    for kind, folder, suffix in (
        ('img_dir', 'drawn/img_dir', '.jpg'),
        ('ann_dir', 'drawn/ann_dir', '.png'),
    ):
        for place, part in enumerate(('train', 'val', 'unlabeled')):
            if (kind, part) == ('ann_dir', 'unlabeled'):
                continue
            (root / kind / part).mkdir(parents=True)
            for file in sorted((tmp_path / folder).iterdir())[place * 2 : place * 2 + 2]:
                _convert(file, root / kind / part / (file.stem + suffix))
    small = [
        'model.segmentor.pretrained=None',
        'model.segmentor.backbone.base_channels=4',
        'model.segmentor.backbone.stem_channels=8',
        'model.segmentor.backbone.depth=18',
        'model.segmentor.backbone.norm_cfg.type=BN',
        'model.segmentor.decode_head.in_channels=32',
        'model.segmentor.decode_head.c1_in_channels=4',
        'model.segmentor.decode_head.channels=8',
        'model.segmentor.auxiliary_head.in_channels=16',
        'model.segmentor.auxiliary_head.channels=8',
        'model.data_preprocessor.size=(64,64)',
        'train_dataloader.dataset.labeled.pipeline.4.crop_size=(64,64)',
        'train_dataloader.dataset.labeled.pipeline.5.size=(64,64)',
        'train_dataloader.dataset.unlabeled.pipeline.4.crop_size=(64,64)',
        'train_dataloader.dataset.unlabeled.pipeline.5.size=(64,64)',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        'val_dataloader.num_workers=0',
        'val_dataloader.persistent_workers=False',
        'train_cfg.max_iters=2',
        'train_cfg.val_interval=2',
    ]
    command = [sys.executable, ROOT / 'tools/train.py', 'cracks.py', '--cfg-options', *small]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert '2 labeled and 2 unlabeled images' in run.stdout + run.stderr
    assert (tmp_path / 'work_dirs/cracks/iter_2.pth').exists()


def _convert(source, target):
    if target.suffix == source.suffix:
        target.write_bytes(source.read_bytes())
        return
    from PIL import Image

    Image.open(source).convert('RGB').save(target, quality=95)


def test_every_file_that_the_readme_links_to_exists():
    text = (ROOT / 'README.md').read_text()
    links = [link for link in re.findall(r'\]\(([^)#]+)', text) if '://' not in link]
    assert len(links) > 5
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing


def test_every_tool_that_the_readme_names_exists():
    text = (ROOT / 'README.md').read_text()
    tools = set(re.findall(r'tools/\S+?\.(?:py|sh)', text))
    assert {'tools/train.py', 'tools/dist_train.sh', 'tools/quickstart.py'} <= tools
    assert all((ROOT / tool).exists() for tool in tools)


def test_another_network_takes_the_place_of_the_base(tmp_path):
    """SegFormer, as the README says it: with `_delete_`, or it would be merged with DeepLabv3+."""
    network = """
network = dict(
    type='EncoderDecoder',
    backbone=dict(
        type='MixVisionTransformer', embed_dims=8, num_layers=[1, 1, 1, 1], num_heads=[1, 1, 1, 1]
    ),
    decode_head=dict(
        type='SegformerHead',
        in_channels=[8, 8, 8, 8],
        in_index=[0, 1, 2, 3],
        channels=8,
        num_classes=2,
        norm_cfg=dict(type='BN'),
        loss_decode=dict(type='CrossEntropyLoss'),
    ),
    test_cfg=dict(mode='whole'),
)
model = dict(segmentor=dict(_delete_=True, **network))
"""
    base = block_after('Your own data', 'python').splitlines()[0]
    (tmp_path / 'segformer.py').write_text(base + network)
    init_default_scope('mmseg')
    model = MODELS.build(Config.fromfile(tmp_path / 'segformer.py').model)
    assert type(model.student.backbone).__name__ == 'MixVisionTransformer'
    assert type(model.teacher.decode_head).__name__ == 'SegformerHead'
    output, views = model.forward_views(model.student, *torch.randn(2, 1, 3, 64, 64))
    assert output.logits.shape[:2] == views[0].shape[:2] == (1, 2)


@pytest.mark.slow
def test_the_command_for_one_image_finds_its_nuclei(tmp_path):
    """As it stands, in the clone; only the folder of the result is another one."""
    text = (ROOT / 'README.md').read_text()
    (line,) = re.findall(r'^python -c "from mmseg.*$', text, re.MULTILINE)
    _, *arguments = shlex.split(line.replace("out_dir='segmented'", f'out_dir={str(tmp_path)!r}'))
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
    (picture,) = (tmp_path / 'vis').iterdir()
    (prediction,) = (tmp_path / 'pred').iterdir()
    found = np.array(Image.open(prediction)) > 0
    truth = np.array(Image.open(ROOT / f'examples/nuclei/mask/{picture.stem}.png')) > 0
    assert (found & truth).sum() > 0.6 * (found | truth).sum()
