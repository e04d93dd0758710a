"""MMSegmentation's own command line tools run our configs, and ours take the same arguments."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from processes import ROOT, STOCK_TOOLS, TOOLS, run_script, run_tool
from tiny_run import NUM_VAL, dump, tiny_config, write_images

(SHAPES_CONFIG,) = (ROOT / 'configs' / 'imas').glob('imas_*_shapes-64x64*.py')


def metrics_of(work_dir):
    """What a test wrote to its JSON log."""
    path = max(work_dir.glob('*/*.json'), key=lambda path: path.stat().st_mtime)
    return json.loads(path.read_text())


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A folder in which the stock train.py has trained config.py for 6 of its 14 iterations."""
    folder = tmp_path_factory.mktemp('run')
    images = write_images(folder / 'images')
    dump(tiny_config(folder / 'elsewhere', images=images, workers=1), folder / 'config.py')
    options = ('--work-dir', 'work', '--cfg-options', 'train_cfg.max_iters=6')
    result = run_tool(STOCK_TOOLS / 'train.py', 'config.py', *options, cwd=folder)
    assert result.code == 0, result.output
    return folder


def test_options_and_work_dir_are_obeyed(run):
    assert (run / 'work' / 'iter_6.pth').exists()
    assert not (run / 'elsewhere').exists()


def test_stock_train_resumes(run):
    options = ('--work-dir', 'work', '--resume', '--cfg-options', 'train_cfg.max_iters=8')
    result = run_tool(STOCK_TOOLS / 'train.py', 'config.py', *options, cwd=run)
    assert result.code == 0, result.output
    assert 'resumed epoch: 0, iter: 6' in result.output
    assert (run / 'work' / 'iter_8.pth').exists()


@pytest.mark.parametrize('tool', [STOCK_TOOLS / 'test.py', TOOLS / 'test.py'])
@pytest.mark.parametrize('arguments', [(), ('--tta',)])
def test_both_networks_are_tested(run, tool, arguments, tmp_path):
    options = ('config.py', 'work/iter_6.pth', '--work-dir', tmp_path / 'tested', *arguments)
    result = run_tool(tool, *options, cwd=run)
    assert result.code == 0, result.output
    metrics = metrics_of(tmp_path / 'tested')
    assert {'teacher/mIoU', 'student/mIoU'} <= metrics.keys()
    validated = re.findall(r'teacher/mIoU: ([\d.]+)', (result.output))
    assert validated == [f'{metrics["teacher/mIoU"]:.4f}']


def test_des4_is_trained_and_tested_by_stock_tools(tmp_path):
    images = write_images(tmp_path / 'images')
    config = tiny_config(tmp_path / 'work', 'DeS4', images=images, train_cfg__max_iters=4)
    result = run_tool(STOCK_TOOLS / 'train.py', dump(config, tmp_path / 'config.py'), cwd=tmp_path)
    assert result.code == 0, result.output
    for name, arguments in {'plain': (), 'tta': ('--tta',)}.items():
        options = ('config.py', 'work/iter_4.pth', '--work-dir', tmp_path / name, *arguments)
        result = run_tool(STOCK_TOOLS / 'test.py', *options, cwd=tmp_path)
        assert result.code == 0, result.output
        assert 'missing keys' not in result.output
        assert {'teacher/mIoU', 'student/mIoU'} <= metrics_of(tmp_path / name).keys()


def test_two_processes_find_the_metrics_of_one(run, tmp_path):
    found = []
    for ranks in (1, 2):
        options = ('config.py', 'work/iter_6.pth', '--tta', '--work-dir', tmp_path / f'{ranks}')
        result = run_tool(TOOLS / 'test.py', *options, cwd=run, ranks=ranks)
        assert result.code == 0, result.output
        # From the log, which rank 0 alone writes: MMEngine lets every rank dump the same JSON file at once.
        found.append(dict(re.findall(r'((?:teacher|student)/\w+): ([\d.]+)', result.output)))
    assert {'teacher/mIoU', 'student/mIoU'} <= found[0].keys()
    assert found[0] == found[1]


@pytest.mark.parametrize('tool', [STOCK_TOOLS / 'test.py', TOOLS / 'test.py'])
def test_predictions_and_pictures_are_written_once(run, tool, tmp_path):
    options = ('--out', tmp_path / 'maps', '--show-dir', tmp_path / 'pictures')
    # Upstream's hook draws every fiftieth image only, unless told otherwise.
    every = ('--cfg-options', 'default_hooks.visualization.interval=1')
    where = ('--work-dir', tmp_path / 'tested', *every)
    result = run_tool(tool, 'config.py', 'work/iter_6.pth', *options, *where, cwd=run)
    assert result.code == 0, result.output
    maps = sorted((tmp_path / 'maps').glob('*.png'))
    ids = (run / 'images' / 'val.txt').read_text().split()
    assert [path.stem for path in maps] == ids
    assert all(np.array(Image.open(path)).shape == (32, 32) for path in maps)
    assert len(list((tmp_path / 'pictures').rglob('*.png'))) == NUM_VAL


def test_amp_without_a_gpu_ends_in_a_clear_error(run, tmp_path):
    arguments = ('config.py', '--amp', '--work-dir', tmp_path / 'amp')
    stock = run_tool(STOCK_TOOLS / 'train.py', *arguments, cwd=run)
    assert stock.code == 1
    assert re.search('is only available .*on gpu', stock.last_line)
    ours = run_tool(TOOLS / 'train.py', *arguments, cwd=run)
    assert ours.code == 1
    assert ours.last_line == (
        'error: --amp: mixed precision needs a GPU and there is none; leave --amp out.'
    )


SHORT = """
_base_ = {base!r}
train_cfg = dict(max_iters=2, val_interval=2)
param_scheduler = None
default_hooks = dict(logger=dict(interval=1))
model = dict(semi_train_cfg=dict(unlabeled_start=1))
train_dataloader = dict(batch_size=4, sampler=dict(labeled=2, unlabeled=2))
val_dataloader = dict(dataset=dict(num_images=2))
test_dataloader = val_dataloader
"""


def test_stock_tools_run_a_config_of_the_package(tmp_path):
    (tmp_path / 'short.py').write_text(SHORT.format(base=str(SHAPES_CONFIG)))
    trained = run_tool(STOCK_TOOLS / 'train.py', 'short.py', '--work-dir', 'work', cwd=tmp_path)
    assert trained.code == 0, trained.output
    assert 'loss_unlabeled' in trained.output
    arguments = ('short.py', 'work/iter_2.pth', '--work-dir', 'tested')
    tested = run_tool(STOCK_TOOLS / 'test.py', *arguments, cwd=tmp_path)
    assert tested.code == 0, tested.output
    scalars = next((tmp_path / 'work').glob('*/vis_data/scalars.json')).read_text()
    validated = json.loads(scalars.splitlines()[-1])
    assert metrics_of(tmp_path / 'tested')['teacher/mIoU'] == validated['teacher/mIoU']


@pytest.mark.slow
def test_stock_tools_in_processes_of_their_own(run, tmp_path):
    """Once without the fork server: the config alone has to bring the package in."""
    options = ('--cfg-options', 'train_cfg.max_iters=1', f'work_dir={tmp_path / "work"}')
    trained = run_script(STOCK_TOOLS / 'train.py', 'config.py', *options, cwd=run)
    assert trained.code == 0, trained.output
    weights = torch.load(tmp_path / 'work' / 'iter_1.pth', weights_only=False)['state_dict']
    assert {key.partition('.')[0] for key in weights} == {'student', 'teacher', 'ema_steps'}
