"""What an optimizer step is made of: accumulation, scaled rates, mixed precision, through the Runner."""

import pytest
import torch
from processes import TOOLS, run_tool
from tiny_run import build_runner, dump, tiny_config

# As in test_ranks.py: nothing that is drawn or normalized per batch, and a constant rate.
COMPARABLE = {
    'norm': 'GN',
    'model__segmentor__decode_head__dropout_ratio': 0,
    'model__segmentor__decode_head__loss_decode__type': 'CrossEntropyLoss',
    'model__semi_train_cfg__cutmix': None,
    'optim_wrapper__optimizer': {'_delete_': True, 'type': 'SGD', 'lr': 0.02, 'momentum': 0.9},
    'param_scheduler': [],
    'train_cfg__val_interval': 100,
}


def train(work_dir, **settings):
    runner = build_runner(tiny_config(work_dir, **settings))
    runner.train()
    return runner


@pytest.fixture
def float64():
    """In float32, the rounding of another batch size can move a pixel to another class."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures('float64')
def test_accumulated_halves_are_one_whole_batch(tmp_path):
    whole = train(tmp_path / 'whole', labeled=2, unlabeled=4, train_cfg__max_iters=5, **COMPARABLE)
    halves = train(
        tmp_path / 'halves',
        labeled=1,
        unlabeled=2,
        train_cfg__max_iters=10,
        optim_wrapper__accumulative_counts=2,
        **COMPARABLE,
    )
    assert whole.model.ema_steps == halves.model.ema_steps == 5
    expected = whole.model.state_dict()
    for key, value in halves.model.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=1e-6, atol=1e-9)
    moved = expected['student.decode_head.conv_seg.weight']
    assert not torch.equal(moved, expected['teacher.decode_head.conv_seg.weight'])


def test_left_over_iterations_of_an_accumulation_are_a_step_too(tmp_path):
    runner = train(
        tmp_path, train_cfg__max_iters=5, optim_wrapper__accumulative_counts=2, **COMPARABLE
    )
    assert runner.model.ema_steps == 3


def test_scaled_rate_counts_labeled_and_unlabeled_images(tmp_path):
    config = tiny_config(tmp_path / 'work', train_cfg__max_iters=1, param_scheduler=[])
    config.auto_scale_lr = {'enable': False, 'base_batch_size': 16}
    dump(config, tmp_path / 'config.py')
    result = run_tool(TOOLS / 'train.py', 'config.py', '--auto-scale-lr', cwd=tmp_path, ranks=2)
    assert result.code == 0, result.output
    # Two processes with 2 + 2 images each.
    assert 'LR is set based on batch size of 16 and the current batch size is 8' in result.output
    checkpoint = torch.load(tmp_path / 'work' / 'iter_1.pth', weights_only=False)
    assert checkpoint['optimizer']['param_groups'][0]['lr'] == pytest.approx(0.005 / 2)


def test_bfloat16_on_the_cpu(tmp_path):
    settings = {'train_cfg__max_iters': 3, 'train_cfg__val_interval': 3}
    exact = train(tmp_path / 'exact', **settings)
    rough = train(tmp_path / 'rough', optim_wrapper__type='AutocastOptimWrapper', **settings)
    weights, rounded = exact.model.state_dict(), rough.model.state_dict()
    for key, value in rounded.items():
        assert value.dtype == weights[key].dtype
        assert torch.isfinite(value).all()
    # Of the first step: later ones differ more, since the weights do.
    losses = [run.message_hub.get_scalar('train/loss').data[0][0] for run in (exact, rough)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
