"""tools/splits.py from its command line: make, import, identify and check."""

import contextlib
import importlib.util
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmseg.datasets import BaseSegDataset
from PIL import Image
from processes import TOOLS, run_tool

from mmseg_semi.datasets import UnlabeledDataset
from mmseg_semi.datasets.split_lists import read_list
from mmseg_semi.datasets.splits import make_partition, order_free_hash

SHARED = Path(__file__).parents[2] / '..' / 'shared' / 'data'
LISTS = Path(os.environ.get('SPLITS_ROOT', SHARED / 'splits'))
CAMVID = Path(os.environ.get('CAMVID_ROOT', SHARED / 'camvid'))

spec = importlib.util.spec_from_file_location('splits_tool', TOOLS / 'splits.py')
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the tool in ``tmp_path``: its exit code and what it printed, or the error that ended it."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            tool.main([str(argument) for argument in arguments])
        code = caught.value.code
        printed = capsys.readouterr()
        if code == 2:  # argparse's, after the usage
            return 1, printed.err.splitlines()[-1].split(' ', 2)[2]
        return (1, code) if isinstance(code, str) else (code or 0, printed.out)

    return run


def succeed(outcome):
    code, printed = outcome
    assert code == 0, printed
    return printed


def error_of(outcome):
    code, printed = outcome
    assert code == 1
    assert printed.startswith('error: ')
    assert '\n' not in printed
    return printed.removeprefix('error: ')


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(Path(folder).rglob('*'))
        if path.is_file()
    }


@pytest.fixture
def ids(tmp_path):
    names = [f'a/{i:02d}' for i in range(32)]
    (tmp_path / 'all.txt').write_text('\n'.join(reversed(names)))
    return names


# ------------------------------------------------------------------------------------ make


def test_make_writes_nested_lists_and_where_they_come_from(run, ids, tmp_path):
    printed = succeed(run('make', 'all.txt', 'out', '--sizes', '1/8', '0.25', '5', '--seeds', 0, 3))
    assert 'out/1_8/seed0: 4 + 28 images\n' in printed
    for seed in (0, 3):
        before = set()
        for name, count in (('1_8', 4), ('5', 5), ('1_4', 8)):
            folder = tmp_path / 'out' / name / f'seed{seed}'
            labeled, unlabeled = (
                (folder / f'{half}.txt').read_text().splitlines()
                for half in ('labeled', 'unlabeled')
            )
            assert (labeled, unlabeled) == make_partition(ids, count / 32, seed)
            assert before < set(labeled)
            before = set(labeled)
    manifest = json.loads((tmp_path / 'out/1_4/seed3/partition.json').read_text())
    labeled = (tmp_path / 'out/1_4/seed3/labeled.txt').read_text().splitlines()
    assert manifest['lists'].pop('labeled.txt') == {'images': 8, 'sha256': order_free_hash(labeled)}
    assert manifest['lists'].pop('unlabeled.txt')['images'] == 24
    assert manifest == {
        'method': 'random',
        'source': 'all.txt',
        'images': 32,
        'sha256': order_free_hash(ids),
        'seed': 3,
        'size': '1/4',
        'lists': {},
    }


def test_make_again_says_so_and_never_replaces_silently(run, ids, tmp_path):
    arguments = ('make', 'all.txt', 'out', '--sizes', '1/8', '1/4')
    succeed(run(*arguments))
    before = files('out')
    assert succeed(run(*arguments)).count(', the same as before') == 2
    assert files('out') == before
    (tmp_path / 'other.txt').write_text('\n'.join(ids[:16]))
    (tmp_path / 'out/1_8/seed0/labeled.txt').unlink()
    before = files('out')
    assert error_of(run('make', 'other.txt', 'out', '--sizes', '1/16', '1/4')) == (
        'out/1_4/seed0/labeled.txt holds another list. Give --force to replace it, or another folder.'
    )
    assert files('out') == before  # nothing of the others is written either
    succeed(run('make', 'other.txt', 'out', '--sizes', '1/4', '--force'))
    assert (tmp_path / 'out/1_4/seed0/labeled.txt').read_text().count('\n') == 4
    assert json.loads((tmp_path / 'out/1_4/seed0/partition.json').read_text())['images'] == 16
    assert 'the same' not in succeed(run(*arguments[:-1]))  # the interrupted one is completed
    assert (tmp_path / 'out/1_8/seed0/labeled.txt').exists()


