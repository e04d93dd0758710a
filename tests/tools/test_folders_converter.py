import json
import shutil
import struct
import unicodedata
import zlib

import cv2
import numpy as np
import pytest
from converters import Converter, read, save, snapshot
from PIL import Image

from mmseg_semi.datasets import UnlabeledDataset, files
from mmseg_semi.datasets.orientation import displayed

folders = Converter('folders')

COLORS = {'road': [128, 64, 128], 'car': [0, 0, 142], 'void': [0, 0, 0]}


@pytest.fixture
def data(tmp_path):
    """Six images of two sizes, four of them with masks of 0, 1 and 255; names in a subfolder, too."""
    generator = np.random.default_rng(0)
    for i in range(6):
        name = f'sub/s{i}' if i % 2 else f's{i}'
        size = (4, 6 + i % 2)
        image = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
        save(tmp_path / 'images' / f'{name}.png', image)
        if i < 4:
            mask = np.zeros(size, np.uint8)
            mask[1:] = 1
            mask[3, 0] = 255
            save(tmp_path / 'masks' / f'{name}.png', mask, mode='P' if i == 0 else None)
    return tmp_path


def command(root, *options):
    return root / 'images', root / 'masks', root / 'out', *options


def indexed(path, mask, *colors):
    """A mask of indices into a palette of these colors."""
    image = Image.fromarray(mask)
    image.putpalette([value for color in colors for value in color])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def test_an_index_of_two_colors_is_not_a_class(data):
    """Some programs write each mask with a palette of its own colors."""
    mask = np.zeros((4, 7), np.uint8)
    mask[1:] = 1
    mask[3, 0] = 255
    grays = [(i, i, i) for i in range(2, 256)]
    indexed(data / 'masks/sub/s1.png', mask, (0, 0, 0), (200, 0, 0), *grays)
    indexed(data / 'masks/sub/s3.png', mask, (0, 0, 0), (0, 200, 0), *grays)
    (data / 'masks/s0.png').unlink()
    said = folders.error(*command(data, '--classes', 'ground', 'thing'))
    assert 'The palette index 1 is the color (200, 0, 0) in' in said
    assert (
        f'(0, 200, 0) in {data}/masks/sub/s3.png, so it is not the same class. Give --colors'
        in said
    )
    assert not (data / 'out').exists()
    # With --ids, the indices are classes.
    ids = ('--ids', '0=0', '1=1', '255=255', '--classes', 'ground', 'thing')
    folders(data / 'images', data / 'masks', data / 'ids', *ids)
    # An index that no pixel has, and void, may have any color.
    other = [(9, 9, 9), *grays[1:-1], (1, 2, 3)]
    indexed(data / 'masks/sub/s3.png', mask, (0, 0, 0), (200, 0, 0), *other)
    folders(*command(data, '--classes', 'ground', 'thing'))
    assert (read(data / 'out/ann_dir/train/sub/s3.png') == mask).all()


@pytest.mark.parametrize('channels', [3, 4])
def test_ids_in_channels_of_16_bits_are_refused(data, channels):
    """Pillow would give their upper 8 bits, which are 0."""
    mask = np.zeros((4, 6, channels), np.uint16)
    mask[1:] = 1
    cv2.imwrite(str(data / 'masks/s0.png'), mask)
    said = folders.error(*command(data, '--classes', 'ground', 'thing'))
    assert f's0.png has {channels} channels of 16 bits. Save ids as a gray PNG.' in said


def test_layout_and_what_it_prints(data, capsys):
    folders(*command(data, '--classes', 'ground', 'thing'))
    said = capsys.readouterr().out
    out = data / 'out'
    assert f'{out}: 4 train, 2 unlabeled' in said
    assert '6x4 (2), 7x4 (2)' in said
    # 6 + 6 + 7 + 7 zeros of 24 + 24 + 28 + 28 pixels, 4 void ones.
    assert '0 ground: 25.00%' in said
    assert '1 thing: 71.15%' in said
    assert '255 void: 3.85%' in said
    assert "metainfo=dict(classes=('ground', 'thing'), palette=[[0, 0, 0], [128, 0, 0]])," in said
    assert "img_suffix='.png'" in said
    assert sorted(str(path) for path in snapshot(out)) == sorted(
        [
            f'img_dir/{"train" if i < 4 else "unlabeled"}/{"sub/" * (i % 2)}s{i}.png'
            for i in range(6)
        ]
        + [f'ann_dir/train/{"sub/" * (i % 2)}s{i}.png' for i in range(4)]
    )
    for name in ('s0', 'sub/s1', 's2', 'sub/s3'):
        mask = out / 'ann_dir/train' / f'{name}.png'
        assert np.array_equal(read(mask), read(data / 'masks' / f'{name}.png'))
        image = out / 'img_dir/train' / f'{name}.png'
        assert image.read_bytes() == (data / 'images' / f'{name}.png').read_bytes()


