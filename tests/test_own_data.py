"""What docs/your_own_data.md says: its commands on small folders, and every config on it trained."""

import re
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from PIL import Image
from processes import ROOT, TOOLS, run_tool

from mmseg_semi.datasets.walk import loader_configs

PAGE = (ROOT / 'docs' / 'your_own_data.md').read_text()
SIZE = 32
#: Of the network and the training, so that they take a second.
SMALL = {
    'model.segmentor.pretrained': None,
    'model.segmentor.backbone.base_channels': 4,
    'model.segmentor.backbone.stem_channels': 8,
    'model.segmentor.backbone.depth': 18,
    'model.segmentor.backbone.norm_cfg.type': 'BN',
    'model.segmentor.decode_head.in_channels': 32,
    'model.segmentor.decode_head.c1_in_channels': 4,
    'model.segmentor.decode_head.c1_channels': 4,
    'model.segmentor.decode_head.channels': 8,
    'model.segmentor.auxiliary_head.in_channels': 16,
    'model.segmentor.auxiliary_head.channels': 8,
    'model.data_preprocessor.size': (SIZE, SIZE),
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'train_cfg.max_iters': 2,
    'train_cfg.val_interval': 2,
    'default_hooks.logger.interval': 1,
}


def config_block(name):
    """The config that the page shows under a file name."""
    return re.search(rf'`{name}`:\n\n```python\n(.*?)```', PAGE, re.DOTALL).group(1)


def commands(heading):
    """The commands below a heading of the page, without their comments."""
    section = PAGE[PAGE.index(f'## {heading}\n') :]
    section = section[: section.index('\n## ', 1)] if '\n## ' in section[1:] else section
    blocks = re.findall(r'```bash\n(.*?)```', section, re.DOTALL)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]


def write_config(folder, name='cracks.py'):
    """The page's config and what it stands on."""
    text = config_block(name) if name != 'cracks.py' else first_config()
    (folder / name).write_text(text)
    base = re.search(r"_base_ = '\./(\w+\.py)'", text)
    if base and not (folder / base[1]).exists():
        write_config(folder, base[1])


def first_config():
    return re.search(r'Write `cracks\.py`:\n\n```python\n(.*?)```', PAGE, re.DOTALL).group(1)


def small(folder, name, options=SMALL):
    """The same training, with everything that makes it slow cut down; returns the file's name."""
    write_config(folder, name)
    cfg = Config.fromfile(folder / name)
    _shrink(cfg._cfg_dict)
    for stage in ('val', 'test'):
        for _, loader in loader_configs(cfg, stage):
            loader.update(num_workers=0, persistent_workers=False)
    cfg.merge_from_dict(options)
    cfg.dump(folder / f'small_{name}')
    return f'small_{name}'


