"""A training that is killed and resumed ends with the weights of one that was not, bit for bit."""

import random
import re

import numpy as np
import pytest
import torch
from processes import TOOLS, run_script, run_tool
from tiny_run import dump, tiny_config

SCENARIOS = {
    # Saves and validations that fall inside a step of three iterations; the last step has two.
    'accumulation': {
        'optim_wrapper__accumulative_counts': 3,
        'default_hooks__checkpoint__interval': 4,
        'train_cfg__val_interval': 5,
    },
    'accumulation_in_epochs': {'epochs': 4, 'optim_wrapper__accumulative_counts': 2},
    'upstream_loop': {'train_cfg__type': 'EagerTrainLoop', 'workers': 1},
    'epochs': {'epochs': 4},
    'epochs_in_bfloat16': {
        'epochs': 4,
        'workers': 1,
        'optim_wrapper__type': 'AutocastOptimWrapper',
    },
    'esl': {'method': 'ESL', 'workers': 1},
    'esl_whose_parts_come_later': {'method': 'ESL', 'model__semi_train_cfg__unlabeled_start': 7},
    'u2pl': {'method': 'U2PL', 'workers': 1},
    'des4': {'method': 'DeS4', 'workers': 1},
    'des4_without_its_components': {
        'method': 'DeS4',
        'norm': 'GN',
        'model__semi_train_cfg__decoupled_training': False,
        'model__semi_train_cfg__pixel_reweighting': False,
        'model__semi_train_cfg__shared_head': False,
        'model__semi_train_cfg__sampling': 'confidence',
        'optim_wrapper__type': 'AutocastOptimWrapper',
    },
    'corrmatch': {'method': 'CorrMatch', 'workers': 1},
    'unimatch': {'method': 'UniMatch', 'workers': 1},
    'unimatch_v2': {'method': 'UniMatchV2', 'model__semi_train_cfg__joint_forward': True},
    'prevmatch': {'method': 'PrevMatch', 'workers': 1, 'train_cfg__val_interval': 2},
    # Validated after each checkpoint, which so does not have what the validation leads to.
    'prevmatch_validated_where_saved': {'method': 'PrevMatch', 'train_cfg__val_interval': 5},
    'prevmatch_every_second_step': {'method': 'PrevMatch', 'custom_hooks__3__interval': 2},
    'mean_teacher_on_its_ramp': {'method': 'MeanTeacher'},
    'cutmix_seg': {'method': 'CutMixSeg', 'workers': 1},
    'fixmatch': {'method': 'FixMatch', 'workers': 1},
    'cps': {'method': 'CPS', 'model__semi_train_cfg__unlabeled_start': 7},
    # Killed in the second or third of four epochs, while the weight grows.
    'gps': {
        'method': 'GPS',
        'workers': 1,
        'custom_hooks__3__adaptive': False,
        'model__semi_train_cfg__guidance': 'ramp_down',
    },
    # Killed after the first of four epochs, which ends the ramp-up.
    'gps_latched': {'method': 'GPS'},
    'gps_accumulated': {
        'method': 'GPS',
        'model__semi_train_cfg__cutmix': 'pair',
        'train_dataloader__sampler__unlabeled_streams': 2,
        'optim_wrapper__accumulative_counts': 2,
        'default_hooks__checkpoint__interval': 3,
        'optim_wrapper__type': 'AutocastOptimWrapper',
    },
    'frozen_stages': {
        'custom_hooks__2': {'type': 'FreezeHook', 'modules': ['backbone.stem', 'backbone.layer1']},
        'workers': 1,
    },
    'channels_last': {'custom_hooks__2': {'type': 'MemoryFormatHook'}, 'workers': 1},
    'best_checkpoint': {
        'default_hooks__checkpoint__save_best': 'teacher/mIoU',
        'train_cfg__val_interval': 1,
        'workers': 1,
    },
}


def differences(first, second, where=''):
    """Keys under which two checkpoints differ, by bits."""
    if isinstance(first, dict):
        if first.keys() != second.keys():
            return [f'{where}: keys {first.keys() ^ second.keys()}']
        pairs = [(first[key], second[key], f'{where}.{key}') for key in first]
    elif isinstance(first, (list, tuple)):
        if len(first) != len(second):
            return [f'{where}: lengths {len(first)} and {len(second)}']
        pairs = [
            (a, b, f'{where}[{i}]') for i, (a, b) in enumerate(zip(first, second, strict=True))
        ]
    elif isinstance(first, torch.Tensor):
        same = first.dtype == second.dtype and torch.equal(first, second)
        return [] if same else [where]
    elif isinstance(first, np.ndarray):
        return [] if np.array_equal(first, second) else [where]
    else:
        return [] if first == second else [where]
    return [line for pair in pairs for line in differences(*pair)]


def load(path):
    """What must be the same in the last checkpoints of two runs."""
    checkpoint = torch.load(path, weights_only=False)
    keys = ('state_dict', 'optimizer', 'param_schedulers', 'random_states')
    return {key: checkpoint[key] for key in keys}


def final(folder):
    return load((folder / 'work' / 'last_checkpoint').read_text())


def prepare(folder, kill=None, **settings):
    """Write config.py and, with the arguments of KillHook, sabotaged.py, which dies on the way."""
    folder.mkdir(parents=True)
    config = tiny_config(folder / 'work', **settings)
    config.custom_imports.imports.append('saboteurs')
    dump(config, folder / 'config.py')
    if kill is not None:
        config.custom_hooks.append({'type': 'KillHook', **kill})
        dump(config, folder / 'sabotaged.py')
    return folder


def train(folder, config='config.py', *args, ranks=1):
    return run_tool(TOOLS / 'train.py', config, *args, cwd=folder, ranks=ranks)