def test_validation_share_is_drawn_by_seed(data):
    folders(*command(data, '--val', '0.25', '--seed', '3'))
    val = [path.name for path in (data / 'out/ann_dir/val').rglob('*.png')]
    assert len(val) == 1
    assert len(list((data / 'out/ann_dir/train').rglob('*.png'))) == 3
    before = snapshot(data / 'out')
    folders(*command(data, '--val', '0.25', '--seed', '3'))
    assert snapshot(data / 'out') == before
    # Another share would put the image into both sets.
    assert 'an earlier run put it at' in folders.error(*command(data))
    assert snapshot(data / 'out') == before
    assert 'leaves one of the two lists empty' in folders.error(*command(data, '--val', '0.01'))
    assert '--val 20.0: Give the share' in folders.error(*command(data, '--val', '20'))


def test_an_interrupted_run_is_completed_and_nothing_is_overwritten(data):
    folders(*command(data))
    complete = snapshot(data / 'out')
    gone, changed = data / 'out/ann_dir/train/s0.png', data / 'out/ann_dir/train/s2.png'
    gone.unlink()
    folders(*command(data))
    assert snapshot(data / 'out') == complete
    save(changed, np.full((4, 6), 1, np.uint8))
    mine = changed.read_bytes()
    assert 's2.png exists with another content. Give --overwrite' in folders.error(*command(data))
    assert changed.read_bytes() == mine
    folders(*command(data, '--overwrite', '--nproc', '2'))
    assert snapshot(data / 'out') == complete


def test_links(data):
    folders(*command(data, '--link'))
    link = data / 'out/img_dir/unlabeled/s4.png'
    assert link.is_symlink()
    assert link.samefile(data / 'images/s4.png')
    folders(*command(data, '--link'))
    folders(*command(data))  # a link to the same bytes is what a copy would be
    # Overwriting a link never reaches through to the user's own file.
    original = (data / 'images/s4.png').read_bytes()
    link.unlink()
    save(data / 'other.png', np.zeros((2, 2, 3), np.uint8))
    link.symlink_to(data / 'other.png')
    other = (data / 'other.png').read_bytes()
    assert 's4.png exists with another content' in folders.error(*command(data, '--link'))
    folders(*command(data, '--overwrite'))
    assert (link.read_bytes(), (data / 'other.png').read_bytes()) == (original, other)


@pytest.mark.parametrize('kind', ['json', 'csv', 'txt'])
def test_color_masks(tmp_path, kind):
    save(tmp_path / 'images/a.jpg', np.zeros((2, 2, 3), np.uint8))
    mask = np.array([[[128, 64, 128], [0, 0, 142]], [[0, 0, 0], [0, 0, 142]]], np.uint8)
    save(tmp_path / 'masks/a_mask.png', mask)
    colors = tmp_path / f'colors.{kind}'
    lines = [(name, *color) for name, color in COLORS.items()]
    colors.write_text(
        {
            'json': json.dumps(COLORS),
            'csv': 'name,r,g,b\n' + '\n'.join('{},{},{},{}'.format(*line) for line in lines),
            'txt': '\n'.join('{1} {2} {3}\t\t{0}'.format(*line) for line in lines),
        }[kind]
    )
    folders(*command(tmp_path, '--colors', colors, '--mask-ending', '_mask.png'))
    assert read(tmp_path / 'out/ann_dir/train/a.png').tolist() == [[0, 1], [255, 1]]


