"""MMSegmentation's own command line tools run our configs, and ours take the same arguments."""

import copy
import json
import re

import numpy as np
import pytest
import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.analysis.print_helper import _format_size
from mmengine.config import Config
from mmseg.apis import inference_model, init_model, show_result_pyplot
from mmseg.registry import MODELS
from PIL import Image
from processes import ROOT, STOCK_TOOLS, TOOLS, run_script, run_tool
from tiny_run import METHODS, NUM_VAL, dump, tiny_config, write_images

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
        'error: --amp: mixed precision needs a GPU and there is none. Leave --amp out.'
    )


SHORT = """
_base_ = {base!r}
train_cfg = dict(max_iters=2, val_interval=2)
param_scheduler = None
default_hooks = dict(logger=dict(interval=1))
model = dict(semi_train_cfg=dict(unlabeled_start_fraction=0.5))
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


# ------------------------------------------------------------- the API, and tools for analysis

ANALYSIS = STOCK_TOOLS / 'analysis_tools'


def config_of(run, folder, **changes):
    """The run's config as a config of MMSegmentation has it, with the test pipeline by its name."""
    config = Config.fromfile(run / 'config.py')
    config.test_pipeline = copy.deepcopy(config.test_dataloader.dataset.pipeline)
    config.merge_from_dict(changes)
    return dump(config, folder / 'config.py')


@pytest.mark.parametrize('checkpoint', [True, False])
def test_init_model_and_inference_model(run, checkpoint, tmp_path):
    path = str(run / 'work' / 'iter_6.pth') if checkpoint else None
    model = init_model(str(config_of(run, tmp_path)), path, device='cpu')
    image = next((run / 'images' / 'img_dir').glob('*.png'))
    result = inference_model(model, str(image))
    assert result.pred_sem_seg.shape == (32, 32)
    network = model.teacher
    if checkpoint:
        state = torch.load(path, weights_only=False)['state_dict']
        torch.testing.assert_close(
            network.decode_head.conv_seg.weight, state['teacher.decode_head.conv_seg.weight']
        )
        drawn = show_result_pyplot(model, str(image), result, show=False, draw_gt=False)
        assert drawn.shape == (32, 32, 3)
    network.data_preprocessor = model.data_preprocessor
    network.cfg = model.cfg
    alone = inference_model(network, str(image))
    assert torch.equal(alone.pred_sem_seg.data, result.pred_sem_seg.data)


@pytest.mark.parametrize('method', sorted(METHODS))
def test_every_method_is_initialized_as_a_stock_model(method, tmp_path):
    model = init_model(tiny_config(tmp_path, method), device='cpu')
    assert type(model).__name__ == method
    assert not model.training


def test_weights_of_the_network_have_their_own_key(tmp_path):
    config = tiny_config(tmp_path)
    config.model.pretrained = 'backbone.pth'
    with pytest.raises(
        ValueError, match=r"model.pretrained='backbone.pth' .*model.segmentor.pretrained"
    ):
        MODELS.build(config.model)


def test_stock_benchmark(run, tmp_path):
    many = {'test_dataloader.dataset': {'type': 'RepeatDataset', 'times': 50, '_delete_': True}}
    inner = Config.fromfile(run / 'config.py').test_dataloader.dataset.to_dict()
    many['test_dataloader.dataset']['dataset'] = inner
    path = config_of(run, tmp_path, **many)
    options = (path, run / 'work' / 'iter_6.pth', '--work-dir', tmp_path / 'fps')
    result = run_tool(ANALYSIS / 'benchmark.py', *options, cwd=tmp_path)
    assert result.code == 0, result.output
    (file,) = (tmp_path / 'fps').glob('fps_*.json')
    assert json.loads(file.read_text())['average_fps'] > 0


def test_flops_are_those_of_the_exported_network(run, tmp_path):
    ours = run_tool(TOOLS / 'get_flops.py', run / 'config.py', '--shape', '32', cwd=tmp_path)
    assert ours.code == 0, ours.output
    checkpoint = run / 'work' / 'iter_6.pth'
    exported = run_tool(TOOLS / 'export.py', run / 'config.py', checkpoint, 'plain', cwd=tmp_path)
    assert exported.code == 0, exported.output
    model = MODELS.build(Config.fromfile(tmp_path / 'plain' / 'config.py').model).eval()
    # The stock tool leaves it out.
    model.auxiliary_head = None
    counted = get_model_complexity_info(
        model, inputs=torch.rand(1, 3, 32, 32), show_table=False, show_arch=False
    )
    expected = [_format_size(counted[name]) for name in ('flops', 'params')]
    assert re.findall(r'(?:Flops|Params): (\S+)', ours.output) == expected


def test_stock_print_config(run, tmp_path):
    tool, config = STOCK_TOOLS / 'misc' / 'print_config.py', config_of(run, tmp_path)
    result = run_tool(tool, config, cwd=tmp_path)
    assert result.code == 0, result.output
    assert 'LabeledUnlabeledDataset' in result.output


def test_stock_publish_model_of_an_export(run, tmp_path):
    checkpoint = run / 'work' / 'iter_6.pth'
    for tool, *arguments in (
        (TOOLS / 'export.py', run / 'config.py', checkpoint, 'plain'),
        (STOCK_TOOLS / 'misc' / 'publish_model.py', 'plain/teacher.pth', 'published.pth'),
    ):
        result = run_tool(tool, *arguments, cwd=tmp_path)
        assert result.code == 0, (tool.name, result.output)
    assert list(tmp_path.glob('published-*.pth'))


def test_stock_confusion_matrix(tmp_path):
    # The tool asks the class of the dataset for the names of its classes.
    config = tiny_config(tmp_path / 'work', train_cfg__max_iters=2, train_cfg__val_interval=9)
    config.default_hooks.checkpoint.interval = 2
    path = dump(config, tmp_path / 'config.py')
    for tool, *arguments in (
        (STOCK_TOOLS / 'train.py', path),
        (STOCK_TOOLS / 'test.py', path, 'work/iter_2.pth', '--out', 'maps'),
        (ANALYSIS / 'confusion_matrix.py', path, 'maps', 'matrix'),
    ):
        result = run_tool(tool, *arguments, cwd=tmp_path)
        assert result.code == 0, (tool.name, result.output)
    assert (tmp_path / 'matrix' / 'confusion_matrix.png').is_file()


def test_stock_analyze_logs(run, tmp_path):
    pytest.importorskip('seaborn', reason='analyze_logs.py draws with seaborn, which is missing.')
    log = min(run.glob('work/*/vis_data/scalars.json'))
    options = (log, '--keys', 'teacher/mIoU', '--out', 'curve.png')
    result = run_tool(ANALYSIS / 'analyze_logs.py', *options, cwd=tmp_path)
    assert result.code == 0, result.output
    assert (tmp_path / 'curve.png').is_file()
