"""In a training step nothing waits for the device: seen on a GPU, and without one on tensors without values."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmseg.registry import MODELS
from tiny import collated_batch, tiny_segmentor

from mmseg_semi.models.clock import Clock

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason='counting host synchronizations needs a GPU'
)


def on_device(batch, device):
    """Move the images beforehand: a copy from memory that is not pinned is the loader's business."""
    inputs = {branch: images.to(device) for branch, images in batch['inputs'].items()}
    samples = {
        branch: [sample.to(device) for sample in samples]
        for branch, samples in batch['data_samples'].items()
    }
    return {'inputs': inputs, 'data_samples': samples}


SETTINGS = {
    'IMAS': {'tau': 0.28},
    'CPS': {'cutmix': None},
    'MeanTeacher': {'rampup_steps': 5},
    'CutMixSeg': {'tau': 0.28},
    'FixMatch': {'tau': 0.28},
    'DeS4': {},
    'GPS': {'cutmix': 'in_batch'},
    'CorrMatch': {'tau_start': 0.28, 'channels': 8, 'num_regions': 4},
    'UniMatch': {'tau': 0.28},
    'UniMatchV2': {'tau': 0.28, 'adjust_logits': True},
    'PrevMatch': {'tau': 0.28, 'guidance_tau': 0.28},
    'U2PL': {
        'anchor_pixels': 'surest',
        'class_average': 'present',
        'representation': {'channels': 8, 'out_channels': 8},
        'queue_size': 20,
        'background_queue_size': 30,
        'keys_per_step': 8,
        'num_anchors': 4,
        'num_negatives': 6,
    },
    'ESL': {
        'anchor_threshold': 0.26,
        'num_parts': 2,
        'queue_size': 3,
        'projector': {'channels': 8, 'out_channels': 8},
    },
}


@needs_gpu
@pytest.mark.parametrize('method', SETTINGS)
@pytest.mark.parametrize('loss', [{}, {'ohem': {'threshold': 0.7, 'min_kept': 100}}])
@pytest.mark.parametrize('ignore_padding', [True, False])
def test_step_and_average_never_wait(loss, ignore_padding, method):
    segmentor = tiny_segmentor('BN', loss_decode={'type': 'PixelCrossEntropyLoss', **loss})
    settings = {**SETTINGS[method], 'ignore_padding': ignore_padding}
    model = MODELS.build({'type': method, 'segmentor': segmentor, 'semi_train_cfg': settings})
    model = model.cuda().train()
    wrapper = build_optim_wrapper(
        model,
        {
            'type': 'OptimWrapper',
            'constructor': 'NetworkOptimWrapperConstructor',
            'optimizer': {'type': 'SGD', 'lr': 0.01, 'momentum': 0.9},
        },
    )
    wrapper.initialize_count_status(model, 0, 9)
    if method == 'PrevMatch':
        model.keep_student()
    batch = on_device(collated_batch(2, 3), 'cuda')
    average = getattr(model, 'update_teacher', lambda decay: None)
    for _ in range(3):  # cuDNN and the allocator settle
        model.train_step(batch, wrapper)
        average(0.99)
    torch.cuda.set_sync_debug_mode('error')
    try:
        model.train_step(batch, wrapper)
        average(0.99)
    finally:
        torch.cuda.set_sync_debug_mode('default')


@pytest.mark.parametrize('method', SETTINGS)
@pytest.mark.parametrize('ignore_padding', [True, False])
def test_losses_and_gradients_read_no_value_back(method, ignore_padding, meta):
    settings = {**SETTINGS[method], 'ignore_padding': ignore_padding}
    model = MODELS.build(
        {'type': method, 'segmentor': tiny_segmentor('BN'), 'semi_train_cfg': settings}
    ).train()
    batch = model.data_preprocessor(collated_batch(2, 3), True)
    if method == 'PrevMatch':
        model.keep_student()
        model.clock = Clock(1, 4)
    model.to(meta)
    inputs, data_samples = on_device(batch, meta).values()
    losses = model.loss(inputs, data_samples)
    assert all(value.device == meta for value in losses.values())
    assert any(key.endswith('decode.loss_ce') for key in losses)
    sum(value for key, value in losses.items() if 'loss' in key).backward()
