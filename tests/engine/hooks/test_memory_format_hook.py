import pytest
import torch
from processes import TOOLS, run_tool
from tiny_run import METHODS, build_runner, dump, tiny_config

HOOK = {'type': 'MemoryFormatHook'}


def train(tmp_path, method, hooked):
    """The runner of a short training, its losses and its scores."""
    config = tiny_config(tmp_path / str(hooked), method, norm='GN', train_cfg__max_iters=4)
    config.custom_hooks += [HOOK] if hooked else []
    # Steps so small that rounding does not grow.
    config.optim_wrapper.optimizer = {'type': 'SGD', 'lr': 1e-5}
    runner = build_runner(config)
    runner.train()
    history = runner.message_hub.log_scalars
    losses = [value for key in history if key == 'train/loss' for value in history[key].data[0]]
    return runner, torch.tensor(losses)


def is_last(tensor):
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


@pytest.mark.parametrize('method', [None, *METHODS])
def test_same_losses_to_rounding(tmp_path, method):
    plain, expected = train(tmp_path, method, False)
    runner, losses = train(tmp_path, method, True)
    assert len(losses) == 4
    # Rounding moves a pixel across a threshold, or to another rank of U2PL's entropies.
    torch.testing.assert_close(losses, expected, rtol=5e-3, atol=1e-4)
    network = getattr(runner.model, runner.model.networks[-1]) if method else runner.model
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert is_last(network.eval().extract_feat(images)[0])
    other = getattr(plain.model, plain.model.networks[-1]) if method else plain.model
    assert not is_last(other.eval().extract_feat(images)[0])


def test_a_checkpoint_loads_without_the_hook(tmp_path):
    runner, _ = train(tmp_path, 'IMAS', True)
    plain = build_runner(tiny_config(tmp_path / 'plain', 'IMAS', norm='GN'))
    runner.save_checkpoint(str(tmp_path), 'saved.pth', save_optimizer=True)
    plain.load_checkpoint(str(tmp_path / 'saved.pth'))
    mine, other = runner.model.state_dict(), plain.model.state_dict()
    assert all(torch.equal(mine[name], other[name]) for name in mine)
    assert not is_last(other['student.backbone.layer2.0.conv1.weight'])


def test_two_processes_stay_equal(tmp_path):
    config = tiny_config(tmp_path / 'work', 'CPS', train_cfg__max_iters=3)
    config.custom_imports.imports.append('saboteurs')
    config.custom_hooks += [HOOK, {'type': 'WatchHook'}]
    result = run_tool(
        TOOLS / 'train.py', dump(config, tmp_path / 'config.py'), cwd=tmp_path, ranks=2
    )
    assert result.code == 0, result.output
    first, second = (torch.load(tmp_path / f'work/rank{rank}.pth') for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
