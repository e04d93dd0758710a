"""What Mean Teacher, CutMix-Seg and FixMatch have in common."""

import pytest
import torch
from baselines import TAU, batch_of, build, probabilities
from ddp_steps import train_each
from mmengine.optim import build_optim_wrapper
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from ranks import run_on_ranks
from tiny import collated_batch, tiny_segmentor
from tiny_run import build_runner, tiny_config

#: The method's term, its weight, and settings with which it is not trivial.
METHODS = {
    'MeanTeacher': ('loss_consistency', 'consistency_weight', {}),
    'CutMixSeg': ('loss_consistency', 'consistency_weight', {'tau': TAU['CutMixSeg']}),
    'FixMatch': ('loss_unlabeled', 'unlabeled_weight', {'tau': TAU['FixMatch']}),
}
methods = pytest.mark.parametrize('method', METHODS)


@methods
def test_gradient_reaches_the_student_and_never_the_teacher(method):
    term, _, settings = METHODS[method]
    model = build(method, **settings)
    model.loss(**batch_of(model))[term].backward()
    assert all(parameter.grad is not None for parameter in model.student.parameters())
    assert any((parameter.grad != 0).any() for parameter in model.student.backbone.parameters())
    for name in model.networks[1:]:
        assert all(parameter.grad is None for parameter in getattr(model, name).parameters())


@methods
def test_weight_zero_is_supervised_training(method):
    _, weight, settings = METHODS[method]
    model = build(method, **settings, **{weight: 0.0})
    batch = batch_of(model)
    model.parse_losses(model.loss(**batch))[0].backward()
    mixed = [parameter.grad.clone() for parameter in model.student.parameters()]
    model.student.zero_grad()
    supervised = model.student.loss(batch['inputs']['labeled'], batch['data_samples']['labeled'])
    supervised['decode.loss_ce'].backward()
    for got, parameter in zip(mixed, model.student.parameters(), strict=True):
        torch.testing.assert_close(got, parameter.grad, rtol=1e-4, atol=1e-7)


@methods
def test_only_loss_terms_are_optimized(method):
    term, _, settings = METHODS[method]
    model = build(method, auxiliary=True, **settings)
    losses = model.loss(**batch_of(model))
    assert {key for key in losses if 'loss' in key} == {'decode.loss_ce', 'aux.loss_ce', term}
    for key, value in losses.items():
        assert torch.isfinite(value)
        assert value.requires_grad == ('loss' in key)
    losses[term].backward()
    head = model.student.auxiliary_head
    assert all(p.grad is None or (p.grad == 0).all() for p in head.parameters())


@methods
def test_step_moves_the_student_alone(method):
    _, _, settings = METHODS[method]
    model = build(method, norm='BN', **settings)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = {'type': 'SGD', 'lr': 0.1}
    config = {'type': 'OptimWrapper', 'constructor': 'NetworkOptimWrapperConstructor'}
    wrapper = build_optim_wrapper(model, {**config, 'optimizer': optimizer})
    log = model.train_step(collated_batch(2, 3), wrapper)
    assert log['loss'] > 0
    changed = {
        key for key, value in model.state_dict().items() if not torch.equal(value, before[key])
    }
    assert {key.partition('.')[0] for key in changed} == {'student'}
    # The blocks start as identities, and their convolutions stay for one step.
    assert 'student.decode_head.conv_seg.weight' in changed
    assert 'student.backbone.stem.0.weight' in changed


@methods
def test_no_valid_pixel_and_a_single_image(method):
    term, _, settings = METHODS[method]
    model = build(method, **settings)
    losses = model.loss(**batch_of(model, num_unlabeled=1, padding=32))
    assert losses[term] == 0
    assert all(torch.isfinite(value) for value in losses.values())
    losses[term].backward()


@methods
def test_bfloat16_autocast_keeps_the_terms_in_float32(method):
    term, _, settings = METHODS[method]
    model = build(method, **settings)
    batch = batch_of(model)
    torch.manual_seed(3)
    exact = model.loss(**batch)
    torch.manual_seed(3)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        rough = model.loss(**batch)
    assert rough[term].dtype == torch.float32
    torch.testing.assert_close(rough[term], exact[term], rtol=0.1, atol=1e-3)
    rough[term].backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.student.parameters())


