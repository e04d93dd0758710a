"""Which stack is installed, where its configs are, and how processes join without a GPU."""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.hub import get_config
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmseg.models import SegDataPreProcessor
from processes import free_port

import mmseg_semi
from mmseg_semi import compat

ROOT = Path(__file__).resolve().parent.parent
ONEDL = {part.distribution: part.tested for part in compat.STACKS['onedl'].values()}
ONEDL.update(torch='2.4.1', numpy='2.0.2')
OPENMMLAB = {part.distribution: part.tested for part in compat.STACKS['openmmlab'].values()}
OPENMMLAB.update(torch='2.1.0+cu121', numpy='1.26.4')
PROCESS = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')
UNDECLARED = (
    *('distutils', 'torchvision', 'pkg_resources', 'ftfy', 'regex', 'mmcv._ext'),
    *('sklearn', 'tqdm'),
)


@pytest.fixture
def pretend(monkeypatch):
    """Make check_stack see these distributions and, importable besides them, these modules."""

    def set_up(distributions, modules=UNDECLARED):
        def version(name):
            if name not in distributions:
                raise importlib.metadata.PackageNotFoundError(name)
            return distributions[name]

        def find_spec(name):
            return SimpleNamespace(origin=str(modules[name])) if name in modules else None

        modules = dict.fromkeys(modules, 'x.py') if isinstance(modules, tuple) else modules
        monkeypatch.setattr(importlib.metadata, 'version', version)
        monkeypatch.setattr(importlib.util, 'find_spec', find_spec)
        monkeypatch.setattr(compat, '_load_ops', lambda: None)

    yield set_up
    monkeypatch.undo()


def message_of(function, *args):
    with pytest.raises((ImportError, FileNotFoundError, ValueError, RuntimeError)) as error:
        function(*args)
    message = str(error.value)
    assert '\n' not in message
    assert message.endswith(('.', '?'))
    return message


# ------------------------------------------------------------------------------- the stack


@pytest.mark.parametrize(('name', 'installed'), [('onedl', ONEDL), ('openmmlab', OPENMMLAB)])
def test_the_tested_stacks_are_accepted(pretend, name, installed):
    pretend(installed)
    stack = compat.check_stack()
    assert stack.name == name
    assert stack.versions == {m: p.tested for m, p in compat.STACKS[name].items()}
    assert stack.distributions['mmseg'] == compat.STACKS[name]['mmseg'].distribution


def test_upstream_needs_no_mmpretrain(pretend):
    pretend({name: v for name, v in OPENMMLAB.items() if name != 'mmpretrain'})
    assert 'mmpretrain' not in compat.check_stack().versions


def test_no_stack(pretend):
    pretend({'torch': '2.12.0', 'numpy': '2.4.6'})
    message = message_of(compat.check_stack)
    assert 'none is installed' in message
    pins = 'onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 onedl-mmsegmentation==1.4.2 onedl-mmpretrain==1.3.6'
    assert f'`pip install {pins}`' in message


def test_both_stacks(pretend):
    pretend({**ONEDL, 'mmcv': '2.1.0'})
    message = message_of(compat.check_stack)
    assert message.startswith('Both distributions')
    assert 'onedl-mmcv 2.3.6' in message
    assert 'mmcv 2.1.0' in message
    assert (
        'pip uninstall -y onedl-mmengine onedl-mmcv onedl-mmsegmentation onedl-mmpretrain mmcv`'
        in message
    )
    assert 'then `pip install onedl-mmengine==' in message


@pytest.mark.parametrize(
    ('installed', 'absent', 'command'),
    [
        (ONEDL, 'onedl-mmcv', 'pip install onedl-mmcv==2.3.6'),
        (ONEDL, 'onedl-mmpretrain', 'pip install onedl-mmpretrain==1.3.6'),
        (OPENMMLAB, 'mmsegmentation', 'pip install mmsegmentation==1.2.2'),
        (
            OPENMMLAB,
            'mmcv',
            'pip install wheel "setuptools<81" && '
            'MMCV_WITH_OPS=1 pip install --no-build-isolation mmcv==2.1.0',
        ),
    ],
)
def test_a_part_is_missing(pretend, installed, absent, command):
    pretend({name: version for name, version in installed.items() if name != absent})
    message = message_of(compat.check_stack)
    assert 'but no mm' in message
    assert f'`{command}`' in message


@pytest.mark.parametrize(
    ('installed', 'distribution', 'version', 'supported'),
    [
        (ONEDL, 'onedl-mmsegmentation', '1.3.0', '>=1.4.2,<1.5'),
        (ONEDL, 'onedl-mmengine', '0.11.0', '>=0.10.12,<0.11'),
        (OPENMMLAB, 'mmcv', '2.2.0', '>=2.1.0,<2.2'),
        (OPENMMLAB, 'mmpretrain', '0.7.0', '>=1.2.0,<1.3'),
    ],
)
def test_a_version_outside_the_tested_range(pretend, installed, distribution, version, supported):
    pretend({**installed, distribution: version})
    message = message_of(compat.check_stack)
    assert f'{distribution} {supported} and found {version}' in message
    assert f'{distribution}=={installed[distribution]}`' in message


