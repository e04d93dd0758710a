"""What the hook writes for a plot, and when."""

import json
import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmseg_semi.engine import ClassDistributionHook


class Visualizer:
    def __init__(self):
        self.records = []

    def add_scalars(self, scalars, step):
        json.dumps(scalars)
        self.records.append((step, scalars))


def make_runner(max_iters=5):
    model = torch.nn.Module()
    model.equalizer = nn.Module()
    model.equalizer.class_counts = torch.tensor([30, 10, 0])
    model.equalizer.pseudo_label_counts = torch.zeros(3, dtype=torch.int64)
    model.equalizer.sample_counts = torch.zeros(3, 2, dtype=torch.int64)
    dataset = SimpleNamespace(metainfo={'classes': ('road', 'tree', 'sky')})
    return SimpleNamespace(
        model=model,
        iter=0,
        max_iters=max_iters,
        logger=logging.getLogger('test_class_distribution_hook'),
        visualizer=Visualizer(),
        train_dataloader=SimpleNamespace(dataset=dataset),
        train_loop=SimpleNamespace(max_iters=max_iters),
        _train_loop=None,
    )


def train(runner, hook):
    for iteration in range(runner.max_iters):
        runner.iter = iteration
        runner.model.equalizer.pseudo_label_counts += torch.tensor([5, 4, 1])
        runner.model.equalizer.sample_counts += torch.tensor([[1, 2], [0, 3], [0, 0]])
        hook.after_train_iter(runner, iteration)


def test_records_are_of_the_iterations_since_the_last(caplog):
    runner, hook = make_runner(), ClassDistributionHook(interval=2)
    hook.before_train(runner)
    with caplog.at_level(logging.INFO, 'test_class_distribution_hook'):
        train(runner, hook)
    assert [step for step, _ in runner.visualizer.records] == [2, 4, 5]
    scalars = runner.visualizer.records[1][1]
    assert scalars['labeled_share/road'] == 0.75
    assert scalars['pseudo_label_share/tree'] == pytest.approx(0.4)
    assert scalars['labeled_share/sky'] == 0
    assert scalars['samples/road/zone1'] == 4
    assert scalars['samples/tree/zone1'] == 6
    assert runner.visualizer.records[2][1]['samples/tree/zone1'] == 3
    assert len(scalars) == 3 * (1 + 1 + 2)
    assert 'road 50.0 (75.0) [2, 4]; tree 40.0 (25.0) [0, 6]' in caplog.text
    assert not runner.model.equalizer.pseudo_label_counts.any()


def test_before_any_pseudo_label_shares_are_zero():
    runner, hook = make_runner(), ClassDistributionHook(interval=1)
    hook.after_train_iter(runner, 0)
    assert runner.visualizer.records[0][1]['pseudo_label_share/road'] == 0


def test_bad_use_is_refused():
    with pytest.raises(ValueError, match='interval must be at least 1, got 0'):
        ClassDistributionHook(interval=0)
    runner = make_runner()
    runner.model = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match='does not support Linear, which does not count classes'):
        ClassDistributionHook().before_train(runner)
