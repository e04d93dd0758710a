import torch
from mmengine.optim import build_optim_wrapper
from mmseg.registry import MODELS
from tiny import build_plain, collated_batch, tiny_segmentor


def config(**settings):
    return {
        'type': 'OptimWrapper',
        'constructor': 'NetworkOptimWrapperConstructor',
        'optimizer': {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9},
        **settings,
    }


def build():
    torch.manual_seed(0)
    return MODELS.build({'type': 'IMAS', 'segmentor': tiny_segmentor('GN')})


def test_only_the_student_is_optimised():
    model = build()
    wrapper = build_optim_wrapper(model, config())
    optimised = {id(p) for group in wrapper.optimizer.param_groups for p in group['params']}
    assert optimised == {id(parameter) for parameter in model.student.parameters()}


def test_paramwise_settings_reach_the_network_inside():
    model = build()
    paramwise = {'custom_keys': {'decode_head': {'lr_mult': 10.0}}}
    wrapper = build_optim_wrapper(model, config(paramwise_cfg=paramwise))
    rates = {id(p): g['lr'] for g in wrapper.optimizer.param_groups for p in g['params']}
    assert all(rates[id(p)] == 1.0 for p in model.student.decode_head.parameters())
    assert all(rates[id(p)] == 0.1 for p in model.student.backbone.parameters())


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
    optimised = {id(p) for group in wrapper.optimizer.param_groups for p in group['params']}
    assert optimised == {id(parameter) for parameter in model.parameters()}


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
