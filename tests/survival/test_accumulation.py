"""k micro-batches of one optimizer step are one batch of k times the images, for every method.

What couples the images of a batch is switched off or held equal, so that the two must agree to rounding: no
CutMix, no dropout, GroupNorm, equally many pixels that count in each micro-batch, all pixels sampled, fixed
thresholds and injected positives and negatives. Then weights, teachers, prototypes, banks, rates and the clock
are compared, in float64.
"""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from loss_scalers import cpu_grad_scaler
from mmengine.config import Config
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from mmengine.optim import PolyLR as _PolyLR  # noqa: F401  registers the schedulers
from mmengine.registry import PARAM_SCHEDULERS
from mmseg.registry import MODELS, OPTIM_WRAPPERS
from tiny import collated_batch, labeled_sample, tiny_segmentor, unlabeled_sample

import mmseg_semi.engine
from mmseg_semi.engine import (
    AdaptiveRampUpHook,
    EarlierModelHook,
    MeanTeacherHook,
    StepSchedulerHook,
)
from mmseg_semi.models import part_contrast
from mmseg_semi.models.memory import FeatureQueues

K, STEPS = 2, 3
#: Whole batches: labeled and unlabeled images; a micro-batch has half of both.
NUM = 4

METHODS = {
    'FixMatch': dict(tau=0.2, cutmix=None),
    'FixMatch-eval': dict(tau=0.2, cutmix=None, label_mode='eval', unlabeled_start=1),
    'UniMatch': dict(tau=0.2, cutmix=None, dropout_ratio=0.0),
    # One earlier model, so that its draw and its weight are certain.
    'PrevMatch': dict(tau=0.2, guidance_tau=0.2, cutmix=None, dropout_ratio=0.0, num_models=1),
    # Rows of the map are drawn in each micro-batch, so none are.
    'CorrMatch': dict(
        tau_start=0.2,
        tau_decay=0.7,
        cutmix=None,
        dropout_ratio=0.0,
        channels=8,
        projector_dropout=0.0,
        num_regions=0,
        unlabeled_start=1,
    ),
    'UniMatchV2': dict(tau=0.2, cutmix=None, dropout_prob=0.0),
    'MeanTeacher': dict(consistency_weight=3.0, rampup_steps=2),
    'CutMixSeg': dict(
        tau=0.2, cutmix=dict(prob=0.0), confidence_weighting='pixel', unlabeled_start=1
    ),
    'IMAS': dict(
        tau=0.2, cutmix=None, adaptive_loss=False, intensity=dict(adaptive=False), unlabeled_start=1
    ),
    'U2PL': dict(cutmix=None, unreliable_share=0.0, contrast_weight=0.0, unlabeled_start=1),
    # The contrast averages the anchors of a micro-batch: with this weight the bank alone is compared.
    'U2PL-bank': dict(
        cutmix=None,
        unreliable_share=0.0,
        contrast_weight=1e-30,
        low_rank=1,
        keys_per_step=4096,
        queue_size=8192,
        background_queue_size=8192,
    ),
    'CPS': dict(cutmix=None),
    'GPS': dict(cutmix=None, gamma=5.0),
    'GPS-merged': dict(cutmix=None, gamma=5.0, update='merged', unlabeled_start=1),
    'ESL': dict(
        cutmix=None,
        segmentation_head=dict(channels=6, num_convs=1, dropout_ratio=0.0),
        projector=dict(channels=6, out_channels=4, num_convs=1),
        num_parts=2,
        queue_size=64,
        anchor_ratio=1.0,
        # No unlabeled pixel exceeds it: their number would differ from micro-batch to micro-batch.
        anchor_threshold=1.0,
        contrast_weight=1.0,
        prototype_decay=0.7,
    ),
    'DeS4': dict(cutmix=None, class_ratio='literal', prototype_decay=0.7),
    'DeS4-own': dict(cutmix=None, class_ratio='literal', prototype_decay=0.7, shared_head=False),
}


@OPTIM_WRAPPERS.register_module()
class SkippingOptimWrapper(mmseg_semi.engine.optim.OptimWrapper):
    """Skips its second step, as a gradient scaler that finds an infinite gradient does."""

    made = 0

    def step(self, **kwargs) -> None:
        self.made += 1
        if self.made != 2:
            super().step(**kwargs)


