"""train.py, test.py and their scripts: stock arguments, one-sentence errors, several CPU processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from processes import run_tool

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / 'tools'

# A stock segmentor without any part of the semi-supervised base, with SyncBN, on synthetic images.
CONFIG = """
custom_imports = dict(imports=['mmseg_semi'], allow_failed_imports=False)
default_scope = 'mmseg'
env_cfg = dict(dist_cfg=dict(backend='nccl', timeout=60), mp_cfg=dict(mp_start_method='fork'))
norm_cfg = dict(type='SyncBN')
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[128.] * 3, std=[64.] * 3, seg_pad_val=255, size=(32, 32),
        test_cfg=dict(size_divisor=8)),
    backbone=dict(type='ResNetV1c', depth=18, stem_channels=8, base_channels=4, norm_cfg=norm_cfg,
        strides=(1, 2, 1, 1)),
    decode_head=dict(
        type='FCNHead', in_channels=32, in_index=3, channels=8, num_convs=1, concat_input=False,
        num_classes=6, norm_cfg=norm_cfg, loss_decode=dict(type='CrossEntropyLoss')),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
pipeline = [dict(type='LoadShapes'), dict(type='PackSegInputs')]
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type='ShapesDataset', num_images=8, image_size=(32, 32), pipeline=pipeline))
test_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='ShapesDataset', num_images=3, start=8, image_size=(32, 32), pipeline=pipeline))
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_cfg = dict(type='TestLoop')
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01))
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
    logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
    visualization=dict(type='SegVisualizationHook'))
log_processor = dict(by_epoch=False)
visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
tta_model = dict(type='SegTTAModel')
tta_pipeline = [
    dict(type='LoadShapes'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='RandomFlip', prob=0.), dict(type='RandomFlip', prob=1.)],
        [dict(type='PackSegInputs')]])]
