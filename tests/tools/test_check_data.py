"""tools/check_data.py: what it prints of sound data, and what it says of each kind of harm."""

import gc
import importlib.util
import io
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from processes import ROOT, TOOLS, run_tool
from stored import BlindBackend, store
from tiny_run import CLASSES, dump, tiny_config, write_images

from mmseg_semi.datasets.data_check import check_data

CAMVID = os.environ.get('CAMVID_ROOT', str(ROOT / '..' / 'shared' / 'data' / 'camvid'))


class Data:
    """A semi-supervised config on small files: 5 labeled, 9 unlabeled and 4 validation images."""

    def __init__(self, folder):
        self.root = write_images(folder / 'images')
        self.config = tiny_config(folder / 'work', images=self.root)

    def ids(self, name):
        return (self.root / f'{name}.txt').read_text().split()

    def image(self, name, index=0):
        return self.root / 'img_dir' / f'{self.ids(name)[index]}.png'

    def mask(self, name, index=0):
        return self.root / 'ann_dir' / f'{self.ids(name)[index]}.png'

    def report(self, **options):
        return check_data(self.config, workers=2, quiet=True, **options)

    def text(self, **options):
        return '\n'.join(self.report(**options).lines())


@pytest.fixture(scope='module', autouse=True)
def _frozen():
    """BaseDataset collects garbage, which would walk through all that was imported."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    return Data(tmp_path_factory.mktemp('check_data'))


@pytest.fixture
def data(drawn, tmp_path):
    """A copy of its own, to be spoilt."""
    copied = Data.__new__(Data)
    copied.root = tmp_path / 'images'
    shutil.copytree(drawn.root, copied.root)
    copied.config = tiny_config(tmp_path / 'work', images=copied.root)
    return copied


def read(path):
    return np.array(Image.open(path))


def save(path, array):
    Image.fromarray(array).save(path)


def test_what_is_there(drawn):
    report = drawn.report()
    assert [part.name for part in report.sets] == ['labeled', 'unlabeled', 'validation']
    text = '\n'.join(report.lines())
    assert report.num_problems == 0
    assert text.endswith('No problem found.')
    assert 'labeled (train_dataloader.dataset.labeled)\n  5 images, BaseSegDataset' in text
    assert 'unlabeled (train_dataloader.dataset.unlabeled)\n  9 images, UnlabeledDataset' in text
    assert 'validation (val_dataloader.dataset)\n  4 images' in text
    assert 'sizes (width x height): 32x32 (5)' in text
    assert 'files: PNG RGB, loaded as 3 channel(s) of uint8 (9)' in text
    masks = np.stack([read(drawn.mask('labeled', i)) for i in range(5)])
    assert f'5 masks, void {(masks == 255).mean():.2%} of the pixels' in text
    labels = masks[masks != 255]
    section = text[: text.index('unlabeled (')]
    for index, name in enumerate(CLASSES):
        images = int((masks == index).any(axis=(1, 2)).sum())
        line = next(line for line in section.splitlines() if line.split()[1:2] == [name])
        assert line.split()[0] == str(index)
        assert f'{(labels == index).mean():.3%} of the labels, in {images} images' in line


def test_command_line(data, tmp_path):
    config = dump(data.config, tmp_path / 'config.py')
    result = run_tool(TOOLS / 'check_data.py', config, '--workers', '2', cwd=tmp_path)
    assert result.code == 0, result.output
    assert result.last_line == 'No problem found.'
    assert 'labeled masks: 100%' in result.output
    data.mask('val').unlink()
    result = run_tool(TOOLS / 'check_data.py', config, '--quick', cwd=tmp_path)
    assert result.code == 1
    assert result.last_line == '1 problem(s) to fix.'
    result = run_tool(TOOLS / 'check_data.py', 'nowhere.py', cwd=tmp_path)
    assert result.code == 1
    assert 'The config nowhere.py does not exist' in result.last_line


@pytest.mark.parametrize('key', ['decode_head', 'auxiliary_head'])
def test_heads_of_other_classes(data, key):
    network = data.config.model.segmentor
    network.auxiliary_head = [dict(network.decode_head)]
    assert data.report().num_problems == 0
    head = network[key] if key == 'decode_head' else network[key][0]
    head.num_classes += 1
    text = data.text()
    number = len(CLASSES)
    assert (
        f'{key}.num_classes={number + 1} but train_dataloader.dataset.labeled has {number} classes. '
        f'Set num_classes={number} in every head' in ' '.join(text.split())
    )


def truncated(data):
    path = data.image('unlabeled')
    path.write_bytes(path.read_bytes()[:-40])
    return 'unlabeled', 'images that cannot be read', f'{path} is truncated'


def damaged(data):
    """Whole at both ends, broken between."""
    path = data.image('val')
    content = bytearray(path.read_bytes())
    middle = content.index(b'IDAT') + 20
    content[middle : middle + 60] = bytes(60)
    path.write_bytes(content)
    return 'validation', 'images that cannot be read', f'{path} cannot be'


def no_image(data):
    path = data.image('labeled')
    path.write_text('no image')
    return 'labeled', 'images that cannot be read', f'{path} cannot be read as an image'


def gone(data):
    path = data.image('labeled')
    path.unlink()
    return 'labeled', 'images that cannot be read', f'{path} does not exist'


def gray(data):
    path = data.image('unlabeled')
    Image.open(path).convert('L').save(path)
    return 'unlabeled', 'images that are not 8-bit RGB', f'{path} is gray (mode L), not 8-bit RGB'


def deep(data):
    path = data.image('labeled')
    save(path, np.full((32, 32), 3000, np.uint16))
    return 'labeled', 'images that are not 8-bit RGB', f'{path} is 16-bit'


def other_size(data):
    path = data.mask('val')
    save(path, read(path)[:30])
    said = f'{path} is 30x32 (height x width) but its image {data.image("val")} is 32x32'
    return 'validation', 'masks of another size than their image', said


def no_mask(data):
    path = data.mask('labeled')
    path.unlink()
    return 'labeled', 'masks that cannot be read', f'{path} does not exist'


def color_mask(data):
    path = data.mask('labeled')
    save(path, np.stack([read(path)] * 3, axis=-1))
    return 'labeled', 'masks that cannot be read', f'{path} has mode RGB'


def value(data):
    path = data.mask('labeled')
    label = read(path)
    label[3, 4] = 6
    save(path, label)
    said = f'{path} has values that are none of the 6 classes and not 255; over all masks: 6 (in 1 masks)'
    return 'labeled', 'masks with values beyond the classes', said


HARMS = [
    truncated, damaged, no_image, gone, gray, deep, other_size, no_mask, color_mask, value
]  # fmt: skip


@pytest.mark.parametrize('harm', HARMS)
def test_each_harm_is_one_problem_in_one_sentence(data, harm):
    name, kind, said = harm(data)
    report = data.report()
    part = next(part for part in report.sets if part.name == name)
    assert list(part.problems) == [kind]
    (sentence,) = part.problems[kind]
    assert sentence.startswith(said)
    assert '\n' not in sentence
    assert sentence.endswith('.')
    assert report.num_problems == 1
    text = '\n'.join(report.lines())
    assert f'PROBLEM: {name}: 1 {kind}:\n  {sentence}' in text
    assert text.endswith('1 problem(s) to fix.')


def test_many_problems_are_counted_and_the_first_shown(data):
    for index in range(9):
        data.image('unlabeled', index).write_text('no image')
    text = data.text()
    assert 'PROBLEM: unlabeled: 9 images that cannot be read:' in text
    assert len(re.findall('cannot be read as an image', text)) == 5
    assert '... and 4 more' in text
    assert text.endswith('9 problem(s) to fix.')


def test_an_image_of_two_sets_by_content(data):
    """Its name tells nothing: another one, of another format."""
    shown = data.image('val', 1)
    copied = data.image('labeled', 2)
    shutil.copy(shown, copied)
    shutil.copy(shown.parents[1] / 'ann_dir' / shown.name, data.mask('labeled', 2))
    report = data.report()
    assert report.leaks == [
        f'1 images of the validation set are also in the labeled set, the first is {shown}, which is '
        f'{copied} by '
        'content: they make the result invalid, remove them from the labeled set.'
    ]
    assert report.num_problems == 1
    assert data.report(quick=True).num_problems == 0
    # A link is the file itself.
    copied.unlink()
    copied.symlink_to(shown)
    assert len(data.report(quick=True).leaks) == 1


def test_an_image_with_and_without_its_label_is_a_warning(data):
    (data.root / 'unlabeled.txt').write_text(
        '\n'.join(data.ids('unlabeled') + data.ids('labeled')[:2])
    )
    report = data.report()
    assert report.num_problems == 0
    assert 'warning: 2 images of the unlabeled set are also in the labeled set' in data.text()
    (data.root / 'labeled.txt').write_text('\n'.join(data.ids('labeled') + data.ids('labeled')[:1]))
    assert 'warning: labeled: 1 images are listed more than once.' in data.text()


def test_masks_that_count_from_1(data):
    for name, number in (('labeled', 5), ('val', 4)):
        for index in range(number):
            label = read(data.mask(name, index)).astype(int)
            save(data.mask(name, index), np.where(label == 255, 0, label + 1).astype(np.uint8))
    before = data.text()
    assert 'set reduce_zero_label=True if labels count from 1' in before
    data.config.train_dataloader.dataset.labeled.reduce_zero_label = True
    assert (
        'PROBLEM: train_dataloader.dataset.labeled.reduce_zero_label=True but '
        'val_dataloader.dataset.reduce_zero_label=False. A mask value means different classes'
    ) in data.text()
    data.config.val_dataloader.dataset.reduce_zero_label = True
    data.config.test_dataloader.dataset.reduce_zero_label = True
    report = data.report()
    masks = np.stack([read(data.mask('labeled', i)) for i in range(5)])
    assert report.num_problems == 0
    assert f'5 masks, void {(masks == 0).mean():.2%} of the pixels' in '\n'.join(
        report.sets[0].facts
    )


def test_gray_images_where_they_are_meant(data):
    for name, number in (('labeled', 5), ('unlabeled', 9), ('val', 4)):
        for index in range(number):
            path = data.image(name, index)
            Image.open(path).convert('L').save(path)
    assert data.report().num_problems == 14  # those that training checks
    data.config.train_dataloader.dataset.check_files = 'complete'
    report = data.report()
    assert report.num_problems == 0
    assert 'files: PNG L, loaded as 3 channel(s) of uint8 (5)' in '\n'.join(report.lines())
    # What evaluation makes of them is at least said.
    said = [sum('not 8-bit RGB' in text for text in part.warnings) for part in report.sets]
    assert said == [0, 0, 1]
    for dataset in data.config.train_dataloader.dataset.values():
        if isinstance(dataset, dict):
            dataset.pipeline[0].color_type = 'grayscale'
    data.config.train_dataloader.dataset.check_files = True
    report = data.report()
    assert report.num_problems == 0
    assert 'loaded as 1 channel(s) of uint8 (5)' in '\n'.join(report.sets[0].facts)


@pytest.mark.parametrize('quick', [True, False])
def test_a_turned_image_has_the_size_that_training_sees(data, quick):
    """A phone's: 30x32 in the file, and its EXIF entry says that it is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(data.image('labeled')).crop((0, 0, 32, 30))
    image.save(data.image('labeled'), exif=exif)
    label = read(data.mask('labeled'))[:, :30]
    save(data.mask('labeled'), label)
    assert data.report(quick=quick).num_problems == 0
    assert '30x32 (1)' in data.report(quick=quick).sets[0].facts[1]
    # Drawn on the pixels of the file, it is turned with them.
    save(data.mask('labeled'), label.T.copy())
    assert data.report(quick=quick).num_problems == 0
    save(data.mask('labeled'), label[:, :20])
    (kind,) = data.report(quick=quick).sets[0].problems
    assert kind == 'masks of another size than their image'
    # Loaded as it is stored.
    save(data.mask('labeled'), label)
    data.config.train_dataloader.dataset.labeled.pipeline[0].color_type = 'color_ignore_orientation'
    assert data.report(quick=quick).num_problems == 0
    assert '32x30 (1)' in data.report(quick=quick).sets[0].facts[1]


