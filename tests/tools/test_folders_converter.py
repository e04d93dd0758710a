import json

import numpy as np
import pytest
from converters import Converter, read, save, snapshot

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


def test_an_interrupted_run_is_completed_and_nothing_is_overwritten(data):
    folders(*command(data))
    complete = snapshot(data / 'out')
    gone, changed = data / 'out/ann_dir/train/s0.png', data / 'out/ann_dir/train/s2.png'
    gone.unlink()
    folders(*command(data))
    assert snapshot(data / 'out') == complete
    save(changed, np.full((4, 6), 1, np.uint8))
    mine = changed.read_bytes()
    assert 's2.png exists with another content; give --overwrite' in folders.error(*command(data))
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
        '2 masks have colours that no class has: (7, 7, 7) (4 pixels), (1, 2, 3) (2 pixels)'
        in sentence
    )
    assert f'{tmp_path}/masks/0.png with (7, 7, 7) (2 pixels), (1, 2, 3) (1 pixels)' in sentence
    assert 'add them to the colour map' in sentence
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
    # Grey in three channels is grey.
    save(tmp_path / 'masks/a.png', np.array([[[0] * 3, [255] * 3]], np.uint8))
    assert 'give --ids 0=0 255=1' in folders.error(*command(tmp_path))
    folders(*command(tmp_path, '--ids', '0=0', '255=1'))
    assert read(tmp_path / 'out/ann_dir/train/a.png').tolist() == [[0, 1]]


def test_one_bit_masks(tmp_path):
    save(tmp_path / 'images/a.png', np.zeros((1, 2, 3), np.uint8))
    save(tmp_path / 'masks/a.png', np.array([[False, True]]))
    folders(*command(tmp_path))
    assert read(tmp_path / 'out/ann_dir/train/a.png').tolist() == [[0, 1]]


def test_rgb_turns_and_converts(tmp_path, capsys):
    from PIL import Image

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


def twice(root):
    save(root / 'images/s0.jpg', np.zeros((4, 6, 3), np.uint8))


@pytest.mark.parametrize(
    ('harm', 'message'),
    [
        (orphan, '1 of 5 masks have no image of their name, the first is'),
        (size, 's0.png is 6x4 (height x width) but'),
        (color, 's0.png is a colour image: give --colors FILE'),
        (value, '1 masks have values that no class has: 2 (24 pixels)'),
        (broken_mask, 'masks/s0.png cannot be read as an image'),
        (broken_image, 'images/s0.png cannot be read as an image'),
        (jpeg, 's0.jpg is a JPEG, whose compression changes labels'),
        (twice, 'have the same name'),
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
        (['--ids', '1=2', '--classes', 'a'], 'maps to class 2, but --classes names 1'),
        (['--colors', 'x.json', '--classes', 'a'], 'leave out --ids and --classes'),
        (['--nproc', '0'], 'must be at least 1'),
    ],
)
def test_bad_arguments(data, options, message, capsys):
    with pytest.raises(SystemExit):
        folders(*command(data, *options))
    assert message in capsys.readouterr().err


def test_results_never_lie_among_the_images(data):
    sentence = folders.error(data / 'images', data / 'masks', data / 'images/out')
    assert 'lies in' in sentence
    assert 'is not a folder: give the folder of masks as MASKS' in folders.error(
        data / 'images', data / 'nowhere', data / 'out'
    )
    assert 'does not exist: give a .json' in folders.error(
        *command(data, '--colors', data / 'no.csv')
    )
