"""Two processes with half the batch each train like one, through the Runner."""

import json

import pytest
import torch
from processes import TOOLS, run_tool
from tiny_run import dump, tiny_config

ITERATIONS = 8
# What the ranks must agree on or share fairly: no dropout, boxes or batch statistics, which each draws or
# takes of its own images, and losses that divide by what is the same everywhere.
COMPARABLE = {
    'norm': 'GN',
    'train_cfg__max_iters': ITERATIONS,
    'model__segmentor__decode_head__dropout_ratio': 0,
    'model__segmentor__decode_head__loss_decode__type': 'CrossEntropyLoss',
    'model__semi_train_cfg__cutmix': None,
    'model__semi_train_cfg__tau': 0.0,
    # In float32 the rounding of another batch size can move a pixel to another class.
    'custom_imports__imports': ['mmseg_semi', 'doubles'],
    'optim_wrapper__optimizer': {'_delete_': True, 'type': 'SGD', 'lr': 0.02, 'momentum': 0.9},
}


class Run:
    """What WatchHook wrote down on each rank."""

    def __init__(self, folder, ranks, **settings):
        folder.mkdir(exist_ok=True)
        config = tiny_config(folder / 'work', **settings)
        config.custom_imports.imports.append('saboteurs')
        config.custom_hooks.append({'type': 'WatchHook'})
        result = run_tool(
            TOOLS / 'train.py', dump(config, folder / 'config.py'), cwd=folder, ranks=ranks
        )
        assert result.code == 0, result.output
        paths = [folder / 'work' / f'rank{rank}' for rank in range(ranks)]
        self.batches = [json.loads(path.with_suffix('.json').read_text()) for path in paths]
        self.weights = [torch.load(path.with_suffix('.pth')) for path in paths]

    def iteration(self, index):
        """(branch, path, sum of values) of all images that the ranks saw together."""
        return sorted(tuple(image) for rank in self.batches for image in rank[index])


@pytest.fixture(scope='module')
def one(tmp_path_factory):
    return Run(tmp_path_factory.mktemp('one'), 1, labeled=2, unlabeled=4, **COMPARABLE)


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp('two')
    return Run(folder, 2, labeled=1, unlabeled=2, workers=1, **COMPARABLE)


def test_two_ranks_see_the_images_of_one(one, two):
    for index in range(ITERATIONS):
        assert one.iteration(index) == two.iteration(index)
        assert len(one.iteration(index)) == 2 + 2 * 4


def test_two_ranks_learn_what_one_learns(one, two):
    for key, value in one.weights[0].items():
        torch.testing.assert_close(two.weights[0][key], value, rtol=1e-6, atol=1e-9)


def test_networks_are_equal_on_all_ranks(two):
    for key, value in two.weights[0].items():
        assert torch.equal(two.weights[1][key], value), key


def test_prototypes_of_des4_are_equal_on_all_ranks(tmp_path):
    run = Run(tmp_path, 2, method='DeS4', labeled=1, unlabeled=2, norm='SyncBN')
    for key, value in run.weights[0].items():
        assert torch.equal(run.weights[1][key], value), key
    assert run.weights[0]['prototypes.seen'].sum() > 1
    alone = Run(tmp_path / 'alone', 1, method='DeS4', train_cfg__max_iters=1)
    # Counted in shares, which makes no difference; and found there by the run that has its folder beside it.
    assert torch.equal(
        run.weights[0]['equalizer.class_counts'], alone.weights[0]['equalizer.class_counts']
    )
    assert alone.weights[0]['equalizer.class_counts'].sum() > 0


def test_batch_statistics_are_equal_on_all_ranks_and_seeds_may_differ(tmp_path):
    run = Run(tmp_path, 2, labeled=1, unlabeled=2, norm='SyncBN', randomness__diff_rank_seed=True)
    for key, value in run.weights[0].items():
        assert torch.equal(run.weights[1][key], value), key
    assert any('running_var' in key for key in run.weights[0])
    # One pass over the 9 unlabeled images is 2 iterations of 4: no rank sees another's image.
    seen = [
        path for index in (0, 1) for branch, path, _ in run.iteration(index) if branch == 'weak'
    ]
    assert len(set(seen)) == len(seen) == 8


def test_stages_of_gps_agree_on_all_ranks(tmp_path):
    config = tiny_config(tmp_path / 'work', 'GPS', labeled=2, unlabeled=2, train_cfg__max_iters=5)
    config.custom_imports.imports.append('saboteurs')
    config.runner_type = 'StagedRunner'
    reference = 'stage://teacher/last_checkpoint'
    config.stages = {
        'teacher': {'type': 'SupervisedStage'},
        'joint': {
            'type': 'TrainStage',
            'cfg': {'model': {'semi_train_cfg': {'teacher_checkpoint': reference}}},
            'extra_hooks': [{'type': 'WatchHook'}],
        },
    }
    result = run_tool(
        TOOLS / 'train.py', dump(config, tmp_path / 'config.py'), cwd=tmp_path, ranks=2
    )
    assert result.code == 0, result.output
    # Of 9 unlabeled images, 4 per step.
    assert 'GPS: 3 epochs of 2 steps, 5 in all' in result.output
    said = '2 iterations per pass over the unlabeled list (2 optimizer steps per epoch), 2.5 passes'
    assert said in result.output
    first, second = (torch.load(tmp_path / 'work/joint' / f'rank{rank}.pth') for rank in range(2))
    for key, value in first.items():
        assert torch.equal(second[key], value), key
    # The fifth iteration, of both ranks.
    assert first['ramp_up.labeled_sums'][2] == 2