"""


@pytest.fixture
def config(tmp_path):
    file = tmp_path / 'tiny.py'
    file.write_text(CONFIG)
    return file


def run(*command, cwd, **environment):
    """Run a tool without a GPU and return what it wrote; the caller looks at `.returncode`."""
    environment = {
        **os.environ,
        'CUDA_VISIBLE_DEVICES': '',
        'PYTHONPATH': str(ROOT),
        'PYTHON': sys.executable,
        **environment,
    }
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True
    )


def tool(name, *arguments, cwd, **environment):
    return run(sys.executable, TOOLS / name, *arguments, cwd=cwd, **environment)


def load_tool(name, monkeypatch):
    """The module of a tool, for what needs no process of its own."""
    monkeypatch.syspath_prepend(str(TOOLS))
    sys.modules.pop(name, None)
    return __import__(name)


# ----------------------------------------------------------------- arguments, in this process


def test_the_defaults_are_those_of_the_stock_tools(config, monkeypatch):
    train = load_tool('train', monkeypatch)
    cfg = train.training_config(train.parse_args([str(config)]))
    assert cfg.work_dir == os.path.join('work_dirs', 'tiny')
    assert cfg.launcher == 'none'
    assert cfg.resume is False
    assert cfg.optim_wrapper.type == 'OptimWrapper'


def test_arguments_reach_the_config(config, monkeypatch):
    train = load_tool('train', monkeypatch)
    monkeypatch.setattr(train, 'get_device', lambda: 'cuda')
    options = ['--cfg-options', 'train_cfg.max_iters=7', 'auto_scale_lr.base_batch_size=16']
    arguments = [
        str(config),
        '--work-dir',
        'here',
        '--resume',
        '--amp',
        '--auto-scale-lr',
        *options,
    ]
    cfg = train.training_config(train.parse_args(arguments))
    assert (cfg.work_dir, cfg.resume, cfg.train_cfg.max_iters) == ('here', True, 7)
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.loss_scale) == ('AmpOptimWrapper', 'dynamic')
    assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=16)


def test_a_work_dir_of_the_config_stands(config, monkeypatch):
    config.write_text(CONFIG + "work_dir = 'mine'\n")
    train = load_tool('train', monkeypatch)
    assert train.training_config(train.parse_args([str(config)])).work_dir == 'mine'


def test_amp_settings_of_the_config_stand(config, monkeypatch):
    config.write_text(
        CONFIG + "optim_wrapper.update(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=1.)\n"
    )
    train = load_tool('train', monkeypatch)
    monkeypatch.setattr(train, 'get_device', lambda: 'cuda')
    wrapper = train.training_config(train.parse_args([str(config), '--amp'])).optim_wrapper
    assert (wrapper.dtype, wrapper.loss_scale) == ('bfloat16', 1.0)


@pytest.mark.parametrize(
    ('arguments', 'change', 'sentence'),
    [
        (['--amp'], '', '--amp: mixed precision needs a GPU'),
        (['--amp'], "optim_wrapper['type'] = 'ApexOptimWrapper'\n", "type is 'ApexOptimWrapper'"),
        (['--auto-scale-lr'], '', 'does not say for which batch size'),
    ],
)
def test_what_train_refuses(config, monkeypatch, arguments, change, sentence):
    config.write_text(CONFIG + change)
    train = load_tool('train', monkeypatch)
    monkeypatch.setattr(train, 'get_device', lambda: 'cpu')
    with pytest.raises(ValueError, match=sentence):
        train.training_config(train.parse_args([str(config), *arguments]))


def test_test_sets_what_its_arguments_say(config, monkeypatch, tmp_path):
    test = load_tool('test', monkeypatch)
    checkpoint = tmp_path / 'x.pth'
    checkpoint.touch()
    options = ['--out', 'maps', '--show-dir', 'pictures', '--tta']
    cfg = test.testing_config(test.parse_args([str(config), str(checkpoint), *options]))
    assert cfg.load_from == str(checkpoint)
    assert (cfg.test_evaluator.output_dir, cfg.test_evaluator.keep_results) == ('maps', True)
    assert (cfg.visualizer.save_dir, cfg.default_hooks.visualization.draw) == ('pictures', True)
    assert cfg.default_hooks.visualization.interval == 1
    assert (cfg.model.type, cfg.model.module.type) == ('SegTTAModel', 'EncoderDecoder')
    assert cfg.test_dataloader.dataset.pipeline[1].type == 'TestTimeAug'


def test_predictions_of_the_same_name_do_not_replace_each_other(monkeypatch):
    test = load_tool('test', monkeypatch)

    check_out = out_of(test, monkeypatch)
    check_out(['a/x.jpg', 'a/y.jpg', 'a/x.jpg'])
    with pytest.raises(ValueError, match=r'--out: a/x\.jpg and b/x\.png would both become x\.png'):
        check_out(['a/x.jpg', 'b/x.png'])
    # Each of several sets has a folder of its own.
    check_out(['a/x.jpg'], ['b/x.png'])


def out_of(test, monkeypatch):
    """The check of --out, with the paths of the images of each set, called set0, set1 and so on."""

    def check(*sets, out='out', masks=None):
        def infos(paths):
            return [{'img_path': path, 'seg_map_path': masks} for path in paths]

        monkeypatch.setattr(test, 'sample_infos', infos)
        loaders = [SimpleNamespace(dataset=paths) for paths in sets]
        names = [f'set{i}' for i in range(len(sets))] if len(sets) > 1 else ['']
        parts = [SimpleNamespace(name=n, loader=p) for n, p in zip(names, loaders, strict=True)]
        test.check_out(SimpleNamespace(test_loop=SimpleNamespace(sets=parts)), str(out))

    return check


def test_predictions_replace_neither_images_nor_masks(monkeypatch, tmp_path):
    check_out = out_of(load_tool('test', monkeypatch), monkeypatch)
    for name in ('set0', 'ann'):
        (tmp_path / name).mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'ann')
    image, masks = str(tmp_path / 'set0/x.jpg'), str(tmp_path / 'ann/x.png')
    for sets, out, refused in (
        ([[image]], 'out', False),
        ([[image]], '', False),
        ([[image]], 'set0', True),
        ([[image]], 'ann', True),
        ([[image]], 'link', True),
        ([[image], [image]], '', True),  # those of the first set would be in set0
        ([[image], [image]], 'set0', False),
    ):
        if not refused:
            check_out(*sets, out=tmp_path / out, masks=masks)
            continue
        with pytest.raises(
            ValueError, match='in the folder of the predictions, which could replace it'
        ):
            check_out(*sets, out=tmp_path / out, masks=masks)


@pytest.mark.parametrize(
    ('argument', 'change', 'sentence'),
    [
        ('--tta', 'del tta_pipeline\n', 'has no tta_pipeline'),
        ('--show', 'del visualizer\n', 'has no visualizer'),
    ],
)
def test_what_test_refuses(config, monkeypatch, tmp_path, argument, change, sentence):
    config.write_text(CONFIG + change)
    (tmp_path / 'x.pth').touch()
    test = load_tool('test', monkeypatch)
    with pytest.raises(ValueError, match=sentence):
        test.testing_config(test.parse_args([str(config), str(tmp_path / 'x.pth'), argument]))


# ------------------------------------------------------------------------ from the command line


def ending_of(name, arguments, monkeypatch):
    """What main() ends the program with."""
    module = load_tool(name, monkeypatch)
    monkeypatch.setattr(sys, 'argv', [f'{name}.py', *arguments])
    with pytest.raises(SystemExit) as end:
        module.main()
    return end.value.code


@pytest.mark.parametrize('name', ['train', 'test'])
def test_help(name, monkeypatch, capsys):
    assert ending_of(name, ['--help'], monkeypatch) == 0
    assert capsys.readouterr().out.startswith(f'usage: {name}.py ')


@pytest.mark.parametrize(
    ('name', 'arguments', 'sentence'),
    [
        ('train', ['tinny.py'], 'The config tinny.py does not exist. Did you mean tiny.py?'),
        ('train', ['no/x.py'], 'The config no/x.py does not exist. Give the path of a .py file.'),
        ('train', ['wrong.py'], 'mmseg::_base_/models/nothing.py does not exist below '),
        (
            'test',
            ['tiny.py', 'iter_9.pth'],
            'The checkpoint iter_9.pth does not exist. Did you mean iter_2.pth?',
        ),
        (
            'test',
            ['mmseg::fcn/fcn.py', 'iter_2.pth'],
            'mmseg::fcn/fcn.py does not exist below ',
        ),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(config, monkeypatch, name, arguments, sentence):
    monkeypatch.chdir(config.parent)
    Path('iter_2.pth').touch()
    stock = "_base_ = __import__('mmseg_semi').bases('mmseg::_base_/models/nothing.py')\n"
    Path('wrong.py').write_text(stock)
    said = ending_of(name, arguments, monkeypatch)
    assert said.startswith(f'error: {sentence}')
    assert '\n' not in said


@pytest.mark.parametrize('name', ['train', 'test'])
def test_unknown_setting_of_a_class_is_one_sentence(config, monkeypatch, name):
    monkeypatch.chdir(config.parent)
    Path('iter_2.pth').touch()
    checkpoint = ['iter_2.pth'] if name == 'test' else []
    options = ['--cfg-options', f'{name}_dataloader.batchsize=3']
    said = ending_of(name, [config.name, *checkpoint, *options], monkeypatch)
    assert said == (
        f'error: {name}_dataloader.batchsize=3: DataLoader has no setting batchsize. Did you mean '
        f'{name}_dataloader.batch_size?'
    )


def test_a_named_config_of_an_installed_package(monkeypatch):
    train = load_tool('train', monkeypatch)
    name = 'mmseg::unet/unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024.py'
    cfg = train.training_config(train.parse_args([name]))
    assert cfg.work_dir == os.path.join('work_dirs', Path(name).stem)
    assert cfg.model.backbone.type == 'UNet'


def test_an_error_ends_the_program_without_a_traceback(tmp_path):
    failed = tool('train.py', 'nothing.py', cwd=tmp_path)
    assert failed.returncode == 1
    assert (
        failed.stderr.strip().splitlines()[-1].startswith('error: The config nothing.py does not')
    )
    assert 'Traceback' not in failed.stderr


@pytest.mark.slow
def test_train_and_test(config):
    folder = config.parent
    trained = run_tool(TOOLS / 'train.py', config, cwd=folder)
    assert trained.code == 0, trained.output
    checkpoint = folder / 'work_dirs' / 'tiny' / 'iter_2.pth'
    arguments = [config, checkpoint, '--out', 'maps', '--work-dir', 'tested']
    tested = run_tool(TOOLS / 'test.py', *arguments, cwd=folder)
    assert tested.code == 0, tested.output
    assert len(list((folder / 'maps').glob('*.png'))) == 3
    (result,) = (folder / 'tested').glob('*/*.json')
    assert 0 <= json.loads(result.read_text())['mIoU'] <= 100


@pytest.mark.slow
def test_two_processes_on_cpu(config):
    """The stock segmentor and its SyncBN, which exists on GPUs only, train and test under gloo."""
    folder = config.parent
    trained = run(
        TOOLS / 'dist_train.sh',
        config,
        2,
        '--cfg-options',
        'train_dataloader.batch_size=1',
        cwd=folder,
    )
    assert trained.returncode == 0, trained.stderr
    checkpoint = folder / 'work_dirs' / 'tiny' / 'iter_2.pth'
    config_of_run = Config.fromfile(folder / 'work_dirs' / 'tiny' / 'tiny.py')
    assert config_of_run.launcher == 'pytorch'
    state = torch.load(checkpoint, map_location='cpu', weights_only=False)['state_dict']
    assert not any(key.startswith('module.') for key in state)
    assert all(torch.isfinite(value).all() for value in state.values())
    tested = run(TOOLS / 'dist_test.sh', config, checkpoint, 2, '--tta', cwd=folder)
    assert tested.returncode == 0, tested.stderr
    assert 'mIoU' in tested.stdout + tested.stderr


# ------------------------------------------------------------------------------ shell scripts


@pytest.mark.parametrize(
    ('script', 'arguments'),
    [
        ('dist_train.sh', ['CONFIG']),
        ('dist_test.sh', ['CONFIG', 'CHECKPOINT']),
        ('slurm_train.sh', ['PARTITION', 'JOB']),
        ('slurm_test.sh', ['PARTITION', 'JOB', 'CONFIG']),
    ],
)
def test_too_few_arguments_show_the_usage(script, arguments, tmp_path):
    failed = run(TOOLS / script, *arguments, cwd=tmp_path)
    assert failed.returncode == 2
    assert failed.stderr.startswith('usage: ')


@pytest.fixture
def recorder(tmp_path):
    """A program that writes down its arguments and MASTER_PORT, under the names of python and srun."""
    for name in ('python', 'srun'):
        program = tmp_path / name
        program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\necho "port=${MASTER_PORT:-}"\n')
        program.chmod(0o755)
    return tmp_path


def recorded(script, *arguments, recorder, **environment):
    path = f'{recorder}{os.pathsep}{os.environ["PATH"]}'
    shown = run(TOOLS / script, *arguments, cwd=recorder, PATH=path, PYTHON='python', **environment)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout.splitlines()


def test_one_machine_picks_a_free_port(recorder):
    lines = recorded('dist_train.sh', 'my config.py', '3', '--amp', recorder=recorder)
    assert lines[:2] == ['-m', 'torch.distributed.run']
    assert '--nproc-per-node=3' in lines
    assert '--rdzv-endpoint=127.0.0.1:0' in lines
    script = lines.index(str(TOOLS / 'train.py'))
    assert lines[script + 1 : -1] == ['my config.py', '--amp', '--launcher', 'pytorch']


def test_several_machines_meet_at_the_given_address(recorder):
    where = dict(NNODES='2', NODE_RANK='1', MASTER_ADDR='10.0.0.1', PORT='1234')
    lines = recorded('dist_test.sh', 'c.py', 'x.pth', '4', recorder=recorder, **where)
    expected = ['--nnodes=2', '--nproc-per-node=4', '--node-rank=1', '--master-addr=10.0.0.1']
    assert lines[2:7] == [*expected, '--master-port=1234']
    assert lines[7:-1] == [str(TOOLS / 'test.py'), 'c.py', 'x.pth', '--launcher', 'pytorch']


def test_a_number_of_processes_that_is_none(tmp_path):
    failed = run(TOOLS / 'dist_train.sh', 'c.py', '--amp', cwd=tmp_path)
    assert failed.returncode == 2
    assert failed.stderr.startswith('error: NUM_PROCS=--amp is not a number of processes')


def test_slurm(recorder):
    environment = dict(GPUS='8', GPUS_PER_NODE='4', SRUN_ARGS='--exclusive --mem=10G')
    lines = recorded(
        'slurm_train.sh', 'part', 'job', 'c.py', '--amp', recorder=recorder, **environment
    )
    assert lines[:3] == ['-p', 'part', '--job-name=job']
    assert {'--ntasks=8', '--gres=gpu:4', '--ntasks-per-node=4', '--exclusive', '--mem=10G'} <= {
        *lines
    }
    assert lines[-6:-1] == [str(TOOLS / 'train.py'), 'c.py', '--amp', '--launcher', 'slurm']
    assert 20000 <= int(lines[-1].removeprefix('port=')) < 40000


def test_slurm_on_cpu_asks_for_no_gpu(recorder):
    environment = dict(GPUS='2', GPUS_PER_NODE='0', PORT='777')
    lines = recorded(
        'slurm_test.sh', 'part', 'job', 'c.py', 'x.pth', recorder=recorder, **environment
    )
    assert not any('gpu' in line for line in lines)
    assert lines[-6:] == [
        str(TOOLS / 'test.py'),
        'c.py',
        'x.pth',
        '--launcher',
        'slurm',
        'port=777',
    ]
