"""The floors of the package: which file may import what, read from the sources.

functional ← models, datasets ← self_training, visualization ← engine ← comparison ← own_config ← the package's
own top files.
A file imports only what lies below it, or in its own folder's room.
"""

import ast
import re
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / 'mmseg_semi'

GROUND = {'compat', 'version'}
"""Files that lie under everything but `functional`, which needs nothing of the stack."""

MIDDLE = {'functional', *GROUND}
TOP = {'functional', 'models', 'datasets', *GROUND}
ROOMS_BELOW = {
    'functional': set(),
    'compat': GROUND,
    'version': GROUND,
    'models': MIDDLE,
    'datasets': MIDDLE,
    'visualization': TOP,
    'self_training': {*TOP, 'visualization'},
    # Runs the procedures of self-training as stages.
    'engine': {*TOP, 'visualization', 'self_training'},
    # Compares runs of the engine.
    'comparison': {*TOP, 'visualization', 'self_training', 'engine'},
    # Reads the configs of methods by their names.
    'own_config': {*TOP, 'comparison'},
}

PURE = {'torch', 'numpy', 'sklearn'}
"""What `functional` may import beside the standard library."""

STACK_READERS = {'importlib.metadata', 'importlib_metadata', 'pkg_resources'}
"""What tells which distribution of the OpenMMLab stack is installed; for `compat` alone."""


