"""A teacher of another network than the student: its config, its labels, a given one, and other classes."""

import copy
import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmseg.registry import HOOKS, MODELS
from tiny import tiny_segmentor
from tiny_run import SIZE, build_runner, tiny_config, tiny_stages_config, write_images

from mmseg_semi.datasets.shapes import CLASSES
from mmseg_semi.engine.runner import StagedRunner
from mmseg_semi.engine.runner.stages import build_stages, stage_seed
from mmseg_semi.self_training.images import ImagePool
from mmseg_semi.self_training.masks import read_mask
from mmseg_semi.self_training.prediction import Predictor

FOREIGN = ('thing', 'ring', 'blob', 'plate')
VIEWS = dict(scales=(0.5, 1.0), flip=True)


class Killed(BaseException):
    """Stands for a signal."""


@HOOKS.register_module()
class DieOnceHook(Hook):
    """Die at one iteration of a training, while its name is in `armed`."""

    armed: set = set()

    def __init__(self, name, iteration):
        self.name, self.iteration = name, iteration

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.iteration and self.name in self.armed:
            self.armed.discard(self.name)
            raise Killed


def network(num_classes=6, **backbone):
    """Another network than the tests' usual one: wider, with another head."""
    model = tiny_segmentor(num_classes=num_classes, channels=12, kernel_size=1, in_channels=48)
    model['backbone'].update(base_channels=6, **backbone)
    model['data_preprocessor']['size'] = (24, 24)
    return model


def crop(size):
    return [
        {'type': 'LoadShapes'},
        {'type': 'RandomCrop', 'crop_size': size},
        {'type': 'PackSegInputs'},
    ]


def config(work_dir, runtime='st', teacher=None, **settings):
    cfg = tiny_stages_config(work_dir, runtime, **settings)
    for name, stage in cfg.stages.items():
        if 'Stage' in stage.type and stage.type in ('TrainStage', 'TeacherStage'):
            kill = {'type': 'DieOnceHook', 'name': name, 'iteration': 9}
            stage.extra_hooks = [*stage.get('extra_hooks', []), kill]
    if teacher is not None:
        cfg.teacher = copy.deepcopy(teacher)
    return cfg


def apart(**more):
    """A teacher of its own network, crop, length and rate."""
    return {
        'model': network(),
        'train_dataloader': {'batch_size': 3, 'dataset': {'labeled': {'pipeline': crop((24, 24))}}},
        'optim_wrapper': {'optimizer': {'lr': 0.01}},
        'train_cfg': {'max_iters': 11, 'val_interval': 11},
        'param_scheduler': [{'type': 'ConstantLR', 'factor': 1.0, 'by_epoch': False}],
        **more,
    }


def run(cfg):
    StagedRunner(cfg).train()


def weights(folder):
    file = Path(folder, (Path(folder) / 'last_checkpoint').read_text().rpartition('/')[2])
    return torch.load(file, weights_only=False)['state_dict']


def masks(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).glob('[!.]*.png'))}


def give(folder, model, classes=None, seed=0, name='given.pth'):
    """A checkpoint of a network that was trained elsewhere."""
    torch.manual_seed(seed)
    built = MODELS.build(copy.deepcopy(model))
    torch.nn.init.normal_(built.decode_head.conv_seg.weight, std=2.0)
    # Statistics of smooth images, or the untrained network would see one class everywhere.
    for module in built.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    coarse = torch.randn(16, 3, 4, 4)
    with torch.no_grad():
        built.train()._forward(torch.nn.functional.interpolate(coarse, SIZE, mode='bicubic'))
    meta = {} if classes is None else {'dataset_meta': {'classes': classes}}
    torch.save({'state_dict': built.state_dict(), 'meta': meta}, folder / name)
    return str(folder / name)


def expected(stage, images, indices=None, number=6):
    """Masks by hand: the sum of all views' softmax maps, merged class by class."""
    predictor = Predictor(stage.config(), stage.checkpoint(), 'cpu', stage.label_map)
    found, pool = {}, ImagePool(stage.config(), images)
    for positions, samples in pool.load(pool.plan(3), 0):
        total = predictor._scores(predictor.prepare(samples), SIZE, *VIEWS.values()).numpy()
        if indices is not None:
            sums = [
                total[:, [i for i, t in enumerate(indices) if t == c]].sum(1) for c in range(number)
            ]
            total = np.stack(
                [*sums, total[:, [i for i, t in enumerate(indices) if t == 255]].sum(1)], 1
            )
        label = total.argmax(1)
        for i, mask in zip(positions, label, strict=True):
            found[f'{pool.ids[i]}.png'] = np.where(mask == number, 255, mask)
    return found


