import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmseg.registry import MODELS
from tiny import build_plain, collated_batch, tiny_segmentor


def config(**settings):
    return {
        'type': 'OptimWrapper',
        'constructor': 'NetworkOptimWrapperConstructor',
        'optimizer': {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9},
        **settings,
    }


def build(method='IMAS', **settings):
    torch.manual_seed(0)
    return MODELS.build(
        {'type': method, 'segmentor': tiny_segmentor('GN'), 'semi_train_cfg': settings}
    )


def test_only_the_student_is_optimized():
    model = build()
    wrapper = build_optim_wrapper(model, config())
    optimized = {id(p) for group in wrapper.optimizer.param_groups for p in group['params']}
    assert optimized == {id(parameter) for parameter in model.student.parameters()}


def test_paramwise_settings_reach_the_network_inside():
    model = build()
    paramwise = {'custom_keys': {'decode_head': {'lr_mult': 10.0}}}
    wrapper = build_optim_wrapper(model, config(paramwise_cfg=paramwise))
    rates = {id(p): g['lr'] for g in wrapper.optimizer.param_groups for p in g['params']}
    assert all(rates[id(p)] == 1.0 for p in model.student.decode_head.parameters())
    assert all(rates[id(p)] == 0.1 for p in model.student.backbone.parameters())


@pytest.mark.parametrize('method', ['IMAS', 'GPS'])
def test_keys_with_the_name_of_a_network_are_refused(method):
    """The constructor would find no such parameter, and the setting would have no effect."""
    model = build(method)
    key = f'{model.networks[0]}.backbone'
    paramwise = {'custom_keys': {key: {'lr_mult': 0.1}}}
    with pytest.raises(ValueError, match=rf"custom_keys has '{key}', .*Set 'backbone', which"):
        build_optim_wrapper(model, config(paramwise_cfg=paramwise))


def test_constructors_that_look_for_a_backbone_work():
    settings = {'decay_rate': 0.5, 'decay_type': 'stage_wise', 'num_layers': 3}
    segmentor = tiny_segmentor()
    segmentor['backbone'] = {
        'type': 'BEiT',
        'img_size': (32, 32),
        'patch_size': 16,
        'embed_dims': 16,
        'num_layers': 3,
        'num_heads': 2,
        'out_indices': (2,),
        'qv_bias': True,
        'init_values': 0.1,
    }
    segmentor['decode_head'].update(in_channels=16, in_index=0)
    model = MODELS.build({'type': 'IMAS', 'segmentor': segmentor})
    settings = {'num_layers': 3, 'decay_rate': 0.5, 'decay_type': 'layer_wise'}
    wrapper = build_optim_wrapper(
        model,
        config(network_constructor='LearningRateDecayOptimizerConstructor', paramwise_cfg=settings),
    )
    assert len({group['lr'] for group in wrapper.optimizer.param_groups}) > 2


def test_plain_segmentor_is_handed_on():
    model = build_plain()
    wrapper = build_optim_wrapper(model, config())
    optimized = {id(p) for group in wrapper.optimizer.param_groups for p in group['params']}
    assert optimized == {id(parameter) for parameter in model.parameters()}


def test_bfloat16_step_on_cpu():
    model = build().train()
    wrapper = build_optim_wrapper(model, config(type='AutocastOptimWrapper'))
    seen = []
    model.student.backbone.layer4.register_forward_hook(lambda *args: seen.append(args[-1].dtype))
    before = model.student.decode_head.conv_seg.weight.clone()
    log_vars = model.train_step(collated_batch(), wrapper)
    assert set(seen) == {torch.bfloat16}
    assert torch.isfinite(log_vars['loss'])
    after = model.student.decode_head.conv_seg.weight
    assert after.dtype == torch.float32
    assert not torch.equal(before, after)


# ------------------------------------------------------------------------------------ several wrappers


def build_gps(**settings):
    return build('GPS', cutmix=None, **settings)


def optimized(wrapper):
    return {id(p) for group in wrapper.optimizer.param_groups for p in group['params']}


def test_both_students_have_one_wrapper_and_the_teacher_another():
    model = build_gps()
    wrappers = build_optim_wrapper(model, config())
    assert list(wrappers.keys()) == ['students', 'teacher']
    students = [*model.student1.parameters(), *model.student2.parameters()]
    assert optimized(wrappers['students']) == {id(parameter) for parameter in students}
    assert optimized(wrappers['teacher']) == {id(p) for p in model.teacher.parameters()}
    cps = build('CPS')
    assert optimized(build_optim_wrapper(cps, config())) == {id(p) for p in cps.parameters()}