@pytest.mark.parametrize('name', ['labeled', 'val'])
def test_a_mask_that_may_be_turned_is_a_problem(data, name):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(data.image(name)).save(data.image(name), exif=exif)
    report = data.report()
    ((kind, (said,)),) = [item for part in report.sets for item in part.problems.items()]
    assert kind == 'masks that may be turned against their image'
    assert f'{data.mask(name)} is 32x32' in said
    assert "Set drawn_on='stored' of LoadAnnotations or drawn_on='displayed'" in said
    for dataset in (
        data.config.train_dataloader.dataset.labeled,
        data.config.val_dataloader.dataset,
    ):
        for step in dataset.pipeline:
            if step.type == 'LoadAnnotations':
                step.drawn_on = 'displayed'
    data.config.test_dataloader = data.config.val_dataloader
    assert data.report().num_problems == 0


def test_bands_that_the_loader_drops_are_a_problem(data):
    """Each file is one problem, and the sentence says how to load all of it."""
    tifffile = pytest.importorskip(
        'tifffile', reason='tifffile is not installed: pip install tifffile'
    )
    bands = np.zeros((32, 32, 4), np.uint16)
    tifffile.imwrite(
        data.image('unlabeled'), bands, photometric='minisblack', planarconfig='contig'
    )
    ((kind, (said,)),) = data.report().sets[1].problems.items()
    assert kind == 'images that are not 8-bit RGB'
    assert 'is 16-bit with 4 bands, not 8-bit RGB. Load all of it by LoadImageFromFile with' in said
    assert 'check_files' not in said
    data.config.train_dataloader.dataset.check_files = 'complete'
    ((kind, (said,)),) = data.report().sets[1].problems.items()
    assert kind == 'images that cannot be read'
    assert 'has 4 band(s) of 16 bits and the loader gives 3 of uint8' in said