def train_whole(folder, ranks=1, **settings):
    result = train(prepare(folder, **settings), ranks=ranks)
    assert result.code == 0, result.output
    return final(folder)


def train_killed_and_resumed(folder, kill, **settings):
    prepare(folder, kill, **settings)
    result = train(folder, 'sabotaged.py')
    assert result.code == -9, result.output
    result = train(folder, 'config.py', '--resume')
    assert result.code == 0, result.output
    return final(folder), result.output


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """Last checkpoint of the standard training in one process."""
    return train_whole(tmp_path_factory.mktemp('whole') / 'run')


def random_moment(name, first=6, last=13):
    """A moment that nobody chose, the same in every run of the tests."""
    draw = random.Random(name)
    stages = ('before_train_iter', 'after_train_iter')
    return {'iteration': draw.randint(first, last), 'stage': draw.choice(stages)}


@pytest.mark.parametrize('name', SCENARIOS)
def test_resumed_run_ends_like_the_uninterrupted_one(name, tmp_path):
    whole = train_whole(tmp_path / 'whole', **SCENARIOS[name])
    resumed, output = train_killed_and_resumed(
        tmp_path / 'killed', random_moment(name), **SCENARIOS[name]
    )
    assert re.search(r'resumed epoch: \d+, iter: [1-9]', output)
    assert differences(whole, resumed) == []
    if SCENARIOS[name].get('method') in ('ESL', 'U2PL'):  # there was something to resume
        assert whole['state_dict']['contrast.bank.fill'].any()
        assert whole['state_dict']['contrast.bank.cursor'].any()
    if name.startswith('gps'):
        assert whole['optimizer'].keys() == {'students', 'teacher'}
        # With accumulation an epoch of nine iterations has four steps of two.
        length = 8 if name == 'gps_accumulated' else 4
        assert whole['state_dict']['ramp_up.labeled_sums'][2] == 14 % length
        assert whole['state_dict']['ramp_up.latch_epoch'] == (name != 'gps')
    if name.startswith('prevmatch'):
        assert any(key.startswith('earlier.0.') for key in whole['state_dict'])
    if name == 'des4':
        assert whole['state_dict']['prototypes.seen'].sum() > 1
        assert whole['state_dict']['equalizer.class_counts'].any()


@pytest.mark.parametrize('loop', ['IterBasedTrainLoop', 'EagerTrainLoop'])
def test_run_without_a_seed_goes_on_with_the_one_it_drew(loop, tmp_path):
    settings = {'randomness__seed': None, 'train_cfg__type': loop, 'workers': 1}
    folder = prepare(tmp_path / 'whole', **settings)
    assert train(folder).code == 0
    earlier = folder / 'work' / 'iter_10.pth'
    options = ('--cfg-options', f'load_from={earlier}', f'work_dir={tmp_path / "again"}')
    result = train(folder, 'config.py', '--resume', *options)
    assert result.code == 0, result.output
    assert differences(final(folder), load(tmp_path / 'again' / 'iter_14.pth')) == []


@pytest.mark.parametrize(
    'kill', [{'iteration': 3}, {'iteration': 5, 'stage': 'before_save_checkpoint'}]
)
def test_killed_before_the_first_checkpoint_it_starts_over(kill, tmp_path, whole):
    resumed, output = train_killed_and_resumed(tmp_path / 'killed', kill)
    assert 'resumed epoch' not in output
    assert differences(whole, resumed) == []


@pytest.mark.parametrize('workers', [0, 2])
def test_one_process(workers, tmp_path, whole):
    # The uninterrupted run has no workers: they change nothing either.
    kill = random_moment(f'workers {workers}')
    resumed, _ = train_killed_and_resumed(tmp_path / 'killed', kill, workers=workers)
    assert differences(whole, resumed) == []


@pytest.mark.parametrize(
    ('kill', 'resumed_from'),
    [
        ({'iteration': 10, 'stage': 'before_save_checkpoint'}, 5),
        # The validation that follows iteration 12.
        ({'iteration': 13, 'stage': 'before_val_iter'}, 10),
    ],
)
def test_killed_while_saving_or_validating(kill, resumed_from, tmp_path, whole):
    resumed, output = train_killed_and_resumed(tmp_path / 'killed', kill)
    assert f'resumed epoch: 0, iter: {resumed_from}' in output
    assert differences(whole, resumed) == []


def test_finished_training_has_nothing_to_resume(tmp_path, whole):
    folder = prepare(tmp_path / 'run')
    assert train(folder).code == 0
    result = train(folder, 'config.py', '--resume')
    assert result.code == 0, result.output
    assert 'resumed epoch: 0, iter: 14' in result.output
    assert differences(whole, final(folder)) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'unlabeled'), [('accumulation', 1), ('prevmatch_validated_where_saved', 2)]
)
def test_two_ranks_of_the_launcher_script(name, unlabeled, tmp_path):
    settings = {'labeled': 1, 'unlabeled': unlabeled, 'workers': 1, **SCENARIOS[name]}
    whole = train_whole(tmp_path / 'whole', ranks=2, **settings)
    kill = {**random_moment('two ranks'), 'rank': 1}
    folder = prepare(tmp_path / 'killed', kill, **settings)
    killed = run_script(TOOLS / 'dist_train.sh', 'sabotaged.py', 2, cwd=folder)
    assert killed.code == 1
    assert 'Signal 9 (SIGKILL)' in killed.output
    done = run_script(TOOLS / 'dist_train.sh', 'config.py', 2, '--resume', cwd=folder)
    assert done.code == 0, done.output
    assert 'resumed epoch: 0, iter: ' in done.output
    resumed = final(folder)
    assert len(resumed['random_states']) == 2
    assert differences(whole, resumed) == []