@pytest.mark.parametrize(
    ('installed', 'module', 'requirement'),
    [
        (ONEDL, 'distutils', 'setuptools<81'),
        (ONEDL, 'torchvision', 'torchvision'),
        (OPENMMLAB, 'pkg_resources', 'setuptools<81'),
        (OPENMMLAB, 'ftfy', 'ftfy'),
    ],
)
def test_a_module_that_the_stack_does_not_declare(pretend, installed, module, requirement):
    pretend(installed, tuple(name for name in UNDECLARED if name != module))
    message = message_of(compat.check_stack)
    assert f'import {module} without' in message
    assert f'`pip install "{requirement}"`' in message


def test_mmcv_without_its_ops(pretend):
    pretend(OPENMMLAB, tuple(name for name in UNDECLARED if name != 'mmcv._ext'))
    message = message_of(compat.check_stack)
    assert 'mmcv 2.1.0 was installed without its compiled ops' in message
    assert 'MMCV_WITH_OPS=1 pip install --no-build-isolation mmcv==2.1.0 --no-cache-dir' in message


@pytest.mark.parametrize(
    ('installed', 'name', 'version', 'supported'),
    [
        (ONEDL, 'torch', '2.2.2', '>=2.4.1'),
        (ONEDL, 'numpy', '1.26.4', '>=2.0'),
        (OPENMMLAB, 'torch', '2.0.1+cu118', '>=2.1'),
        (OPENMMLAB, 'numpy', '1.24.4', '>=1.26'),
    ],
)
def test_torch_or_numpy_is_too_old(pretend, installed, name, version, supported):
    pretend({**installed, name: version})
    message = message_of(compat.check_stack)
    mmseg = next(part for part in installed if 'mmsegmentation' in part)
    assert f'tested with {name}{supported} beside {mmseg} and found {version}. Run' in message
    assert f'`pip install "{name}{supported}"`' in message


def test_a_pre_release_of_a_vendor_counts_as_the_release(pretend):
    pretend({**OPENMMLAB, 'torch': '2.1.0a0+32f93b1'})
    assert compat.check_stack().name == 'openmmlab'


def test_no_torch(pretend):
    pretend({name: version for name, version in ONEDL.items() if name != 'torch'})
    assert 'needs torch, but it is not installed. Run `pip install "torch>=2.4.1"`.' in message_of(
        compat.check_stack
    )


@pytest.mark.parametrize(('torch_version', 'fits'), [('2.2.2', False), ('2.3.0', True)])
def test_numpy_is_newer_than_torch_can_use(pretend, torch_version, fits):
    pretend({**OPENMMLAB, 'torch': torch_version, 'numpy': '2.0.2'})
    if fits:
        compat.check_stack()
    else:
        message = message_of(compat.check_stack)
        assert 'torch 2.2.2 was compiled for numpy 1, but numpy 2.0.2 is' in message
        assert '`pip install "numpy<2"`' in message


@pytest.mark.parametrize('installed', [ONEDL, OPENMMLAB])
def test_what_an_install_without_dependencies_leaves_out(pretend, installed):
    pretend(installed, tuple(name for name in UNDECLARED if name not in ('sklearn', 'tqdm')))
    assert '`pip install scikit-learn tqdm`' in message_of(compat.check_stack)


def test_ops_that_were_compiled_for_another_torch(pretend, monkeypatch):
    def load():
        raise ImportError('_ext.so: undefined symbol: _ZN3c106detail23torchInternalAssertFailEv')

    pretend(OPENMMLAB)
    monkeypatch.setattr(compat, '_load_ops', load)
    message = message_of(compat.check_stack)
    assert 'of mmcv 2.1.0 do not load beside torch 2.1.0+cu121' in message
    assert 'undefined symbol' in message
    assert message.endswith('--no-build-isolation mmcv==2.1.0 --no-cache-dir`.')


def test_a_checkout_of_mmseg_on_the_path(pretend, tmp_path):
    (tmp_path / 'version.py').write_text("__version__ = '1.2.2'\n")
    rest = {name: version for name, version in OPENMMLAB.items() if name != 'mmsegmentation'}
    pretend(rest, {**dict.fromkeys(UNDECLARED, 'x.py'), 'mmseg': tmp_path / '__init__.py'})
    stack = compat.check_stack()
    assert stack.versions['mmseg'] == '1.2.2'
    assert (
        stack.distributions['mmseg'] == 'mmseg'
    )  # no distribution: mmengine then asks for the module