def test_flipped_bytes_are_a_problem_and_no_traceback(data):
    """Pillow raises a SyntaxError, a struct.error, a TypeError or what comes from such bytes."""
    for index, place in enumerate((b'IHDR', b'IDAT')):
        path = data.image('unlabeled', index)
        content = bytearray(path.read_bytes())
        content[content.index(place) - 2] ^= 0xFF
        path.write_bytes(content)
    report = data.report()
    (said,) = report.sets[1].problems.values()
    assert len(said) == 2
    assert all('Replace it, or take it out of the list.' in sentence for sentence in said)


def test_an_empty_set_is_called_by_its_own_key(data):
    (data.root / 'val.txt').write_text('')
    report = data.report()
    (sentence,) = report.sets[2].problems['set that cannot be built']
    assert sentence.startswith('The validation dataset has no image')
    assert 'Correct these settings of val_dataloader.dataset, or put' in sentence


def test_masks_of_values_beyond_are_not_void(data):
    for index, value in enumerate((255, 9)):
        path = data.mask('labeled', index)
        save(path, np.full_like(read(path), value))
    assert ', 1 masks contain only void' in data.text()


def test_files_that_a_searched_folder_leaves_out_are_counted(data):
    pool = data.root / 'pool'
    pool.mkdir()
    for index in range(3):
        shutil.copy(data.image('unlabeled', index), pool)
    for index, name in enumerate(('a.heic', 'b.heic', 'c.txt', '.hidden')):
        (pool / name).write_bytes(bytes([index]))
    data.config.train_dataloader.dataset.unlabeled.update(ann_file='', img_dir=str(pool))
    report = data.report()
    (said,) = report.sets[1].warnings
    assert f'3 files of {pool} are not among its images (2 .heic, 1 .txt)' in said
    assert not report.sets[0].warnings[1:]


