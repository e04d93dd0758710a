"""tools/pseudo_label_quality.py from its command line."""

import json

import numpy as np
import pytest
import trained
from mmseg.utils import register_all_modules
from PIL import Image
from processes import TOOLS, run_tool
from tiny_run import dump

TOOL = TOOLS / 'pseudo_label_quality.py'
FAST = ('--batch-size', '2', '--num-workers', '0')
SIZES = [(24, 32), (32, 24), (24, 32)]
IDS = ['sub/u0', 'u1', 'u2']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    register_all_modules(init_default_scope=True)
    folder = tmp_path_factory.mktemp('quality')
    cfg = trained.config(method=True)
    cfg.custom_imports = dict(imports=['mmseg_semi'], allow_failed_imports=False)
    cfg._format_python_code = False
    dump(cfg, folder / 'config.py')
    trained.checkpoint(cfg, folder / 'x.pth')
    trained.write_pool(folder / 'pool', SIZES)
    for name, size in zip(IDS, SIZES, strict=True):
        path = folder / 'truth' / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full(size, 2, dtype=np.uint8)).save(path)
    return folder


def test_tables_and_numbers(folder):
    result = run_tool(
        *(TOOL, 'config.py', 'x.pth', 'pool', '--truth', 'truth', '--out', 'new/q.json', *FAST),
        *('--batch-norm', 'both', '--thresholds', '0', '0.5'),
        cwd=folder,
    )
    assert result.code == 0, result.output
    reports = json.loads((folder / 'new/q.json').read_text())
    names = ['student', 'student, measured batch norm', 'teacher', 'teacher, measured batch norm']
    assert list(reports) == names
    for name, report in reports.items():
        assert report['truth'] == [0, 0, 100, 0]
        assert [row['threshold'] for row in report['thresholds']] == [0, 0.5]
        assert f'\n{name}\n' in result.output
    assert reports['student'] != reports['student, measured batch norm']
    again = run_tool(
        *(TOOL, 'config.py', 'x.pth', 'pool', '--truth', 'truth', '--out', 'new/q.json', *FAST),
        cwd=folder,
    )
    assert again.code == 1
    assert again.last_line == 'error: --out new/q.json exists. Name a new file.'


def test_no_truth(folder):
    result = run_tool(TOOL, 'config.py', 'x.pth', 'pool', '--truth', 'elsewhere', *FAST, cwd=folder)
    assert result.code == 1
    assert '3 of 3 true masks do not exist, the first is elsewhere/' in result.last_line