def _shrink(node):
    """512 becomes 32 wherever a size of crops is set."""
    if isinstance(node, dict):
        for key, value in node.items():
            crop = key in ('crop_size', 'stride') or (key == 'size' and node.get('type') == 'Pad')
            if crop and isinstance(value, (list, tuple)):
                node[key] = tuple(n * SIZE // 512 for n in value)
            elif key == 'scale' and isinstance(value, (list, tuple)):
                node[key] = (2 * SIZE, SIZE)
            else:
                _shrink(value)
    elif isinstance(node, (list, tuple)):
        for item in node:
            _shrink(item)


def write_data(folder, channels=3, first=0, suffix='.jpg', size=40):
    """Two labeled, two unlabeled and two validation images in the page's layout."""
    root = folder / 'data' / 'cracks'
    generator = np.random.default_rng(0)
    for part in ('train', 'val', 'unlabeled'):
        for i in range(2):
            shape = (size, size + 8, channels) if channels > 1 else (size, size + 8)
            image = generator.integers(0, 256, shape, dtype=np.uint8)
            mask = np.full((size, size + 8), first, np.uint8)
            mask[i * 8 : i * 8 + 16] = first + 1
            mask[-1] = 255
            for kind, array, ending in (('img_dir', image, suffix), ('ann_dir', mask, '.png')):
                if (kind, part) != ('ann_dir', 'unlabeled'):
                    path = root / kind / part / f'{part}{i}{ending}'
                    path.parent.mkdir(parents=True, exist_ok=True)
                    assert cv2.imwrite(str(path), array)


def train(folder, name, options=SMALL):
    result = run_tool(TOOLS / 'train.py', small(folder, name, options), cwd=folder)
    assert result.code == 0, result.output[-3000:]
    assert '2 labeled and 2 unlabeled images' in result.output
    assert (folder / 'work_dirs' / f'small_{Path(name).stem}' / 'iter_2.pth').is_file()
    assert len(re.findall(r'teacher/mIoU: +\d', result.output)) == 1
    return result.output


def test_from_two_folders_to_a_tested_training(tmp_path):
    """Every command of the first section, in its order; only the training is made short."""
    write_data(tmp_path / 'drawn')
    for kind, place in (('img_dir', 'images'), ('ann_dir', 'masks')):
        (tmp_path / place).mkdir()
        for file in (tmp_path / 'drawn/data/cracks' / kind).rglob('*.*'):
            file.rename(tmp_path / place / file.name)
    listed = commands('From two folders to a training')
    assert [Path(words[1]).name for words in listed] == [
        'folders.py', 'check_data.py', 'browse_dataset.py', 'train.py', 'test.py',
    ]  # fmt: skip
    assert len([line for line in first_config().splitlines() if line.strip()]) <= 12
    write_config(tmp_path)
    printed = []
    for words in listed:
        words = [word.replace('iter_20000', 'iter_2') for word in words]
        if Path(words[1]).name == 'browse_dataset.py':
            small(tmp_path, 'cracks.py')  # the pages before it run on the config as it stands
            (tmp_path / 'small_cracks.py').rename(tmp_path / 'cracks.py')
        result = run_tool(ROOT / words[1], *words[2:], cwd=tmp_path)
        assert result.code == 0, result.output[-3000:]
        printed.append(result.output)
    assert '3 train, 1 val, 2 unlabeled' in printed[0]
    assert "metainfo=dict(classes=('background', 'crack'), palette=" in printed[0]
    assert (tmp_path / 'panels/samples_0000.png').is_file()
    assert 'teacher/mIoU' in printed[4]
    assert 'student/mIoU' in printed[4]


@pytest.mark.parametrize('name', ['cracks.py', 'half.py', 'rare.py', 'large.py'])
def test_trains(tmp_path, name):
    write_data(tmp_path)
    train(tmp_path, name)


def test_supervised_baseline(tmp_path):
    """It has the network, the labeled images per step and the length of the config beside it."""
    write_data(tmp_path)
    plain = {key.replace('model.segmentor.', 'model.'): value for key, value in SMALL.items()}
    result = run_tool(TOOLS / 'train.py', small(tmp_path, 'supervised.py', plain), cwd=tmp_path)
    assert result.code == 0, result.output[-3000:]
    assert '2 labeled images' in result.output
    assert len(re.findall(r' mIoU: +\d', result.output)) == 1
    write_config(tmp_path)
    baseline, method = (
        Config.fromfile(tmp_path / f'{name}.py') for name in ('supervised', 'cracks')
    )
    for part in ('backbone', 'decode_head', 'auxiliary_head'):
        assert baseline.model[part] == method.model.segmentor[part]
    assert baseline.train_dataloader.batch_size == method.train_dataloader.sampler.labeled
    assert baseline.optim_wrapper == method.optim_wrapper
    assert baseline.train_cfg.max_iters == method.train_cfg.max_iters


def test_weights_of_classes_reach_the_loss(tmp_path):
    write_config(tmp_path, 'rare.py')
    cfg = Config.fromfile(tmp_path / 'rare.py')
    assert cfg.model.segmentor.decode_head.loss_decode.class_weight == [0.6, 1.4]
    crop, pad = cfg.train_dataloader.dataset.labeled.pipeline[-3:-1]
    assert (crop.type, crop.cat_max_ratio) == ('RandomCrop', 0.75)
    assert pad == cfg.train_dataloader.dataset.unlabeled.pipeline[-2]
    assert 'cat_max_ratio' not in str(cfg.train_dataloader.dataset.unlabeled)


def test_windows_slide_over_large_images(tmp_path):
    """Validation sees the images at their own size, in windows of a crop."""
    write_config(tmp_path, 'large.py')
    cfg = Config.fromfile(tmp_path / 'large.py')
    assert cfg.model.segmentor.test_cfg == dict(
        mode='slide', crop_size=(512, 512), stride=(341, 341)
    )
    for dataset in (cfg.val_dataloader.dataset, *cfg.train_dataloader.dataset.values()):
        if isinstance(dataset, dict):
            assert not [step for step in dataset.pipeline if 'Resize' in step.type]


def test_small_crop_changes_every_size(tmp_path):
    """The training trains on crops of half the side, and no other setting differs."""
    write_data(tmp_path)
    half = SIZE // 2
    train(tmp_path, 'small_crop.py', {**SMALL, 'model.data_preprocessor.size': (half, half)})
    small, base = (Config.fromfile(tmp_path / f'{name}.py') for name in ('small_crop', 'cracks'))
    whole = (
        str(base.train_dataloader) + str(base.val_dataloader) + str(base.model.data_preprocessor)
    )
    for old, new in (('(2048, 512)', '(1024, 256)'), ('(512, 512)', '(256, 256)')):
        whole = whole.replace(old, new)
    parts = small.train_dataloader, small.val_dataloader, small.model.data_preprocessor
    assert ''.join(map(str, parts)) == whole


def test_one_channel_for_two_classes_is_refused(tmp_path):
    write_data(tmp_path)
    name = small(tmp_path, 'cracks.py')
    result = run_tool(
        TOOLS / 'train.py', name, '--cfg-options', 'model.segmentor.decode_head.out_channels=1',
        'model.segmentor.decode_head.threshold=0.3', cwd=tmp_path,
    )  # fmt: skip
    assert result.code != 0
    assert (
        'decode_head.out_channels=1 differs from num_classes=2, but pseudo-labels need one channel per '
        'class' in (result.last_line)
    )


def test_masks_that_count_from_1(tmp_path):
    write_data(tmp_path, first=1)
    result = run_tool(TOOLS / 'train.py', small(tmp_path, 'cracks.py'), cwd=tmp_path)
    assert result.code != 0
    assert 'set reduce_zero_label=True if the labels count from 1' in result.last_line
    train(tmp_path, 'from_one.py')


def test_masks_of_0_and_255(tmp_path):
    write_data(tmp_path)
    for path in (tmp_path / 'data/cracks/ann_dir').rglob('*.png'):
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(mask == 1, 255, 0).astype(np.uint8))
    result = run_tool(TOOLS / 'train.py', small(tmp_path, 'cracks.py'), cwd=tmp_path)
    assert result.code != 0
    assert 'class crack has no pixel and 255 holds' in result.last_line
    assert 'are your masks 0/255?' in result.last_line
    train(tmp_path, 'zero_255.py')