def test_names_that_are_no_text_are_printed(data, tmp_path, monkeypatch):
    """A path of bytes that are not UTF-8, to a pipe that is."""
    try:
        broken = Path(os.fsdecode(os.fsencode(data.root) + b'/pool/\xff.png'))
        broken.parent.mkdir()
        broken.write_bytes(b'no image')
    except OSError:
        pytest.skip('this disk takes no such names')
    data.config.train_dataloader.dataset.unlabeled.update(ann_file='', img_dir=str(broken.parent))
    spec = importlib.util.spec_from_file_location('check_data_tool', TOOLS / 'check_data.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    pipe = io.TextIOWrapper(io.BytesIO(), encoding='utf-8')
    monkeypatch.setattr(sys, 'stdout', pipe)
    with pytest.raises(SystemExit, match='1'):
        tool.main([str(dump(data.config, tmp_path / 'config.py')), '--quick'])
    pipe.flush()
    said = pipe.buffer.getvalue().decode()
    assert '\\udcff.png cannot be read as an image' in said
    assert said.endswith('1 problem(s) to fix.\n')


def test_missing_sets_do_not_hide_the_others(data):
    data.config.val_dataloader.dataset.data_root = str(data.root / 'nowhere')
    data.image('labeled').write_text('no image')
    report = data.report()
    assert [list(part.problems) for part in report.sets[:3]] == [
        ['images that cannot be read'],
        [],
        ['set that cannot be built'],
    ]
    assert 'nowhere' in report.sets[2].problems['set that cannot be built'][0]


def test_absent_classes(data):
    assert 'warning: labeled: no pixel of: disk.' in data.text()
    for index in range(5):
        label = read(data.mask('labeled', index))
        label[label == 2] = 255
        save(data.mask('labeled', index), label)
    text = data.text()
    assert 'warning: labeled: no pixel of: disk, square.' in text
    assert re.search(r'2 square +0\.000% of the labels, in 0 images', text)


def test_stock_configs_and_self_training(data, tmp_path):
    stock = tiny_config(tmp_path / 'work', method=None, images=data.root)
    report = check_data(stock, quiet=True)
    assert [part.name for part in report.sets] == ['training', 'validation']
    assert report.num_problems == 0
    parts = data.config.train_dataloader.dataset
    stock.train_dataloader.dataset = dict(
        type='SelfTrainingDataset',
        labeled=parts.labeled,
        pseudo_labeled=dict(type='PseudoLabeledDataset', images=parts.unlabeled, labels=None),
    )
    report = check_data(stock, quiet=True)
    assert [part.name for part in report.sets] == ['labeled', 'unlabeled', 'validation']
    assert len(report.sets[1].images.paths) == 9


def test_drawn_images_have_no_files(tmp_path):
    report = check_data(tiny_config(tmp_path), quiet=True)
    assert report.num_problems == 0
    assert '5 of them are not local files: not checked' in '\n'.join(report.lines())


def test_a_config_without_data():
    with pytest.raises(ValueError, match=r'has no dataset\. Give the config of a training'):
        check_data(Config({'model': {}}))


def test_camvid():
    if not os.path.isdir(f'{CAMVID}/splits'):
        pytest.skip(f'no CamVid at {CAMVID}. Set CAMVID_ROOT')
    path = ROOT / 'configs/suponly/suponly_deeplabv3plus_r18-tiny_600iter_camvid-96x72.py'
    cfg = Config.fromfile(path)
    cfg.train_dataloader.dataset.update(partition=None, ann_file='splits/train.txt')
    for stage in ('train', 'val', 'test'):
        cfg[f'{stage}_dataloader'].dataset.data_root = CAMVID
    report = check_data(cfg, quick=True, quiet=True)
    assert report.num_problems == 0
    assert [part.facts[0] for part in report.sets] == [
        '367 images, CamVidDataset',
        '101 images, CamVidDataset',
        '233 images, CamVidDataset',
    ]
    assert 'sizes (width x height): 480x360 (367)' in report.sets[0].facts


def two_classes(data):
    """Masks of 0 and 255 for two classes."""
    data.config.model.segmentor.decode_head.num_classes = 2
    meta = {'classes': ['background', 'crack'], 'palette': [[0, 0, 0], [9, 9, 9]]}
    for name, number in (('labeled', 5), ('val', 4)):
        for index in range(number):
            mask = np.zeros((32, 32), np.uint8)
            mask[:4] = 255
            save(data.mask(name, index), mask)
    config = data.config
    sets = config.train_dataloader.dataset.labeled, config.val_dataloader.dataset
    for dataset in (*sets, config.test_dataloader.dataset):
        dataset.metainfo = meta
    return sets


def test_masks_of_0_and_255_are_problems_and_their_map_mends_them(data):
    sets = two_classes(data)
    text = data.text()
    for key in ('train_dataloader.dataset.labeled', 'val_dataloader.dataset'):
        assert (
            f'PROBLEM: {key}: class crack has no pixel and 255 holds 12 %: are your masks 0/255? Then set '
            "type='MappedSegDataset', label_map={255: 1}"
        ) in text
    assert text.endswith('2 problem(s) to fix.')
    for dataset in (*sets, data.config.test_dataloader.dataset):
        dataset.update(type='MappedSegDataset', label_map={255: 1})
    text = data.text()
    assert text.endswith('No problem found.')
    assert '1 crack       12.500% of the labels, in 5 images' in text


def test_void_that_is_meant_is_no_problem(data):
    two_classes(data)
    data.config.custom_hooks[0].check_masks = False
    assert data.report().num_problems == 0


def test_sets_that_mean_other_classes(data):
    other = [CLASSES[1], CLASSES[0], *CLASSES[2:]]
    data.config.val_dataloader.dataset.metainfo.classes = other
    assert (
        'PROBLEM: train_dataloader.dataset.labeled.metainfo.classes and '
        "val_dataloader.dataset.metainfo.classes differ (index 0 is '"
    ) in data.text()
    data.config.val_dataloader.dataset.metainfo = {
        'classes': list(CLASSES),
        'palette': [[1, 2, 3]] * 6,
    }
    report = data.report()
    assert report.num_problems == 0
    assert any('metainfo.palette' in note for note in report.notes)


def test_hidden_folders_and_files(data):
    dataset = data.config.val_dataloader.dataset
    dataset.ann_file = ''
    data.config.test_dataloader.dataset.ann_file = ''
    for name in ('img_dir', 'ann_dir'):
        folder = data.root / name
        (folder / '.ipynb_checkpoints').mkdir()
        shutil.copy(folder / '000000.png', folder / '.ipynb_checkpoints/000000-checkpoint.png')
    text = data.text()
    assert '1 images of the validation dataset lie in hidden folders, the first is ' in text
    assert (
        'img_dir/.ipynb_checkpoints/000000-checkpoint.png. Remove these folders, or set ann_file of val_'
        in text
    )


def test_files_behind_a_backend_are_read_by_it(data):
    expected = data.text()
    store(data.root, BlindBackend, prefix='')
    config = data.config
    train = config.train_dataloader.dataset
    for dataset in (train.labeled, train.unlabeled, config.val_dataloader.dataset):
        dataset.ann_file = str(data.root / dataset.ann_file)
        dataset.data_root = ''
        for transform in dataset.pipeline:
            if transform.type.startswith('Load'):
                transform.backend_args = {'backend': 'blind'}
    config.test_dataloader.dataset = config.val_dataloader.dataset
    assert data.text() == expected
    BlindBackend.files[f'img_dir/{data.ids("val")[0]}.png'] = b'broken'
    del BlindBackend.files[f'img_dir/{data.ids("val")[1]}.png']
    del BlindBackend.files[f'ann_dir/{data.ids("labeled")[0]}.png']
    text = data.text()
    assert 'validation: 2 images that cannot be read' in text
    assert f'img_dir/{data.ids("val")[0]}.png cannot be read as an image' in text
    assert f'img_dir/{data.ids("val")[1]}.png is not in BlindBackend' in text
    assert f'ann_dir/{data.ids("labeled")[0]}.png' in text