@OPTIM_WRAPPERS.register_module()
class OverflowingOptimWrapper(mmseg_semi.engine.optim.OptimWrapper):
    """Has a gradient scaler that skips the second step, in whose first micro-batch a gradient overflows."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        # Powers of 2, which change no digit of a float64.
        self.scaler = cpu_grad_scaler(init_scale=2.0**4)

    def backward(self, loss: torch.Tensor, **kwargs) -> None:
        if self._inner_count == self._accumulative_counts:
            loss = loss * torch.inf
        self.scaler.scale(loss).backward()
        self._inner_count += 1

    def step(self, **kwargs) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()


def whole_batch(step: int) -> dict:
    """Images as they leave the preprocessor, in float64; every half has as many pixels that count."""
    batch = collated_batch(NUM, NUM, seed=step)
    label = torch.arange(32)[:, None].div(8, rounding_mode='floor').expand(32, 32)
    labels, valids = [], []
    for i in range(NUM):
        # Void and padding at other places in each image of a half, and the halves in other orders.
        own = label.clone()
        own[:, 4 * (i % 2) : 4 * (i % 2) + 4] = 255
        labels.append(labeled_sample(own))
        valid = torch.ones(32, 32, dtype=torch.bool)
        valid[:, 16 + 8 * ((i + i // 2) % 2) :] = False
        valids.append(unlabeled_sample(valid))
    samples = dict.fromkeys(('weak', 'strong', 'strong2'), valids)
    inputs = {key: value.double() / 128 - 1 for key, value in batch['inputs'].items()}
    return {'inputs': inputs, 'data_samples': {'labeled': labels, **samples}}


def part(batch: dict, index: int, of: int) -> dict:
    share = slice(index * NUM // of, (index + 1) * NUM // of)
    return {
        kind: {branch: items[share] for branch, items in branches.items()}
        for kind, branches in batch.items()
    }


def train(name: str, accumulated: int, wrapper_type: str) -> dict:
    """Three optimizer steps of a method with the hooks that move its state; returns all of that."""
    method = name.partition('-')[0]
    torch.manual_seed(0)
    segmentor = tiny_segmentor('GN', auxiliary=True)
    model = MODELS.build({'type': method, 'segmentor': segmentor, 'semi_train_cfg': METHODS[name]})
    model.init_weights()
    if method in ('ESL', 'DeS4'):
        generator = torch.Generator().manual_seed(1)
        for key, buffer in model.named_buffers():
            if key.endswith('vectors') or key == 'contrast.bank.rows':
                buffer.copy_(torch.randn(buffer.shape, generator=generator))
            elif key.endswith(('valid', 'seen')):
                buffer.fill_(True)
            elif key in ('contrast.bank.fill', 'contrast.bank.cursor', 'equalizer.class_counts'):
                buffer.fill_(1)
    model.double().train()
    model.data_preprocessor.forward = lambda data, training: data
    config = {
        'type': wrapper_type,
        'constructor': 'NetworkOptimWrapperConstructor',
        'optimizer': {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9},
        'accumulative_counts': accumulated,
    }
    iterations = accumulated * STEPS
    schedule = [
        dict(type='LinearLR', start_factor=0.5, begin=0, end=1, by_epoch=False),
        dict(type='PolyLR', power=0.9, eta_min=0.01, begin=0, by_epoch=False),
    ]
    runner = SimpleNamespace(
        model=model,
        optim_wrapper=build_optim_wrapper(model, config),
        cfg=Config(dict(param_scheduler=schedule)),
        max_iters=iterations,
        max_epochs=1,
        iter=0,
        train_dataloader=Loader(accumulated),
        val_loop=None,
        logger=logging.getLogger('test_accumulation'),
        message_hub=SimpleNamespace(
            update_scalar=lambda *args: None, update_info=lambda *args: None
        ),
        visualizer=SimpleNamespace(add_scalars=lambda *args, **kwargs: None),
    )
    wrapper = runner.optim_wrapper
    wrappers = dict(wrapper.items()) if isinstance(wrapper, OptimWrapperDict) else {'': wrapper}
    build_schedulers(runner, wrappers)
    hooks = [StepSchedulerHook()]
    if hasattr(model, 'update_teacher'):
        hooks.append(MeanTeacherHook(decay=0.6, copy_epochs=1))
    if method == 'GPS':
        hooks.append(AdaptiveRampUpHook())
    if method == 'PrevMatch':
        hooks.append(EarlierModelHook(interval=1))
    for hook in hooks:
        hook.before_run(runner)
    wrapper.initialize_count_status(model, 0, iterations)
    for hook in hooks:
        hook.before_train(runner)
    rates, clocks, weights, prototypes = [], [], [], []
    for runner.iter in range(iterations):
        batch = part(
            whole_batch(runner.iter // accumulated), runner.iter % accumulated, accumulated
        )
        rates.append({key: one.param_groups[0]['lr'] for key, one in wrappers.items()})
        for hook in hooks:
            hook.before_train_iter(runner, runner.iter)
        weights.append(model.ramp_up.weight if method == 'GPS' else None)
        model.train_step(batch, wrapper)
        clocks.append((model.clock.step, model.clock.num_steps))
        prototypes.append(
            [value.clone() for key, value in model.named_buffers() if key.endswith('vectors')]
        )
        for hook in hooks:
            hook.after_train_iter(runner, runner.iter, batch, {})
    return {
        'state': model.state_dict(),
        'banks': [m for m in model.modules() if isinstance(m, FeatureQueues)],
        'per iteration': list(zip(rates, clocks, weights, strict=True)),
        'prototypes': prototypes,
    }


class Loader:
    """Of a training whose epoch is one step and half of another one."""

    def __init__(self, accumulated: int) -> None:
        self.sampler = SimpleNamespace(iters_per_epoch=accumulated + accumulated // 2)

    def __len__(self) -> int:
        return self.sampler.iters_per_epoch


def build_schedulers(runner, wrappers: dict) -> None:
    """As a Runner does, which counts iterations."""
    built = {
        key: [
            PARAM_SCHEDULERS.build(
                {'end': runner.max_iters, **one}, default_args={'optimizer': wrapper}
            )
            for one in runner.cfg.param_scheduler
        ]
        for key, wrapper in wrappers.items()
    }
    runner.param_schedulers = built if len(built) > 1 else built['']


@pytest.mark.parametrize(
    'wrapper_type', ['OptimWrapper', 'SkippingOptimWrapper', 'OverflowingOptimWrapper']
)
@pytest.mark.parametrize('name', METHODS)
def test_micro_batches_of_a_step_are_one_batch(name, wrapper_type, monkeypatch):
    # Row 0 of each queue, which nothing overwrites: what is drawn would depend on the micro-batches.
    monkeypatch.setattr(
        part_contrast, 'sample_positives', lambda queue, fill, capacity: queue * capacity
    )
    monkeypatch.setattr(
        part_contrast,
        'sample_negatives',
        lambda queue, fill, capacity, num, block: (
            torch.arange(len(fill)).expand(len(queue), -1) * capacity
        ),
    )
    whole, halves = (train(name, accumulated, wrapper_type) for accumulated in (1, K))
    for key, value in whole['state'].items():
        if 'bank.' in key:
            continue
        if key == 'ramp_up.labeled_sums':
            # Sums over batches, of which means are taken.
            value, halves['state'][key] = (
                one['state'][key][:2] / one['state'][key][2] for one in (whole, halves)
            )
            continue
        torch.testing.assert_close(halves['state'][key], value, rtol=1e-9, atol=1e-12, msg=key)
    for one, other in zip(whole['banks'], halves['banks'], strict=True):
        assert torch.equal(one.fill, other.fill)
        assert torch.equal(one.cursor, other.cursor)
        for start, length in zip(one.starts.tolist(), one.fill.tolist(), strict=True):
            # In another order: images of a micro-batch stay together.
            rows = [
                memory.rows[start : start + length].sort(dim=0).values for memory in (one, other)
            ]
            torch.testing.assert_close(*rows, rtol=1e-9, atol=1e-12)
    assert all(memory.fill.sum() > memory.fill.numel() for memory in whole['banks'])
    expected = [one for one in whole['per iteration'] for _ in range(K)]
    for found, wanted in zip(halves['per iteration'], expected, strict=True):
        assert found[0] == pytest.approx(wanted[0], rel=1e-9)
        assert found[1:] == wanted[1:]
    # Prototypes move at the end of each step that is made, and at no other time.
    for last in range(1, K * STEPS):
        made = wrapper_type == 'OptimWrapper' or last // K != 1
        moved = last % K == K - 1 and made
        for one, other in zip(*halves['prototypes'][last - 1 : last + 1], strict=True):
            assert torch.equal(one, other) != moved
    # Something has moved, and not by the same rate in all steps.
    assert len({tuple(one[0].values()) for one in whole['per iteration']}) == STEPS