def test_unknown_colors_are_named_with_file_and_count(tmp_path):
    for i in range(2):
        save(tmp_path / f'images/{i}.png', np.zeros((2, 3, 3), np.uint8))
        mask = np.full((2, 3, 3), 7, np.uint8)
        mask[0] = (0, 0, 142)
        mask[1, 0] = (1, 2, 3)
        save(tmp_path / f'masks/{i}.png', mask)
    colors = tmp_path / 'colors.json'
    colors.write_text(json.dumps(COLORS))
    sentence = folders.error(*command(tmp_path, '--colors', colors))
    assert (
        '2 masks have colors that no class has: (7, 7, 7) (4 pixels), (1, 2, 3) (2 pixels)'
        in sentence
    )
    assert f'{tmp_path}/masks/0.png with (7, 7, 7) (2 pixels), (1, 2, 3) (1 pixels)' in sentence
    assert 'Add them to the color map' in sentence
    assert not (tmp_path / 'out').exists()


def test_ids_are_mapped(tmp_path):
    save(tmp_path / 'images/a.png', np.zeros((1, 4, 3), np.uint8))
    save(tmp_path / 'masks/a.png', np.array([[0, 300, 1000, 7]], np.uint16))
    ids = ['0=1', '300=0', '7=255']
    sentence = folders.error(*command(tmp_path, '--ids', *ids))
    assert '1 masks have values that no class has: 1000 (1 pixels)' in sentence
    folders(*command(tmp_path, '--ids', *ids, '1000=1'))
    assert read(tmp_path / 'out/ann_dir/train/a.png').tolist() == [[1, 0, 1, 255]]


def test_masks_of_0_and_255_are_asked_about(tmp_path):
    save(tmp_path / 'images/a.png', np.zeros((1, 2, 3), np.uint8))
    # Gray in three channels is gray.
    save(tmp_path / 'masks/a.png', np.array([[[0] * 3, [255] * 3]], np.uint8))
    assert 'Give --ids 0=0 255=1' in folders.error(*command(tmp_path))
    folders(*command(tmp_path, '--ids', '0=0', '255=1'))
    assert read(tmp_path / 'out/ann_dir/train/a.png').tolist() == [[0, 1]]


def test_one_bit_masks(tmp_path):
    save(tmp_path / 'images/a.png', np.zeros((1, 2, 3), np.uint8))
    save(tmp_path / 'masks/a.png', np.array([[False, True]]))
    folders(*command(tmp_path))
    assert read(tmp_path / 'out/ann_dir/train/a.png').tolist() == [[0, 1]]


def test_rgb_turns_and_converts(tmp_path, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, as mmcv does it
    (tmp_path / 'images').mkdir()
    Image.new('L', (6, 4), 90).save(tmp_path / 'images/a.jpg', exif=exif)
    Image.new('RGBA', (6, 4), (10, 20, 30, 40)).save(tmp_path / 'images/b.png')
    save(tmp_path / 'masks/a.png', np.ones((6, 4), np.uint8))
    save(tmp_path / 'masks/b.png', np.ones((4, 6), np.uint8))
    assert 'end in .jpg and .png, but a dataset has one img_suffix' in folders.error(
        *command(tmp_path)
    )
    folders(*command(tmp_path, '--rgb'))
    assert read(tmp_path / 'out/img_dir/train/a.png').shape == (6, 4, 3)
    assert (read(tmp_path / 'out/img_dir/train/b.png') == (10, 20, 30)).all()


@pytest.mark.parametrize('rgb', [True, False])
@pytest.mark.parametrize('view', ['stored', 'displayed'])
def test_masks_are_written_as_their_image_is_displayed(tmp_path, capsys, view, rgb):
    """Of orientation 3 the sizes do not tell what a mask was drawn on, of 6 they do."""
    pixels, label = np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.uint8)
    label[0, 0] = 1
    (tmp_path / 'images').mkdir()
    for orientation in (1, 3, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(tmp_path / f'images/{orientation}.png', exif=exif)
        mask = displayed(label, orientation) if view == 'displayed' else label
        save(tmp_path / f'masks/{orientation}.png', mask)
    options = ['--rgb'] * rgb
    said = folders.error(*command(tmp_path, *options))
    assert '3.png is 4x6 (height x width) and its image' in said
    assert 'Set --drawn-on stored or --drawn-on displayed' in said
    # The first one is not a contradiction: its image has no entry.
    folders_options = command(tmp_path, *options, '--drawn-on', view)
    folders(*folders_options)
    for orientation in (1, 3, 6):
        written = read(tmp_path / f'out/ann_dir/train/{orientation}.png')
        assert np.array_equal(written, displayed(label, orientation))
    assert ("Set drawn_on='displayed' of LoadAnnotations" in capsys.readouterr().out) != rgb


def test_turned_files_of_each_kind(tmp_path):
    """Of TIFF files Pillow turns the size itself: an entry of EXIF is not to be obeyed twice."""
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / 'images').mkdir()
    for ending in ('tif', 'png', 'webp'):
        Image.new('RGB', (6, 4)).save(tmp_path / f'images/{ending}.{ending}', exif=exif)
        save(tmp_path / f'masks/{ending}.png', np.ones((6, 4), np.uint8))
    folders(*command(tmp_path, '--rgb'))
    for ending in ('tif', 'png', 'webp'):
        assert read(tmp_path / f'out/img_dir/train/{ending}.png').shape == (6, 4, 3)


