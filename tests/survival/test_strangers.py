"""No checkpoint of a stranger runs code, whichever way it is read."""

import importlib.util
import shutil
from functools import partial

import pytest
import strangers
import torch
import trained
from mmengine.config import ConfigDict
from mmengine.runner import CheckpointLoader, load_checkpoint
from mmseg.apis import init_model
from mmseg.registry import MODELS
from processes import TOOLS, run_tool
from tiny import tiny_segmentor
from tiny_run import build_runner, dump, tiny_config

from mmseg_semi.models import checkpoints, read_checkpoint

FORMATS = {'zip': True, 'older': False}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path / 'home'))
    monkeypatch.delenv('MMSEG_SEMI_TRUST_CHECKPOINTS', raising=False)
    return tmp_path / 'cache' / 'hub' / 'checkpoints'


@pytest.fixture(params=FORMATS)
def stranger(request, tmp_path):
    """A checkpoint whose weights fit, and which would write ``marker``."""
    state = MODELS.build(tiny_config(tmp_path).model).state_dict()
    where = tmp_path / 'stranger.pth', tmp_path / 'marker'
    meta = {'iter': 5, 'epoch': 0}
    return strangers.write(*where, zipped=FORMATS[request.param], state_dict=state, meta=meta)


def check_refused(call, path):
    with pytest.raises(ValueError) as error:  # noqa: PT011  the sentence is looked at
        call()
    strangers.check_sentence(str(error.value), path)


def training(folder, method='IMAS', **changes):
    return build_runner(tiny_config(folder / 'work', method, train_cfg__max_iters=1, **changes))


@pytest.mark.parametrize('kind', strangers.ATTACKS)
def test_ways_of_mmengine(kind, tmp_path, cache):
    """By every scheme of its loader, by its functions and by ours."""
    marker = tmp_path / 'marker'
    for zipped in FORMATS.values():
        path = strangers.write(tmp_path / 'a.pth', marker, kind, zipped)
        cache.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, cache / 'a.pth')
        address = 'http://127.0.0.1:9/a.pth'
        into_model = partial(load_checkpoint, torch.nn.Linear(1, 1))
        for name in (str(path), address):
            for load in (CheckpointLoader.load_checkpoint, read_checkpoint, into_model):
                with pytest.raises(checkpoints.UntrustedCheckpointError) as error:
                    load(name)
                strangers.check_sentence(str(error.value), name, strangers.ATTACKS[kind])
    assert not marker.exists()


@pytest.mark.parametrize('zipped', FORMATS.values(), ids=FORMATS)
def test_names_of_public_weights(zipped, tmp_path, cache, monkeypatch):
    marker = tmp_path / 'marker'
    known = {'net': 'http://127.0.0.1:9/net.pth', 'old': 'sub/old.pth'}
    for getter in ('get_torchvision_models', 'get_external_models', 'get_mmcls_models'):
        monkeypatch.setattr(f'mmengine.runner.checkpoint.{getter}', lambda: known)
    strangers.write(cache / 'net.pth', marker, zipped=zipped)
    strangers.write(tmp_path / 'home' / 'sub' / 'old.pth', marker, zipped=zipped)
    for name in ('torchvision://net', 'open-mmlab://net', 'openmmlab://old', 'mmcls://net'):
        with pytest.raises(checkpoints.UntrustedCheckpointError, match=r'asks for posix\.system'):
            CheckpointLoader.load_checkpoint(name)
    assert not marker.exists()


@pytest.mark.parametrize('zipped', FORMATS.values(), ids=FORMATS)
def test_object_storage(zipped, tmp_path, monkeypatch):
    marker = tmp_path / 'marker'
    path = strangers.write(tmp_path / 'a.pth', marker, zipped=zipped)

    class Storage:
        def get(self, name):
            return path.read_bytes()

    monkeypatch.setattr(checkpoints, 'get_file_backend', lambda *args, **kwargs: Storage())
    monkeypatch.setattr('mmengine.runner.checkpoint.get_file_backend', lambda *a, **kw: Storage())
    for name in ('s3://bucket/a.pth', 'petrel://bucket/a.pth', 'cluster:s3://bucket/a.pth'):
        check_refused(lambda name=name: CheckpointLoader.load_checkpoint(name), name)
    assert not marker.exists()