def test_files_in_lmdb(tmp_path):
    lmdb = pytest.importorskip('lmdb', reason='needs lmdb: pip install lmdb')
    write_data(tmp_path)
    root = tmp_path / 'data/cracks'
    with (
        lmdb.open(str(tmp_path / 'data/cracks.lmdb')) as database,
        database.begin(write=True) as files,
    ):
        for path in sorted(root.rglob('*.*')):
            files.put(path.relative_to(root).as_posix().encode(), path.read_bytes())
    for name in ('train', 'val', 'unlabeled'):
        (tmp_path / f'{name}.txt').write_text(f'{name}0\n{name}1\n')
    shutil.rmtree(root)
    assert 'are read through LmdbBackend' in train(tmp_path, 'lmdb_files.py')


def test_gray_images_as_rgb(tmp_path):
    write_data(tmp_path, channels=1)
    result = run_tool(TOOLS / 'train.py', small(tmp_path, 'cracks.py'), cwd=tmp_path)
    assert result.code != 0
    assert 'is gray (mode L), not 8-bit RGB. Convert it' in result.last_line
    train(tmp_path, 'gray_as_rgb.py')


def test_gray_images_of_one_channel(tmp_path):
    write_data(tmp_path, channels=1)
    train(tmp_path, 'gray.py')
    checkpoint = 'work_dirs/small_gray/iter_2.pth'
    result = run_tool(TOOLS / 'test.py', 'small_gray.py', checkpoint, '--tta', cwd=tmp_path)
    assert result.code == 0, result.output[-3000:]
    assert 'teacher/mIoU' in result.output
    result = run_tool(
        TOOLS / 'browse_dataset.py', 'small_gray.py', '--output-dir', 'panels', cwd=tmp_path
    )
    assert result.code == 0, result.output
    assert (tmp_path / 'panels/samples_0000.png').is_file()