def imports(tree, module, is_package):
    """The full dotted name of everything that a module imports; `from a import b` gives `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ''
            if node.level:
                parents = module.split('.')
                up = node.level - is_package
                base = parents[: len(parents) - up]
                source = '.'.join([*base, source] if source else base)
            yield from ((node.lineno, f'{source}.{alias.name}') for alias in node.names)


def strings(tree):
    """Every string but those that are statements of their own, the docstrings."""
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value


def violations(source, module, is_package=False, files=('cli',)):
    """What a module of the package imports or says against the floors, one sentence each.

    `module` is its dotted name ('mmseg_semi.models.losses'); `files` are the package's top files that
    have no place in `ROOMS_BELOW` and lie above all rooms.
    """
    tree = ast.parse(source)
    own = (module.split('.') + [''])[1]
    above_all = own == '' or own in files
    if not above_all and own not in ROOMS_BELOW:
        return [f'{module} is in a room without a floor. Give `{own}` one in {Path(__file__).name}']
    found = []
    for line, name in imports(tree, module, is_package):
        where = f'{module}:{line} imports {name}'
        root, *rest = name.split('.')
        if 'tools' in (root, *rest[:1]) and root in ('tools', 'mmseg_semi'):
            found.append(f'{where}, but the package never imports its tools')
        elif root == 'mmseg_semi':
            room = rest[0] if rest and (rest[0] in ROOMS_BELOW or rest[0] in files) else ''
            if not above_all and room != own and room not in ROOMS_BELOW[own]:
                below = ', '.join(sorted(ROOMS_BELOW[own])) or 'nothing'
                found.append(f'{where}, but below {own} lies only: {below}')
        elif own == 'functional' and root not in PURE | sys.stdlib_module_names:
            found.append(
                f'{where}, but functional knows only torch, numpy, sklearn and the standard library'
            )
        if own != 'compat' and any(f'{name}.'.startswith(f'{reader}.') for reader in STACK_READERS):
            found.append(f'{where}, but only compat looks at what is installed')
    if own != 'compat':
        found += [
            f'{module}:{line} names a distribution of the stack in {text!r}; only compat does'
            for line, text in strings(tree)
            if 'onedl' in text.lower()
        ]
    return found


def modules():
    for path in sorted(PACKAGE.rglob('*.py')):
        if '.mim' not in path.parts:
            parts = path.relative_to(PACKAGE.parent).with_suffix('').parts
            is_package = parts[-1] == '__init__'
            yield path, '.'.join(parts[:-1] if is_package else parts), is_package


@pytest.mark.parametrize(
    ('path', 'module', 'is_package'), [pytest.param(*entry, id=entry[1]) for entry in modules()]
)
def test_floors(path, module, is_package):
    files = {file.stem for file in PACKAGE.glob('*.py')} - {'__init__'} - GROUND
    found = violations(path.read_text(encoding='utf-8'), module, is_package, files)
    assert not found, '\n'.join(found)


def test_every_floor_is_looked_at():
    rooms = {module.split('.')[1] for _, module, _ in modules() if '.' in module}
    assert {'functional', 'models', 'datasets', 'engine', 'compat'} <= rooms


@pytest.mark.parametrize(
    ('module', 'source', 'words'),
    [
        ('functional.losses', 'import mmengine', 'only torch, numpy'),
        ('functional.losses', 'from mmseg.models import losses', 'only torch, numpy'),
        ('functional.losses', 'import scipy.ndimage', 'only torch, numpy'),
        ('functional.losses', 'from ..models import losses', 'below functional lies only: nothing'),
        ('functional.losses', 'from .. import compat', 'below functional lies only: nothing'),
        ('functional.losses', 'from mmseg_semi import __version__', 'below functional'),
        ('functional.losses', 'def f():\n    import mmcv', r'losses:2 imports mmcv, .*torch'),
        ('models.segmentors.base', 'from ...datasets.sampler import X', 'below models'),
        ('models.segmentors.base', 'from ... import engine', 'imports mmseg_semi.engine, .*below'),
        ('models.losses', 'import mmseg_semi.visualization.panels', 'below models'),
        ('models.losses', 'import mmseg_semi', 'below models'),
        ('models.losses', 'from mmseg_semi.cli import main', 'below models'),
        ('datasets.unlabeled', 'from ..models.losses import X', 'below datasets'),
        ('datasets.unlabeled', 'if True:\n    from mmseg_semi import self_training', 'below'),
        ('visualization.panels', 'from ..self_training import x', 'below visualization'),
        ('self_training.score', 'from ..engine.hooks import X', 'below self_training'),
        ('compat', 'from .models import losses', 'below compat'),
        ('engine.optim', 'from tools import train', 'never imports its tools'),
        ('engine.optim', 'import mmseg_semi.tools.train', 'never imports its tools'),
        ('cli', 'import tools.train', 'never imports its tools'),
        ('datasets.unlabeled', 'import importlib.metadata', 'only compat looks'),
        ('datasets.unlabeled', 'from importlib import metadata', 'only compat looks'),
        ('datasets.unlabeled', 'from importlib.metadata import version', 'only compat looks'),
        ('datasets.unlabeled', 'import pkg_resources', 'only compat looks'),
        ('datasets.unlabeled', "x = 'onedl-mmsegmentation'", 'unlabeled:1 names a distribution'),
        ('datasets.unlabeled', "x = f'pip install {y}-OneDL'", 'names a distribution'),
        ('gadgets.thing', 'import torch', 'a room without a floor'),
    ],
)
def test_a_violation_is_found(module, source, words):
    found = violations(source, f'mmseg_semi.{module}')
    assert len(found) == 1
    assert re.search(words, found[0]), found[0]


@pytest.mark.parametrize(
    ('module', 'is_package', 'source'),
    [
        ('functional.losses', False, 'import math\nimport numpy as np\nimport torch.nn.functional'),
        ('functional.losses', False, 'from __future__ import annotations\nfrom ._common import x'),
        ('functional', True, 'from . import losses\nfrom .mixing import paste'),
        (
            'models.segmentors.base',
            False,
            'from ..losses import X\nfrom ...functional import losses',
        ),
        ('models.segmentors', True, 'from .base import X\nfrom ..mixers import Y'),
        ('models.losses', False, 'import mmseg\nfrom mmseg_semi.compat import bases'),
        ('datasets.unlabeled', False, '"""Both, onedl and not."""\nfrom mmseg.registry import X'),
        ('datasets.unlabeled', False, 'import importlib\nfrom mmengine.utils import tools'),
        (
            'engine.hooks.x',
            False,
            'from ...models import a\nfrom ...datasets import b\nimport mmcv',
        ),
        ('visualization.panels', False, 'from ..functional.agreement import hardness'),
        ('compat', False, "import importlib.metadata\nname = 'onedl-mmcv'\nfrom . import version"),
        ('cli', False, 'from . import engine, visualization, __version__'),
    ],
)
def test_what_is_allowed_is_not_found(module, is_package, source):
    assert violations(source, f'mmseg_semi.{module}', is_package) == []


def test_the_package_itself_may_import_all_of_its_rooms():
    source = 'from mmseg_semi import datasets, engine\nfrom .version import __version__'
    assert violations(source, 'mmseg_semi', is_package=True) == []
    assert violations('from tools import train', 'mmseg_semi', is_package=True)
