"""The benchmark of two checkouts measures both in turn and prints their ratio; no time is asserted."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'benchmarks' / 'step_versions.py'


def run(*args):
    done = subprocess.run(
        [sys.executable, str(TOOL), *map(str, args)], capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def test_a_checkout_against_itself():
    code, output = run(ROOT, ROOT, '--cases', 'fixmatch', '--pairs', 5, '--steps', 1)
    assert code == 0, output
    (row,) = [line for line in output.splitlines() if line.startswith('| fixmatch |')]
    _, _, old, new, ratio, quartiles, _ = (cell.strip() for cell in row.split('|'))
    assert float(old) > 0
    assert float(new) > 0
    low, high = map(float, quartiles.split(' - '))
    assert low <= float(ratio) <= high


def test_bad_input_is_refused(tmp_path):
    code, output = run(tmp_path, ROOT)
    assert code == 2
    assert f'{tmp_path} has no folder mmseg_semi. Name a checkout of the repository.' in output
    code, output = run(ROOT, ROOT, '--pairs', 4)
    assert code == 2
    assert '--pairs must be at least 5, got 4.' in output
