"""A metric that will not be reported is refused; one without a network is that of the network that predicts."""

import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, Hook
from mmengine.registry import PARAM_SCHEDULERS
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS, TRANSFORMS
from tiny_run import build_runner, tiny_config

from mmseg_semi.engine.startup.metrics import check_metrics

PLATEAU = [{'type': 'ReduceOnPlateauLR', 'rule': 'greater'}]


@METRICS.register_module()
class BoundaryMetric(IoUMetric):
    """A metric of a user's own."""


class Over(Exception):
    """All start-up checks have been passed."""


class StopHook(Hook):
    """Ends a training before its first iteration."""

    priority = 'LOWEST'

    def before_train(self, runner):
        raise Over


def start(folder, **settings):
    """The Runner of a training, after its start-up checks, and the log."""
    settings = copy.deepcopy(settings)
    stopping = settings.pop('early_stopping', None)
    config = tiny_config(folder, **settings)
    if stopping is not None:
        config.custom_hooks.append({'type': 'EarlyStoppingHook', **stopping})
    runner = build_runner(config)
    runner.register_hook(StopHook())
    with pytest.raises(Over):
        runner.train()
    (log,) = (folder / runner.timestamp).glob('*.log')
    return runner, log.read_text()


def hook_of(runner, name):
    return next(hook for hook in runner.hooks if type(hook).__name__ == name)


def test_a_metric_alone_is_that_of_the_network_that_predicts(tmp_path):
    runner, log = start(
        tmp_path,
        default_hooks__checkpoint__save_best='mIoU',
        early_stopping={'monitor': 'mIoU'},
        param_scheduler=[{**PLATEAU[0], 'monitor': 'mIoU'}],
    )
    saving = hook_of(runner, 'AtomicCheckpointHook')
    assert saving.key_indicators == ['teacher/mIoU']
    assert saving.is_better_than['teacher/mIoU'](2, 1)
    assert saving.rules == ['greater']
    assert hook_of(runner, 'EarlyStoppingHook').monitor == 'teacher/mIoU'
    assert runner.param_schedulers[0].monitor == 'teacher/mIoU'
    assert "save_best='mIoU' is teacher/mIoU, of the network that predicts" in log


def test_best_checkpoint_by_a_metric_alone(tmp_path):
    config = tiny_config(
        tmp_path,
        train_cfg__max_iters=2,
        train_cfg__val_interval=2,
        default_hooks__checkpoint__save_best=['mIoU', 'student/mAcc'],
    )
    runner = build_runner(config)
    runner.train()
    assert list(tmp_path.glob('best_teacher_mIoU_iter_2.pth'))
    assert list(tmp_path.glob('best_student_mAcc_iter_2.pth'))


def test_the_first_metric_is_that_of_the_network_that_predicts(tmp_path):
    runner, _ = start(tmp_path, default_hooks__checkpoint__save_best='auto')
    assert hook_of(runner, 'AtomicCheckpointHook').key_indicators == ['teacher/aAcc']


@pytest.fixture(scope='module')
def loops(tmp_path_factory):
    """The validation loops of iMAS and of a plain network."""
    folder = tmp_path_factory.mktemp('loops')
    return {
        name: start(folder / str(name), method=name, train_cfg__max_iters=1)[0].val_loop
        for name in ('IMAS', None)
    }


def check(loop, *hooks, schedulers=None, metrics=None):
    """Check hooks and schedulers as those of a Runner; ``metrics`` replace the loop's."""
    if metrics is not None:
        loop = copy.copy(loop)
        loop.evaluator = Evaluator([METRICS.build(one) for one in metrics])
    runner = SimpleNamespace(
        val_loop=loop,
        hooks=hooks,
        param_schedulers=schedulers,
        logger=logging.getLogger('test_metrics'),
    )
    check_metrics(runner)
    return runner


def plateau(**settings):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    return PARAM_SCHEDULERS.build(
        {'type': 'ReduceOnPlateauLR', 'optimizer': optimizer, 'rule': 'greater', **settings}
    )


@pytest.mark.parametrize(
    ('method', 'hook', 'message'),
    [
        (
            'IMAS',
            lambda: CheckpointHook(save_best='teacher/mDice'),
            r"save_best='teacher/mDice' is not a metric of this run, whose validation reports teacher/aAcc, "
            r'teacher/mIoU, teacher/mAcc, student/aAcc, .* such as',
        ),
        (
            'IMAS',
            lambda: CheckpointHook(save_best=['mIoU', 'tutor/mIoU']),
            "save_best='tutor/mIoU' is not a metric",
        ),
        (
            'IMAS',
            lambda: EarlyStoppingHook(monitor='mDice'),
            "EarlyStoppingHook.monitor='mDice' is not a metric",
        ),
        (
            None,
            lambda: CheckpointHook(save_best='teacher/mIoU'),
            "whose validation reports aAcc, mIoU, mAcc. Set .* to one of them, such as 'mIoU'",
        ),
    ],
)
def test_what_will_not_be_reported_is_refused(method, hook, message, loops):
    with pytest.raises(ValueError, match=message):
        check(loops[method], hook())


