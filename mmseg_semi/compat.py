"""Support of both distributions of the OpenMMLab stack. No other file depends on the installed one.

The packages mmengine, mmcv, mmseg and mmpretrain come from one of two distributions: the maintained forks
(`onedl-*`) or upstream OpenMMLab. They write to the same folders of site-packages, so exactly one of them may
be installed. `check_stack` raises a one-sentence error otherwise. `bases` finds the configs of either for
`_base_`. `init_distributed` starts several processes without a GPU, which mmengine does not support.
"""

import atexit
import csv
import difflib
import gc
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePath

from packaging.specifiers import SpecifierSet
from packaging.version import Version


@dataclass(frozen=True)
class Part:
    """One package of a stack: the tested version range and the version installed by default."""

    distribution: str
    supported: str
    tested: str
    required: bool = True

    @property
    def pin(self) -> str:
        return f'{self.distribution}=={self.tested}'


STACKS = {
    'onedl': {
        'mmengine': Part('onedl-mmengine', '>=0.10.12,<0.11', '0.10.12'),
        'mmcv': Part('onedl-mmcv', '>=2.3.6,<2.4', '2.3.6'),
        'mmseg': Part('onedl-mmsegmentation', '>=1.4.2,<1.5', '1.4.2'),
        'mmpretrain': Part(
            'onedl-mmpretrain', '>=1.3.6,<1.4', '1.3.6'
        ),  # mmseg.datasets imports it
    },
    'openmmlab': {
        'mmengine': Part('mmengine', '>=0.10.7,<0.11', '0.10.7'),
        'mmcv': Part('mmcv', '>=2.1.0,<2.2', '2.1.0'),
        'mmseg': Part('mmsegmentation', '>=1.2.2,<1.3', '1.2.2'),
        'mmpretrain': Part('mmpretrain', '>=1.2.0,<1.3', '1.2.0', required=False),
    },
}

# Minimum versions that each stack is tested with, by distribution; there are no maximum versions.
FLOORS = {
    'onedl': {'torch': '>=2.4.1', 'numpy': '>=2.0'},
    'openmmlab': {'torch': '>=2.1', 'numpy': '>=1.26'},
}

# Modules that this package imports but no stack installs, and their distributions.
OWN = {'sklearn': 'scikit-learn', 'tqdm': 'tqdm'}

# Modules that a stack imports without declaring them, and their distributions.
UNDECLARED = {
    'onedl': {'distutils': 'setuptools<81', 'torchvision': 'torchvision'},
    'openmmlab': {'pkg_resources': 'setuptools<81', 'ftfy': 'ftfy', 'regex': 'regex'},
}


@dataclass(frozen=True)
class Stack:
    """The installed stack: its name, and distribution and version of each import name.

    A checkout that is only on the path has no distribution; its import name is used instead.
    """

    name: str
    distributions: dict[str, str]
    versions: dict[str, str]


def check_stack() -> Stack:
    """Find the installed stack, or raise an error that says what to install.

    Returns:
        Stack: The installed distribution of the OpenMMLab stack.

    Raises:
        ImportError: There is no stack, a part of it is missing, both distributions are installed, or a version
            is outside the tested range. Or torch or numpy is too old or does not match the other. Or upstream
            mmcv has no compiled ops, or ops for another torch. Or a module is missing that this package
            imports, or that the stack imports without declaring it.
    """
    installed = {
        name: {module: _version(part.distribution) for module, part in parts.items()}
        for name, parts in STACKS.items()
    }
    present = [name for name, versions in installed.items() if any(versions.values())]
    if len(present) == 2:
        raise ImportError(_both_message(installed))
    # Without metadata, modules on the path can only be checkouts of upstream, since the forks read their
    # version from their metadata.
    name = present[0] if present else 'openmmlab'
    parts, distributions, versions = STACKS[name], {}, {}
    for module, part in parts.items():
        version = installed[name][module]
        distributions[module] = part.distribution
        if version is None and name == 'openmmlab':
            version = _checkout_version(module)
            distributions[module] = module
        if version is not None:
            versions[module] = version
    missing = [module for module, part in parts.items() if part.required and module not in versions]
    if len(missing) == sum(part.required for part in parts.values()):
        raise ImportError(
            'mmseg_semi needs the OpenMMLab stack, but none is installed. Run `'
            f'{_install_command("onedl", STACKS["onedl"])}`.'
        )
    if missing:
        raise ImportError(
            f'mmseg_semi found {_listed(versions, distributions)} but no {" and no ".join(missing)}. Run `'
            f'{_install_command(name, missing)}`.'
        )
    for module, version in versions.items():
        part = parts[module]
        if not SpecifierSet(part.supported).contains(version, prereleases=True):
            raise ImportError(
                f'mmseg_semi is tested with {part.distribution} {part.supported} and found {version}. Run `'
                f'{_install_command(name, [module])}`.'
            )
    _check_floors(name)
    for module, requirement in UNDECLARED[name].items():
        if importlib.util.find_spec(module) is None:
            raise ImportError(
                f'{parts["mmengine"].distribution} and {parts["mmseg"].distribution} import {module} without '
                f'declaring it and it is not installed. Run `pip install "{requirement}"`.'
            )
    absent = [OWN[module] for module in OWN if importlib.util.find_spec(module) is None]
    if absent:
        raise ImportError(
            f'mmseg_semi imports {" and ".join(absent)} and finds no such distribution. Run `'
            f'pip install {" ".join(absent)}`.'
        )
    if name == 'openmmlab':
        _check_ops(versions['mmcv'], versions['mmseg'])
    return Stack(name, {m: distributions[m] for m in versions}, versions)