def orphan(root):
    save(root / 'masks/lonely.png', np.zeros((4, 6), np.uint8))


def size(root):
    save(root / 'masks/s0.png', np.zeros((6, 4), np.uint8))


def color(root):
    save(root / 'masks/s0.png', np.arange(72, dtype=np.uint8).reshape(4, 6, 3))


def value(root):
    save(root / 'masks/s0.png', np.full((4, 6), 2, np.uint8))


def broken_mask(root):
    (root / 'masks/s0.png').write_bytes(b'no image')


def broken_image(root):
    (root / 'images/s0.png').write_bytes(b'no image')


def jpeg(root):
    (root / 'masks/s0.png').unlink()
    save(root / 'masks/s0.jpg', np.zeros((4, 6), np.uint8))


def truncated_image(root):
    """An unlabeled one, which would be copied as it is."""
    path = root / 'images/s4.png'
    path.write_bytes(path.read_bytes()[:-20])


def flipped_image(root):
    """Bytes from which Pillow's reader raises a SyntaxError, no OSError."""
    path = root / 'images/s0.png'
    content = bytearray(path.read_bytes())
    content[content.index(b'IHDR') + 8] ^= 0x40
    path.write_bytes(content)


def flipped_mask(root):
    path = root / 'masks/s0.tif'
    (root / 'masks/s0.png').unlink()
    save(path, np.zeros((4, 6), np.uint8))
    content = bytearray(path.read_bytes())
    content[-8:] = bytes(b ^ 0xFF for b in content[-8:])
    content[8:12] = b'\xff' * 4
    path.write_bytes(content)


def truncated_bmp(root):
    path = save(root / 'images/sub/new.bmp', np.zeros((4, 6, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:-30])


def dangling(root):
    (root / 'images/new.png').symlink_to(root / 'nowhere.png')


def twice(root):
    save(root / 'images/s0.jpg', np.zeros((4, 6, 3), np.uint8))


@pytest.mark.parametrize(
    ('harm', 'message'),
    [
        (orphan, '1 of 5 masks have no image of their name, the first is'),
        (size, 's0.png is 6x4 (height x width) but'),
        (color, 's0.png is a color image. Give --colors FILE'),
        (value, '1 masks have values that no class has: 2 (24 pixels)'),
        (broken_mask, 'masks/s0.png cannot be read as an image'),
        (broken_image, 'images/s0.png cannot be read as an image'),
        (jpeg, 's0.jpg is a JPEG, whose compression changes labels'),
        (twice, 'have the same name'),
        (truncated_image, 'images/s4.png is truncated. Copy it again'),
        (flipped_image, 'images/s0.png cannot be read as an image'),
        (flipped_mask, 'masks/s0.tif cannot be read as an image'),
        (truncated_bmp, 'images/sub/new.bmp cannot be read as an image'),
        (dangling, 'images/new.png is a link to nothing'),
    ],
)
def test_bad_folders_are_one_sentence_before_anything_is_written(data, harm, message):
    harm(data)
    assert message in folders.error(*command(data, '--classes', 'a', 'b'))
    assert not (data / 'out').exists()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--ids', '1:2'], 'is not VALUE=CLASS'),
        (['--ids', '1=256'], 'at most 254'),
        (['--ids', '1=2', '1=3'], 'twice'),
        (['--ids', '1=2', '--classes', 'a'], 'maps to class 2, but --classes has 1 names'),
        (['--colors', 'x.json', '--classes', 'a'], 'Remove --ids and --classes'),
        (['--nproc', '0'], 'must be at least 1'),
        (['--split', 'unlabeled'], '--split unlabeled must be the name of one folder'),
        (['--split', '../../out'], '--split ../../out must be the name of one folder'),
        (['--split', '..'], 'must be the name of one folder'),
        (['--split', ''], 'must be the name of one folder'),
        (['--classes', 'a', 'b', 'a'], '--classes has a twice'),
    ],
)
def test_bad_arguments(data, options, message, capsys):
    with pytest.raises(SystemExit):
        folders(*command(data, *options))
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in data.iterdir()) == ['images', 'masks']