def test_schedulers_that_follow_no_metric_are_refused(loops):
    with pytest.raises(
        ValueError, match=r"param_scheduler\.students\.0\.monitor='loss' is not a metric"
    ):
        check(loops['IMAS'], schedulers={'students': [plateau()]})


def test_metrics_of_one_name_are_refused(loops):
    metrics = [{'type': 'IoUMetric'}, {'type': 'IoUMetric', 'iou_metrics': ['mDice']}]
    with pytest.raises(ValueError, match='metrics of val_evaluator report aAcc'):
        check(loops[None], metrics=metrics)


@pytest.mark.parametrize('method', [None, 'IMAS'])
def test_metrics_that_mmsegmentation_does_not_have_are_refused(method, loops):
    metrics = [{'type': 'IoUMetric', 'iou_metrics': ['mIoU', 'mDise']}]
    with pytest.raises(ValueError, match=r"iou_metrics='mDise' is not .* Did you mean 'mDice'\?"):
        check(loops[method], metrics=metrics)


def test_evaluator_whose_names_are_unknown_is_let_through(loops, caplog):
    hook = CheckpointHook(save_best='boundary', rule='greater')
    with caplog.at_level(logging.INFO, 'test_metrics'):
        check(loops['IMAS'], hook, metrics=[{'type': 'BoundaryMetric'}])
    assert 'is not checked, since the names of BoundaryMetric are not known' in caplog.text


def test_rule_for_smaller_values_is_named(loops, caplog):
    check(loops['IMAS'], schedulers=[plateau(monitor='student/mIoU', rule='less')])
    assert "param_scheduler.0.monitor='student/mIoU' has rule='less'" in caplog.text


def test_best_of_no_validation_is_refused():
    with pytest.raises(ValueError, match="save_best='mIoU' needs a validation"):
        check(None, CheckpointHook(save_best='mIoU'))


def test_names_have_the_prefixes_of_several_metrics(tmp_path):
    config = tiny_config(tmp_path, train_cfg__max_iters=1)
    config.val_evaluator = [
        {'type': 'IoUMetric', 'iou_metrics': ['mIoU', 'mFscore']},
        {'type': 'ClassIoUMetric', 'prefix': 'again'},
    ]
    config.default_hooks.checkpoint.update(
        save_best=['again/mIoU', 'student/mRecall'], rule='greater'
    )
    runner = build_runner(config)
    reported = {}

    class Look(Hook):
        def after_val_epoch(self, runner, metrics=None):
            reported.update(metrics)

    runner.register_hook(Look())
    runner.train()
    assert set(runner.val_loop.reported_names()) == set(reported)
    assert 'teacher/again/IoU.disk' in reported


# ------------------------------------------------------------------ images of several sizes


@TRANSFORMS.register_module()
class CutRaggedly:
    """Cuts images to a height that depends on their place in the data set."""

    def __call__(self, results):
        height = 24 + 4 * (results['sample_idx'] % 3)
        results['img'] = results['img'][:height]
        results['gt_seg_map'] = results['gt_seg_map'][:height]
        results['img_shape'] = results['ori_shape'] = results['img'].shape[:2]
        return results


def ragged(folder, **settings):
    config = tiny_config(folder, **settings)
    config.val_dataloader.dataset.pipeline.insert(1, {'type': 'CutRaggedly'})
    return config


@pytest.mark.parametrize('method', ['IMAS', None])
def test_batches_of_several_sizes_are_evaluated_image_by_image(method, tmp_path):
    found = []
    for batch_size in (1, 3):
        config = ragged(
            tmp_path / str(batch_size),
            method=method,
            val_dataloader__batch_size=batch_size,
            val_cfg__type='TeacherStudentValLoop',
        )
        for part in ('dataloader', 'cfg'):
            config.pop(f'train_{part}')
            config.pop(f'test_{part}')
        config.pop('test_evaluator')
        config.optim_wrapper = config.param_scheduler = None
        torch.manual_seed(0)
        found.append(build_runner(config).val())
    assert found[0] == found[1]


def test_batches_of_several_sizes_under_mmengines_loop_are_refused(tmp_path):
    config = ragged(tmp_path, method=None, val_dataloader__batch_size=3)
    with pytest.raises(ValueError, match='differ in size, such as 24x32 and 28x32') as error:
        build_runner(config).train()
    assert "Set val_cfg.type='TeacherStudentValLoop'" in str(error.value)
