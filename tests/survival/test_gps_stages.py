"""GPS from the command line: the teacher's stage, the joint one, killed and resumed, tested and exported."""

import itertools

import pytest
import torch
from mmengine.config import Config
from processes import STOCK_TOOLS, TOOLS, run_tool
from tiny_run import build_runner, dump, tiny_config

from mmseg_semi.engine.runner import SupervisedStage
from mmseg_semi.engine.runner.stages import build_stages, stage_seed

LAST = 'iter_14.pth'
STAGES = {
    'teacher': {'type': 'SupervisedStage'},
    'joint': {
        'type': 'TrainStage',
        'cfg': {
            'model': {'semi_train_cfg': {'teacher_checkpoint': 'stage://teacher/last_checkpoint'}}
        },
    },
}


def staged(folder, **changes):
    """The config of both stages, in which ``joint.flag`` arms a kill."""
    config = tiny_config(folder / 'work', 'GPS')
    config.work_dir = 'work'
    config.runner_type, config.stages = 'StagedRunner', STAGES
    config.custom_imports.imports.append('saboteurs')
    kill = {'type': 'KillHook', 'iteration': 8, 'flag': 'joint.flag'}
    config.stages.joint.extra_hooks = [kill]
    config.merge_from_dict({key.replace('__', '.'): value for key, value in changes.items()})
    return config


def train(folder, *args):
    return run_tool(TOOLS / 'train.py', 'config.py', *args, cwd=folder)