def assert_labels(folder, wanted):
    assert masks(folder).keys() == wanted.keys()
    for name, mask in wanted.items():
        assert (read_mask(str(Path(folder, name))) == mask).all(), name


# ------------------------------------------------------------------------------------ what a stage trains


@pytest.mark.parametrize('runtime', ['st', 'stpp'])
def test_what_the_teacher_says_is_in_its_stage_alone(runtime, tmp_path):
    plain = build_stages(config(tmp_path, runtime))
    stages = build_stages(config(tmp_path, runtime, apart()))
    teacher = stages['teacher'].config()
    assert teacher.model.decode_head.kernel_size == 1
    # A whole network takes the place of the student's.
    assert 'init_cfg' in plain['teacher'].config().model.decode_head
    assert 'init_cfg' not in teacher.model.decode_head
    assert teacher.train_dataloader.dataset.labeled.pipeline[1].crop_size == (24, 24)
    assert teacher.train_dataloader.dataset.pseudo_labeled is None
    assert teacher.train_cfg.max_iters == 11
    assert teacher.optim_wrapper.optimizer == dict(type='AdamW', lr=0.01)
    assert teacher.randomness.seed == stage_seed(3, 'teacher')
    assert [h.type for h in teacher.custom_hooks].count('ReliableSelectionHook') == (
        runtime == 'stpp'
    )
    for name in plain.keys() - {'teacher'}:
        if hasattr(plain[name], 'config'):
            assert stages[name].config().to_dict() == plain[name].config().to_dict()
    for stage in stages.values():
        stage.check()
        if hasattr(stage, 'config'):
            assert not {'teacher', 'teacher_checkpoint', 'stages'} & stage.config().keys()


def test_a_config_file_is_the_teacher(tmp_path):
    """It brings its own data, loop and hooks; the run's seed, and what is said beside the file, are over it."""
    own = tiny_stages_config(tmp_path / 'other', 'st')
    for key in ('runner_type', 'stages'):
        own.pop(key)
    labeled = own.train_dataloader.dataset.labeled.to_dict()
    labeled['num_images'] = 4
    own.train_dataloader = {
        'batch_size': 2,
        'num_workers': 0,
        'sampler': {'type': 'InfiniteSampler'},
        'dataset': labeled,
    }
    own.model = network()
    own.randomness = {'seed': 77}
    own.dump(str(tmp_path / 'own.py'))
    said = {'config': str(tmp_path / 'own.py'), 'model': {'backbone': {'depth': 50}}}
    stages = build_stages(config(tmp_path / 'work', 'st', said))
    stages['teacher'].check()
    teacher = stages['teacher'].config()
    assert teacher.train_dataloader.dataset.to_dict() == labeled
    assert teacher.model.backbone.depth == 50
    assert teacher.model.backbone.base_channels == 6
    assert teacher.randomness.seed == stage_seed(3, 'teacher')
    assert teacher.work_dir == str(tmp_path / 'work' / 'teacher')
    assert stages['student'].config().model.backbone.base_channels == 4


def test_a_teacher_that_has_seen_the_validation_images(tmp_path):
    """Its own config trains on what the student is scored on."""
    images = write_images(tmp_path / 'data')
    own = tiny_config(tmp_path / 'other', None, images=images)
    own.train_dataloader.dataset.ann_file = 'val.txt'
    own.dump(str(tmp_path / 'own.py'))
    said = {'config': str(tmp_path / 'own.py')}
    cfg = config(tmp_path / 'work', teacher=said, images=images)
    with pytest.raises(ValueError, match=r"4 teacher's training images are also validation images"):
        run(cfg)
    assert not (tmp_path / 'work/teacher').exists()


# ------------------------------------------------------------------------------------ whole runs


def outcome(work):
    found = {name: weights(work / name) for name in ('teacher', 'student')}
    return found, masks(work / 'label')