def _check_floors(stack: str) -> None:
    """Raise unless torch and numpy are new enough for a stack and match each other."""
    found = {name: _version(name) for name in FLOORS[stack]}
    for name, supported in FLOORS[stack].items():
        if found[name] is None:
            raise ImportError(
                f'mmseg_semi needs {name}, but it is not installed. Run `pip install "{name}{supported}"`.'
            )
        # A vendor build of 2.1.0 may have the version 2.1.0a0+32f93b1.
        if Version(found[name]).base_version not in SpecifierSet(supported):
            raise ImportError(
                f'mmseg_semi is tested with {name}{supported} beside '
                f'{STACKS[stack]["mmseg"].distribution} and found {found[name]}. Run `'
                f'pip install "{name}{supported}"`, or do so in a new environment.'
            )
    if Version(found['torch']) < Version('2.3') and Version(found['numpy']) >= Version('2'):
        raise ImportError(
            f'torch {found["torch"]} was compiled for numpy 1, but numpy {found["numpy"]} is installed. Run '
            '`pip install "numpy<2"`.'
        )


def _check_ops(mmcv: str, mmseg: str) -> None:
    """Raise unless the compiled ops of upstream mmcv exist and can be loaded with the installed torch."""
    # pip caches the compiled wheel, whatever torch it was compiled for.
    again = (
        'Run `pip uninstall -y mmcv` and then `'
        f'{_install_command("openmmlab", ["mmcv"])} --no-cache-dir`.'
    )
    if importlib.util.find_spec('mmcv._ext') is None:
        raise ImportError(
            f'mmcv {mmcv} was installed without its compiled ops, which mmsegmentation {mmseg} imports. {again}'
        )
    try:
        _load_ops()
    except ImportError as error:
        raise ImportError(
            f'The compiled ops of mmcv {mmcv} do not load beside torch {_version("torch")}, as those of '
            f'another torch would not ({error}). {again}'
        ) from error


def _load_ops() -> None:
    import torch  # noqa: F401  whose libraries the ops link to

    importlib.import_module('mmcv._ext')


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _checkout_version(module: str) -> str | None:
    """Return the version of a module on the path that was not installed, without importing it."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / 'version.py'
    found = re.search(r"__version__ = '([^']+)'", file.read_text()) if file.is_file() else None
    return found.group(1) if found else None


def _listed(versions: dict[str, str], distributions: dict[str, str]) -> str:
    return ' and '.join(
        f'{distributions[module]} {version}' for module, version in versions.items()
    )


def _install_command(stack: str, modules) -> str:
    """Return the pip command that installs the tested versions of these parts of a stack."""
    pins = ' '.join(STACKS[stack][module].pin for module in modules)
    if stack == 'openmmlab' and 'mmcv' in modules:  # PyPI only has its source
        return (
            'pip install wheel "setuptools<81" && '
            f'MMCV_WITH_OPS=1 pip install --no-build-isolation {pins}'
        )
    return f'pip install {pins}'


def _both_message(installed: dict[str, dict[str, str | None]]) -> str:
    there = [
        (STACKS[name][module].distribution, version)
        for name, versions in installed.items()
        for module, version in versions.items()
        if version
    ]
    return (
        f'Both distributions of the OpenMMLab stack are installed ('
        f"{', '.join(' '.join(part) for part in there)}) and overwrite each other's files. Run `"
        f'pip uninstall -y {" ".join(distribution for distribution, _ in there)}` and then `'
        f'{_install_command("onedl", STACKS["onedl"])}`.'
    )


STACK = check_stack()


def register_packages() -> None:
    """Let mmengine find `mmseg::…` and `mmseg_semi::…`, in `_base_` and in `get_config`.

    mmengine maps an import name to a distribution and looks it up first, then treats it as a module. For an
    editable install, upstream mmengine derives a wrong folder from the metadata. Therefore this package uses
    the name of a module beside the configs, which works in every kind of install.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE.update({m: d for m, d in STACK.distributions.items() if m in MODULE2PACKAGE})
    MODULE2PACKAGE['mmseg_semi'] = 'mmseg_semi.compat'


