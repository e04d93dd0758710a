"""What each training of a staged method begins with, and what it says of the others."""

import itertools
import random
from pathlib import Path
from unittest import mock

import pytest
import torch
from mmengine.logging import MMLogger
from tiny import build_plain
from tiny_run import NUM_UNLABELED, build_runner, tiny_config, tiny_stages_config

from mmseg_semi.comparison.configs import set_length
from mmseg_semi.engine.runner.stages import TrainStage, build_stages, stage_seed, told
from mmseg_semi.self_training.images import ImagePool
from mmseg_semi.self_training.selection import reliable_images

#: The trainings of each method in stages.
TRAININGS = {
    'st': ['teacher', 'student'],
    'stpp': ['teacher', 'student', 'final'],
    'stpp_retrain3': ['teacher', 'student', 'final', 'retrain3'],
    'gps': ['teacher', 'joint'],
}


def trainings(folder, method, **changes):
    if method != 'gps':
        config = tiny_stages_config(folder, method, **changes)
    else:
        config = tiny_config(folder, 'GPS', **changes)
        config.stages = {'teacher': {'type': 'SupervisedStage'}, 'joint': {'type': 'TrainStage'}}
    stages = build_stages(config).values()
    return {stage.name: stage for stage in stages if isinstance(stage, TrainStage)}


def starts(stages):
    """Weights of every network of every training as MMEngine initializes them."""
    found = {}
    for name, stage in stages.items():
        cfg = stage.config()
        cfg.custom_hooks = []
        runner = build_runner(cfg)
        runner._init_model_weights()
        networks = getattr(runner.model, 'networks', ())
        for network in networks:
            found[f'{name}/{network}'] = getattr(runner.model, network).state_dict()
        if not networks:
            found[name] = runner.model.state_dict()
    return found


def part(weights, name):
    """Kernels below a name; vectors begin as constants."""
    return {k: v for k, v in weights.items() if k.startswith(name) and v.ndim > 1}


@pytest.mark.parametrize('method', TRAININGS)
def test_each_stage_draws_its_own_head(method, tmp_path):
    """Pre-trained encoders are alike, heads differ pairwise, and a repeated stage begins bitwise alike."""
    path = str(tmp_path / 'encoder.pth')
    torch.save({'state_dict': build_plain().backbone.state_dict()}, path)
    key = 'model__segmentor__backbone__init_cfg' if method == 'gps' else 'model__backbone__init_cfg'
    stages = trainings(tmp_path, method, **{key: {'type': 'Pretrained', 'checkpoint': path}})
    assert list(stages) == TRAININGS[method]
    first, again = starts(stages), starts(dict(reversed(stages.items())))
    for one, other in itertools.combinations(first, 2):
        heads = part(first[one], 'decode_head'), part(first[other], 'decode_head')
        assert heads[0].keys() == heads[1].keys()
        assert len(heads[0]) == 2
        for name, weight in heads[0].items():
            assert not torch.equal(weight, heads[1][name]), (one, other, name)
        encoders = part(first[one], 'backbone'), part(first[other], 'backbone')
        assert all(torch.equal(weight, encoders[1][name]) for name, weight in encoders[0].items())
    for name, weights in first.items():
        for key, weight in weights.items():
            assert torch.equal(weight, again[name][key]), (name, key)


@pytest.mark.parametrize('method', TRAININGS)
def test_each_stage_has_its_own_order_of_images(method, tmp_path):
    orders = []
    for stage in trainings(tmp_path, method).values():
        cfg = stage.config()
        if cfg.train_dataloader.dataset.get('pseudo_labeled'):
            # There are no pseudo-labels yet.
            cfg.train_dataloader.dataset.pseudo_labeled = None
        mine, repeated = (order(build_runner(cfg)) for _ in range(2))
        assert mine == repeated
        orders.append(mine)
    for one, other in itertools.combinations(orders, 2):
        assert one != other


def order(runner):
    """The first labeled images that a training draws."""
    loader = runner.build_dataloader(runner.cfg.train_dataloader, seed=runner.seed)
    drawn = (index for index, _ in itertools.islice(loader.sampler, 40))
    return [index for index in drawn if index < loader.dataset.num_labeled]


def test_seed_of_a_stage():
    """Fixed numbers, as another one would give a resumed stage another order of images."""
    assert stage_seed(0, 'teacher') == 595726335
    assert stage_seed(0, 'student') == 1185276340
    found = {stage_seed(seed, name) for seed in range(50) for name in ('teacher', 'student', 'a')}
    assert len(found) == 150
    assert max(found) < 2**31


def test_a_seed_in_the_stages_own_config_stays(tmp_path):
    stages = trainings(tmp_path, 'st', stages__student__cfg__randomness={'seed': 11})
    assert stages['student'].config().randomness.seed == 11
    assert stages['teacher'].config().randomness.seed == stage_seed(3, 'teacher')
    drawn = trainings(tmp_path, 'st', randomness={'seed': None})
    assert drawn['student'].config().randomness.seed is None


def test_steps_and_images_of_a_training_are_kept_and_told(tmp_path):
    """6 iterations of 2 labeled images in steps of 4: the rest of an accumulation is a step, too."""
    stages = trainings(
        tmp_path,
        'gps',
        train_cfg={'max_iters': 6, 'val_interval': 100},
        optim_wrapper__accumulative_counts=4,
    )
    teacher = stages['teacher']
    assert teacher.trained() == {}
    teacher.run(MMLogger.get_instance('stages'))
    assert teacher.trained() == {'steps': 2, 'labeled': 12, 'unlabeled': 0}
    assert told([teacher]) == 'teacher 2 steps (12 labeled and 0 unlabeled images)'


