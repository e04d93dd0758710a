"""A run is resumed on the images that it was started on, and with the same number of them per step."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper
from tiny_run import build_runner, tiny_config, write_images

from mmseg_semi.engine.hooks.resume_check_hook import _keep_kernels


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    root = write_images(tmp_path_factory.mktemp('images'))
    ids = {name: (root / f'{name}.txt').read_text().split() for name in ('labeled', 'unlabeled')}
    for folder, moved in {'lists/5': 0, 'lists/seed1': 1, 'lists/3': 2}.items():
        (root / folder).mkdir(parents=True)
        cut = len(ids['labeled']) - moved
        (root / folder / 'labeled.txt').write_text('\n'.join(ids['labeled'][:cut]))
        rest = (
            [*ids['unlabeled'], *ids['labeled'][cut:]] if folder == 'lists/3' else ids['unlabeled']
        )
        (root / folder / 'unlabeled.txt').write_text('\n'.join(rest))
    return root


def config(folder, images, partition='lists/5', *, resume=False, **changes):
    cfg = tiny_config(folder, 'FixMatch', images=images, train_cfg__max_iters=6, **changes)
    dataset = cfg.train_dataloader.dataset
    dataset.partition = partition
    for kind in ('labeled', 'unlabeled'):
        dataset[kind].ann_file = f'{{partition}}/{kind}.txt'
    cfg.custom_hooks.append({'type': 'ResumeCheckHook'})
    cfg.param_scheduler[0].pop('end')
    cfg.resume = resume
    return cfg


@pytest.fixture(scope='module')
def begun(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    build_runner(config(folder, images)).train()
    return folder


@pytest.mark.parametrize(
    ('changes', 'says'),
    [
        (
            {'partition': 'lists/seed1'},
            'with lists/5 as its partition, but this run has lists/seed1',
        ),
        ({'labeled': 3}, 'with 2 as its labeled images per step, but this run has 3'),
        ({'unlabeled': 4}, 'with 2 as its unlabeled images per step, but this run has 4'),
        (
            {'optim_wrapper__accumulative_counts': 2},
            'with 2 as its labeled images per step, but this run has 4',
        ),
    ],
)
def test_other_images_stop_the_run(begun, images, changes, says):
    with pytest.raises(ValueError, match=says):
        build_runner(config(begun, images, resume=True, **changes)).train()


def test_a_changed_list_stops_the_run(begun, images):
    cfg = config(begun, images, 'lists/5', resume=True)
    cfg.train_dataloader.dataset.labeled.ann_file = 'lists/seed1/labeled.txt'
    with pytest.raises(ValueError, match='with 5 as its labeled images, but this run has 4'):
        build_runner(cfg).train()


def test_changed_settings_of_the_method_are_logged(begun, images, capsys):
    cfg = config(begun, images, resume=True)
    before = cfg.model.semi_train_cfg.get('tau', '(not set)')
    cfg.model.semi_train_cfg.tau = 0.25
    build_runner(cfg).train()
    assert f'other settings of semi_train_cfg: tau {before} is 0.25 now. Restore' in ''.join(
        capsys.readouterr()
    )
    build_runner(config(begun, images, resume=True)).train()
    assert 'other settings' not in ''.join(capsys.readouterr())


def test_the_same_images_in_micro_batches_stop_the_run(begun, images):
    """Iterations count micro-batches: the schedule would be read at another place."""
    cfg = config(begun, images, labeled=1, unlabeled=1, resume=True)
    cfg.optim_wrapper.accumulative_counts = 2
    cfg.train_cfg.max_iters = 10
    with pytest.raises(
        ValueError, match=r'with 1 as its micro-batches per step .*, but this run has 2'
    ):
        build_runner(cfg).train()


def test_a_test_is_not_compared(begun, images):
    """The config of a resumed run says `resume`, and a test may run on fewer processes."""
    cfg = config(begun, images, labeled=1, resume=True)
    cfg.load_from = str(begun / 'iter_6.pth')
    runner = build_runner(cfg)
    assert 'teacher/mIoU' in runner.test() or 'student/mIoU' in runner.test()
    assert isinstance(runner._train_dataloader, dict)


def test_a_partition_whose_number_is_not_its_lists_stops_the_run(images, tmp_path):
    build_runner(config(tmp_path, images, 'lists/3')).train()
    (images / 'lists/4').mkdir(exist_ok=True)
    for name in ('labeled', 'unlabeled'):
        text = (images / f'lists/3/{name}.txt').read_text()
        (images / f'lists/4/{name}.txt').write_text(text)
    with pytest.raises(
        ValueError, match='partition=lists/4 says 4 labeled images, and its list has 3'
    ):
        build_runner(config(tmp_path / 'other', images, 'lists/4')).train()


def test_a_checkpoint_chooses_no_kernels_and_no_config(begun, images, tmp_path):
    checkpoint = torch.load(begun / 'iter_6.pth', weights_only=False)
    checkpoint['optimizer']['param_groups'][0]['fused'] = True
    checkpoint['message_hub']['runtime_info']['cfg'] = 'raise SystemExit'
    checkpoint['meta'].update(iter=5, config='raise SystemExit')
    torch.save(checkpoint, tmp_path / 'iter_5.pth')
    runner = build_runner(
        config(tmp_path, images, resume=True, load_from=str(tmp_path / 'iter_5.pth'))
    )
    runner.train()
    assert not runner.optim_wrapper.optimizer.param_groups[0].get('fused')
    assert runner.message_hub.get_info('cfg') == runner.cfg.pretty_text


def test_a_fused_optimizer_gets_states_of_the_shape_of_its_parameters():
    parameter = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones(4)
    optimizer.step()
    saved = optimizer.state_dict()
    optimizer.param_groups[0]['fused'] = True
    runner = SimpleNamespace(optim_wrapper=OptimWrapper(optimizer), _load_from='a.pth')
    _keep_kernels(runner, {'optimizer': saved})
    saved['state'][0]['exp_avg'] = torch.zeros(1)
    with pytest.raises(ValueError, match=r'a\.pth has exp_avg of shape .*\[1\].* of shape \(4,\)'):
        _keep_kernels(runner, {'optimizer': saved})