def test_the_import_of_the_package_fails_with_the_sentence(tmp_path):
    other = OPENMMLAB if compat.STACK.name == 'onedl' else ONEDL
    for distribution, version in other.items():
        folder = tmp_path / f'{distribution.replace("-", "_")}-{version}.dist-info'
        folder.mkdir()
        (folder / 'METADATA').write_text(f'Name: {distribution}\nVersion: {version}\n')
    run = subprocess.run(
        [sys.executable, '-c', 'import mmseg_semi'],
        env={**os.environ, 'PYTHONPATH': f'{tmp_path}{os.pathsep}{ROOT}'},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith('ImportError: Both distributions of the OpenMMLab stack are installed')
    assert 'pip uninstall -y' in last


# ---------------------------------------------------------------------------- bases of configs


def test_mmengine_knows_both_packages():
    assert MODULE2PACKAGE['mmseg'] == compat.STACK.distributions['mmseg']
    assert MODULE2PACKAGE['mmseg_semi'] == 'mmseg_semi.compat'


def test_bases_are_files_of_mmseg_and_relative_names_as_they_are():
    stock, own = mmseg_semi.bases('mmseg::_base_/models/deeplabv3plus_r50-d8.py', '../x/y.py')
    assert own == '../x/y.py'
    assert os.path.isabs(stock)
    assert Path(stock).parts[-4:] == ('configs', '_base_', 'models', 'deeplabv3plus_r50-d8.py')
    assert Path(stock).is_file()


def test_bases_of_mmpretrain_keep_their_name_and_so_their_scope(tmp_path):
    pytest.importorskip('mmpretrain')
    name = 'mmpretrain::_base_/models/resnet50.py'
    assert mmseg_semi.bases(name) == [name]
    config = tmp_path / 'config.py'
    config.write_text(
        f"_base_ = __import__('mmseg_semi').bases({name!r})\nbackbone = _base_.model.backbone\n"
    )
    assert Config.fromfile(config).model._scope_ == 'mmpretrain'


def test_a_base_that_does_not_exist():
    message = message_of(mmseg_semi.bases, 'mmseg::_base_/models/deeplabv3plus_r51-d8.py')
    assert message.startswith('mmseg::_base_/models/deeplabv3plus_r51-d8.py does not exist below ')
    assert message.endswith('Did you mean mmseg::_base_/models/deeplabv3plus_r50-d8.py?')


def test_a_package_that_is_not_installed():
    message = message_of(mmseg_semi.bases, 'mmwonder::a/b.py')
    assert 'mmwonder is not installed' in message
    assert '`pip install mmwonder`' in message


def test_a_package_without_configs(monkeypatch, tmp_path):
    (tmp_path / 'bare').mkdir()
    (tmp_path / 'bare' / '__init__.py').touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert 'came without its configs' in message_of(mmseg_semi.bases, 'bare::a.py')


def test_a_config_on_stock_bases_merges_dumps_and_reloads(tmp_path, laid_out_configs):
    """As a training does: overrides are merged, the result is dumped, and a resume parses that text."""
    (tmp_path / 'own.py').write_text(
        "custom_imports = dict(imports=['mmseg_semi'], allow_failed_imports=False)\n"
    )
    config = tmp_path / 'config.py'
    config.write_text(
        "_base_ = __import__('mmseg_semi').bases(\n"
        "    'mmseg::_base_/models/deeplabv3plus_r50-d8.py', './own.py')\n"
        "model = dict(_delete_=True, type='IMAS', segmentor=_base_.model)\n"
        "model['segmentor'].backbone.depth = 101\n"
    )
    cfg = Config.fromfile(config)
    cfg.merge_from_dict({'model.segmentor.decode_head.num_classes': 7})
    assert cfg.model.segmentor.type == 'EncoderDecoder'
    assert cfg.model.segmentor.decode_head.num_classes == 7
    assert '_base_' not in cfg
    cfg.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py').to_dict() == cfg.to_dict()
    assert Config.fromstring(cfg.pretty_text, '.py').to_dict() == cfg.to_dict()


@pytest.mark.slow
def test_bases_work_without_an_import_of_the_package_before(tmp_path):
    """The stock tools know nothing of the package: `_base_` itself imports it."""
    config = tmp_path / 'config.py'
    config.write_text(
        "_base_ = __import__('mmseg_semi').bases('mmseg::_base_/models/fcn_unet_s5-d16.py')\n"
    )
    code = (
        'import sys; from mmengine.config import Config; assert "mmseg_semi" not in sys.modules; '
        f'print(Config.fromfile({str(config)!r}).model.backbone.type)'
    )
    run = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.stdout.split()[-1:] == ['UNet'], run.stderr


def test_plain_names_of_stock_configs_work_once_the_package_is_imported(tmp_path):
    config = tmp_path / 'config.py'
    config.write_text("_base_ = 'mmseg::_base_/schedules/schedule_20k.py'\n")
    assert Config.fromfile(config).train_cfg.max_iters == 20000
    assert get_config('mmseg::_base_/schedules/schedule_20k.py').train_cfg.max_iters == 20000


# --------------------------------------------------------- where the distributions differ


def test_checkpoints_of_mmengine_are_loaded(tmp_path):
    """They hold the history of the log, which torch does not take for weights."""
    history = HistoryBuffer()
    history.update(3.0)
    file = tmp_path / 'iter_1.pth'
    torch.save({'state_dict': {'w': torch.ones(2)}, 'message_hub': history}, file)
    loaded = CheckpointLoader.load_checkpoint(str(file), 'cpu')
    assert loaded['state_dict']['w'].tolist() == [1, 1]
    assert loaded['message_hub'].current() == 3.0


@pytest.mark.parametrize('setting', [{}, {'bgr_to_rgb': True}, {'rgb_to_bgr': True}])
def test_a_preprocessor_says_whether_it_swaps_channels(setting):
    assert compat.swaps_channels(SegDataPreProcessor(**setting)) is bool(setting)


# ------------------------------------------------------------------------- processes on CPU


@pytest.fixture
def without_gpu(monkeypatch):
    monkeypatch.setattr(compat, '_has_accelerator', lambda: False)
    with mock.patch.dict(os.environ):  # init_distributed writes there
        for key in PROCESS:
            os.environ.pop(key, None)
        yield


@pytest.fixture
def started(monkeypatch, without_gpu):
    """What init_process_group was called with."""
    calls = []
    monkeypatch.setattr(
        torch.distributed,
        'init_process_group',
        lambda *args, **kwargs: calls.append((args, kwargs)),
    )
    return calls


def test_nothing_happens_without_a_launcher_or_with_a_gpu(started, monkeypatch):
    compat.init_distributed('none')
    monkeypatch.setattr(compat, '_has_accelerator', lambda: True)
    compat.init_distributed('pytorch')
    assert started == []


def test_gloo_and_an_hour_are_the_defaults(started):
    os.environ.update(zip(PROCESS, ('1', '1', '2', '127.0.0.1', '1'), strict=True))
    compat.init_distributed('pytorch')
    compat.init_distributed('pytorch', timeout=7)
    assert [(args, kwargs['timeout'].total_seconds()) for args, kwargs in started] == [
        (('gloo',), 3600),
        (('gloo',), 7),
    ]


@pytest.mark.slow
def test_threads_of_gloo_end_before_the_interpreter(without_gpu, tmp_path):
    # What is registered first is called last. A model in a cycle, as a Runner's is, keeps the group.
    script = """
import atexit, pathlib
import torch
def names():
    return sorted(p.read_text().strip() for p in pathlib.Path('/proc/self/task').glob('*/comm'))
atexit.register(lambda: print(names()))
from mmseg_semi import compat
compat._has_accelerator = lambda: False
compat.init_distributed('pytorch')
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
model.__dict__['itself'] = model
del model
if not any('gloo' in name for name in names()):
    atexit.register(print, 'unnamed')
"""
    told = ('0', '0', '1', '127.0.0.1', str(free_port()))
    output = subprocess.run(
        [sys.executable, '-c', script],
        env=dict(os.environ, **dict(zip(PROCESS, told, strict=True))),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert output.returncode == 0, output.stderr
    if output.stdout.startswith('unnamed'):
        pytest.skip('this torch does not name its threads')
    assert 'gloo' not in output.stdout.splitlines()[-1]


def test_slurm_tells_rank_and_address(started, tmp_path):
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text(
        '#!/bin/sh\n[ "$*" = "show hostnames node[3-4]" ] && printf "node3\\nnode4\\n"\n'
    )
    scontrol.chmod(0o755)
    os.environ.update(
        PATH=f'{tmp_path}{os.pathsep}{os.environ["PATH"]}',
        SLURM_PROCID='3',
        SLURM_LOCALID='1',
        SLURM_NTASKS='4',
        SLURM_NODELIST='node[3-4]',
    )
    compat.init_distributed('slurm')
    assert [os.environ[key] for key in PROCESS] == ['3', '1', '4', 'node3', '29500']
    assert len(started) == 1


def test_errors_of_the_launcher(started):
    message = message_of(compat.init_distributed, 'pytorch')
    assert 'needs the environment variable RANK' in message
    assert 'tools/dist_train.sh' in message
    assert "launcher='ray' is unknown" in message_of(compat.init_distributed, 'ray')
    assert "backend='nccl' needs a CUDA device" in message_of(
        compat.init_distributed, 'pytorch', 'nccl'
    )