def test_make_takes_a_folder_and_leaves_out_what_is_excluded(run, tmp_path):
    (tmp_path / 'images/sub').mkdir(parents=True)
    for name in ('a.jpg', 'b.JPG', 'sub/c.png', 'd.jpg', 'notes.txt'):
        (tmp_path / 'images' / name).touch()
    (tmp_path / 'val.txt').write_text('b\nnot_there\n')
    succeed(run('make', 'images', 'out', '--sizes', 1, '--exclude', 'val.txt'))
    written = files('out')
    names = written['1/seed0/labeled.txt'] + written['1/seed0/unlabeled.txt']
    assert sorted(names.decode().split()) == ['a', 'd', 'sub/c']


def test_make_leaves_out_hidden_files_and_keeps_names_of_any_script(run, tmp_path):
    names = ('a b.jpg', 'größe.JPG', '._a b.jpg', '.ipynb_checkpoints/c.jpg', 'Thumbs.db')
    for name in names:
        (tmp_path / 'images' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'images' / name).touch()
    succeed(run('make', 'images', 'out', '--sizes', 1))
    written = files('out')
    lines = (written['1/seed0/labeled.txt'] + written['1/seed0/unlabeled.txt']).decode()
    assert sorted(lines.splitlines()) == ['a b', 'größe']


def made_by(manifest, out):
    """The arguments of `make` that a manifest tells, and nothing else."""
    arguments = ['make', manifest['source'], out, '--sizes', manifest['size']]
    arguments += ['--seeds', manifest['seed']]
    for key, option in (
        ('img_suffix', '--img-suffix'),
        ('format', '--format'),
        ('paths_begin_with', '--images'),
        *((key, f'--{key.replace("_", "-")}') for key in tool.BALANCED),
    ):
        value = manifest.get(key)
        if value is True:
            arguments.append(option)
        elif value not in (None, False):
            arguments += [option, *(value if isinstance(value, list) else [value])]
    if 'exclude' in manifest:
        arguments += ['--exclude', *(entry['list'] for entry in manifest['exclude'])]
    return [*arguments, *(['--balanced'] if manifest['method'] == 'balanced' else [])]


@pytest.mark.parametrize(
    'arguments',
    [
        ('all.txt', '--seeds', 3),
        ('all.txt', '--exclude', 'v.txt', 'w.txt'),
        ('commas.txt', '--format', 'ids', '--exclude', 'v.txt'),
        ('paths.txt', '--images', 'img'),
        ('masks', '--img-suffix', '.png'),
        ('masks', '--balanced', '--masks', 'masks', '--num-classes', 1, '--reduce-zero-label'),
        ('masks', '--balanced', '--masks', 'masks', '--num-classes', 2, '--min-pixels', 6),
    ],
)
def test_the_manifest_is_enough_to_make_the_lists_again(run, ids, tmp_path, arguments):
    (tmp_path / 'v.txt').write_text('a/07\na/01\nnot_there\n')
    (tmp_path / 'w.txt').write_text('a/02\na/01\na/03\n')
    (tmp_path / 'commas.txt').write_text('\n'.join([*ids, 'b,c']))
    (tmp_path / 'paths.txt').write_text('\n'.join(f'img/{name}.jpg' for name in ids))
    masks(tmp_path / 'masks')
    (tmp_path / 'masks/m12.jpg').touch() if '--img-suffix' in arguments else None
    printed = succeed(run('make', arguments[0], 'out', '--sizes', '1/4', *arguments[1:]))
    (folder,) = (tmp_path / 'out/1_4').iterdir()
    manifest = json.loads((folder / 'partition.json').read_text())
    if 'w.txt' in arguments:
        assert printed.startswith(
            'v.txt: 2 of 3 listed images are left out\nw.txt: 2 of 3 listed images are left out\n'
        )
        assert manifest['exclude'] == [
            {'list': 'v.txt', 'images': 2, 'sha256': order_free_hash(['a/01', 'a/07'])},
            {'list': 'w.txt', 'images': 2, 'sha256': order_free_hash(['a/02', 'a/03'])},
        ]
        assert manifest['images'] == 28
    succeed(run(*made_by(manifest, 'again')))
    assert files('again') == files('out')