def test_results_never_lie_among_the_images(data):
    sentence = folders.error(data / 'images', data / 'masks', data / 'images/out')
    assert 'lies in' in sentence
    assert 'is not a folder. Give the folder of masks as MASKS' in folders.error(
        data / 'images', data / 'nowhere', data / 'out'
    )
    assert 'does not exist. Give a .json' in folders.error(
        *command(data, '--colors', data / 'no.csv')
    )


def test_sources_in_the_layout_itself_are_refused(data):
    """DST/img_dir as IMAGES: results would lie among the images of the next run."""
    out = data / 'out'
    out.mkdir()
    (data / 'images').rename(out / 'img_dir')
    (data / 'masks').rename(out / 'ann_dir')
    before = snapshot(data)
    for images in (out / 'img_dir', out / 'img_dir/sub'):
        assert 'Name a target apart from the sources' in folders.error(images, out / 'ann_dir', out)
    assert snapshot(data) == before


def test_links_of_the_target_never_lead_into_the_sources(data):
    """Folders below DST that are links to IMAGES, or to a folder of it, and a file that is read itself."""
    before = snapshot(data / 'images')
    out = data / 'out'
    for place, leads_to in (
        ('img_dir/train', 'images'),
        ('img_dir/train/sub', 'images/sub'),
        ('ann_dir/train', 'masks'),
    ):
        (out / place).parent.mkdir(parents=True)
        (out / place).symlink_to(data / leads_to)
        sentence = folders.error(*command(data, '--rgb', '--overwrite'))
        assert 'Name a target apart from the sources' in sentence
        shutil.rmtree(out)
    assert snapshot(data / 'images') == before
    # A link in IMAGES to what an earlier run wrote.
    folders(*command(data))
    written = data / 'out/img_dir/train/s0.png'
    (data / 'images/s0.png').unlink()
    (data / 'images/s0.png').symlink_to(written)
    assert 's0.png is itself one of the files that are read' in folders.error(
        *command(data, '--rgb', '--overwrite')
    )
    assert written.read_bytes() == before_of(before, 's0.png')


def before_of(files, name):
    return next(content for path, content in files.items() if str(path) == name)


@pytest.mark.parametrize('options', [['--rgb'], []], ids=' '.join)
def test_an_image_of_two_splits_is_found_under_any_ending(tmp_path, options):
    for i in range(4):
        image = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        save(tmp_path / f'images/{i}.jpg', image)
        save(tmp_path / f'masks/{i}.png', np.eye(8, dtype=np.uint8))
    folders(*command(tmp_path, '--val', '0.5', '--seed', '0'))
    before = snapshot(tmp_path / 'out')
    # Another draw, and the same one: a second file of an image in one split would count twice.
    for seed in ('1', '0') if options else ('1',):
        sentence = folders.error(*command(tmp_path, '--val', '0.5', '--seed', seed, *options))
        assert 'an earlier run put it at' in sentence
        assert f'Remove img_dir and ann_dir of {tmp_path}/out and run again' in sentence
    assert snapshot(tmp_path / 'out') == before
    # Other images of the same names are not a leak.
    for i in range(4):
        save(tmp_path / f'images/{i}.jpg', np.full((8, 8, 3), 50 * i, np.uint8))
    folders(*command(tmp_path, '--split', 'test', *options))
    assert len(list((tmp_path / 'out/img_dir/test').iterdir())) == 4