def test_a_run_with_its_own_teacher_killed_in_each_stage(tmp_path):
    """Labels are the teacher's, the student is the student's, and a killed run ends in the same bits."""
    cfg = config(tmp_path / 'whole', teacher=apart())
    run(cfg)
    stage = build_stages(cfg)['teacher']
    assert_labels(tmp_path / 'whole/label', expected(stage, build_stages(cfg)['label'].images))
    (trained, labels) = outcome(tmp_path / 'whole')
    assert trained['teacher']['decode_head.conv_seg.weight'].shape == (6, 12, 1, 1)
    assert trained['teacher']['backbone.layer1.0.conv1.weight'].shape[0] == 6
    assert trained['student']['backbone.layer1.0.conv1.weight'].shape[0] == 4
    # What is in the folder of a stage is what it was made with.
    saved = {name: next((tmp_path / 'whole' / name).glob('*.py')) for name in trained}
    saved = {name: Config.fromfile(file) for name, file in saved.items()}
    assert saved['teacher'].model.decode_head.channels == 12
    assert saved['student'].model.decode_head.channels == 8

    broken = config(tmp_path / 'broken', teacher=apart())
    DieOnceHook.armed = {'teacher', 'student'}
    with pytest.raises(Killed):
        run(broken)
    assert not (tmp_path / 'broken/label').exists()
    with (
        mock.patch('mmseg_semi.self_training.labeling._existing', side_effect=Killed),
        pytest.raises(Killed),
    ):
        run(broken)
    with pytest.raises(Killed):
        run(broken)
    run(broken)
    again, labels_again = outcome(tmp_path / 'broken')
    assert labels == labels_again
    for name, state in trained.items():
        for key, value in state.items():
            assert torch.equal(value, again[name][key]), (name, key)


def test_a_given_teacher_of_other_classes(tmp_path):
    """Nothing is trained for it; 'blob' and 'plate' are one class, 'thing' is void."""
    path = give(tmp_path, network(4), FOREIGN)
    said = {'model': network(4), 'label_map': {'ring': 'ring', 'blob': 'disk', 3: 1, 'thing': 255}}
    cfg = config(tmp_path / 'work', teacher=said, teacher_checkpoint=path)
    run(cfg)
    stages = build_stages(cfg)
    assert not list((tmp_path / 'work/teacher').glob('*.pth'))
    (saved,) = (tmp_path / 'work/teacher').glob('*.py')
    assert Config.fromfile(saved).model.decode_head.num_classes == 4
    wanted = expected(stages['teacher'], stages['label'].images, [255, 5, 1, 1])
    assert_labels(tmp_path / 'work/label', wanted)
    found = np.unique(np.stack(list(wanted.values())))
    assert set(found) <= {1, 5, 255}
    assert len(found) > 1
    summary = json.loads((tmp_path / 'work/label/pseudo_labels.json').read_text())
    assert summary['classes'] == list(CLASSES)
    assert summary['pixels'][0] == 0
    assert sum(summary['pixels']) == sum((mask != 255).sum() for mask in wanted.values())
    assert weights(tmp_path / 'work/student')['decode_head.conv_seg.weight'].shape[0] == 6
    # Run again, nothing is done; with another teacher or another map it is refused.
    before = (tmp_path / 'work/student/last_checkpoint').stat().st_mtime_ns
    run(cfg)
    assert (tmp_path / 'work/student/last_checkpoint').stat().st_mtime_ns == before
    other = copy.deepcopy(cfg)
    other.teacher_checkpoint = give(tmp_path, network(4), FOREIGN, seed=1, name='other.pth')
    with pytest.raises(ValueError, match='Stage teacher was started with checkpoint_sha256='):
        run(other)
    other = copy.deepcopy(cfg)
    other.teacher.label_map.ring = 'star'
    with pytest.raises(
        ValueError, match=r'Stage label was started with label_map.entries.ring=ring, but'
    ):
        run(other)


def test_a_given_teacher_of_the_student_s_own_network(tmp_path):
    cfg = config(tmp_path / 'work')
    cfg.teacher_checkpoint = give(tmp_path, cfg.model.to_dict(), CLASSES)
    run(cfg)
    stages = build_stages(cfg)
    assert_labels(tmp_path / 'work/label', expected(stages['teacher'], stages['label'].images))


def test_a_given_teacher_that_a_method_has_trained(tmp_path):
    """Its config has two networks, of which the one that predicts labels."""
    method = tiny_config(tmp_path / 'imas', 'IMAS')
    method.model.segmentor = network()
    method.dump(str(tmp_path / 'imas.py'))
    path = give(tmp_path, method.model.to_dict(), CLASSES)
    cfg = config(tmp_path / 'work', teacher={'config': str(tmp_path / 'imas.py')})
    cfg.teacher_checkpoint = path
    run(cfg)
    stages = build_stages(cfg)
    assert_labels(tmp_path / 'work/label', expected(stages['teacher'], stages['label'].images))
    assert 'segmentor' not in stages['student'].config().model


