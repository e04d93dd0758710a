"""What is installed: requirements that agree with each other, and a wheel that carries configs and tools."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import mmseg_semi
from mmseg_semi import compat

ROOT = Path(__file__).resolve().parent.parent


def requirements(name):
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith('#')]


def test_the_version_is_that_of_the_package():
    assert re.fullmatch(r'\d+\.\d+\.\d+', mmseg_semi.__version__)


@pytest.mark.parametrize('stack', ['onedl', 'openmmlab'])
def test_extras_and_compat_name_the_same_ranges(stack):
    extra = {r.name: r.specifier for r in requirements(stack)}
    for part in compat.STACKS[stack].values():
        assert extra[part.distribution] == SpecifierSet(part.supported)
        assert part.tested in extra[part.distribution]
    for name, supported in compat.FLOORS[stack].items():
        assert extra[name] == SpecifierSet(supported)


def test_every_requirement_is_constrained_to_a_version_it_allows():
    """pip would refuse the install otherwise, or take a version that nobody has tested."""
    constraints = requirements('constraints')
    assert all(str(c.specifier).startswith('==') for c in constraints)
    for name in ('runtime', 'onedl', 'openmmlab', 'tiff', 'timm', 'test', 'dev'):
        for wanted in requirements(name):
            pins = [c for c in constraints if c.name == wanted.name]
            assert pins, f'{wanted.name} is in requirements/{name}.txt and not in constraints.txt'
            for pin in pins:
                assert str(pin.specifier)[2:] in wanted.specifier, f'{pin} against {wanted}'


def test_the_package_itself_demands_no_more_than_any_stack():
    runtime = {r.name: str(r.specifier) for r in requirements('runtime')}
    for name in ('torch', 'numpy'):
        lowest = min(Version(floors[name][2:]) for floors in compat.FLOORS.values())
        assert runtime[name] == f'>={lowest}'
    assert set(compat.OWN.values()) <= runtime.keys()


@pytest.mark.parametrize('stack', ['onedl', 'openmmlab'])
def test_the_oldest_versions_are_the_floors(stack):
    """What `.ci/oldest` installs: the last patch of the oldest torch and numpy that compat accepts."""
    pins = {r.name: str(r.specifier)[2:] for r in requirements(f'oldest-{stack}')}
    for name, supported in compat.FLOORS[stack].items():
        floor, pin = Version(supported[2:]), Version(pins[name])
        assert pin in SpecifierSet(supported)
        assert (pin.major, pin.minor) == (floor.major, floor.minor)
    constrained = {c.name for c in requirements('constraints')}
    assert pins.keys() <= constrained


def test_constraints_pin_each_package_once_for_every_python():
    constraints = requirements('constraints')
    for version in ('3.10', '3.11', '3.12', '3.13'):
        environment = {'python_version': version}
        names = [c.name for c in constraints if not c.marker or c.marker.evaluate(environment)]
        assert len(names) == len(set(names))


def test_constraints_name_no_index():
    assert '://' not in (ROOT / 'requirements' / 'constraints.txt').read_text()


def copy_of_sources(folder):
    """What a build reads, so that the checkout of the tests is left alone."""
    folder.mkdir()
    for name in (
        'setup.py',
        'pyproject.toml',
        'MANIFEST.in',
        'README.md',
        'LICENSE',
        'model-index.yml',
    ):
        shutil.copy2(ROOT / name, folder / name)
    ignore = shutil.ignore_patterns('.mim', '__pycache__')
    for name in ('mmseg_semi', 'configs', 'tools', 'requirements'):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    return folder


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """The wheel, built from the source distribution, in the presence of a stale `.mim`."""
    folder = tmp_path_factory.mktemp('build')
    source = copy_of_sources(folder / 'source')
    stale = source / 'mmseg_semi' / '.mim'
    stale.mkdir()
    (stale / 'stale.py').touch()
    quiet = dict(check=True, capture_output=True, text=True)
    build = f'from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})'
    subprocess.run([sys.executable, '-c', build], cwd=source, **quiet)
    (sdist,) = folder.glob('*.tar.gz')
    pip = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '--no-index']
    subprocess.run([*pip, '-w', str(folder), str(sdist)], **quiet)
    (file,) = folder.glob('*.whl')
    return file


@pytest.mark.slow
def test_the_wheel_carries_configs_and_tools(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for folder in ('configs', 'tools'):
        there = {
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / folder).rglob('*')
            if path.is_file() and '__pycache__' not in path.parts
        }
        prefix = 'mmseg_semi/.mim/'
        packed = {name.removeprefix(prefix) for name in names if name.startswith(prefix + folder)}
        assert packed == there
    assert 'mmseg_semi/.mim/model-index.yml' in names
    assert not any('stale' in name or '__pycache__' in name for name in names)
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'mmseg_semi').rglob('*.py')}
    modules = {name for name in modules if '.mim' not in name}
    assert modules <= set(names)
    assert {'mmseg_semi/datasets/fingerprints.json', 'mmseg_semi/py.typed'} <= set(names)
    top = {name.split('/')[0] for name in names}
    assert {name for name in top if not name.endswith('.dist-info')} == {'mmseg_semi'}


@pytest.mark.slow
def test_configs_of_the_installed_wheel_resolve(wheel, tmp_path):
    """As a base by `bases()`, as a plain `_base_` after an import, and through mmengine's hub."""
    site = tmp_path / 'site'
    pip = [sys.executable, '-m', 'pip', 'install', '--no-deps', '--no-index', '--target', str(site)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    (name, *_) = sorted(
        path.relative_to(ROOT / 'configs').as_posix()
        for path in (ROOT / 'configs' / 'imas').glob('*.py')
    )
    own = f'mmseg_semi::{name}'
    (tmp_path / 'through_bases.py').write_text(
        f"_base_ = __import__('mmseg_semi').bases({own!r})\n"
    )
    (tmp_path / 'plain.py').write_text(f'_base_ = {own!r}\n')
    code = f"""
import mmseg_semi
from mmengine.config import Config
from mmengine.hub import get_config
assert mmseg_semi.__file__.startswith({str(site)!r}), mmseg_semi.__file__
assert mmseg_semi.bases({own!r})[0].startswith({str(site)!r})
configs = [Config.fromfile('through_bases.py'), Config.fromfile('plain.py'), get_config({own!r})]
assert all(cfg.model.type == 'IMAS' for cfg in configs)
print('resolved')
"""
    environment = {**os.environ, 'PYTHONPATH': str(site)}
    run = subprocess.run(
        [sys.executable, '-c', code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.stdout.split()[-1:] == ['resolved'], run.stderr


@pytest.mark.slow
def test_an_editable_install_links_configs_and_tools(tmp_path):
    source = copy_of_sources(tmp_path / 'source')
    site = tmp_path / 'site'
    pip = [
        sys.executable,
        '-m',
        'pip',
        'install',
        '--no-deps',
        '--no-index',
        '--no-build-isolation',
    ]
    subprocess.run(
        [*pip, '--target', str(site), '-e', str(source)], check=True, capture_output=True
    )
    (source / 'configs' / 'new.py').touch()  # written after the install
    mim = source / 'mmseg_semi' / '.mim'
    assert (mim / 'configs' / 'new.py').samefile(source / 'configs' / 'new.py')
    assert (mim / 'tools').samefile(source / 'tools')
    assert (mim / 'model-index.yml').is_file()
    assert not (source / 'build').exists() or not list((source / 'build').rglob('.mim'))