register_packages()


def swaps_channels(preprocessor) -> bool:
    """Whether a SegDataPreProcessor swaps BGR and RGB; the two mmsegs name the attribute differently."""
    if STACK.name == 'openmmlab':
        return preprocessor.channel_conversion
    return preprocessor._channel_conversion


def bases(*names: str) -> list[str]:
    """Return the list for a config's `_base_`, with `package::name` resolved and checked.

    `_base_` is evaluated as an expression before `custom_imports`, so configs use `_base_ =
    __import__('mmseg_semi').bases('mmseg::_base_/models/deeplabv3plus_r50-d8.py', './x.py')`. A plain
    `'mmseg::…'` works with only one of the two distributions.

    Args:
        names (str): `'package::path/below/its/configs.py'` or a path relative to the config.

    Returns:
        list[str]: Absolute paths for configs of mmseg and mmseg_semi, which are read like local files. Names of
        other packages do not change, since mmengine must mark their dicts with the package's scope for
        mmseg's registries to find the types.

    Raises:
        FileNotFoundError: The package has no such config.
        ImportError: The package or its configs are not installed.
    """
    return [_base(name) for name in names]


def _base(name: str) -> str:
    if '::' not in name:
        return name
    package = name.partition('::')[0]
    path = config_path(name)
    return str(path) if package in ('mmseg', 'mmseg_semi') else name


def config_path(name: str) -> Path:
    """Return the file for `package::path/below/its/configs.py`.

    Raises:
        FileNotFoundError: The package has no such config.
        ImportError: The package or its configs are not installed.
    """
    package, _, path = name.partition('::')
    root = config_root(package)
    file = root / path
    if not file.is_file():
        moved = renamed_config(path) if package == 'mmseg_semi' else None
        if moved:
            raise FileNotFoundError(
                f'{name} was renamed to {package}::{moved[0]}'
                f'{f", with {moved[1]}" if moved[1] else ""}.'
            )
        known = [str(p.relative_to(root).as_posix()) for p in root.rglob('*.py')]
        close = difflib.get_close_matches(path, known, n=1, cutoff=0.0)
        hint = f'Did you mean {package}::{close[0]}?' if close else 'That folder is empty.'
        raise FileNotFoundError(f'{name} does not exist below {root}. {hint}')
    return file


def renamed_config(path: str) -> tuple[str, str] | None:
    """Return the new name of a renamed config of this package, and the options for the same settings.

    Args:
        path (str): Path of a config that does not exist; parent folders are ignored.

    Returns:
        tuple[str, str], optional: Path below ``configs`` and options for ``--cfg-options``, which may be empty;
        None if the config never existed.
    """
    with (config_root('mmseg_semi') / 'renamed.csv').open(encoding='utf-8', newline='') as file:
        for row in csv.DictReader(file):
            if PurePath(path).name == PurePath(row['old']).name:
                return row['config'], row['options']
    return None