def test_four_channels(tmp_path):
    write_data(tmp_path, channels=4, suffix='.tif')
    train(tmp_path, 'four.py')
    for tool, arguments in (
        ('check_data.py', []),
        ('browse_dataset.py', ['--output-dir', 'panels']),
        ('test.py', ['work_dirs/small_four/iter_2.pth']),
    ):
        result = run_tool(TOOLS / tool, 'small_four.py', *arguments, cwd=tmp_path)
        assert result.code == 0, result.output[-3000:]
        assert tool != 'check_data.py' or 'loaded as 4 channel(s) of uint8 (2)' in result.output


def write_bands(folder):
    """The same layout with four bands of 16 bits, each after the other in half of the files."""
    tifffile = pytest.importorskip(
        'tifffile', reason='tifffile is not installed: pip install tifffile'
    )
    write_data(folder, channels=4, suffix='.tif')
    generator = np.random.default_rng(1)
    for i, path in enumerate(sorted((folder / 'data/cracks/img_dir').rglob('*.tif'))):
        bands = generator.integers(0, 4000, (40, 48, 4)).astype(np.uint16)
        if i % 2:
            bands = np.moveaxis(bands, -1, 0)
        tifffile.imwrite(
            path, bands, photometric='minisblack', planarconfig='separate' if i % 2 else 'contig'
        )


def test_four_bands_of_16_bits(tmp_path):
    write_bands(tmp_path)
    train(tmp_path, 'bands.py')
    for tool, arguments in (
        ('check_data.py', []),
        ('browse_dataset.py', ['--output-dir', 'panels']),
        ('test.py', ['work_dirs/small_bands/iter_2.pth', '--tta']),
    ):
        result = run_tool(TOOLS / tool, 'small_bands.py', *arguments, cwd=tmp_path)
        assert result.code == 0, result.output[-3000:]
        assert tool != 'check_data.py' or re.search(
            r'loaded as 4 channel\(s\) of (uint16|float32) \(1\)', result.output
        )


def test_bands_that_opencv_drops_stop_the_training(tmp_path):
    """Of the config for 8 bits and four channels the loader gives one band, or mixes them."""
    write_bands(tmp_path)
    result = run_tool(TOOLS / 'train.py', small(tmp_path, 'four.py'), cwd=tmp_path)
    assert result.code != 0
    assert 'has 4 band(s) of 16 bits and the loader gives 1 of uint16. Load all of it' in (
        result.last_line
    )
    assert "imdecode_backend='tifffile'" in result.last_line


def test_transforms_for_colors_on_bands_are_refused(tmp_path):
    write_bands(tmp_path)
    name = small(tmp_path, 'bands.py')
    text = (tmp_path / name).read_text() + (
        '\nchanges = dict(type="PhotoMetricDistortion")\n'
        'train_dataloader["dataset"]["labeled"]["pipeline"].insert(2, changes)\n'
    )
    (tmp_path / 'colors.py').write_text(text)
    result = run_tool(TOOLS / 'train.py', 'colors.py', cwd=tmp_path)
    assert result.code != 0
    assert 'has PhotoMetricDistortion, which needs 8-bit RGB images' in result.last_line
    assert re.search(
        r'is loaded with 4 channel\(s\) of (uint16|float32)\. Remove', result.last_line
    )


def test_without_validation_images(tmp_path):
    """As the second step says: training, pseudo-labels and the export need none."""
    write_data(tmp_path)
    cfg = Config.fromfile(tmp_path / small(tmp_path, 'cracks.py'))
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.dump(tmp_path / 'without.py')
    shutil.rmtree(tmp_path / 'data/cracks/img_dir/val')
    checkpoint, images = 'work_dirs/without/iter_2.pth', 'data/cracks/img_dir/unlabeled'
    for tool, *arguments in (
        ('train.py',),
        ('pseudo_label.py', checkpoint, images, 'labels', '--num-workers', 0),
        ('export.py', checkpoint, 'plain'),
    ):
        result = run_tool(TOOLS / tool, 'without.py', *arguments, cwd=tmp_path)
        assert result.code == 0, result.output[-3000:]
    result = run_tool(TOOLS / 'check_data.py', 'without.py', cwd=tmp_path)
    assert result.code == 1
    assert 'data/cracks/img_dir/val' in result.output


