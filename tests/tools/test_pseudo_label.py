"""tools/pseudo_label.py from its command line: one process, two, killed, without room on the disk."""

import json
import os

import pytest
import trained
from mmseg.utils import register_all_modules
from processes import TOOLS, run_tool
from tiny_run import dump

TOOL = TOOLS / 'pseudo_label.py'
SIZES = [(24, 32), (24, 32), (32, 24), (24, 32), (32, 24), (24, 32), (24, 32)]
IDS = ['sub/u0', 'u1', 'u2', 'u3', 'u4', 'u5', 'u6']
FAST = ('--batch-size', '2', '--num-workers', '0')

# The tool in a process that kills itself, as the power does, when a rank writes its second batch.
KILLED = """
import os, runpy, signal
from mmseg_semi.self_training.masks import MaskWriter

write, calls = MaskWriter.write, []


def killing(self, *args):
    if calls:
        self._wait()
        os.kill(os.getpid(), signal.SIGKILL)
    calls.append(args)
    write(self, *args)


MaskWriter.write = killing
runpy.run_path({tool!r}, run_name='__main__')
"""

# The tool in a process that can write no file larger than this, once it comes to masks: as on a full disk.
FULL = """
import resource, runpy
from mmseg_semi.self_training.masks import MaskWriter

begin = MaskWriter.__init__


def fill_the_disk(self, *args, **kwargs):
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
    begin(self, *args, **kwargs)


MaskWriter.__init__ = fill_the_disk
runpy.run_path({tool!r}, run_name='__main__')
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """config.py, x.pth and seven images in pool/; 'whole' is what an undisturbed process writes."""
    register_all_modules(init_default_scope=True)
    folder = tmp_path_factory.mktemp('pseudo_label')
    cfg = trained.config()
    cfg.custom_imports = dict(imports=['mmseg_semi'], allow_failed_imports=False)
    cfg._format_python_code = False
    dump(cfg, folder / 'config.py')
    trained.checkpoint(cfg, folder / 'x.pth')
    trained.write_pool(folder / 'pool', SIZES)
    assert label(folder, 'whole').code == 0
    return folder


def label(folder, out, *arguments, ranks=1, tool=TOOL, images='pool'):
    arguments = arguments or ('--tta', '--scales', '0.5', '1', *FAST)
    return run_tool(tool, 'config.py', 'x.pth', images, out, *arguments, cwd=folder, ranks=ranks)


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


def wrapper(folder, name, text, **values):
    path = folder / name
    path.write_text(text.format(tool=str(TOOL), **values))
    return path


def test_one_process(folder):
    assert sorted(files(folder / 'whole')) == sorted(
        [f'{i}.png' for i in IDS] + ['pseudo_labels.json']
    )
    settings = json.loads(files(folder / 'whole')['pseudo_labels.json'])['settings']
    assert (settings['scales'], settings['flip']) == ([0.5, 1.0], True)
    again = label(folder, 'whole')
    assert again.code == 0
    assert again.last_line.endswith('whole has the pseudo-labels of 7 images already.')


def test_two_processes_write_the_same(folder):
    result = label(folder, 'two', ranks=2)
    assert result.code == 0, result.output
    assert files(folder / 'two') == files(folder / 'whole')
    assert '7 images pseudo-labeled in ' in result.output


def test_two_processes_killed_and_one_continues(folder):
    killed = label(folder, 'killed', ranks=2, tool=wrapper(folder, 'kill.py', KILLED))
    assert killed.code < 0
    found = files(folder / 'killed')
    assert 'begun.json' in found
    assert 'pseudo_labels.json' not in found
    masks = [name for name in found if name.endswith('.png')]
    assert 1 <= len(masks) <= 4
    result = label(folder, 'killed')
    assert result.code == 0, result.output
    assert files(folder / 'killed') == files(folder / 'whole')


def test_no_room_for_a_mask(folder):
    sizes = {name: len(content) for name, content in files(folder / 'whole').items()}
    assert min(size for name, size in sizes.items() if name.endswith('png')) > 860
    full = label(folder, 'full', tool=wrapper(folder, 'full.py', FULL, limit=860))
    assert full.code == 1
    assert full.last_line.startswith('error: full/')
    assert full.last_line.endswith(
        '.png cannot be written (File too large). Free space there or name another folder, and run the same '
        'command again, which continues where this one ended.'
    )
    assert list(files(folder / 'full')) == ['begun.json']
    assert label(folder, 'full').code == 0
    assert files(folder / 'full') == files(folder / 'whole')


def test_a_list_and_a_plain_prediction(folder):
    (folder / 'list.txt').write_text('u1\nsub/u0\n')
    where = ('--img-dir', 'pool', '--img-suffix', '.png')
    result = label(folder, 'listed', *where, '--num-workers', '1', images='list.txt')
    assert result.code == 0, result.output
    found = files(folder / 'listed')
    assert sorted(found) == ['pseudo_labels.json', 'sub/u0.png', 'u1.png']
    settings = json.loads(found['pseudo_labels.json'])['settings']
    assert (settings['scales'], settings['flip']) == ([1.0], False)


@pytest.mark.parametrize(
    ('images', 'out', 'arguments', 'message'),
    [
        (
            'gone',
            'o',
            FAST,
            'IMAGES gone does not exist. Give a folder of images, or a list of ids with --img-dir.',
        ),
        (
            'config.py',
            'o',
            FAST,
            'IMAGES config.py is a list. Give the folder of its images with --img-dir.',
        ),
        (
            'pool',
            'o',
            ('--img-dir', 'pool'),
            '--img-dir pool is not needed, since IMAGES is the folder pool. Remove it.',
        ),
        (
            'pool',
            'pool',
            FAST,
            'pool is inside the folder of images pool, so that results would count as images. Give a folder '
            'outside of it.',
        ),
        (
            'pool',
            'x.pth/out',
            FAST,
            'x.pth/out cannot be written (Not a directory). Free space there or name another folder, and run '
            'the same command again, which continues where this one ended.',
        ),
        ('pool', 'o', ('--batch-size', '0'), 'batch_size=0 must be at least 1.'),
    ],
)
def test_errors_are_one_sentence(folder, images, out, arguments, message):
    before = files(folder / 'pool')
    result = label(folder, out, *arguments, images=images)
    assert result.code == 1
    assert result.last_line == f'error: {message}'
    assert 'Traceback' not in result.output
    assert files(folder / 'pool') == before


def test_an_unreadable_image_seen_by_a_worker(folder, tmp_path):
    trained.write_pool(tmp_path, [(24, 32)] * 3)
    path = tmp_path / 'u1.png'
    path.write_bytes(path.read_bytes()[:-40])
    result = label(folder, 'unreadable', '--num-workers', '1', images=str(tmp_path))
    assert result.code == 1
    assert (
        result.last_line
        == f'error: {path} is truncated. Copy it again, or take it out of the list.'
    )
    assert 'Traceback' not in result.output


def test_scales_without_tta(folder):
    result = label(folder, 'o', '--scales', '1')
    assert result.code == 2
    assert result.last_line == 'pseudo_label.py: error: --scales needs --tta. Add --tta.'
    assert not os.path.exists(folder / 'o')


def test_names_with_blanks_and_letters_of_any_script_and_hidden_files(folder, tmp_path):
    """What editors and systems leave is not an image; every other name has its mask."""
    pool = tmp_path / 'pool'
    trained.write_pool(pool, [(24, 32)] * 3)
    (pool / 'sub/u0.png').rename(pool / 'sub/a b.png')
    (pool / 'u1.png').rename(pool / 'größe 猫.PNG')
    for name in ('._u2.png', '.ipynb_checkpoints/u2-checkpoint.png', 'Thumbs.db'):
        (pool / name).parent.mkdir(exist_ok=True)
        (pool / name).write_bytes(b'')
    result = label(folder, tmp_path / 'out', *FAST, images=str(pool))
    assert result.code == 0, result.output
    found = {p.relative_to(tmp_path / 'out').as_posix() for p in (tmp_path / 'out').rglob('*.png')}
    assert found == {'sub/a b.png', 'größe 猫.png', 'u2.png'}
    assert '2 hidden image file(s) of' in result.output
