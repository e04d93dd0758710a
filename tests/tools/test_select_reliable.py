"""tools/select_reliable.py from its command line: one process, two, killed, and with true masks."""

import json

import numpy as np
import pytest
import trained
from mmseg.utils import register_all_modules
from PIL import Image
from processes import TOOLS, run_tool
from tiny_run import dump

TOOL = TOOLS / 'select_reliable.py'
SIZES = [(24, 32), (24, 32), (32, 24), (24, 32), (32, 24), (24, 32), (24, 32)]
RESULTS = [
    'examples.png',
    'reliable.txt',
    'scores.csv',
    'scores.png',
    'selection.json',
    'unreliable.txt',
]
CHECKPOINTS = ('1.pth', '2.pth', '3.pth')

# The tool in a process that kills itself, as the power does, when a rank has its second batch of scores.
KILLED = """
import os, runpy, signal
from mmseg_semi.self_training.scores import ScoreFile

append, calls = ScoreFile.append, []


def killing(self, *args):
    if calls:
        os.kill(os.getpid(), signal.SIGKILL)
    calls.append(args)
    append(self, *args)


ScoreFile.append = killing
runpy.run_path({tool!r}, run_name='__main__')
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """config.py, three checkpoints and seven images in pool/; 'whole' is what an undisturbed process writes."""
    register_all_modules(init_default_scope=True)
    folder = tmp_path_factory.mktemp('select_reliable')
    cfg = trained.config()
    cfg.custom_imports = dict(imports=['mmseg_semi'], allow_failed_imports=False)
    cfg._format_python_code = False
    dump(cfg, folder / 'config.py')
    for k, name in enumerate(CHECKPOINTS):
        trained.checkpoint(cfg, folder / name, seed=k)
    trained.write_pool(folder / 'pool', SIZES)
    result = select(folder, 'whole')
    assert result.code == 0, result.output
    return folder


def select(folder, out, *arguments, ranks=1, tool=TOOL, checkpoints=CHECKPOINTS):
    fast = ('--batch-size', '2', '--num-workers', '0')
    return run_tool(
        *(tool, 'config.py', 'pool', out, *fast, *arguments, '--checkpoints', *checkpoints),
        cwd=folder,
        ranks=ranks,
    )


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_one_process(folder):
    assert sorted(files(folder / 'whole')) == RESULTS
    again = select(folder, 'whole')
    assert again.code == 0
    assert again.last_line.endswith('whole has the scores of 7 images already.')


def test_two_processes_find_the_same(folder):
    result = select(folder, 'two', ranks=2)
    assert result.code == 0, result.output
    assert files(folder / 'two') == files(folder / 'whole')
    assert '7 images scored in ' in result.output


def test_two_processes_killed_and_one_continues(folder):
    (folder / 'kill.py').write_text(KILLED.format(tool=str(TOOL)))
    killed = select(folder, 'killed', ranks=2, tool=folder / 'kill.py')
    assert killed.code < 0
    found = set(files(folder / 'killed'))
    assert 'begun.json' in found
    assert found & {'scores_so_far_rank0.csv', 'scores_so_far_rank1.csv'}
    assert not found & set(RESULTS)
    result = select(folder, 'killed')
    assert result.code == 0, result.output
    assert files(folder / 'killed') == files(folder / 'whole')


@pytest.mark.parametrize('ranks', [1, 2])
def test_true_masks_are_a_report_on_top(folder, ranks):
    rng = np.random.default_rng(0)
    for i, size in enumerate(SIZES):
        path = folder / 'truth' / ('sub' if i == 0 else '') / f'u{i}_true.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 4, size, dtype=np.uint8)).save(path)
    before = files(folder / 'whole')
    before.pop('truth.json', None)
    result = select(folder, 'whole', '--truth', 'truth', '--truth-suffix', '_true.png', ranks=ranks)
    assert result.code == 0, result.output
    after = files(folder / 'whole')
    report = json.loads(after.pop('truth.json'))
    assert after == before
    assert 'images scored' not in result.output
    values = ', '.join(f'{half} {value}' for half, value in report['mIoU'].items())
    assert f'mIoU of the pseudo-masks in percent: {values} (whole/truth.json)' in result.output
    expected = folder / 'report.json'
    if not expected.exists():
        expected.write_text(json.dumps(report))
    assert report == json.loads(expected.read_text())
    assert 0 < report['mIoU']['all'] < 50


@pytest.mark.parametrize(
    ('out', 'checkpoints', 'arguments', 'message'),
    [
        (
            'o',
            ('1.pth',),
            (),
            '1 checkpoint(s) give every image a score of 0. Give at least two of one training, the last one '
            'last.',
        ),
        ('o', ('1.pth', 'gone.pth'), (), 'The checkpoint gone.pth does not exist. Did you mean '),
        (
            'o',
            CHECKPOINTS,
            ('--ratio', '1'),
            'ratio, the fraction of reliable images, must be in (0, 1), got 1.0',
        ),
        (
            'whole',
            CHECKPOINTS,
            ('--ratio', '0.25'),
            'whole was started with ratio=0.5 and not with 0.25. ',
        ),
        (
            '1.pth/out',
            CHECKPOINTS,
            (),
            '1.pth/out cannot be written (Not a directory). Free space there ',
        ),
        (
            'whole',
            CHECKPOINTS,
            ('--truth', 'gone'),
            '7 of 7 true masks do not exist, the first is gone/',
        ),
    ],
)
def test_errors_are_one_sentence(folder, out, checkpoints, arguments, message):
    result = select(folder, out, *arguments, checkpoints=checkpoints)
    assert result.code == 1
    assert result.last_line.startswith(f'error: {message}')
    assert 'Traceback' not in result.output
    assert not (folder / 'o').exists()
