"""The settings `channels_last` and `compile`: the same numbers, names and checkpoints."""

import copy

import pytest
import torch
from ddp_steps import train_method
from mmengine.optim import build_optim_wrapper
from mmseg.registry import MODELS
from tiny import tiny_segmentor  # noqa: F401  registers the scope
from tiny_run import METHODS, build_runner, tiny_config
from two_views import batch_of, build

from mmseg_semi.datasets.shapes import CLASSES, PALETTE
from mmseg_semi.engine.export import own_modules, plain_config, plain_state_dict
from mmseg_semi.models import speed


def is_last(tensor):
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def trained(**settings):
    """A method after two steps, their losses, and the names of its weights before."""
    model = build('FixMatch', tau=0.0, **settings)
    names = list(model.state_dict())
    wrapper = build_optim_wrapper(
        model,
        {
            'constructor': 'NetworkOptimWrapperConstructor',
            'optimizer': {'type': 'SGD', 'lr': 1e-3},
        },
    )
    losses = []
    for seed in range(2):
        torch.manual_seed(seed)
        loss, _ = model.parse_losses(model.loss(**batch_of(model, seed=seed)))
        wrapper.update_params(loss)
        losses.append(loss.detach())
    return model, torch.stack(losses), names


@pytest.mark.parametrize('method', METHODS)
def test_channels_last_draws_the_same_weights(tmp_path, method):
    models = []
    for given in (False, True):
        config = tiny_config(tmp_path / str(given), method, norm='GN')
        config.model.semi_train_cfg.channels_last = given
        runner = build_runner(config)
        runner._init_model_weights()
        models.append(runner.model)
    mine, other = (model.state_dict() for model in models)
    assert mine.keys() == other.keys()
    for name in mine:
        torch.testing.assert_close(mine[name], other[name], rtol=0, atol=0)
    for name in models[1].networks:
        assert is_last(getattr(models[1], name).backbone.layer2[0].conv1.weight)
        assert not is_last(getattr(models[0], name).backbone.layer2[0].conv1.weight)


def test_channels_last_trains_the_same_to_rounding():
    plain, expected, names = trained()
    model, losses, mine = trained(channels_last=True)
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
    assert mine == names == list(model.state_dict())
    # A plain model takes the checkpoint.
    plain.load_state_dict(model.state_dict())
    assert not is_last(plain.student.backbone.layer2[0].conv1.weight)


@pytest.fixture
def eager_backend(monkeypatch):
    """Of the compiler only the backend is another, which needs no C++ compiler."""
    compiled = torch.compile

    def eager(function, **kwargs):
        return compiled(function, **{**kwargs, 'backend': 'eager'})

    monkeypatch.setattr(torch, 'compile', eager)
    monkeypatch.setattr(
        torch.nn.Module,
        'compile',
        lambda self: setattr(self, '_compiled_call_impl', eager(self._call_impl)),
    )


@pytest.mark.slow
def test_compiled_parts_train_the_same(eager_backend):
    plain, expected, names = trained()
    model, losses, mine = trained(compile=True)
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
    assert mine == names == list(model.state_dict())
    for network in (model.student.backbone, model.student.decode_head):
        assert network._compiled_call_impl is not None
    assert copy.deepcopy(model.student).backbone._compiled_call_impl is None
    plain.load_state_dict(model.state_dict())


@pytest.mark.slow
def test_prototypes_follow_the_steps_of_a_compiled_training(eager_backend):
    plain, compiled = (
        train_method(0, 1, 3, 'DeS4', {'cutmix': None, 'compile': given}) for given in (False, True)
    )
    for expected, log in zip(plain['logs'], compiled['logs'], strict=True):
        assert log.keys() == expected.keys() >= {'prototype_drift'}
        for key in ('loss', 'prototype_drift'):
            torch.testing.assert_close(log[key], expected[key], rtol=1e-6, atol=1e-8)


def run(work_dir, **changes):
    """A training of four iterations and the weights that it has saved."""
    config = tiny_config(
        work_dir,
        'IMAS',
        train_cfg__max_iters=4,
        train_cfg__val_interval=4,
        default_hooks__checkpoint__interval=2,
        **changes,
    )
    runner = build_runner(config)
    runner.train()
    checkpoint = torch.load(work_dir / 'iter_4.pth', weights_only=False)
    return config, runner.model, checkpoint['state_dict']


@pytest.mark.slow
@pytest.mark.parametrize('switch', ['channels_last', 'compile'])
def test_a_resumed_training_reaches_the_same_weights_and_exports_plain_ones(
    tmp_path, switch, eager_backend
):
    switched = {f'model__semi_train_cfg__{switch}': True}
    config, model, expected = run(tmp_path / 'whole', **switched)
    resumed = {'load_from': str(tmp_path / 'whole' / 'iter_2.pth'), 'resume': True}
    _, _, weights = run(tmp_path / 'again', **switched, **resumed)
    assert weights.keys() == expected.keys()
    assert [name for name, value in weights.items() if not torch.equal(value, expected[name])] == []
    # A training continues without the switch as well, from weights that are the same to rounding.
    _, _, other = run(tmp_path / 'other', **resumed)
    assert other.keys() == expected.keys()
    for name in other:
        torch.testing.assert_close(other[name], expected[name], rtol=1e-3, atol=1e-4)
    plain = plain_config(config, {'classes': CLASSES, 'palette': PALETTE}).model
    assert own_modules(plain) == []
    exported = MODELS.build(plain).eval()
    assert not any(module._compiled_call_impl for module in exported.modules())
    saved = plain_state_dict(expected, 'teacher', model.training_only, model.shared_modules)
    exported.load_state_dict(saved, strict=True)
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            exported(image), model.eval().teacher(image), rtol=1e-4, atol=1e-4
        )


def test_a_machine_that_cannot_compile_says_so(monkeypatch):
    def fail(function, **kwargs):
        raise RuntimeError('Failed to find C++ compiler.\nPlease specify one.')

    monkeypatch.setattr(torch, 'compile', fail)
    message = r'cannot compile on cpu \(Failed to find C\+\+ compiler\)\. Install'
    with pytest.raises(ValueError, match=message):
        speed.compile_networks([build('FixMatch').student])