def test_given_checkpoints_rank_the_images(tmp_path):
    """ST++ compares several checkpoints of one training, in the student's classes."""
    paths = [give(tmp_path, network(4), FOREIGN, seed=k, name=f'{k}.pth') for k in range(2)]
    said = {'model': network(4), 'label_map': {'ring': 'ring', 'blob': 'disk'}}
    cfg = config(
        tmp_path / 'work', 'stpp', said, teacher_checkpoint=paths, run_stages=['teacher', 'select']
    )
    run(cfg)
    rows = (tmp_path / 'work/select/scores.csv').read_text().splitlines()[1:]
    stage = build_stages(cfg)['teacher']
    predictors = [Predictor(stage.config(), path, 'cpu', stage.label_map) for path in paths]
    pool = ImagePool(stage.config(), build_stages(cfg)['select'].images)
    scores = {}
    for positions, samples in pool.load(pool.plan(3), 0):
        first, last = (p.masks(p.prepare(samples), SIZE).numpy() for p in predictors)
        for i, one, other in zip(positions, first, last, strict=True):
            present = [c for c in range(256) if c in one or c in other]
            ious = [
                ((one == c) & (other == c)).sum() / ((one == c) | (other == c)).sum()
                for c in present
            ]
            scores[pool.ids[i]] = np.mean(ious)
    assert {row.split(',')[0]: float(row.split(',')[1]) for row in rows} == pytest.approx(scores)
    assert len(set(scores.values())) > 1


# ------------------------------------------------------------------------------------ soft labels


def test_soft_labels_from_the_stage_to_the_loss(tmp_path):
    """`soft` of the stage that labels is all that is said; a killed run learns the same."""
    cfg = config(tmp_path / 'soft', stages__label__soft=2)
    run(cfg)
    stages = build_stages(cfg)
    student = stages['student'].config()
    assert student.train_dataloader.dataset.pseudo_labeled.soft is True
    assert [hook.type for hook in student.custom_hooks].count('SoftTargetHook') == 1
    assert 'SoftTargetHook' not in [hook.type for hook in stages['teacher'].config().custom_hooks]
    work = tmp_path / 'soft'
    assert len(list((work / 'label').glob('*.soft'))) == len(masks(work / 'label')) == 9
    log = ''.join(path.read_text() for path in (work / 'student').rglob('*.log'))
    assert 'soft cross-entropy with the probabilities of the teacher' in log
    assert 'cross-entropy with hard labels' not in log
    killed = config(tmp_path / 'killed', stages__label__soft=2)
    DieOnceHook.armed = {'student'}
    with pytest.raises(Killed):
        run(killed)
    run(killed)
    hard = config(tmp_path / 'hard', stages__label__soft=2)
    pseudo = {'pseudo_labeled': {'soft': False}}
    hard.merge_from_dict({'stages.student.cfg.train_dataloader.dataset': pseudo})
    run(hard)
    assert masks(work / 'label') == masks(tmp_path / 'hard/label')
    trained = {name: weights(tmp_path / name / 'student') for name in ('soft', 'killed', 'hard')}
    key = 'decode_head.conv_seg.weight'
    assert torch.equal(trained['soft'][key], trained['killed'][key])
    assert not torch.equal(trained['soft'][key], trained['hard'][key])
    # What was started with hard labels is not gone on with soft ones.
    cfg.stages.label.soft = 3
    with pytest.raises(
        ValueError, match=r'Stage label was started with soft=2, but this run has 3'
    ):
        run(cfg)


def test_soft_and_hard_folders_of_one_training(tmp_path):
    cfg = config(tmp_path, 'stpp', stages__label_reliable__soft=2)
    stages = build_stages(cfg)
    stages['student'].check()
    with pytest.raises(
        ValueError, match=r'stages.final trains on soft and .* stages.label_unreliable.soft'
    ):
        stages['final'].check()
    cfg.stages.label_unreliable.soft = 4
    build_stages(cfg)['final'].check()
    cfg.stages.label_unreliable.soft = 0
    with pytest.raises(
        ValueError, match=r'stages.label_unreliable.soft, the number of stored classes'
    ):
        build_stages(cfg)


def test_soft_labels_that_nothing_learns(tmp_path):
    cfg = config(tmp_path, stages__label__soft=2)
    run(cfg)
    student = build_stages(cfg)['student']
    alone = Config(student.resolve(student.config().to_dict()))
    alone.work_dir = str(tmp_path / 'alone')
    hooks = alone.custom_hooks
    alone.custom_hooks = [
        hook for hook in hooks if hook.type not in ('SoftTargetHook', 'DieOnceHook')
    ]
    with pytest.raises(ValueError, match=r'soft=True, but no hook uses the soft labels. Add'):
        build_runner(alone).train()
    alone.custom_hooks = hooks
    alone.train_dataloader.dataset.pseudo_labeled.soft = False
    with pytest.raises(
        ValueError, match=r'SoftTargetHook is set, but the pseudo-labels have no soft labels'
    ):
        build_runner(alone).train()


