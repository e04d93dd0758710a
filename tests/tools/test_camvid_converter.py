import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import run_tool

REPO = Path(__file__).parents[2]
TOOL = REPO / 'tools' / 'dataset_converters' / 'camvid.py'
CAMVID = Path(os.environ.get('CAMVID_ROOT', REPO / '..' / 'shared' / 'data' / 'camvid'))


spec = importlib.util.spec_from_file_location('camvid_converter', TOOL)
converter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(converter)


def run(*arguments):
    converter.main([str(argument) for argument in arguments])


def error_of(*arguments):
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    return str(caught.value)


def segnet_copy(root, names, size=(4, 6)):
    """The layout of the public copy, with noise for images; labels 0..11."""
    generator = np.random.default_rng(0)
    for split, ids in names.items():
        (root / split).mkdir(parents=True)
        (root / f'{split}annot').mkdir()
        for name in ids:
            image = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
            label = generator.integers(0, 12, size, dtype=np.uint8)
            label[0, 0] = 11
            Image.fromarray(image).save(root / split / f'{name}.png')
            Image.fromarray(label).save(root / f'{split}annot' / f'{name}.png')
        folder = '/SegNet/CamVid'
        lines = [f'{folder}/{split}/{n}.png {folder}/{split}annot/{n}.png' for n in ids]
        (root / f'{split}.txt').write_text('\n'.join(lines))  # no newline at the end
    return root


@pytest.fixture
def source(tmp_path):
    names = dict(train=[f't{i:02d}' for i in range(32)], val=['v0', 'v1'], test=['s0', 's1', 's2'])
    return segnet_copy(tmp_path / 'CamVid', names)


def test_layout_labels_and_lists(source, tmp_path, capsys):
    target = tmp_path / 'out'
    run(source, target, '--partial', '--suffix', '.png')
    assert '32 train, 2 val, 3 test' in capsys.readouterr().out
    for split, count in (('train', 32), ('val', 2), ('test', 3)):
        ids = (target / 'splits' / f'{split}.txt').read_text().split()
        assert len(ids) == count
        for name in ids:
            before = np.array(Image.open(source / f'{split}annot' / f'{name}.png'))
            mask = Image.open(target / 'ann_dir' / split / f'{name}.png')
            assert mask.mode == 'P'
            after = np.array(mask)
            assert (after[before == 11] == 255).all()
            assert (after[before < 11] == before[before < 11]).all()
            image = target / 'img_dir' / split / f'{name}.png'
            assert image.read_bytes() == (source / split / f'{name}.png').read_bytes()
    labeled = (target / 'splits/1_16/seed0/labeled.txt').read_text().split()
    unlabeled = (target / 'splits/1_16/seed0/unlabeled.txt').read_text().split()
    assert len(labeled) == 2
    assert sorted(labeled + unlabeled) == [f't{i:02d}' for i in range(32)]


def test_runs_again_and_never_overwrites_silently(source, tmp_path):
    arguments = (source, tmp_path / 'out', '--partial')
    run(*arguments)
    gone, changed = (tmp_path / 'out' / 'ann_dir' / 'val' / f'{name}.png' for name in ('v0', 'v1'))
    content = changed.read_bytes()
    gone.unlink()
    run(*arguments)
    assert gone.exists()
    changed.write_bytes(b'mine')
    assert 'v1.png exists with another content' in error_of(*arguments)
    assert changed.read_bytes() == b'mine'
    run(*arguments, '--overwrite')
    assert changed.read_bytes() == content


def test_jpeg_by_default_from_the_command_line(source, tmp_path):
    done = run_tool(TOOL, source, tmp_path / 'out', '--subset', cwd=tmp_path)
    assert done.code == 0, done.output
    image = Image.open(tmp_path / 'out' / 'img_dir' / 'train' / 't00.jpg')
    assert (image.format, image.mode, image.size) == ('JPEG', 'RGB', (6, 4))


def break_count(source):
    pass


def break_list(source):
    (source / 'val.txt').unlink()


def break_image(source):
    (source / 'test' / 's1.png').unlink()


def break_bytes(source):
    (source / 'train.txt').write_bytes(b'/S/train/t\xe400.png /S/trainannot/t\xe400.png')


def break_image_of_label(source):
    (source / 'valannot' / 'v0.png').write_bytes(b'no image')


def leave_four(source):
    """Too few for a partition of 1/16."""
    text = (source / 'train.txt').read_text()
    (source / 'train.txt').write_text('\n'.join(text.splitlines()[:4]))


def break_label(source):
    Image.fromarray(np.full((4, 6), 12, np.uint8)).save(source / 'valannot' / 'v0.png')


@pytest.mark.parametrize(
    ('harm', 'message'),
    [
        (
            break_count,
            'train 32 (not 367), val 2 (not 101), test 3 (not 233). Complete the copy, or give --partial',
        ),
        (break_list, 'val.txt does not exist'),
        (break_image, 's1.png is missing'),
        (break_bytes, 'train.txt is not text in UTF-8 (byte 10 is 0xe4). Give the folder'),
        (break_image_of_label, 'v0.png cannot be read as an image'),
        (
            leave_four,
            'The partitions of train.txt: fraction=1/16 of 4 ids leaves one of the two lists empty',
        ),
        (break_label, 'v0.png holds values other than 0..11'),
    ],
)
def test_bad_source_is_one_sentence(source, tmp_path, harm, message):
    harm(source)
    options = () if harm is break_count else ('--partial',)
    sentence = error_of(source, tmp_path / 'out', *options)
    assert message in sentence
    assert '\n' not in sentence
    assert not (tmp_path / 'out').exists()


def test_the_former_name_of_partial(source, tmp_path):
    run(source, tmp_path / 'out', '--subset')
    assert (tmp_path / 'out/splits/1_2/seed2/labeled.txt').exists()


def test_partitions_equal_the_published_ones(tmp_path):
    if not (CAMVID / 'splits').is_dir():
        pytest.skip(f'no CamVid at {CAMVID}. Set CAMVID_ROOT')
    names = {
        split: (CAMVID / 'splits' / f'{split}.txt').read_text().split()
        for split in ('train', 'val', 'test')
    }
    target = tmp_path / 'out'
    run(segnet_copy(tmp_path / 'CamVid', names), target)  # the official counts: no --partial
    written = sorted(p.relative_to(target) for p in (target / 'splits').rglob('*.txt'))
    assert len(written) == 3 + 4 * 3 * 2
    for path in written:
        assert (target / path).read_text() == (CAMVID / path).read_text(), path