def test_random_halves_and_a_threshold_are_stages_settings(tmp_path):
    """The rows that ST++ compares with: halves by chance, and pixels of low confidence left out."""
    cfg = tiny_stages_config(tmp_path, 'stpp')
    cfg.stages.select.update(type='RandomSelectStage', seed=3)
    cfg.stages.label_reliable.threshold = 0.5
    stages = build_stages(cfg)
    select = stages['select']
    (tmp_path / 'select').mkdir()
    select.run(mock.Mock())
    halves = [
        (tmp_path / 'select' / f'{name}.txt').read_text().split()
        for name in ('reliable', 'unreliable')
    ]
    ids = ImagePool(stages['teacher'].config(), select.images).ids
    assert sorted([*halves[0], *halves[1]]) == sorted(ids)
    assert len(halves[0]) == len(ids) // 2
    # Another seed draws another half, which is another setting.
    assert halves[0] == [
        name for name in ids if name in random.Random(3).sample(sorted(ids), len(ids) // 2)
    ]
    assert select.settings()['seed'] == 3
    # As in SelectStage: 0.29 * 100 is slightly less than 29.
    assert reliable_images(100, 0.29) == 29
    assert stages['label_reliable'].settings()['threshold'] == 0.5
    assert 'threshold' not in stages['label_unreliable'].settings()
    cfg.stages.label_reliable.threshold = 1
    with pytest.raises(
        ValueError, match=r'stages.label_reliable.threshold must be in \[0, 1\), got 1'
    ):
        build_stages(cfg)


def test_a_plain_teacher_monitors_the_metrics_of_one_network(tmp_path):
    """GPS: those of the method have the names of its networks, and schedules may be those of its updates."""
    hooks = [{'type': 'EarlyStoppingHook', 'monitor': 'student1/mIoU'}, {'type': 'EmptyCacheHook'}]
    plateau = {'type': 'ReduceOnPlateauLR', 'monitor': 'student1/mIoU'}
    for schedule in ([plateau], {'students': [plateau], 'teacher': [plateau]}):
        config = tiny_config(tmp_path, 'GPS', param_scheduler=schedule)
        config.custom_hooks = hooks
        config.default_hooks.checkpoint.save_best = ['student1/mIoU', 'student2/mIoU']
        config.stages = {'teacher': {'type': 'SupervisedStage'}, 'joint': {'type': 'TrainStage'}}
        teacher = build_stages(config)['teacher'].config()
        assert teacher.custom_hooks[0].monitor == 'mIoU'
        assert teacher.param_scheduler[0].monitor == 'mIoU'
        assert teacher.default_hooks.checkpoint.save_best == ['mIoU']
        assert config.custom_hooks[0].monitor == 'student1/mIoU'


@pytest.mark.parametrize(('labeled', 'unlabeled'), [(2, 2), (1, 4), (4, 2)])
def test_the_supervised_teacher_has_the_steps_of_its_method(tmp_path, labeled, unlabeled):
    config = tiny_config(tmp_path, 'GPS', labeled=labeled, unlabeled=unlabeled)
    config.train_cfg = {'type': 'UnlabeledEpochTrainLoop', 'epochs': 4, 'val_every': 100}
    for schedule in config.param_scheduler.values():
        schedule[0].pop('end', None)
    config.stages = {'teacher': {'type': 'SupervisedStage'}, 'joint': {'type': 'TrainStage'}}
    configs = [stage.config() for stage in build_stages(config).values()]
    lengths = [build_runner(cfg).train_loop.max_iters for cfg in configs]
    # In pairs of views, each unlabeled image is in the batch once.
    assert lengths[0] == lengths[1] == 4 * (NUM_UNLABELED // (unlabeled // streams(configs[1])))
    for cfg in configs:
        set_length(cfg, 1)  # as the tools that compare trainings
        assert cfg.train_cfg.max_iters == lengths[0]


def streams(cfg):
    return cfg.train_dataloader.sampler.get('unlabeled_streams', 1)


def test_the_best_checkpoint_is_that_of_the_last_one(tmp_path):
    """An interrupted training leaves an older best checkpoint, as MMEngine finds it by its old path."""
    teacher = trainings(tmp_path, 'st')['teacher']
    folder = Path(teacher.folder)
    folder.mkdir()
    for name in ('best_mIoU_iter_10.pth', 'best_mIoU_iter_4.pth'):
        (folder / name).touch()
    hub = {'runtime_info': {'best_ckpt': '/elsewhere/best_mIoU_iter_4.pth'}}
    torch.save({'state_dict': {}, 'message_hub': hub}, folder / 'iter_12.pth')
    (folder / 'last_checkpoint').write_text('/elsewhere/iter_12.pth')
    assert teacher.checkpoint('best') == str(folder / 'best_mIoU_iter_4.pth')
    hub = {'runtime_info': {'best_ckpt_mIoU': 'best_mIoU_iter_4.pth'}}
    torch.save({'state_dict': {}, 'message_hub': hub}, folder / 'iter_12.pth')
    with pytest.raises(ValueError, match="checkpoint='best' is ambiguous"):
        teacher.checkpoint('best')