def config_root(package: str) -> Path:
    """Return the config folder of a package: `.mim` if it was installed, or beside it in a checkout."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        known = STACKS[STACK.name].get(package)
        raise ImportError(
            f'A config refers to {package}::…, but {package} is not installed. Run `pip install '
            f'{known.pin if known else package}`.'
        )
    return _shipped(package, Path(spec.origin).parent, 'configs')


def _shipped(package: str, folder: Path, what: str) -> Path:
    for root in (folder / '.mim' / what, folder.parent / what):
        if root.is_dir():
            return root
    raise ImportError(
        f'{package} at {folder} came without its {what} (neither {folder / ".mim" / what} nor '
        f'{folder.parent / what} exists). Install it again with pip.'
    )


def stock_converter(name: str):
    """Import a dataset converter of mmseg, whose tools are not a package: `voc_aug`, `cityscapes`, ...

    Raises:
        ImportError: mmseg was installed without it, or one of its imports is not installed.
    """
    spec = importlib.util.find_spec('mmseg')
    tools = _shipped('mmseg', Path(spec.origin).parent, 'tools')
    file = tools / 'dataset_converters' / f'{name}.py'
    if not file.is_file():
        raise ImportError(f'mmseg came without {file}. Install it again with pip.')
    spec = importlib.util.spec_from_file_location(f'mmseg_converter_{name}', file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def init_distributed(
    launcher: str, backend: str | None = None, timeout: float | None = None
) -> None:
    """Join the processes of a launcher if there is no GPU; call it before the Runner is built.

    With a GPU, or without a launcher, this does nothing, and mmengine initializes the processes. Without a GPU,
    mmengine's initialization fails in `torch.cuda.set_device`.

    Args:
        launcher (str): 'none', 'pytorch' (torchrun), 'slurm' or 'mpi', as in mmengine.
        backend (str, optional): Backend of torch.distributed. Default: 'gloo'.
        timeout (float, optional): Timeout of a collective operation in seconds. Default: one hour, since all
            ranks wait while one rank passes over the data.

    Raises:
        ValueError: The launcher is unknown, or the backend is 'nccl', which needs a GPU.
        RuntimeError: The launcher's environment variables are missing.
    """
    import torch
    import torch.distributed

    if launcher == 'none' or torch.distributed.is_initialized() or _has_accelerator():
        return
    if backend == 'nccl':
        raise ValueError(
            "backend='nccl' needs a CUDA device, but there is none. Remove it to use gloo."
        )
    sources = {
        'pytorch': _torchrun_environment,
        'slurm': _slurm_environment,
        'mpi': _mpi_environment,
    }
    starters = {'pytorch': 'torchrun or tools/dist_train.sh', 'slurm': 'srun', 'mpi': 'mpirun'}
    if launcher not in sources:
        raise ValueError(
            f"launcher={launcher!r} is unknown. Use 'none' or one of {', '.join(sources)}."
        )
    try:
        os.environ.update(sources[launcher]())
    except KeyError as error:
        raise RuntimeError(
            f'launcher={launcher!r} needs the environment variable {error.args[0]}. Start the command with '
            f'{starters[launcher]}.'
        ) from None
    torch.distributed.init_process_group(
        backend or 'gloo', timeout=timedelta(seconds=3600 if timeout is None else timeout)
    )
    atexit.register(_leave_processes)


def _leave_processes() -> None:
    """End gloo's threads before the interpreter exits, which aborts if one of them still frees a tensor."""
    import torch.distributed

    if torch.distributed.is_initialized():
        # They end with the last reference to the group; reference cycles in Runner and model hold some.
        gc.collect()
        torch.distributed.destroy_process_group()


def set_up_processes(cfg) -> None:
    """Do the first steps of a Runner without one: join the launcher's processes and set how workers start.

    Args:
        cfg (Config): Config with ``launcher`` and ``env_cfg``, as for a Runner.
    """
    from mmengine.dist import init_dist, is_distributed
    from mmengine.utils.dl_utils import set_multi_processing

    launcher, env_cfg = cfg.get('launcher', 'none'), cfg.get('env_cfg', {})
    dist_cfg = env_cfg.get('dist_cfg', {})
    init_distributed(launcher, timeout=dist_cfg.get('timeout'))
    if launcher != 'none' and not is_distributed():
        init_dist(launcher, **dist_cfg)
    set_multi_processing(**env_cfg.get('mp_cfg', {}), distributed=is_distributed())


def _has_accelerator() -> bool:
    from mmengine.device import get_device

    return get_device() not in ('cpu', 'mps')  # MPS has no collectives; gloo is used


def _torchrun_environment() -> dict[str, str]:
    return {
        key: os.environ[key]
        for key in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')
    }


def _slurm_environment() -> dict[str, str]:
    address = os.environ.get('MASTER_ADDR') or _first_host(os.environ['SLURM_NODELIST'])
    return {
        'RANK': os.environ['SLURM_PROCID'],
        'LOCAL_RANK': os.environ['SLURM_LOCALID'],
        'WORLD_SIZE': os.environ['SLURM_NTASKS'],
        'MASTER_ADDR': address,
        'MASTER_PORT': os.environ.get('MASTER_PORT', '29500'),  # mmengine's default
    }


def _first_host(nodes: str) -> str:
    listed = subprocess.run(
        ['scontrol', 'show', 'hostnames', nodes], check=True, capture_output=True, text=True
    )
    return listed.stdout.split()[0]


def _mpi_environment() -> dict[str, str]:
    return {
        'RANK': os.environ['OMPI_COMM_WORLD_RANK'],
        'LOCAL_RANK': os.environ['OMPI_COMM_WORLD_LOCAL_RANK'],
        'WORLD_SIZE': os.environ['OMPI_COMM_WORLD_SIZE'],
        'MASTER_ADDR': os.environ['MASTER_ADDR'],
        'MASTER_PORT': os.environ.get('MASTER_PORT', '29500'),
    }


def describe() -> str:
    """Return one line with the versions of this package, Python, torch and the stack."""
    import torch

    from mmseg_semi.version import __version__

    parts = ', '.join(f'{STACK.distributions[m]} {v}' for m, v in STACK.versions.items())
    return f'mmseg_semi {__version__}, Python {sys.version.split()[0]}, torch {torch.__version__}, {parts}'
