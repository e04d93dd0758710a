import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import PARAM_SCHEDULERS
from tiny_run import build_runner, tiny_config

import mmseg_semi.engine  # noqa: F401  registers the schedulers

#: Iterations of VOC 1/8 with 8 unlabeled images per step: 34 passes over 9259 images.
VOC = 34 * (9259 // 8)


def build(lr=0.01, **settings):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    config = {'type': 'mmseg.FinalPolyLR', 'optimizer': optimizer, 'by_epoch': False, **settings}
    return optimizer, PARAM_SCHEDULERS.build(config)


def rates_of(iterations, *schedulers, lr=0.5):
    """The rates of so many iterations under several schedulers, each given by its settings."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    built = [
        PARAM_SCHEDULERS.build({'optimizer': optimizer, 'by_epoch': False, **settings})
        for settings in schedulers
    ]
    rates = []
    for _ in range(iterations):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in built:
            scheduler.step()
    return rates


POLY = {'type': 'mmseg.NonzeroPolyLR', 'power': 0.9, 'eta_min': 0.0}
FINAL = {'type': 'mmseg.FinalPolyLR', 'power': 0.9}


# ------------------------------------------------------------------------------------ poly


@pytest.mark.parametrize(('lr', 'iterations'), [(0.001, 80 * (9118 // 16)), (0.01, VOC)])
def test_poly_rates_are_those_of_the_papers(lr, iterations):
    rates = rates_of(iterations, {**POLY, 'end': iterations}, lr=lr)
    for step in (0, 1, iterations // 2, iterations - 2, iterations - 1):
        assert rates[step] == pytest.approx(lr * (1 - step / iterations) ** 0.9, rel=1e-10)
    assert rates[-1] == pytest.approx(lr * (1 / iterations) ** 0.9, rel=1e-10)
    assert rates[-1] > 0


def test_poly_approaches_the_smallest_rate():
    rates = rates_of(10, {**POLY, 'eta_min': 0.1, 'power': 1.0, 'end': 10}, lr=1.1)
    assert rates == pytest.approx([1.1 - step / 10 for step in range(10)])


@pytest.mark.parametrize('power', [0.9, 1.0])
def test_poly_starts_at_the_full_rate_behind_a_warm_up(power):
    warmup = {'type': 'LinearLR', 'start_factor': 0.1, 'begin': 0, 'end': 4}
    rates = rates_of(12, warmup, {**POLY, 'power': power, 'begin': 4, 'end': 12}, lr=2.0)
    assert rates[:4] == pytest.approx([0.2, 0.8, 1.4, 2.0])
    assert rates[4:] == pytest.approx([2.0 * (1 - step / 8) ** power for step in range(8)])


def test_poly_keeps_a_warm_up_that_overlaps_it():
    warmup = {'type': 'LinearLR', 'start_factor': 0.5, 'begin': 0, 'end': 5}
    rates = rates_of(10, warmup, {**POLY, 'power': 1.0, 'end': 10}, lr=1.0)
    factors = [0.5, 0.625, 0.75, 0.875, *[1] * 6]
    expected = [factor * (1 - step / 10) for step, factor in enumerate(factors)]
    assert rates == pytest.approx(expected)


def test_poly_resumes_to_the_same_rates():
    settings = {**POLY, 'end': 9}
    whole = rates_of(9, settings, lr=0.3)
    optimizer, scheduler = build(lr=0.3, **settings)
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    state = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
    optimizer, scheduler = build(lr=0.3, **settings)
    optimizer.load_state_dict(state[0])
    scheduler.load_state_dict(state[1])
    resumed = []
    for _ in range(5):
        resumed.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    assert resumed == whole[4:]


class Rates(Hook):
    """Keeps the rates of each iteration's step."""

    def __init__(self) -> None:
        self.rates = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        found = runner.optim_wrapper.get_lr()
        self.rates.append({name: rates[0] for name, rates in found.items()})


def run(config: Config) -> list[dict]:
    runner = build_runner(config)
    hook = Rates()
    runner.register_hook(hook)
    runner.train()
    return hook.rates


def test_poly_in_a_training_ends_with_it_behind_a_warm_up(tmp_path):
    config = tiny_config(tmp_path, 'FixMatch', train_cfg__max_iters=6, train_cfg__val_interval=6)
    config.param_scheduler = [
        {'type': 'LinearLR', 'start_factor': 0.5, 'begin': 0, 'end': 2, 'by_epoch': False},
        {'type': 'NonzeroPolyLR', 'power': 0.9, 'begin': 2, 'by_epoch': False},
    ]
    rates = [rate['lr'] for rate in run(config)]
    expected = [0.5, 1.0, *((1 - step / 4) ** 0.9 for step in range(4))]
    assert rates == pytest.approx([0.005 * factor for factor in expected])


def test_poly_in_a_training_of_epochs_counts_iterations(tmp_path):
    config = tiny_config(
        tmp_path,
        'FixMatch',
        train_cfg={
            '_delete_': True,
            'type': 'EpochBasedTrainLoop',
            'max_epochs': 2,
            'val_interval': 2,
        },
        train_dataloader__sampler__endless=False,
        default_hooks__checkpoint__by_epoch=True,
    )
    config.param_scheduler = [
        {'type': 'NonzeroPolyLR', 'power': 0.9, 'by_epoch': True, 'convert_to_iter_based': True}
    ]
    rates = [rate['lr'] for rate in run(config)]
    length = len(rates)
    assert length > 2
    assert rates == pytest.approx([0.005 * (1 - step / length) ** 0.9 for step in range(length)])


def test_poly_of_several_optimizers_in_a_training(tmp_path):
    config = tiny_config(tmp_path, 'GPS', train_cfg__max_iters=4, train_cfg__val_interval=4)
    poly = {'type': 'NonzeroPolyLR', 'power': 0.9, 'by_epoch': False}
    config.param_scheduler = {
        'students': [poly],
        'teacher': [{'type': 'FinalPolyLR', 'power': 0.9, 'by_epoch': False}],
    }
    rates = run(config)
    students = [rate['students.lr'] for rate in rates]
    assert students == pytest.approx([0.005 * (1 - step / 4) ** 0.9 for step in range(4)])
    # The teacher stays where its own poly schedule ended.
    assert [rate['teacher.lr'] for rate in rates] == pytest.approx([students[-1]] * 4)


# ------------------------------------------------------------------------------------ the last rate


def test_rate_is_that_of_the_last_step_of_a_poly_schedule():
    rates = rates_of(20, {**FINAL, 'end': 20})
    assert len(set(rates)) == 1
    assert rates[0] == pytest.approx(rates_of(20, {**POLY, 'end': 20})[-1])


@pytest.mark.parametrize(
    ('lr', 'iterations', 'printed'),
    [(0.01, VOC, 7.3e-7), (0.02, 137 * (2603 // 8), 1.3e-6)],
)
def test_rates_of_the_paper(lr, iterations, printed):
    optimizer, _ = build(lr=lr, end=iterations)
    assert optimizer.param_groups[0]['lr'] == pytest.approx(printed, rel=0.03)


def test_state_resumes():
    _, first = build(end=20)
    optimizer, second = build(end=20)
    second.load_state_dict(first.state_dict())
    optimizer.step()
    second.step()
    assert optimizer.param_groups[0]['lr'] == pytest.approx(0.01 * 20**-0.9)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match='by_epoch=True, but its rate depends on steps'):
        build(by_epoch=True, end=20)
    with pytest.raises(ValueError, match='Set it to the number of optimizer steps of the training'):
        build()