def test_a_mask_that_came_since_and_the_advice(data):
    folders(*command(data, '--val', '0.25'))
    save(data / 'masks/s4.png', np.zeros((4, 6), np.uint8))
    sentence = folders.error(*command(data, '--val', '0.25'))
    assert 'masks that came since change what goes where' in sentence
    for name in ('img_dir', 'ann_dir'):
        shutil.rmtree(data / 'out' / name)
    folders(*command(data, '--val', '0.25'))
    assert not (data / 'out/img_dir/unlabeled/s4.png').exists()


def test_folders_behind_links_are_searched_once_each(data, capsys):
    save(data / 'camera/new.png', np.zeros((4, 6, 3), np.uint8))
    (data / 'images/linked').symlink_to(data / 'camera')
    (data / 'camera/loop').symlink_to(data / 'images')
    (data / 'images/.hidden').mkdir()
    shutil.copy(data / 'images/s0.png', data / 'images/.hidden/s0.png')
    folders(*command(data))
    assert '4 train, 3 unlabeled' in capsys.readouterr().out
    assert (data / 'out/img_dir/unlabeled/linked/new.png').is_file()


def test_whatever_is_laid_out_as_unlabeled_is_trained_on(data, capsys):
    endings = ('bmp', 'tif', 'TIFF', 'webp', 'jpeg')
    for ending in endings:
        save(data / f'images/new_{ending}.{ending}', np.zeros((4, 6, 3), np.uint8))
    (data / 'images/phone.heic').write_bytes(b'an image of another kind')
    folders(*command(data))
    said = capsys.readouterr().out
    assert '4 train, 7 unlabeled' in said
    assert 'were left out: 1 .heic' in said
    assert len(UnlabeledDataset(img_dir=str(data / 'out/img_dir/unlabeled'))) == 7


def test_files_of_removed_sources_are_told(data, capsys):
    folders(*command(data))
    assert 'not from these folders' not in capsys.readouterr().out
    for folder in ('images', 'masks'):
        (data / folder / 's0.png').unlink()
    folders(*command(data))
    said = capsys.readouterr().out
    assert (
        f'2 files there are not from these folders, the first is {data}/out/img_dir/train/s0.png'
        in said
    )


def test_a_run_for_validation_images_does_not_concern_the_unlabeled_images_of_the_first(
    data, capsys
):
    (data / 'masks' / 's0.png').unlink()
    folders(*command(data))
    assert '3 unlabeled' in capsys.readouterr().out
    for folder in ('images', 'masks'):
        save(data / 'val' / folder / 'v.png', np.eye(4, dtype=np.uint8))
    arguments = [
        str(data / 'val' / 'images'),
        str(data / 'val' / 'masks'),
        str(data / 'out'),
        '--split',
        'val',
    ]
    folders(*arguments)
    assert 'warning' not in capsys.readouterr().out


def test_masks_with_names_in_another_unicode_form(tmp_path, capsys):
    """As of masks from macOS, whose file names look the same."""
    for form, folder in (('NFC', 'images'), ('NFD', 'masks')):
        name = unicodedata.normalize(form, 'Größe')
        save(tmp_path / f'{folder}/{name}.png', np.eye(4, dtype=np.uint8))
    folders(*command(tmp_path))
    assert '1 train' in capsys.readouterr().out
    (path,) = (tmp_path / 'out/ann_dir/train').iterdir()
    assert path.stem == unicodedata.normalize('NFC', 'Größe')


def test_smoothed_gray_masks_are_asked_about(tmp_path):
    save(tmp_path / 'images/a.png', np.zeros((1, 70, 3), np.uint8))
    save(tmp_path / 'masks/a.png', np.arange(0, 210, 3, dtype=np.uint8)[None])
    sentence = folders.error(*command(tmp_path))
    assert 'hold 70 values of up to 207, which would be 208 classes without a name' in sentence
    assert 'Name them with --classes, map the values with --ids' in sentence
    assert not (tmp_path / 'out').exists()
    folders(*command(tmp_path, '--classes', *(f'c{i}' for i in range(208))))
    assert read(tmp_path / 'out/ann_dir/train/a.png').max() == 207


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.int32])
def test_counting_and_looking_up_are_what_sorting_gives(dtype):
    top = {np.uint8: 256, np.uint16: 1 << 16, np.int32: 1 << 20}[dtype]
    mask = np.random.default_rng(0).integers(0, top, (40, 30)).astype(dtype)
    known = np.unique(mask)[::2]
    ids = {int(value): i % 200 for i, value in enumerate(known)}
    labels = folders.module.Labels(None, ids, None)
    label, unknown = labels._from_ids(mask)
    assert label.dtype == np.uint8
    assert label.tolist() == [[ids.get(int(v), 255) for v in row] for row in mask]
    values, counts = np.unique(mask, return_counts=True)
    expected = {int(v): int(n) for v, n in zip(values, counts, strict=True) if int(v) not in ids}
    assert unknown == expected