# ------------------------------------------------------------------------------------ what is refused

MISTAKES = {
    'class counts differ': (
        {'model': network(4)},
        r'The teacher has num_classes=4, but the student num_classes=6. Set .* teacher.label_map=dict\(',
    ),
    'an unknown class of the student': (
        {'model': network(4), 'label_map': {'ring': 'rnig'}},
        r"teacher.label_map\['ring'\]='rnig' is not a class of the student. Choose one of background, disk",
    ),
    'an index beyond the student': (
        {'model': network(4), 'label_map': {'ring': 6}},
        r"teacher.label_map\['ring'\]=6 is not a class of the student",
    ),
    'an empty map': ({'model': network(4), 'label_map': {}}, r'label_map=\{\} maps no class'),
    'an unknown class of the teacher': (
        {'model': network(4), 'label_map': {'rnig': 'ring'}},
        r"label_map has the class 'rnig', which .*given.pth does not have. Choose one of thing, ring, blob",
    ),
    'another part': (
        {'modle': network(4)},
        r'teacher.modle is not a setting of a training. Give config',
    ),
    'no dict': (
        'segformer.py',
        r"teacher='segformer.py' must be a dict. Give dict\(config='FILE'\)",
    ),
    'no such file': ({'config': 'nowhere.py'}, r"teacher.config='nowhere.py' does not exist. Give"),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_mistakes_in_a_sentence(mistake, tmp_path):
    said, sentence = MISTAKES[mistake]
    path = give(tmp_path, network(4), FOREIGN)
    cfg = config(tmp_path / 'work', teacher=said, teacher_checkpoint=path)
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        run(cfg)
    assert not (tmp_path / 'work/label').exists()


def test_classes_of_the_same_number_and_other_names(tmp_path):
    names = ('a', 'b', 'c', 'd', 'e', 'f')
    path = give(tmp_path, network(), names)
    cfg = config(tmp_path / 'work', teacher={'model': network()}, teacher_checkpoint=path)
    with pytest.raises(
        ValueError, match=r'has the 6 classes a, b.* but the student the 6 classes backg'
    ):
        run(cfg)


def test_a_checkpoint_of_the_student_is_told(tmp_path):
    cfg = config(tmp_path / 'work', teacher={'model': network()})
    cfg.teacher_checkpoint = give(tmp_path, cfg.model.to_dict(), CLASSES)
    with pytest.raises(
        ValueError, match=r'given.pth. fits the network of the student \(`model`\) and not'
    ):
        run(cfg)
    cfg.teacher_checkpoint = give(tmp_path, network(4), name='neither.pth')
    again = config(tmp_path / 'again', teacher={'model': network()})
    again.teacher_checkpoint = cfg.teacher_checkpoint
    with pytest.raises(
        ValueError, match=r'teacher_checkpoint: .*neither.pth does not fit the network'
    ):
        run(again)


def test_what_one_given_checkpoint_cannot_do(tmp_path):
    path = give(tmp_path, network(), CLASSES)
    said = {'model': network()}
    cfg = config(tmp_path / 'one', 'stpp', said, teacher_checkpoint=path)
    with pytest.raises(
        ValueError, match=r'stages.select ranks images by several checkpoints .* is only one\. Give'
    ):
        run(cfg)
    cfg.stages.select.type = 'RandomSelectStage'
    for stage in build_stages(cfg).values():
        stage.check()
    cfg = config(tmp_path / 'missing', 'st', said, teacher_checkpoint='nowhere.pth')
    with pytest.raises(FileNotFoundError, match=r"teacher_checkpoint='nowhere.pth' does not exist"):
        run(cfg)
    cfg = config(tmp_path / 'best', 'st', said, teacher_checkpoint=path)
    cfg.stages.label.checkpoint = 'best'
    cfg.default_hooks.checkpoint.save_best = 'mIoU'
    with pytest.raises(ValueError, match=r"checkpoint='best' does not work with"):
        run(cfg)


def test_a_teacher_without_a_stage_for_it(tmp_path):
    cfg = config(tmp_path, 'st', apart())
    cfg.stages.teacher.type = 'TrainStage'
    with pytest.raises(ValueError, match=r'teacher is set, but this config has no TeacherStage'):
        build_stages(cfg)