@pytest.mark.parametrize('resume', [False, True])
@pytest.mark.parametrize('method', ['IMAS', None])
def test_trainings(method, resume, stranger, tmp_path):
    runner = training(tmp_path, method, load_from=str(stranger), resume=resume)
    check_refused(runner.train, stranger)
    assert not (tmp_path / 'marker').exists()


def test_training_that_looks_for_its_last_checkpoint(stranger, tmp_path):
    (tmp_path / 'work').mkdir()
    (tmp_path / 'work' / 'last_checkpoint').write_text(str(stranger))
    check_refused(training(tmp_path, resume=True).train, stranger)
    assert not (tmp_path / 'marker').exists()


def test_tests_of_a_runner(stranger, tmp_path):
    check_refused(training(tmp_path, load_from=str(stranger)).test, stranger)
    assert not (tmp_path / 'marker').exists()


@pytest.mark.parametrize('prefix', [None, 'backbone.'])
def test_weights_to_begin_with(prefix, stranger, tmp_path):
    """Of any module's init_cfg, of a method, and of the teacher of GPS."""
    start = {'type': 'Pretrained', 'checkpoint': str(stranger), 'prefix': prefix}
    for part in ('backbone', 'decode_head', None):
        config = tiny_config(tmp_path).model
        (config.segmentor[part] if part else config).init_cfg = start
        check_refused(MODELS.build(config).init_weights, stranger)
    model = MODELS.build(ConfigDict({**tiny_segmentor(), 'pretrained': str(stranger)}))
    check_refused(model.init_weights, stranger)
    settings = {'model__semi_train_cfg__teacher_checkpoint': str(stranger)}
    model = MODELS.build(tiny_config(tmp_path, 'GPS', **settings).model)
    check_refused(model.start_teacher, stranger)
    assert not (tmp_path / 'marker').exists()


def test_inference(stranger, tmp_path):
    config = tiny_config(tmp_path, None)
    check_refused(lambda: init_model(config, str(stranger), device='cpu'), stranger)
    assert not (tmp_path / 'marker').exists()


@pytest.mark.parametrize('zipped', FORMATS.values(), ids=FORMATS)
def test_tools(zipped, tmp_path):
    """What a user runs on a file that someone gave her."""
    config = trained.config()
    config.custom_imports = {'imports': ['mmseg_semi'], 'allow_failed_imports': False}
    config._format_python_code = False
    dump(config, tmp_path / 'config.py')
    dump(tiny_config(tmp_path / 'work', 'ESL'), tmp_path / 'esl.py')
    dump(tiny_config(tmp_path / 'work'), tmp_path / 'imas.py')
    trained.write_pool(tmp_path / 'pool', [(24, 32)])
    strangers.write(tmp_path / 'x.pth', tmp_path / 'marker', zipped=zipped)
    trained.checkpoint(config, tmp_path / 'known.pth')
    ways = [
        ('train.py', 'imas.py', '--cfg-options', 'load_from=x.pth'),
        ('train.py', 'imas.py', '--resume', '--cfg-options', 'load_from=x.pth'),
        ('test.py', 'imas.py', 'x.pth'),
        ('test.py', 'imas.py', 'x.pth', '--tta'),
        ('export.py', 'config.py', 'x.pth', 'out'),
        ('pseudo_label.py', 'config.py', 'x.pth', 'pool', 'labels'),
        ('select_reliable.py', 'config.py', 'pool', 'sel', '--checkpoints', 'known.pth', 'x.pth'),
        ('draw_esl.py', 'esl.py', 'x.pth'),
        ('model_converters/deep_stem_resnet.py', 'x.pth', 'y.pth'),
    ]
    if importlib.util.find_spec('timm') is not None:
        ways.append(('model_converters/efficientnet_lite.py', 'y.pth', '--src', 'x.pth'))
        timm_backbone = ('model_converters/timm_backbone.py', 'resnet10t', 'y.pth')
        ways.append((*timm_backbone, '--src', 'x.pth'))
    for tool, *arguments in ways:
        result = run_tool(TOOLS / tool, *arguments, cwd=tmp_path)
        assert result.code != 0, (tool, result.output)
        assert 'asks for posix.system' in result.last_line, (tool, result.output)
        assert 'MMSEG_SEMI_TRUST_CHECKPOINTS=1' in result.last_line
        assert not (tmp_path / 'marker').exists(), tool
