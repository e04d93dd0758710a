"""A NaN stops the training with one sentence, and the last good checkpoint stands."""

import re

import pytest
import torch
from processes import TOOLS, run_tool
from tiny_run import dump, tiny_config


def prepare(folder, hook=None, **settings):
    config = tiny_config(folder / 'work', **settings)
    dump(config, folder / 'config.py')
    config.custom_imports.imports.append('saboteurs')
    if hook is not None:
        config.custom_hooks.append(hook)
    return dump(config, folder / 'sabotaged.py')


def train(folder, config='sabotaged.py', *args, ranks=1):
    return run_tool(TOOLS / 'train.py', config, *args, cwd=folder, ranks=ranks)


def assert_all_finite(path):
    state_dict = torch.load(path, weights_only=False)['state_dict']
    assert all(torch.isfinite(value).all() for value in state_dict.values())


@pytest.mark.parametrize(
    ('iteration', 'last'),
    [
        (7, 'iter_5.pth'),  # read one iteration later
        (8, 'iter_5.pth'),  # a validation follows
        (10, 'iter_5.pth'),  # a checkpoint is due
        (14, 'iter_10.pth'),  # the last iteration
    ],
)
def test_last_good_checkpoint_stands(iteration, last, tmp_path):
    prepare(tmp_path, {'type': 'PoisonWeightsHook', 'iteration': iteration})
    result = train(tmp_path)
    assert result.code == 1
    sentence = (
        r'FloatingPointError: loss term decode\.loss_ce, loss_unlabeled is NaN or infinite in '
        rf'iteration {iteration} with the images (shapes/seed0/\d{{6}}\.png(, )?){{2,4}}. Lower the '
        rf'learning rate or check these images, then resume from \S*/work/{last}\.'
    )
    assert re.fullmatch(sentence, result.last_line)
    checkpoints = sorted((tmp_path / 'work').glob('*.pth'), key=lambda path: path.stat().st_mtime)
    assert checkpoints[-1].name == last
    for path in checkpoints:
        assert_all_finite(path)
    assert (tmp_path / 'work' / 'last_checkpoint').read_text() == str(checkpoints[-1])


def test_training_goes_on_from_the_last_good_checkpoint(tmp_path):
    prepare(tmp_path, {'type': 'PoisonWeightsHook', 'iteration': 7})
    assert train(tmp_path).code == 1
    result = train(tmp_path, 'config.py', '--resume')
    assert result.code == 0, result.output
    assert_all_finite(tmp_path / 'work' / 'iter_14.pth')


def test_diverging_training_saves_nothing_spoilt(tmp_path):
    sgd = {'_delete_': True, 'type': 'SGD', 'lr': 1e30}
    prepare(tmp_path, optim_wrapper__optimizer=sgd, default_hooks__checkpoint__interval=1)
    result = train(tmp_path)
    assert result.code == 1
    assert re.match(r'FloatingPointError: (loss term|weight) ', result.last_line)
    for path in (tmp_path / 'work').glob('*.pth'):
        assert_all_finite(path)


def test_nan_of_one_rank_is_not_saved_by_another(tmp_path):
    hook = {'type': 'PoisonWeightsHook', 'iteration': 5, 'rank': 1}
    prepare(tmp_path, hook, labeled=1, unlabeled=1)
    result = train(tmp_path, ranks=2)
    assert result.code == 1
    assert 'loss term decode.loss_ce, loss_unlabeled is NaN or infinite in iteration 5' in (
        result.last_line
    )
    assert 'from the start, since no checkpoint was saved yet' in result.last_line
    assert not list((tmp_path / 'work').glob('*.pth'))


def test_plain_training_is_watched_too(tmp_path):
    prepare(tmp_path, {'type': 'PoisonWeightsHook', 'iteration': 7}, method=None)
    result = train(tmp_path)
    assert result.code == 1
    assert 'loss term decode.loss_ce is NaN or infinite in iteration 7' in result.last_line