def weights(folder, stage):
    return torch.load(folder / 'work' / stage / LAST, weights_only=False)['state_dict']


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A run that nothing disturbed, whose teacher learns nothing after its own stage."""
    folder = tmp_path_factory.mktemp('whole')
    dump(staged(folder, model__semi_train_cfg__teacher_lr_scale=0.0), folder / 'config.py')
    result = train(folder)
    assert result.code == 0, result.output
    (folder / 'output.txt').write_text(result.output)
    return folder


def test_teacher_is_trained_on_labeled_images_and_handed_on(whole):
    output = (whole / 'output.txt').read_text()
    assert '5 labeled images × 1 and 0 pseudo-labeled ones; 2 per process' in output
    assert '14 in all' in output
    assert 'GPS: 4 epochs of 4 steps, 14 in all' in output
    assert 'is not trained' not in output
    before = 'teacher 14 steps (28 labeled and 0 unlabeled images)'
    assert f'Trained: {before}, joint 14 steps (28 labeled and 28 unlabeled images)' in output
    (log,) = (whole / 'work/joint').glob('*/*.log')
    assert f'Trainings before this one: {before}.' in log.read_text()
    assert f'teacher/{LAST}, which was trained for 14 iterations.' in log.read_text()
    teacher, joint = weights(whole, 'teacher'), weights(whole, 'joint')
    assert not any(key.startswith(('student', 'teacher')) for key in teacher)
    parameters = [key for key in teacher if 'running' not in key and 'num_batches' not in key]
    for key in parameters:
        assert torch.equal(joint[f'teacher.{key}'], teacher[key])
    assert not torch.equal(
        joint['student1.decode_head.conv_seg.weight'], teacher['decode_head.conv_seg.weight']
    )
    assert (whole / 'work/last_checkpoint').read_text() == str(whole / 'work/joint' / LAST)


def test_killed_in_both_stages_it_ends_alike(whole, tmp_path):
    config = staged(tmp_path, model__semi_train_cfg__teacher_lr_scale=0.0)
    kill = {'type': 'KillHook', 'iteration': 12, 'flag': 'teacher.flag'}
    config.stages.teacher.extra_hooks = [kill]
    dump(config, tmp_path / 'config.py')
    for flag in ('teacher.flag', 'joint.flag'):
        (tmp_path / flag).touch()
        assert train(tmp_path).code == -9
        (tmp_path / flag).unlink()
    expected = weights(whole, 'teacher')
    for key, value in weights(tmp_path, 'teacher').items():
        assert torch.equal(value, expected[key]), key
    result = train(tmp_path)
    assert result.code == 0, result.output
    assert 'Stage teacher is finished' in result.output
    expected = weights(whole, 'joint')
    for key, value in weights(tmp_path, 'joint').items():
        assert torch.equal(value, expected[key]), key


def test_stock_test_tool_reports_all_three(whole):
    result = run_tool(STOCK_TOOLS / 'test.py', 'config.py', f'work/joint/{LAST}', cwd=whole)
    assert result.code == 0, result.output
    for name in ('student1', 'student2', 'teacher'):
        assert f'{name}/mIoU: ' in result.last_line
    assert 'student/mIoU' not in result.output


def test_student1_is_exported_unless_told_otherwise(whole, tmp_path):
    for name, arguments in {'student1': (), 'teacher': ('--network', 'teacher')}.items():
        out = tmp_path / name
        result = run_tool(
            TOOLS / 'export.py', 'config.py', f'work/joint/{LAST}', out, *arguments, cwd=whole
        )
        assert result.code == 0, result.output
        plain = torch.load(out / f'{name}.pth', weights_only=False)['state_dict']
        start = f'{name}.'
        expected = {
            k[len(start) :]: v for k, v in weights(whole, 'joint').items() if k.startswith(start)
        }
        assert plain.keys() == expected.keys()
        assert all(torch.equal(value, expected[key]) for key, value in plain.items())
        assert Config.fromfile(out / 'config.py').model.type == 'EncoderDecoder'


# ------------------------------------------------------------------------------------ what a stage derives


def stages_of(folder, **changes):
    config = staged(folder, **changes)
    config.work_dir = str(folder / 'work')
    return config, build_stages(config)


def test_supervised_stage_is_the_methods_training_without_what_is_the_methods(tmp_path):
    top, stages = stages_of(
        tmp_path,
        auto_scale_lr={'enable': False, 'base_batch_size': 8},
        default_hooks__checkpoint__save_best='student1/mIoU',
        train_dataloader__sampler={'type': 'LabeledUnlabeledSampler', 'labeled': 2, 'unlabeled': 6},
        train_dataloader__batch_size=8,
        stages__teacher__cfg={'train_cfg': {'max_iters': 5}},
    )
    cfg = stages['teacher'].config()
    assert isinstance(stages['teacher'], SupervisedStage)
    network = top.model.segmentor.to_dict()
    assert cfg.model.to_dict() == network
    loader = cfg.train_dataloader
    assert (loader.batch_size, loader.sampler.type, loader.sampler.endless) == (
        2,
        'ShuffledSampler',
        True,
    )
    assert loader.dataset.labeled == top.train_dataloader.dataset.labeled
    assert loader.dataset.pseudo_labeled is None
    assert 'unlabeled' not in loader.dataset
    assert 'unlabeled' not in loader.sampler
    assert 'collate_fn' not in loader
    assert cfg.param_scheduler == top.param_scheduler.students
    assert 'AdaptiveRampUpHook' not in [hook.type for hook in cfg.custom_hooks]
    assert len(cfg.custom_hooks) == len(top.custom_hooks) - 1
    assert cfg.auto_scale_lr.base_batch_size == 2
    assert cfg.default_hooks.checkpoint.save_best == 'mIoU'
    assert cfg.optim_wrapper == top.optim_wrapper
    assert cfg.randomness.seed == stage_seed(top.randomness.seed, 'teacher')
    assert (cfg.train_cfg.max_iters, top.train_cfg.max_iters) == (5, 14)
    # The config that it is made from stays.
    assert top.model.type == 'GPS'
    assert stages['joint'].config().train_dataloader.batch_size == 8


def test_passes_over_the_unlabeled_images_are_none_over_the_labeled_ones(tmp_path):
    by_epoch = {'type': 'EpochBasedTrainLoop', 'max_epochs': 3, '_delete_': True}
    with pytest.raises(
        ValueError,
        match=r'would train train_cfg.max_epochs=3 .* stages.teacher.cfg=dict\(train_cfg',
    ):
        stages_of(tmp_path, train_cfg=by_epoch)
    _, stages = stages_of(
        tmp_path, train_cfg=by_epoch, stages__teacher__cfg={'train_cfg': {'max_epochs': 9}}
    )
    assert stages['teacher'].config().train_cfg.max_epochs == 9


def test_what_is_of_all_networks_is_not_the_teachers(tmp_path):
    best = ['student1/mIoU', 'student2/mIoU', 'teacher/mAcc']
    _, stages = stages_of(
        tmp_path, load_from='three.pth', default_hooks__checkpoint={'save_best': best}
    )
    teacher, joint = (stages[name].config() for name in ('teacher', 'joint'))
    assert teacher.default_hooks.checkpoint.save_best == ['mIoU', 'mAcc']
    assert (teacher.load_from, joint.load_from) == (None, 'three.pth')


def test_stages_are_ordered_by_references_of_the_top_level(tmp_path):
    config = staged(tmp_path)
    reference = 'stage://teacher/last_checkpoint'
    config.model.semi_train_cfg.teacher_checkpoint = reference
    # As MMEngine writes them, with sorted keys.
    config.stages = {'joint': {'type': 'TrainStage'}, 'teacher': {'type': 'SupervisedStage'}}
    stages = build_stages(config)
    assert list(stages) == ['teacher', 'joint']
    for stage in stages.values():
        stage.check()


def test_three_networks_begin_apart(tmp_path):
    """The teacher of its own stage and both students; drawn encoders and heads."""
    _, stages = stages_of(tmp_path, stages__joint__extra_hooks=[])
    starts = {}
    for name, stage in stages.items():
        cfg = stage.config()
        cfg.model.get('semi_train_cfg', {}).pop('teacher_checkpoint', None)
        runner = build_runner(cfg)
        runner._init_model_weights()
        starts[name] = dict(runner.model.named_parameters())
    students = ('student1.', 'student2.')
    compared = 0
    for key, value in starts['teacher'].items():
        drawn = [value, *(starts['joint'][student + key] for student in students)]
        if value.ndim > 1:  # vectors are constants
            compared += 1
            for first, second in itertools.combinations(drawn, 2):
                assert not torch.equal(first, second), key
    assert compared > 10


def test_supervised_stage_needs_a_method(tmp_path):
    config = tiny_config(tmp_path, None)
    config.stages = {'teacher': {'type': 'SupervisedStage'}}
    with pytest.raises(
        ValueError, match=r'stages.teacher is a SupervisedStage, but the config does'
    ):
        build_stages(config)


def test_last_checkpoint_of_a_stage_is_found_when_it_is_there(tmp_path):
    _, stages = stages_of(tmp_path)
    joint, reference = stages['joint'], 'stage://teacher/last_checkpoint'
    joint.check()
    assert joint.needs() == {'teacher'}
    with pytest.raises(FileNotFoundError, match='stage teacher saved no checkpoint'):
        joint.resolve(reference)
    folder = tmp_path / 'work' / 'teacher'
    folder.mkdir(parents=True)
    # As it was written, perhaps from another place.
    (folder / 'last_checkpoint').write_text('/elsewhere/work/teacher/iter_14.pth')
    assert joint.resolve({'a': [reference]}) == {'a': [str(folder / 'iter_14.pth')]}
    assert joint.resolve('stage://teacher/other.txt') == str(folder / 'other.txt')


def test_missing_unlabeled_images_are_told_before_the_teacher_is_trained(tmp_path):
    config = staged(tmp_path)
    unlabeled = {
        'type': 'UnlabeledDataset',
        'img_dir': str(tmp_path / 'nowhere'),
        'pipeline': config.train_dataloader.dataset.unlabeled.pipeline,
    }
    config.train_dataloader.dataset.unlabeled = unlabeled
    dump(config, tmp_path / 'config.py')
    result = train(tmp_path)
    assert result.code == 1
    assert 'nowhere' in result.last_line
    assert not (tmp_path / 'work' / 'teacher').exists()


def test_plain_checkpoint_for_all_networks_is_refused_in_one_sentence(whole, tmp_path):
    config = tiny_config(tmp_path / 'work', 'CPS', load_from=str(whole / 'work/teacher' / LAST))
    dump(config, tmp_path / 'config.py')
    result = train(tmp_path)
    assert result.code == 1
    assert 'student1 and student2 have the same weights in their heads' in result.last_line
    assert not list((tmp_path / 'work').glob('*.pth'))


def test_reference_outside_of_stages_is_told(tmp_path):
    config = staged(tmp_path)
    config.runner_type = 'Runner'
    config.model.semi_train_cfg.teacher_checkpoint = 'stage://teacher/last_checkpoint'
    dump(config, tmp_path / 'config.py')
    result = train(tmp_path)
    assert result.code == 1
    assert "refers to the result of a stage. Train with runner_type='StagedRunner'" in result.output
