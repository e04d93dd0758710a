"""The set-up of a fresh machine, with a stand-in for the environment: nothing is downloaded here."""

import ast
import importlib.util
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools' / 'quickstart.py'


@pytest.fixture
def quickstart():
    spec = importlib.util.spec_from_file_location('quickstart', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def clone(tmp_path):
    """The files that the fingerprint covers."""
    root = tmp_path / 'clone'
    for name in (
        'setup.py',
        'pyproject.toml',
        'mmseg_semi/version.py',
        'requirements/constraints.txt',
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


@pytest.fixture
def commands(quickstart, monkeypatch):
    """Commands that would have been run; `venv` leaves a stand-in for python that accepts everything.

    `commands.fail` is a word of the command that shall fail.
    """

    class Commands(list):
        fail = None
        environments = ()

    ran = Commands()

    def call(command, env=None, **_):
        if 'install' in command:
            ran.append(command)
            ran.environments += (env,)
        if ran.fail is not None and ran.fail in command:
            return 1
        if 'venv' in command:
            ran.append(command)
            folder = Path(command[-1])
            (folder / 'bin').mkdir(parents=True, exist_ok=True)
            (folder / 'pyvenv.cfg').touch()
            for mark in folder.glob('mmseg_semi-*'):
                mark.unlink()
            python = folder / 'bin' / 'python'
            python.write_text('#!/bin/sh\n')
            python.chmod(python.stat().st_mode | stat.S_IXUSR)
        return 0

    monkeypatch.setattr(quickstart.subprocess, 'call', call)
    return ran


def kinds(commands):
    return ['venv' if 'venv' in command else 'pip' for command in commands]


def error_of(quickstart, function, *args, **kwargs):
    with pytest.raises(quickstart.SetUpError) as error:
        function(*args, **kwargs)
    message = str(error.value)
    assert '\n' not in message
    assert message.endswith('.')
    return message


def test_it_needs_the_standard_library_only():
    tree = ast.parse(TOOL.read_text(), feature_version=(3, 6))  # an old Python can read it
    imported = {
        name.name.split('.')[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([ast.alias(node.module)] if isinstance(node, ast.ImportFrom) else node.names)
    }
    assert imported <= sys.stdlib_module_names


def test_the_oldest_python_is_that_of_setup_py(quickstart):
    oldest = '.'.join(map(str, quickstart.OLDEST_PYTHON))
    assert f"python_requires='>={oldest}'" in (ROOT / 'setup.py').read_text()


def test_an_old_python_is_refused(quickstart):
    quickstart.check_python((3, 10, 0), 'python3')
    message = error_of(quickstart, quickstart.check_python, (3, 9, 18), '/usr/bin/python3')
    assert message.startswith('Python 3.10 or newer is needed and /usr/bin/python3 is 3.9. ')


@pytest.mark.parametrize('missing', ['venv', 'ensurepip'])
def test_a_python_without_venv_is_refused(quickstart, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    message = error_of(quickstart, quickstart.check_venv_module)
    assert 'sudo apt install python3-venv' in message


def test_a_fresh_environment_is_made_once(quickstart, clone, commands, tmp_path):
    environment = quickstart.Environment(tmp_path / 'env', clone)
    environment.set_up()
    assert kinds(commands) == ['venv', 'pip']
    install = commands[1]
    assert install[:4] == [str(environment.python), '-m', 'pip', 'install']
    constraints = (clone / 'requirements' / 'constraints.txt').as_uri()
    assert install[install.index('-c') + 1] == constraints
    assert (
        commands.environments[-1]['PIP_CONSTRAINT'] == constraints
    )  # for what is built from source
    assert install[install.index('-e') + 1] == f'{clone}[onedl,test,dev]'
    environment.set_up()
    quickstart.Environment(tmp_path / 'env', clone).set_up()
    assert len(commands) == 2


@pytest.mark.parametrize('file', ['setup.py', 'requirements/constraints.txt'])
def test_changed_requirements_are_installed(quickstart, clone, commands, tmp_path, file):
    environment = quickstart.Environment(tmp_path / 'env', clone)
    environment.set_up()
    (clone / file).write_text('changed')
    environment.set_up()
    assert kinds(commands) == ['venv', 'pip', 'pip']


def test_a_moved_clone_is_installed_again(quickstart, clone, commands, tmp_path):
    quickstart.Environment(tmp_path / 'env', clone).set_up()
    moved = clone.rename(tmp_path / 'moved')
    quickstart.Environment(tmp_path / 'env', moved).set_up()
    assert kinds(commands) == ['venv', 'pip', 'pip']


def test_an_interrupted_install_is_started_again(
    quickstart, clone, commands, tmp_path, monkeypatch
):
    environment = quickstart.Environment(tmp_path / 'env', clone)
    call = quickstart.subprocess.call

    def interrupted(command, **kwargs):
        if 'install' in command:
            raise KeyboardInterrupt
        return call(command, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(quickstart.subprocess, 'call', interrupted)
        with pytest.raises(KeyboardInterrupt):
            environment.set_up()
    assert not environment.is_ready()
    environment.set_up()
    assert kinds(commands) == ['venv', 'venv', 'pip']
    assert environment.is_ready()


def test_a_failed_install_goes_on_in_the_same_environment(quickstart, clone, commands, tmp_path):
    environment = quickstart.Environment(tmp_path / 'env', clone)
    commands.fail = 'install'
    message = error_of(quickstart, environment.set_up)
    assert message.startswith('pip could not install the requirements')
    assert 'run the same command again' in message
    commands.fail = None
    environment.set_up()
    assert kinds(commands) == ['venv', 'pip', 'pip']


def test_an_environment_whose_python_is_gone_is_made_again(quickstart, clone, commands, tmp_path):
    environment = quickstart.Environment(tmp_path / 'env', clone)
    environment.set_up()
    environment.python.unlink()
    environment.set_up()
    assert kinds(commands) == ['venv', 'pip', 'venv', 'pip']


def test_a_folder_of_other_things_is_left_alone(quickstart, clone, commands, tmp_path):
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'photos' / 'cat.jpg').touch()
    environment = quickstart.Environment(tmp_path / 'photos', clone)
    assert 'is not a virtual environment' in error_of(quickstart, environment.set_up)
    assert (tmp_path / 'photos' / 'cat.jpg').exists()
    assert commands == []


def test_an_environment_that_cannot_be_made(quickstart, clone, commands, tmp_path):
    commands.fail = 'venv'
    environment = quickstart.Environment(tmp_path / 'env', clone)
    assert 'could not be made' in error_of(quickstart, environment.set_up)


def test_further_arguments_are_passed_on(quickstart, tmp_path):
    arguments = ['test', '--venv', str(tmp_path / 'env'), '-k', 'mixing', '-v', '-x']
    options, rest = quickstart.parse_arguments(arguments)
    environment = quickstart.Environment(options.venv)
    command = quickstart.command_of(options.what, rest, environment)
    assert command[:4] == [str(tmp_path / 'env' / 'bin' / 'python'), '-m', 'pytest', '-n']
    assert 1 <= int(command[4]) <= 4
    assert command[5:] == ['-k', 'mixing', '-v', '-x']
    options, rest = quickstart.parse_arguments(['demo', '--seeds', '1', '2'])
    command = quickstart.command_of(options.what, rest, environment)
    assert command[1:] == [str(ROOT / 'tools' / 'demo.py'), '--seeds', '1', '2']
    assert Path(command[1]).is_file()


def test_the_environment_is_where_the_variable_says(quickstart, monkeypatch):
    monkeypatch.delenv('MMSEG_SEMI_VENV', raising=False)
    assert quickstart.parse_arguments(['test'])[0].venv == str(ROOT / '.venv')
    monkeypatch.setenv('MMSEG_SEMI_VENV', '/somewhere')
    assert quickstart.parse_arguments(['test'])[0].venv == '/somewhere'


def test_an_error_ends_the_program_without_a_traceback(tmp_path):
    (tmp_path / 'cat.jpg').touch()
    failed = subprocess.run(
        [sys.executable, TOOL, 'test', '--venv', tmp_path], capture_output=True, text=True
    )
    assert failed.returncode == 1
    assert re.fullmatch(r'error: .* is not a virtual environment\. .*\.\n', failed.stderr)


def test_the_readme_begins_with_exactly_two_commands():
    first_screen = (ROOT / 'README.md').read_text().split('\n## ')[0]
    commands = re.findall(r'^python3 .*$', first_screen, re.MULTILINE)
    assert commands == ['python3 tools/quickstart.py demo', 'python3 tools/quickstart.py test']