def test_settings_of_parameters_hold_for_every_network():
    model = build_gps(teacher_lr_scale=3.0)
    paramwise = {'custom_keys': {'decode_head': {'lr_mult': 10.0}}}
    wrappers = build_optim_wrapper(model, config(paramwise_cfg=paramwise))
    rates = {
        id(p): g['lr']
        for w in wrappers.values()
        for g in w.optimizer.param_groups
        for p in g['params']
    }
    for name, factor in {'student1': 1, 'student2': 1, 'teacher': 3}.items():
        network = getattr(model, name)
        assert all(rates[id(p)] == pytest.approx(factor) for p in network.decode_head.parameters())
        assert all(
            rates[id(p)] == pytest.approx(0.1 * factor) for p in network.backbone.parameters()
        )
    assert wrappers.get_lr()['teacher.base_lr'] == [pytest.approx(0.3)]


def test_every_wrapper_counts_from_where_a_run_goes_on():
    model = build_gps()
    wrappers = build_optim_wrapper(model, config(accumulative_counts=4))
    assert wrappers._accumulative_counts == 4
    wrappers.initialize_count_status(model, 6, 11)
    assert [wrapper.inner_count for wrapper in wrappers.values()] == [6, 6]
    updated = []
    for _ in range(6, 11):
        model.train_step(collated_batch(), wrappers)
        updated.append(wrappers.should_update())
    # Whole accumulations, and what is left over at the end.
    assert updated == [False, True, False, False, True]


def test_accumulated_updates_are_of_both():
    model = build_gps()
    wrappers = build_optim_wrapper(model, config(accumulative_counts=2))
    weights = [
        model.student2.decode_head.conv_seg.weight,
        model.teacher.decode_head.conv_seg.weight,
    ]
    for moves in (False, True):
        before = [weight.clone() for weight in weights]
        model.train_step(collated_batch(), wrappers)
        for old, new in zip(before, weights, strict=True):
            assert torch.equal(old, new) != moves


def test_state_of_all_wrappers_resumes():
    first, second = build_gps(), build_gps()
    saved = build_optim_wrapper(first, config())
    first.train_step(collated_batch(), saved)
    loaded = build_optim_wrapper(second, config())
    loaded.load_state_dict(saved.state_dict())
    for name, wrapper in saved.items():
        states = (
            wrapper.optimizer.state_dict()['state'],
            loaded[name].optimizer.state_dict()['state'],
        )
        assert len(states[0]) == len(states[1]) > 10
        for key, state in states[0].items():
            assert torch.equal(states[1][key]['momentum_buffer'], state['momentum_buffer'])


def test_gradients_are_clipped_and_logged_apart():
    hub = MessageHub.get_instance('clipping')
    model = build_gps()
    wrappers = build_optim_wrapper(model, config(clip_grad={'max_norm': 0.01}))
    for wrapper in wrappers.values():
        wrapper.message_hub = hub
    before = model.teacher.decode_head.conv_seg.weight.clone()
    model.train_step(collated_batch(), wrappers)
    assert {'train/students.grad_norm', 'train/teacher.grad_norm'} == hub.log_scalars.keys()
    # The rate times the norm at most.
    assert (model.teacher.decode_head.conv_seg.weight - before).norm() <= 0.1 * 0.01 * 1.01


def test_bfloat16_step_of_both_updates():
    model = build('GPS', cutmix='in_batch').train()
    wrappers = build_optim_wrapper(model, config(type='AutocastOptimWrapper'))
    seen, names = [], ('student1', 'student2', 'teacher')
    for name in names:
        network = getattr(model, name)
        network.backbone.layer4.register_forward_hook(lambda *args: seen.append(args[-1].dtype))
    before = {key: value.clone() for key, value in model.named_parameters()}
    log_vars = model.train_step(collated_batch(), wrappers)
    assert set(seen) == {torch.bfloat16}
    assert torch.isfinite(log_vars['loss'])
    # Labeling without gradients beforehand must not leave weights that were cast without a graph.
    for name in names:
        for key in ('backbone.stem.0.weight', 'decode_head.convs.0.conv.weight'):
            after = dict(model.named_parameters())[f'{name}.{key}']
            assert not torch.equal(before[f'{name}.{key}'], after), (name, key)
            assert after.dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason='AmpOptimWrapper needs a GPU')
def test_loss_scales_of_two_wrappers():
    model = build_gps().cuda().train()
    wrappers = build_optim_wrapper(model, config(type='AmpOptimWrapper', loss_scale='dynamic'))
    scalers = [wrapper.loss_scaler for wrapper in wrappers.values()]
    assert scalers[0] is not scalers[1]
    log_vars = model.train_step(collated_batch(), wrappers)
    assert torch.isfinite(log_vars['loss'])
    assert all(isinstance(wrapper, OptimWrapper) for wrapper in wrappers.values())
    state = wrappers.state_dict()
    assert {'loss_scaler'} <= state['students'].keys() & state['teacher'].keys()