def test_a_list_that_excludes_nothing_is_refused(run, ids, tmp_path):
    (tmp_path / 'val.txt').write_text('00\n01\n')  # without the folder that the ids have
    arguments = ('make', 'all.txt', 'out', '--sizes', '1/4', '--exclude', 'val.txt')
    assert error_of(run(*arguments)).startswith(
        'val.txt excludes nothing, since none of its 2 images, such as 00, is one of all.txt, such as a/31. '
    )
    assert not (tmp_path / 'out').exists()


def test_a_manifest_that_says_otherwise_is_never_replaced_silently(run, ids, tmp_path):
    (tmp_path / 'copy.txt').write_text((tmp_path / 'all.txt').read_text())
    folder = tmp_path / 'out/1_4/seed0'
    folder.mkdir(parents=True)
    (folder / 'partition.json').write_text('{"mine": 1}')
    arguments = ('make', 'all.txt', 'out', '--sizes', '1/4')
    assert error_of(run(*arguments)).startswith(
        'out/1_4/seed0/partition.json holds no manifest of a partition. Give --force to replace it, '
    )
    assert files('out') == {'1_4/seed0/partition.json': b'{"mine": 1}'}
    succeed(run(*arguments, '--force'))
    before = files('out')
    assert error_of(run('make', 'copy.txt', *arguments[2:])).startswith(
        "out/1_4/seed0/partition.json holds source='all.txt', and this partition has source='copy.txt'. Give "
    )
    assert files('out') == before
    assert 'the same' not in succeed(run('make', 'copy.txt', *arguments[2:], '--force'))
    changed = {name for name, text in files('out').items() if text != before[name]}
    assert changed == {'1_4/seed0/partition.json'}


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        (
            'a.png.jpg',
            "a.png.jpg' has two endings, so that its id 'a.png' would be taken for a file",
        ),
        (
            'a.tif.jpg',
            "The image 'a.tif' would be read as 'a' from a list with one id per line. Re",
        ),
        ('a\nb.jpg', "The image 'a\\nb' would"),
        (' a.jpg', "The image ' a' would be read as 'a' from"),
        ('a\\b.jpg', "The image 'a\\\\b' would be read as 'a/b' from"),
        ('gr\udcfcn.jpg', "The image 'gr\\udcfcn' could not be read again from"),
        ('b.Jpg', "b.Jpg' has a suffix in mixed case, so that datasets cannot find it"),
    ],
)
def test_make_refuses_names_that_a_list_cannot_hold(run, tmp_path, name, message):
    (tmp_path / 'images').mkdir()
    for each in (name, 'x.jpg', 'y.jpg'):
        (tmp_path / 'images' / each).touch()
    assert message in error_of(run('make', 'images', 'out', '--sizes', 1))
    assert not (tmp_path / 'out').exists()


def test_names_with_blanks_are_read_again(run, tmp_path):
    (tmp_path / 'images').mkdir()
    for name in ('my a', 'b, c', 'd;e'):
        (tmp_path / f'images/{name}.jpg').touch()
    succeed(run('make', 'images', 'out', '--sizes', 1))
    assert 'seed0/labeled.txt: 1 images: unknown' in succeed(run('identify', 'out/1/seed0'))
    succeed(run('import', 'out/1/seed0', 'copy'))
    arguments = ('--exclude', 'out/1/seed0/labeled.txt')
    assert '1 of 1 listed' in succeed(run('make', 'images', 'rest', '--sizes', 1, *arguments))
    assert 'with a character that separates columns in other formats' in error_of(
        run('identify', 'out/1/seed0', '--format', 'auto', '--images', '.')
    )


def test_ids_of_cityscapes_are_those_of_its_dataset(run, tmp_path):
    for number in (1, 2):
        image = tmp_path / f'train/ulm/ulm_00000{number}_000019_leftImg8bit.png'
        image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()
    for i, suffix in enumerate(('.png', '_leftImg8bit.png')):
        succeed(run('make', 'train', f'out{i}', '--sizes', 1, '--img-suffix', suffix))
        lists = files(f'out{i}')
        names = lists['1/seed0/labeled.txt'] + lists['1/seed0/unlabeled.txt']
        assert sorted(names.split()) == [b'ulm/ulm_000001_000019', b'ulm/ulm_000002_000019']


letters = st.sampled_from(
    [*'ab .,;|"<>{}\\-_\t\n\r', '\ufeff', '\xa0', '\u2028', 'ü', '\udcfc', '.png', '.jpg']
)
file_names = st.lists(letters, min_size=1, max_size=4).map(''.join).filter(lambda n: n[0] != '.')