def test_validation_of_one_network_reports_it_alone(tmp_path):
    runner = build_runner(tiny_config(tmp_path, 'FixMatch', train_cfg__max_iters=4))
    runner.train()
    assert runner.model.clock[:2] == (3, 4)
    metrics = runner.val_loop.run()
    assert {key.partition('/')[0] for key in metrics} == {'student'}
    assert 'ema_decay' not in {key.rpartition('/')[2] for key in runner.message_hub.log_scalars}


def test_missing_hook_stops_the_run(tmp_path):
    config = tiny_config(tmp_path, 'UniMatchV2')
    config.custom_hooks.pop()
    with pytest.raises(
        ValueError, match=r"UniMatchV2 needs MeanTeacherHook. Add dict\(type='MeanTeacherHook"
    ):
        build_runner(config).train()


@pytest.mark.slow
def test_two_ranks_with_half_the_batch_train_like_one(tmp_path):
    # Boxes are drawn on each rank, and thresholds depend on the rounding of another batch size.
    settings = {
        'MeanTeacher': {'rampup_steps': 2},
        'CutMixSeg': {'tau': 0.0, 'cutmix': {'adaptive': False, 'prob': 0.0}},
        'FixMatch': {'tau': 0.0, 'cutmix': None},
    }
    first, second = run_on_ranks(train_each, 2, tmp_path, 2, 3, *settings.items())
    whole = train_each(0, 1, 3, *settings.items())
    for method, alone, one, other in zip(settings, whole, first, second, strict=True):
        for key, value in alone['state_dict'].items():
            assert torch.equal(one['state_dict'][key], other['state_dict'][key]), key
            torch.testing.assert_close(one['state_dict'][key], value, rtol=1e-4, atol=1e-5)
        for log, log1, log2 in zip(alone['logs'], one['logs'], other['logs'], strict=True):
            for key in ('loss', 'decode.loss_ce', METHODS[method][0]):
                mean = (log1[key] + log2[key]) / 2
                torch.testing.assert_close(mean, log[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('method', ['FixMatch', 'CutMixSeg', 'UniMatch'])
def test_confident_ratio_is_the_mean_of_the_images_shares(method):
    # Images with different padding: a share of the batch would weigh them by their area.
    tau = TAU.get(method, 0.5)
    model = build(method, tau=tau)
    batch = batch_of(model, num_labeled=2, num_unlabeled=3)
    batch['inputs']['strong2'] = batch['inputs']['strong']
    valid = torch.ones(3, 32, 32, dtype=torch.bool)
    valid[0, :, 2:] = False
    valid[1, 12:] = False
    for sample, mask in zip(batch['data_samples']['weak'], valid, strict=True):
        sample.valid_mask = PixelData(data=mask[None])
    labeler = getattr(model, 'teacher', model.student)
    sure = probabilities(labeler, batch['inputs']['weak']).amax(dim=1) >= tau
    sure = sure & valid
    shares = sure.sum(dim=(1, 2)) / valid.sum(dim=(1, 2))
    ratio = model.loss(**batch)['confident_ratio'].item()
    assert ratio == pytest.approx(shares.mean().item(), rel=1e-6)
    assert ratio != pytest.approx((sure.sum() / valid.sum()).item(), rel=1e-2)


@pytest.mark.parametrize(
    'method', ['CutMixSeg', 'DeS4', 'ESL', 'FixMatch', 'U2PL', 'UniMatch', 'UniMatchV2']
)
@pytest.mark.parametrize(
    'given', [{}, {'adaptive': False}, {'prob': 0.3}, {'style': 'imas'}], ids=str
)
def test_options_of_the_cutmix_that_are_left_out_are_the_methods_own(method, given):
    with torch.device('meta'):
        model = MODELS.build(
            {
                'type': method,
                'segmentor': tiny_segmentor('GN'),
                'semi_train_cfg': {'cutmix': given},
            }
        )
    own = {
        'CutMixSeg': (1.0, 'cutmix_seg', False),
        'DeS4': (1.0, 'u2pl', False),
        'ESL': (0.5, 'u2pl', False),
        'U2PL': (0.5, 'u2pl', False),
    }.get(method, (0.5, 'unimatch', True))
    expected = {'adaptive': False, **dict(zip(('prob', 'style', 'per_image'), own, strict=True))}
    expected.update(given)
    assert {key: getattr(model.cutmix, key) for key in expected} == expected
    # The log says what is on, and the class's defaults stay as they are.
    said = {key: value for key, value in model.cfg.cutmix.items() if key != 'type'}
    assert expected.items() >= said.items()
    assert type(model).Settings().cutmix.get('prob') == own[0]
