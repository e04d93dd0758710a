from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import MODEL_WRAPPERS
from processes import TOOLS, run_tool
from tiny_run import build_runner, dump, tiny_config
from torch import nn

from mmseg_semi.engine import FreezeHook
from mmseg_semi.models.segmentors import SemiSegmentor

FROZEN = ['backbone.stem', 'backbone.layer1']


def train(tmp_path, method, modules=FROZEN, **changes):
    """Weights before and after a training with the hook, by name, and the runner."""
    config = tiny_config(tmp_path, method, train_cfg__max_iters=6, **changes)
    config.custom_hooks.append({'type': 'FreezeHook', 'modules': modules})
    runner = build_runner(config)
    runner.model.init_weights()
    runner.model._is_init = True
    before = {name: value.clone() for name, value in runner.model.state_dict().items()}
    runner.train()
    return before, runner.model.state_dict(), runner


@pytest.mark.parametrize('method', [None, 'IMAS', 'UniMatch', 'CPS'])
def test_frozen_modules_keep_their_values_and_the_others_learn(tmp_path, method):
    before, after, runner = train(tmp_path, method)
    networks = [f'{name}.' for name in runner.model.networks] if method else ['']
    for start in networks:
        # The teacher starts as a copy of the student.
        first = networks[0] if start == 'teacher.' else start
        names = [name[len(start) :] for name in after if name.startswith(start)]
        frozen = [name for name in names if name.startswith(tuple(f'{m}.' for m in FROZEN))]
        assert {'backbone.stem.0.weight', 'backbone.stem.1.running_mean'} <= set(frozen)
        for name in frozen:
            assert torch.equal(after[start + name], before[first + name]), name
        for name in ('backbone.layer2.0.conv1.weight', 'backbone.layer2.0.bn1.running_mean'):
            assert not torch.equal(after[start + name], before[first + name]), name


def test_no_gradient_reaches_them_and_their_mode_is_eval(tmp_path):
    *_, runner = train(tmp_path, None)
    runner.model.train()
    hook = next(hook for hook in runner.hooks if isinstance(hook, FreezeHook))
    hook.before_train_iter(runner, 0)
    backbone = runner.model.backbone
    assert not any(module.training for module in backbone.layer1.modules())
    assert all(module.training for module in backbone.layer2.modules())
    features = backbone.layer1(backbone.stem(torch.rand(1, 3, 32, 32)))
    assert not features.requires_grad
    assert backbone(torch.rand(2, 3, 32, 32))[-1].requires_grad


def test_a_backbone_of_timm(tmp_path):
    pytest.importorskip('timm', reason="timm is not installed: pip install 'mmseg_semi[timm]'")
    backbone = {
        '_delete_': True,
        'type': 'TIMMBackbone',
        'model_name': 'tf_efficientnet_lite0',
        'features_only': True,
        'pretrained': False,
        'output_stride': 16,
        'out_indices': (1, 2, 3, 4),
    }
    modules = [f'backbone.timm_model.{name}' for name in ('conv_stem', 'bn1', 'blocks.0')]
    before, after, _ = train(
        tmp_path,
        None,
        modules,
        model__backbone=backbone,
        model__decode_head__in_channels=320,
        train_cfg__val_interval=100,
    )
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert not [name for name in changed if name.startswith(tuple(f'{m}.' for m in modules))]
    assert 'backbone.timm_model.blocks.1.0.conv_pw.weight' in changed
    assert 'backbone.timm_model.blocks.1.0.bn1.running_mean' in changed


@pytest.mark.slow
@pytest.mark.parametrize('method', ['IMAS', 'CPS'])
def test_two_processes_stay_equal(tmp_path, method):
    config = tiny_config(tmp_path / 'work', method, train_cfg__max_iters=4)
    config.custom_imports.imports.append('saboteurs')
    config.custom_hooks += [{'type': 'FreezeHook', 'modules': FROZEN}, {'type': 'WatchHook'}]
    result = run_tool(
        TOOLS / 'train.py', dump(config, tmp_path / 'config.py'), cwd=tmp_path, ranks=2
    )
    assert result.code == 0, result.output
    first, second = (torch.load(tmp_path / f'work/rank{rank}.pth') for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_wrong_name_is_one_sentence(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"FreezeHook.modules='backbone\.layer9'.*student\..*Choose from those of backbone: stem",
    ):
        train(tmp_path, 'IMAS', ['backbone.layer9'])
    for modules in ([], 'backbone.stem'):
        with pytest.raises(ValueError, match=r'FreezeHook.modules=.* must be a list of names'):
            FreezeHook(modules)


def test_all_networks_of_a_method_are_found():
    class Two(SemiSegmentor):
        networks = ('student', 'teacher')

        def __init__(self):
            nn.Module.__init__(self)
            self.student, self.teacher = (nn.Sequential(nn.Conv2d(1, 1, 1)) for _ in range(2))

        def loss(self, inputs, data_samples): ...

    model = Two()
    assert FreezeHook(['0'])._find(model) == [model.student[0], model.teacher[0]]


@MODEL_WRAPPERS.register_module()
class Wrapper(nn.Module):
    """In the place of DistributedDataParallel, which needs several processes."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def train_step(self): ...


def test_wrapped_again_with_other_batch_norms_and_compiled_again():
    """As Runner.wrap_model does with sync_bn: modules found before are no longer part of the model."""

    def wrap(config, model):
        assert config is None
        return Wrapper(nn.SyncBatchNorm.convert_sync_batchnorm(model))

    compiled = []
    model = Wrapper(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)))
    model.train_step = 'compiled'
    runner = SimpleNamespace(model=model, wrap_model=wrap, cfg={}, _maybe_compile=compiled.append)
    hook = FreezeHook(['1'])
    hook.before_train(runner)
    # Another hook wraps the model once more.
    runner.model = wrap(None, runner.model.module)
    hook.before_train_epoch(runner)
    runner.model.train()
    hook.before_train_iter(runner, 0)
    norm = runner.model.module[1]
    assert isinstance(norm, nn.SyncBatchNorm)
    assert not norm.training
    assert not norm.weight.requires_grad
    assert compiled == ['train_step']
    # Without compile nothing is.
    del compiled[:]
    hook.before_train(runner)
    assert compiled == []