def test_photographs_with_an_orientation(tmp_path):
    """Upside down, so that the sizes do not tell what their masks were drawn on."""
    write_data(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 3
    for path in (tmp_path / 'data/cracks/img_dir').rglob('*.jpg'):
        with Image.open(path) as image:
            image.copy().save(path, exif=exif)
    result = run_tool(TOOLS / 'train.py', small(tmp_path, 'cracks.py'), cwd=tmp_path)
    assert result.code != 0
    assert 'as displayed (EXIF orientation 3), so the sizes do not tell' in result.last_line
    train(tmp_path, 'photographs.py')
    checkpoint = 'work_dirs/small_photographs/iter_2.pth'
    result = run_tool(TOOLS / 'test.py', 'small_photographs.py', checkpoint, '--tta', cwd=tmp_path)
    assert result.code == 0, result.output[-3000:]


def test_channels_that_do_not_fit_the_preprocessor(tmp_path):
    write_data(tmp_path, channels=4, suffix='.tif')
    name = small(tmp_path, 'four.py')
    options = [
        'model.data_preprocessor.mean=[1.0,2.0,3.0]',
        'model.data_preprocessor.std=[1.0,2.0,3.0]',
    ]
    result = run_tool(TOOLS / 'train.py', name, '--cfg-options', *options, cwd=tmp_path)
    assert result.code != 0
    assert 'has 4 channel(s) as loaded, but data_preprocessor.mean and std have 3 values' in (
        result.last_line
    )


def test_another_value_for_void(tmp_path):
    write_data(tmp_path)
    for path in (tmp_path / 'data/cracks/ann_dir').rglob('*.png'):
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(mask == 255, 200, mask))
    result = run_tool(TOOLS / 'train.py', small(tmp_path, 'cracks.py'), cwd=tmp_path)
    assert 'has the value 200' in result.output
    train(tmp_path, 'void.py')
    result = run_tool(TOOLS / 'check_data.py', 'small_void.py', cwd=tmp_path)
    assert result.code == 0, result.output


def test_several_sets(tmp_path):
    write_data(tmp_path)
    for kind in ('img_dir', 'ann_dir'):
        folder = tmp_path / 'data/cracks' / kind
        (folder / 'night').mkdir()
        for path in (folder / 'val').iterdir():
            turned = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[::-1]
            cv2.imwrite(str(folder / 'night' / path.name.replace('val', 'night')), turned)
    result = run_tool(TOOLS / 'train.py', small(tmp_path, 'several_sets.py'), cwd=tmp_path)
    assert result.code == 0, result.output[-3000:]
    folder = tmp_path / 'work_dirs' / 'small_several_sets'
    (best,) = folder.glob('best_night_teacher_mIoU_iter_2.pth')
    for tool, *arguments in (
        ('test.py', best, '--tta'),
        ('export.py', best, 'plain'),
        ('pseudo_label.py', best, 'data/cracks/img_dir/unlabeled', 'labels', '--num-workers', 0),
        ('check_data.py',),
    ):
        result = run_tool(TOOLS / tool, 'small_several_sets.py', *arguments, cwd=tmp_path)
        assert result.code == 0, result.output[-3000:]
        if tool == 'test.py':
            assert {'day', 'night'} == set(re.findall(r'(\w+)/student/mIoU', result.output))
    plain = Config.fromfile(tmp_path / 'plain' / 'config.py')
    assert len(plain.val_dataloader.dataset.datasets) == 2


def test_every_config_on_the_page_is_trained():
    shown = set(re.findall(r'^`(\w+\.py)`:$', PAGE, re.MULTILINE))
    trained = set(re.findall(r"'(\w+\.py)'", Path(__file__).read_text()))
    assert shown
    assert shown <= trained


def test_pretrained_weights_without_the_first_convolution(tmp_path, capsys):
    """As the page says of other channels: the rest is loaded, and MMEngine says what was not."""
    init_default_scope('mmseg')
    network = dict(type='ResNetV1c', depth=18, stem_channels=8, base_channels=4)
    weights = MODELS.build(network).state_dict()
    torch.save(weights, tmp_path / 'rgb.pth')
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'rgb.pth'))
    backbone = MODELS.build(dict(network, in_channels=1, init_cfg=pretrained))
    drawn = backbone.stem[0].weight.detach().clone()
    backbone.init_weights()
    assert 'size mismatch for stem.0.weight' in capsys.readouterr().out
    assert torch.equal(backbone.stem[0].weight, drawn)
    for key, value in backbone.state_dict().items():
        assert key == 'stem.0.weight' or torch.equal(value, weights[key]), key