@given(
    st.lists(
        st.tuples(file_names, st.sampled_from(['.jpg', '.png', '.JPG', '.Png'])),
        min_size=2,
        max_size=4,
    ),
    st.booleans(),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_whatever_the_names_the_datasets_read_what_was_chosen(names, below):
    """`make` of a folder, and `import` of what it made: the files themselves, or one sentence and no list."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        images = root / 'images' / ('sub' if below else '')
        images.mkdir(parents=True)
        for name, ending in names:
            (images / f'{name}{ending}').touch()
        there = {str(p) for p in images.iterdir()}
        commands = (
            ('make', root / 'images', root / 'out', '--sizes', '1'),
            ('import', root / 'out/1/seed0', root / 'copy'),
        )
        for command, made in zip(commands, (root / 'out/1/seed0', root / 'copy'), strict=True):
            with pytest.raises(SystemExit) as caught, contextlib.redirect_stdout(None):
                tool.main(list(map(str, command)))
            if caught.value.code is not None:
                assert caught.value.code.startswith('error: ')
                assert '\n' not in caught.value.code
                assert 'codec' not in caught.value.code
                assert not made.exists()
                return
            read = [
                UnlabeledDataset(
                    img_dir=str(root / 'images'),
                    ann_file=str(made / f'{half}.txt'),
                    serialize_data=False,
                )
                for half in ('labeled', 'unlabeled')
            ]
            paths = [
                dataset.get_data_info(i)['img_path']
                for dataset in read
                for i in range(len(dataset))
            ]
            assert sorted(paths) == sorted(there)
            assert len(read[0]) == 1
            for half in ('labeled', 'unlabeled'):
                stock = BaseSegDataset(
                    ann_file=str(made / f'{half}.txt'), img_suffix='', serialize_data=False
                )
                ids = [stock.get_data_info(i)['img_path'] for i in range(len(stock))]
                assert ids == read_list(str(made / f'{half}.txt'), 'ids').ids


def masks(folder, number=12):
    """Every mask shows class 0, the last also 1 and 255."""
    folder.mkdir()
    for i in range(number):
        mask = np.zeros((4, 5), np.uint8)
        if i == number - 1:
            mask[0], mask[1, 0] = 1, 255
        Image.fromarray(mask).save(folder / f'm{i:02d}.png')


def test_make_balanced_shows_rare_classes_first(run, tmp_path):
    masks(tmp_path / 'masks')
    arguments = ('make', 'masks', 'out', '--balanced', '--masks', 'masks', '--sizes', 1, 2)
    succeed(run(*arguments, '--num-classes', 2, '--seeds', 0, 1))
    assert files('out')['1/seed0/labeled.txt'] == b'm11\n' == files('out')['1/seed1/labeled.txt']
    assert len({files('out')[f'2/seed{seed}/labeled.txt'] for seed in (0, 1)}) == 2
    assert json.loads(files('out')['2/seed1/partition.json'])['method'] == 'balanced'
    assert 'm11.png has values that are none of 1 classes' in error_of(
        run(*arguments, '--num-classes', 1)
    )
    assert 'Give --masks, the folder' in error_of(
        run('make', 'masks', 'o', '--sizes', 1, '--balanced')
    )
    (tmp_path / 'masks/m03.png').write_text('no image')
    assert 'm03.png cannot be read as an image' in error_of(run(*arguments, '--num-classes', 2))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('gone.txt', 'out', '--sizes', '1/2'), 'gone.txt is not a file. Give a list of images.'),
        (('all.txt', 'out', '--sizes', '3/2'), "'3/2' is neither a share between 0 and 1,"),
        (('all.txt', 'out', '--sizes', '32'), '32 of 32 images makes 32 labeled and 0 unlabeled'),
        (('bad.txt', 'out', '--sizes', '1/2'), "bad.txt line 2 is 'a', the image of line 1 again"),
        (('twins', 'out', '--sizes', 1), "make_partition: id 'a' occurs twice. List every image"),
        (('empty', 'out', '--sizes', '1/2'), 'UnlabeledDataset found no image in the folder empty'),
        (('all.txt', 'bad.txt/out', '--sizes', '1/2'), 'bad.txt/out/1_2/seed0 cannot be written'),
    ],
)
def test_errors_of_make_are_one_sentence(run, ids, tmp_path, arguments, message):
    (tmp_path / 'bad.txt').write_text('a\na\n')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'twins').mkdir()
    for name in ('a.jpg', 'a.png'):
        (tmp_path / 'twins' / name).touch()
    assert error_of(run('make', *arguments)).startswith(message)
    assert not (tmp_path / 'out').exists()


def test_make_gives_the_lists_of_the_camvid_converter(run):
    if not (CAMVID / 'splits').is_dir():
        pytest.skip(f'no CamVid at {CAMVID}. Set CAMVID_ROOT')
    sizes = ('1/16', '1/8', '1/4', '1/2')
    source = CAMVID / 'splits/train.txt'
    succeed(run('make', source, 'out', '--sizes', *sizes, '--seeds', 0, 1, 2))
    made = {name: text for name, text in files('out').items() if not name.endswith('.json')}
    assert len(made) == 24
    there = files(CAMVID / 'splits')
    assert made == {name: there[name] for name in made}


# ------------------------------------------------------------------------------------ import


def test_import_keeps_the_order_and_makes_plain_lists(run, tmp_path):
    (tmp_path / 'theirs').mkdir()
    line = 'JPEGImages/{0}.jpg SegmentationClass/{0}.png'
    for half, names in (('labeled', 'cab'), ('unlabeled', 'ed')):
        text = '\r\n'.join(line.format(name) for name in names)
        (tmp_path / f'theirs/{half}.txt').write_bytes(text.encode())
    printed = succeed(run('import', 'theirs', 'ours'))
    assert printed.startswith('ours: 3 + 2 images\ntheirs/labeled.txt: 3 images: unknown, no publ')
    written = files('ours')
    assert (written['labeled.txt'], written['unlabeled.txt']) == (b'c\na\nb\n', b'e\nd\n')
    manifest = json.loads(written['partition.json'])
    assert manifest['method'] == 'imported'
    assert manifest['unlabeled_source'] == 'theirs/unlabeled.txt'
    assert 'the same as before' in succeed(run('import', 'theirs', 'ours'))


def test_import_finds_the_unlabeled_list(run, tmp_path):
    (tmp_path / 'x_labeled_1-8.txt').write_text('a\nb')
    message = error_of(run('import', 'x_labeled_1-8.txt', 'out'))
    assert message.startswith('x_labeled_1-8.txt has no unlabeled list beside it. Give it by --unl')
    (tmp_path / 'x_unlabeled_1-8.txt').write_text('c\nd')
    (tmp_path / 'all.txt').write_text('d\nb\na\ne\n')
    for arguments, expected in (
        ((), b'c\nd\n'),
        (('--rest-of', 'all.txt'), b'd\ne\n'),
        (('--unlabeled', 'all.txt'), None),
    ):
        outcome = run('import', 'x_labeled_1-8.txt', 'out', '--force', *arguments)
        if expected is None:
            assert error_of(outcome).startswith(
                '2 images are in x_labeled_1-8.txt and in all.txt, '
            )
        else:
            succeed(outcome)
            assert files('out')['unlabeled.txt'] == expected
    message = error_of(run('import', 'x_labeled_1-8.txt', 'out', '--labeled-only'))
    assert message.startswith('out/unlabeled.txt holds another list')
    succeed(run('import', 'x_labeled_1-8.txt', 'out', '--labeled-only', '--force'))
    assert set(files('out')) == {'labeled.txt', 'partition.json'}
    (tmp_path / 'all.txt').write_text('a\nc\n')
    assert error_of(run('import', 'x_labeled_1-8.txt', 'o', '--rest-of', 'all.txt')).startswith(
        '1 labeled images are not in all.txt, the first is b.'
    )


def test_import_refuses_halves_of_different_folders(run, tmp_path):
    line = 'leftImg8bit/{}/ulm/ulm_000000_00000{}_leftImg8bit.png'
    (tmp_path / 'labeled.txt').write_text(line.format('train', 1))
    (tmp_path / 'unlabeled.txt').write_text(line.format('val', 2))
    assert error_of(run('import', '.', 'out')) == (
        'unlabeled.txt lists cityscapes val images, but the labeled list cityscapes train. Give the two '
        'lists of one partition.'
    )
    (tmp_path / 'own.txt').write_text('b')
    (tmp_path / 'voc.txt').write_text('JPEGImages/2007_000032.jpg')
    (tmp_path / 'city.txt').write_text(line.format('train', 2))
    (tmp_path / 'ids.txt').write_text('ulm/ulm_000000_000003')
    for labeled in ('2007_000033', 'JPEGImages/2007_000033.jpg'):  # the ids alone name no split
        (tmp_path / 'labeled.txt').write_text(labeled)
        assert error_of(run('import', 'labeled.txt', 'out', '--unlabeled', 'city.txt')) == (
            'city.txt lists cityscapes train images, but the labeled list voc12. Give the two lists of '
            'one partition.'
        )
        succeed(run('import', 'labeled.txt', 'out', '--unlabeled', 'voc.txt', '--force'))
        succeed(run('import', 'labeled.txt', 'out', '--unlabeled', 'own.txt', '--force'))
    (tmp_path / 'labeled.txt').write_text(line.format('train', 1))
    succeed(run('import', 'labeled.txt', 'out', '--unlabeled', 'ids.txt', '--force'))
    assert 'which is not the format unimatch but that of u2pl' in error_of(
        run('import', '.', 'out', '--format', 'unimatch')
    )


def real(where):
    if not LISTS.is_dir():
        pytest.skip(f'no published lists at {LISTS}. Set SPLITS_ROOT')
    return LISTS / where


@pytest.mark.parametrize(
    ('where', 'counts', 'said'),
    [
        ('unimatch/pascal/92', (92, 10490), 'Pascal VOC 2012, classic, 92 images'),
        ('u2pl/pascal/662', (662, 9920), 'Pascal VOC 2012, blender-u2pl, 662 images'),
        ('stpp/cityscapes/1_30/split_0', (100, 2875), 'Cityscapes, stpp, 100 images'),
        (
            'cps/cityscapes/train_aug_labeled_1-16.txt',
            (186, 2789),
            'Cityscapes, cps, 186 images',
        ),
        ('cps/pascal/train_aug_labeled_1-16.txt', (662, 9920), 'Pascal VOC 2012, blender-cps, 662'),
    ],
)
def test_import_of_published_partitions(run, where, counts, said):
    source = real(where)
    printed = succeed(run('import', source, 'out'))
    assert f'out: {counts[0]} + {counts[1]} images\n' in printed
    assert said in printed
    labeled = files('out')['labeled.txt'].decode().split('\n')[:-1]
    unlabeled = files('out')['unlabeled.txt'].decode().split('\n')[:-1]
    assert (len(labeled), len(unlabeled)) == counts
    assert not set(labeled) & set(unlabeled)
    assert read_list('out/labeled.txt', 'ids').ids == labeled
    family = said.split(', ')[1]
    assert f', {family}, ' in succeed(run('identify', 'out'))


def test_rest_of_is_the_published_unlabeled_list(run):
    arguments = ('--rest-of', real('unimatch/pascal/train_aug.txt'))
    succeed(run('import', real('u2pl/pascal/662/labeled.txt'), 'out', *arguments))
    published = read_list(str(real('u2pl/pascal/662/unlabeled.txt'))).ids
    assert sorted(files('out')['unlabeled.txt'].decode().split()) == sorted(published)


def test_the_empty_published_list_is_refused(run):
    message = error_of(run('import', real('stpp/pascal/732/split_1'), 'out'))
    assert 'has no line with an image (some lists were published empty)' in message


# ------------------------------------------------------------------------------------ identify


def test_identify_tells_families_apart(run):
    lists = [real('u2pl/pascal/662'), real('unimatch/pascal/1_16/labeled.txt')]
    first, second = succeed(run('identify', *lists)).split(str(lists[1]))
    assert (
        '662 images: Pascal VOC 2012, blender-u2pl, 662 images (U2PL 662, UniMatch u2pl_1_16)'
        in first
    )
    assert (
        '  not to be taken for: Pascal VOC 2012, blender-cps, 662 images (CPS train_aug_labeled_1-16, '
        'UniMatch 1_16), 43 of them in common\n'
    ) in first
    assert 'blender-cps, 662 images (CPS' in second.splitlines()[0]


def test_identify_takes_another_registry(run, tmp_path):
    (tmp_path / 'own.txt').write_text('a\nb\n')
    assert 'unknown' in succeed(run('identify', 'own.txt'))
    assert 'gone.json does not exist. Make it by tools/make_fingerprints.py' in error_of(
        run('identify', 'own.txt', '--registry', 'gone.json')
    )


# ------------------------------------------------------------------------------------ check


@pytest.fixture
def own(tmp_path):
    """Four labeled images, two more, and a config that names them."""
    (tmp_path / 'img').mkdir()
    masks(tmp_path / 'ann', 6)
    rng = np.random.default_rng(0)
    for i in range(6):
        noise = rng.integers(0, 256, (4, 5, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f'img/m{i:02d}.png')
    (tmp_path / 'l.txt').write_text('m00\nm05\n')
    (tmp_path / 'u.txt').write_text('m01\nm02\n')
    (tmp_path / 'v.txt').write_text('m03\nm04\n')
    (tmp_path / 'config.py').write_text(
        """
def data(ann_file):
    return dict(
        type='BaseSegDataset', ann_file=ann_file, img_suffix='.png', metainfo=dict(classes=('no', 'yes')),
        data_prefix=dict(img_path='img', seg_map_path='ann'),
        serialize_data=False, pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')])
pair = dict(
    type='LabeledUnlabeledDataset', labeled=data('l.txt'),
    unlabeled=dict(type='UnlabeledDataset', ann_file='u.txt', img_dir='img'))
train_dataloader = dict(dataset=pair)
val_dataloader = dict(dataset=data('v.txt'))
del data
"""
    )
    return ('--images', 'img', '--img-suffix', '.png', '--masks', 'ann', '--num-classes', 2)


def test_check_of_lists_and_of_a_config_agree(run, own):
    lists = ('--labeled', 'l.txt', '--unlabeled', 'u.txt', '--val', 'v.txt')
    by_lists = succeed(run('check', *own, *lists, '--frames', 0))
    assert by_lists.endswith('0 errors, 0 warnings.\n')
    assert [line.split() for line in by_lists.splitlines()[4:7]] == [
        ['class', '0', '87.18%', '2'],
        ['class', '1', '12.82%', '1'],
        ['void:', '2.50%', 'of', 'all'],
    ]
    by_config = succeed(run('check', '--config', 'config.py', '--frames', 0))
    named = by_config.replace('no ', 'class 0 ').replace('yes ', 'class 1 ')
    words = [line.split() for line in by_lists.splitlines()]
    assert [line.split() for line in named.splitlines()[3:7]] == words[3:7]
    assert by_config.splitlines()[:3] == by_lists.splitlines()[:3]


def test_warnings_are_no_errors(run, own):
    printed = succeed(run('check', '--config', 'config.py', '--frames', 1))
    assert '\nwarning: 1 of 2 unlabeled images lie within 1 frames of a labeled image' in printed
    assert printed.endswith('0 errors, 2 warnings.\n')


def test_errors_make_the_exit_code(run, own, tmp_path):
    (tmp_path / 'u.txt').write_text('m00\nm03\n')
    code, printed = run('check', '--config', 'config.py')
    assert code == 1
    assert printed.count('\nerror: ') == 2
    assert (
        'error: 1 unlabeled images are in the validation set, the first is img/m03.png' in printed
    )
    override = ('--cfg-options', 'train_dataloader.dataset.unlabeled.ann_file=gone.txt')
    code, printed = run('check', '--config', 'config.py', *override)
    assert code == 1
    assert 'error: ' in printed
    assert 'gone.txt (from ann_file) does not exist' in printed


def test_check_of_whole_folders(run, own, tmp_path):
    arguments = own[:-2]
    assert 'Give --num-classes' in error_of(run('check', *arguments))
    printed = succeed(run('check', *own, '--frames', 0))
    assert printed.startswith('labeled: 6 images\n')
    code, printed = run('check', *own, '--unlabeled-images', 'img', '--val', 'v.txt')
    assert code == 1
    assert '6 labeled images are in the unlabeled set' in printed
    assert 'There is nothing to check' in error_of(run('check'))
    assert 'conf.py does not exist. Did you mean config.py?' in error_of(
        run('check', '--config', 'conf.py')
    )


def test_check_by_lists_or_by_a_config(run, own):
    """Two lists are called a partition; an unlabeled folder is not."""
    arguments = ('check', *own, '--frames', 0, '--labeled', 'l.txt')
    printed = succeed(run(*arguments, '--unlabeled-images', 'img'))
    assert (
        'warning: 2 labeled images are in the unlabeled set, the first is img/m00.png. They are trained on '
        'with and without their labels.\n'
    ) in printed
    code, printed = run(*arguments, '--unlabeled', 'l.txt')
    assert code == 1
    assert 'error: 2 labeled images are in the unlabeled set' in printed


def test_check_opens_unlabeled_images_too(run, own, tmp_path):
    (tmp_path / 'img/m02.png').write_bytes((tmp_path / 'img/m02.png').read_bytes()[:-30])
    code, printed = run('check', '--config', 'config.py')
    assert code == 1
    assert 'error: img/m02.png is truncated. Copy it again, or take it out of the list.' in printed


@pytest.mark.parametrize('part', ['labeled', 'unlabeled', 'val'])
def test_check_names_the_list_that_is_no_text(run, own, tmp_path, part):
    (tmp_path / f'{part[0]}.txt').write_bytes(b'gr\xfcn\n')
    lists = ('--labeled', 'l.txt', '--unlabeled', 'u.txt', '--val', 'v.txt')
    code, printed = run('check', *own, *lists)
    assert code == 1
    assert f'error: {part[0]}.txt line 1 is not UTF-8 text. Save the list' in printed
    (tmp_path / f'{part[0]}.txt').write_bytes(b'\xef\xbb\xbfm01\n')
    code, printed = run('check', *own, *lists)
    assert ('begins with a byte order mark' in printed) == (part != 'unlabeled')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            ('check', '--config', 'config.py', '--labeled', 'x.txt', '--val', 'nope.txt'),
            '--labeled, --val would be ignored with --config, which names them itself. Leave them',
        ),
        (
            ('check', '--config', 'config.py', '--num-classes', 3),
            '--num-classes would be ignored with',
        ),
        (
            ('check', '--images', 'img', '--cfg-options', 'a=1'),
            '--cfg-options would be ignored without --config. Give it',
        ),
        (
            ('check', '--images', 'img', '--num-classes', 3),
            '--num-classes would be ignored without masks',
        ),
        (
            ('check', '--images', 'img', '--val-masks', 'm'),
            '--val-masks would be ignored without val',
        ),
        (
            ('import', 'l.txt', 'out', '--rest-of', 'u.txt', '--labeled-only'),
            'argument --labeled-only: not allowed with argument --rest-of',
        ),
        (
            ('import', 'l.txt', 'out', '--unlabeled', 'u.txt', '--rest-of', 'u.txt'),
            'argument --rest-of: not allowed with argument --unlabeled',
        ),
        (
            ('make', 'img', 'out', '--sizes', 1, '--masks', 'ann', '--num-classes', 2),
            '--masks, --num-classes would be ignored without --balanced. Give it, or leave',
        ),
        (
            ('make', 'l.txt', 'out', '--sizes', 1, '--img-suffix', '.png'),
            '--img-suffix would be ignored since l.txt is not a folder. Leave it out.',
        ),
        (
            ('make', 'img', 'out', '--sizes', 1, '--format', 'ids'),
            '--format would be ignored since img is a folder. Leave them out.',
        ),
    ],
)
def test_no_argument_is_ignored(run, own, tmp_path, arguments, message):
    assert error_of(run(*arguments)).startswith(message)
    assert not (tmp_path / 'out').exists()


def test_check_of_camvid(run):
    if not (CAMVID / 'splits').is_dir():
        pytest.skip(f'no CamVid at {CAMVID}. Set CAMVID_ROOT')
    folders = [
        f'{CAMVID}/{kind}_dir/{part}' for part in ('train', 'val') for kind in ('img', 'ann')
    ]
    keys = ('--images', '--masks', '--val-images', '--val-masks')
    named = [x for pair in zip(keys, folders, strict=True) for x in pair]
    lists = ('--labeled', CAMVID / 'splits/1_8/seed0/labeled.txt')
    printed = succeed(run('check', *named, *lists, '--num-classes', 11))
    assert 'labeled: 46 images\nvalidation: 101 images\n' in printed
    assert '0 errors, ' in printed


# ------------------------------------------------------------------------------------ as a program


@pytest.mark.parametrize('command', ['make', 'import', 'identify', 'check'])
def test_help(run, command):
    assert f' {command} [-h]' in succeed(run(command, '--help'))


def test_errors_of_the_program_have_no_traceback(tmp_path):
    result = run_tool(TOOLS / 'splits.py', 'identify', 'gone.txt', cwd=tmp_path)
    assert result.code == 1
    assert result.last_line == 'error: gone.txt is not a file. Give a list of images.'
    assert 'Traceback' not in result.output