def test_a_target_that_cannot_be_a_folder_is_one_sentence(data):
    (data / 'out').write_text('a file')
    sentence = folders.error(*command(data))
    assert f'{data}/out' in sentence
    assert 'A file stands where a folder is needed. Move it or name another target.' in sentence


def test_images_beyond_the_limit_of_pillow(data, monkeypatch):
    """179 million pixels, here 10; very large images are what sliding windows are for."""
    monkeypatch.setattr(files, 'MAX_PIXELS', 20)
    assert 'is more than the 20 pixels that OpenCV decodes' in folders.error(*command(data))
    huge = bytearray((data / 'images/s4.png').read_bytes())
    huge[16:24] = struct.pack('>II', 20000, 20000)
    huge[29:33] = struct.pack('>I', zlib.crc32(huge[12:29]))
    (data / 'images/s4.png').write_bytes(huge)
    monkeypatch.undo()
    folders(*command(data))  # of an image that is copied, no pixel is decoded
    assert files.image_size(str(data / 'out/img_dir/unlabeled/s4.png')) == (20000, 20000)


def test_an_object_of_1_on_a_background_of_255(tmp_path):
    for i in range(2):
        save(tmp_path / f'images/{i}.png', np.zeros((4, 4, 3), np.uint8))
        save(tmp_path / f'masks/{i}.png', np.where(np.eye(4), 1, 255).astype(np.uint8))
    classes = '--classes', 'background', 'crack'
    assert 'nothing but 1 and 255, and 255 is void. Give --ids 1=1 255=0 if' in folders.error(
        *command(tmp_path, *classes)
    )
    folders(*command(tmp_path, *classes, '--ids', '1=1', '255=0'))
    assert np.array_equal(read(tmp_path / 'out/ann_dir/train/0.png'), np.eye(4))


def test_hidden_files_are_left_out_and_counted(data, capsys):
    for folder in ('images', 'masks'):
        shutil.copytree(data / folder / 'sub', data / folder / '.ipynb_checkpoints')
        (data / folder / '._s0.png').write_bytes(b'not an image')
        (data / folder / 'Thumbs.db').write_bytes(b'not an image')
    folders(*command(data, '--classes', 'ground', 'thing'))
    said = capsys.readouterr().out
    assert f'{data}/out: 4 train, 2 unlabeled' in said
    assert (
        f'warning: 4 hidden image file(s) of {data}/images are left out, the first is ._s0.png'
        in said
    )
    assert (
        f'warning: 3 hidden image file(s) of {data}/masks are left out, the first is ._s0.png'
        in said
    )


@pytest.mark.parametrize(
    ('option', 'folder', 'ending'),
    [('--image-ending', 'images', '.png'), ('--mask-ending', 'masks', '.png')],
)
def test_an_ending_in_another_case_is_said(data, option, folder, ending):
    path = data / folder / 's2.png'
    path.rename(path.with_suffix('.PNG'))
    assert (
        f'{folder}/s2.PNG and 0 other files end as {option} says but in another case'
        in folders.error(*command(data, option, ending))
    )
    folders(*command(data, '--rgb'))  # any usual ending, in either case


def test_names_with_spaces_and_letters_of_any_language(tmp_path, capsys):
    names = 'with space', 'Größe', '道路'
    for name in names:
        save(tmp_path / f'images/{name}.png', np.zeros((4, 4, 3), np.uint8))
        save(tmp_path / f'masks/{name}.png', np.eye(4, dtype=np.uint8))
    folders(*command(tmp_path))
    assert '3 train' in capsys.readouterr().out
    assert {path.stem for path in (tmp_path / 'out/ann_dir/train').iterdir()} == set(names)
