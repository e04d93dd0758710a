"""Set up an environment on a machine with only Python and git, and run the demo or the tests.

    python3 tools/quickstart.py demo [arguments of tools/demo.py]
    python3 tools/quickstart.py test [arguments of pytest]

The environment is `.venv` in this clone (or `--venv DIR`, or $MMSEG_SEMI_VENV), with the tested versions of
requirements/constraints.txt. A second run uses it again, and repairs it if the first one was interrupted. This
file runs before anything is installed, so it uses only the standard library. Its syntax works with old Python
versions, so that it can print which version is needed.
"""

import argparse
import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 10)
EXTRAS = 'onedl,test,dev'


class SetUpError(Exception):
    """What went wrong and what to do about it, in one sentence."""


def check_python(version=sys.version_info, executable=sys.executable):
    """Refuse an interpreter that the dependencies do not support."""
    if tuple(version[:2]) < OLDEST_PYTHON:
        oldest, found = ('.'.join(map(str, numbers[:2])) for numbers in (OLDEST_PYTHON, version))
        raise SetUpError(
            f'Python {oldest} or newer is needed and {executable} is {found}. Install one and run this '
            'file with it, for instance `python3.12 tools/quickstart.py demo`.'
        )


def check_venv_module():
    """Refuse a Python without the modules that create virtual environments."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        raise SetUpError(
            f'{sys.executable} has no module {error.name}, which makes virtual environments. Install it '
            '(on Debian and Ubuntu: `sudo apt install python3-venv`) and run the same command again.'
        ) from None


def fingerprint(root=ROOT):
    """A hash of everything that the environment depends on: requirements, interpreter, path of the clone."""
    digest = hashlib.sha256(repr((sys.version_info[:3], str(root), EXTRAS)).encode())
    files = [root / 'setup.py', root / 'pyproject.toml', root / 'mmseg_semi' / 'version.py']
    for file in files + sorted((root / 'requirements').glob('*.txt')):
        digest.update(file.read_bytes())
    return digest.hexdigest()


class Environment:
    """The virtual environment in `folder`, with marker files that record the progress of its set-up."""

    def __init__(self, folder, root=ROOT):
        self.folder = Path(folder).resolve()
        self.root = root
        self.python = self.folder / ('Scripts/python.exe' if os.name == 'nt' else 'bin/python')
        self.ready_mark = self.folder / 'mmseg_semi-ready'
        self.begun_mark = self.folder / 'mmseg_semi-begun'

    def is_ready(self):
        """Whether the last set-up succeeded and its dependencies have not changed since."""
        return (
            self.ready_mark.is_file()
            and self.ready_mark.read_text() == fingerprint(self.root)
            and self._runs('-c', 'import importlib.metadata as m; m.version("mmseg_semi")')
        )

    def set_up(self):
        """Create, complete or repair the environment. Does nothing if it is ready."""
        if self.is_ready():
            print(f'Using the environment in {self.folder}', flush=True)
            return
        # pip cannot repair an environment after an interruption, so it is created again.
        if self.begun_mark.exists() or not self._runs('-m', 'pip', '--version'):
            self._create()
        self.begun_mark.touch()
        if self.ready_mark.exists():
            self.ready_mark.unlink()
        self._install()
        self.ready_mark.write_text(fingerprint(self.root))
        self.begun_mark.unlink()

    def _create(self):
        check_venv_module()
        verb = 'Creating'
        if self.folder.exists() and any(self.folder.iterdir()):
            if not (self.folder / 'pyvenv.cfg').is_file():
                raise SetUpError(
                    f'{self.folder} exists and is not a virtual environment. Name another folder with '
                    '--venv, or remove it.'
                )
            verb = 'Repairing'
        print(f'{verb} the environment in {self.folder}', flush=True)
        if subprocess.call([sys.executable, '-m', 'venv', '--clear', str(self.folder)]) != 0:
            raise SetUpError(
                f'The virtual environment in {self.folder} could not be made, as the lines above say. '
                'Fix that, or name another folder with --venv.'
            )

    def _install(self):
        print('Installing mmseg_semi with all that it needs (some minutes, 6 GB)', flush=True)
        constraints = (self.root / 'requirements' / 'constraints.txt').as_uri()
        command = [str(self.python), '-m', 'pip', 'install', '--disable-pip-version-check']
        command += ['-c', constraints, '-e', f'{self.root}[{EXTRAS}]']
        # Some packages are built from source, also with the tested setuptools. Older versions of pip read the
        # first variable, newer ones the second.
        build = {'PIP_CONSTRAINT': constraints, 'PIP_BUILD_CONSTRAINT': constraints}
        if subprocess.call(command, env=dict(os.environ, **build)) != 0:
            self.begun_mark.unlink()  # pip was not interrupted, so the environment is intact
            raise SetUpError(
                'pip could not install the requirements, as the lines above say. Check that this machine '
                'reaches a Python package index and has 10 GB of free disk, and run the same command again.'
            )

    def _runs(self, *arguments):
        if not self.python.exists():
            return False
        quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
        return subprocess.call([str(self.python), *arguments], cwd=str(self.folder), **quiet) == 0


def command_of(what, arguments, environment):
    """The command line behind `demo` and `test`."""
    if what == 'demo':
        return [str(environment.python), str(environment.root / 'tools' / 'demo.py'), *arguments]
    # One process per core, at most four, because each one imports torch and trains small networks.
    return [str(environment.python), '-m', 'pytest', '-n', str(min(4, cores())), *arguments]


def cores():
    """Number of cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parse_arguments(arguments=None):
    """The options of this file, and the other arguments, which go to the demo or the tests."""
    parser = argparse.ArgumentParser(
        description='Set up an environment for mmseg_semi and run its demo or its tests in it.',
        epilog='Further arguments go to tools/demo.py or to pytest.',
        allow_abbrev=False,
    )
    parser.add_argument('what', choices=['demo', 'test'], help='what to run')
    parser.add_argument(
        '--venv',
        default=os.environ.get('MMSEG_SEMI_VENV') or str(ROOT / '.venv'),
        help='folder of the environment (default: $MMSEG_SEMI_VENV, else .venv in this clone)',
    )
    return parser.parse_known_args(arguments)


def main():
    options, rest = parse_arguments()
    try:
        check_python()
        environment = Environment(options.venv)
        environment.set_up()
        status = subprocess.call(command_of(options.what, rest, environment), cwd=str(ROOT))
    except SetUpError as error:
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        sys.exit('Interrupted. Run the same command again to continue.')
    sys.exit(status)


if __name__ == '__main__':
    main()
