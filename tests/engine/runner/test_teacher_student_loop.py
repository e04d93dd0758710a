"""Every network is evaluated as if it were alone, and only the predicting one writes files."""

import copy

import numpy as np
import pytest
import torch
from mmengine.fileio import load
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from mmseg.registry import MODELS
from PIL import Image
from tiny_run import NUM_VAL, build_runner, tiny_config, write_images

from mmseg_semi.engine.runner.teacher_student_loop import _of_one_size


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('images'))


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """An iMAS whose student and teacher disagree."""
    torch.manual_seed(0)
    model = MODELS.build(tiny_config('unused').model)
    model.init_weights()
    with torch.no_grad():
        model.student.decode_head.conv_seg.weight.normal_()
        model.teacher.decode_head.conv_seg.weight.normal_()
    path = tmp_path_factory.mktemp('checkpoint') / 'both.pth'
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, path)
    return path


def only(config, *kept):
    """The config without the loops that are not ``kept``; a Runner insists on all parts of a loop or none."""
    for stage in {'train', 'val', 'test'} - set(kept):
        for part in ('dataloader', 'cfg', 'evaluator'):
            config.pop(f'{stage}_{part}', None)
    if 'train' not in kept:
        config.optim_wrapper = config.param_scheduler = None
    return config


def run_test(work_dir, checkpoint, **changes):
    config = only(tiny_config(work_dir, load_from=str(checkpoint), **changes), 'test')
    runner = build_runner(config)
    return runner.test(), runner


def run_plain_test(work_dir, checkpoint, name, **changes):
    """Test one network as the plain model that it is, with the stock loop."""
    weights = torch.load(checkpoint)['state_dict']
    start = f'{name}.'
    plain = {key[len(start) :]: value for key, value in weights.items() if key.startswith(start)}
    path = work_dir / f'{name}.pth'
    torch.save({'state_dict': plain, 'meta': {}}, path)
    return run_test(work_dir, path, method=None, **changes)


@pytest.mark.parametrize('side', [20, 40])
def test_metrics_of_center_crops(checkpoint, images, tmp_path, side):
    """Those of images that are cropped before, or padded to the size of the crop."""
    whole = write_images(tmp_path / 'images')
    fill = dict(img=(10, 20, 30), seg=255)
    crop = dict(
        type='EvaluationCenterCrop',
        crop_size=(side, side),
        auto_pad=True,
        pad_cfg=dict(type='Pad', pad_val=fill),
    )
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    pipeline = [*load, crop, dict(type='PackSegInputs')]
    dataset = {'test_dataloader__dataset__pipeline': pipeline}
    metrics, _ = run_test(tmp_path / 'a', checkpoint, images=whole, **dataset)
    edge = abs(32 - side) // 2
    for folder, value in (('img_dir', fill['img'][::-1]), ('ann_dir', 255)):
        for path in (whole / folder).iterdir():
            array = np.asarray(Image.open(path))
            if side < 32:
                array = array[edge:-edge, edge:-edge]
            else:
                padded = np.full((side, side, *array.shape[2:]), value, np.uint8)
                padded[:32, :32] = array
                array = padded
            Image.fromarray(array).save(path)
    dataset = {'test_dataloader__dataset__pipeline': [*load, dict(type='PackSegInputs')]}
    expected, _ = run_test(tmp_path / 'b', checkpoint, images=whole, **dataset)
    assert metrics == expected
    assert len({round(value, 2) for value in metrics.values()}) > 2


def test_metrics_are_those_of_separate_evaluations(checkpoint, tmp_path):
    metrics, _ = run_test(tmp_path, checkpoint)
    assert metrics['teacher/mIoU'] != metrics['student/mIoU']
    for name in ('student', 'teacher'):
        alone, _ = run_plain_test(tmp_path, checkpoint, name)
        assert {key: metrics[f'{name}/{key}'] for key in alone} == alone
    assert len(metrics) == 2 * len(alone)


def test_validation_reports_what_the_test_does(checkpoint, tmp_path):
    expected, _ = run_test(tmp_path, checkpoint)
    runner = build_runner(only(tiny_config(tmp_path, load_from=str(checkpoint)), 'val'))
    assert runner.val() == expected
    assert runner.model.semi_test_cfg['predict_on'] == 'teacher'


def test_a_plain_model_is_evaluated_as_ever(checkpoint, tmp_path):
    alone, _ = run_plain_test(tmp_path, checkpoint, 'student')
    ours, _ = run_plain_test(
        tmp_path, checkpoint, 'student', test_cfg__type='TeacherStudentTestLoop'
    )
    assert ours == alone


def test_metrics_of_test_time_augmentation(checkpoint, tmp_path, images):
    def augmented(method, load_from):
        config = only(
            tiny_config(tmp_path, method, images=images, load_from=str(load_from)), 'test'
        )
        config.test_dataloader.dataset.pipeline = config.tta_pipeline
        config.model = dict(config.tta_model, module=config.model)
        return build_runner(config).test()

    metrics = augmented('IMAS', checkpoint)
    plain, _ = run_test(tmp_path, checkpoint, images=images)
    for name in ('student', 'teacher'):
        _, runner = run_plain_test(tmp_path, checkpoint, name)
        alone = augmented(None, runner._load_from)
        assert {key: metrics[f'{name}/{key}'] for key in alone} == alone
    assert metrics != plain


@pytest.mark.parametrize('predict_on', ['teacher', 'student'])
def test_only_the_predicting_network_writes_files(predict_on, checkpoint, tmp_path, images):
    metrics, runner = run_test(
        tmp_path / 'work',
        checkpoint,
        images=images,
        model__semi_test_cfg={'predict_on': predict_on},
        test_evaluator__output_dir=str(tmp_path / 'maps'),
        default_hooks__visualization__draw=True,
        default_hooks__visualization__interval=1,  # upstream's default is 50
        visualizer__save_dir=str(tmp_path / 'pictures'),
    )
    assert {'teacher/mIoU', 'student/mIoU'} <= metrics.keys()
    maps = sorted((tmp_path / 'maps').glob('*.png'))
    assert len(maps) == NUM_VAL
    assert len(list((tmp_path / 'pictures').rglob('*.png'))) == NUM_VAL
    network = getattr(runner.model, predict_on).eval()
    network.data_preprocessor = runner.model.data_preprocessor
    predictions = [
        sample.pred_sem_seg.data[0].cpu().numpy()
        for batch in runner.test_dataloader
        for sample in network.test_step(batch)
    ]
    for path, expected in zip(maps, predictions, strict=True):
        assert np.array_equal(np.array(Image.open(path)), expected)


def test_files_alone_leave_the_other_network_out(checkpoint, tmp_path, images):
    metrics, _ = run_test(
        tmp_path / 'work',
        checkpoint,
        images=images,
        test_evaluator__format_only=True,
        test_evaluator__output_dir=str(tmp_path / 'maps'),
    )
    assert not metrics
    assert len(list((tmp_path / 'maps').glob('*.png'))) == NUM_VAL


def test_dumped_results_are_those_of_the_predicting_network(checkpoint, tmp_path):
    config = only(tiny_config(tmp_path, load_from=str(checkpoint)), 'test')
    config.test_evaluator = [
        config.test_evaluator,
        {'type': 'DumpResults', 'out_file_path': str(tmp_path / 'results.pkl')},
    ]
    runner = build_runner(config)
    metrics = runner.test()
    assert {'teacher/mIoU', 'student/mIoU'} <= metrics.keys()
    results = load(tmp_path / 'results.pkl')
    assert len(results) == NUM_VAL
    network = runner.model.teacher.eval()
    network.data_preprocessor = runner.model.data_preprocessor
    batch = next(iter(runner.test_dataloader))
    expected = network.test_step(copy.deepcopy(batch))[0].seg_logits.data.cpu()
    torch.testing.assert_close(results[0]['seg_logits']['data'], expected)


def test_best_checkpoint_by_a_networks_metric(tmp_path):
    config = tiny_config(
        tmp_path,
        train_cfg__max_iters=4,
        train_cfg__val_interval=2,
        default_hooks__checkpoint__save_best='teacher/mIoU',
    )
    runner = build_runner(config)
    runner.train()
    (best,) = tmp_path.glob('best_teacher_mIoU_iter_*.pth')
    score = runner.message_hub.get_info('best_score')
    metrics, _ = run_test(tmp_path / 'test', best)
    assert metrics['teacher/mIoU'] == score
    model = MODELS.build(config.model)
    _load_checkpoint_to_model(model, torch.load(best, weights_only=False))


def test_names_of_networks_do_not_leak_out_of_a_failed_evaluation(checkpoint, tmp_path, images):
    config = only(tiny_config(tmp_path, load_from=str(checkpoint), images=images), 'test')
    runner = build_runner(config)

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    runner.load_or_resume()
    runner._test_loop = runner.build_test_loop(runner._test_loop)
    runner._test_loop.evaluator.process = fail
    runner._test_loop.evaluator.metrics[0].output_dir = 'somewhere'
    with pytest.raises(KeyboardInterrupt):
        runner.test()
    assert runner.model.semi_test_cfg['predict_on'] == 'teacher'
    assert runner._test_loop.evaluator.metrics[0].output_dir == 'somewhere'


def test_a_batch_of_augmented_images_is_split_where_their_size_changes():
    """With test-time augmentation, each view has a list of its images."""
    sizes = [(4, 6), (4, 6), (6, 4), (4, 6)]
    views = [[torch.full((3, *size), float(i)) for i, size in enumerate(sizes)] for _ in range(2)]
    views[1] = [view.repeat_interleave(2, 1).repeat_interleave(2, 2) for view in views[1]]
    samples = [[(view, i) for i in range(4)] for view in range(2)]
    parts = list(_of_one_size(dict(inputs=views, data_samples=samples)))
    assert [part['data_samples'] for part in parts] == [
        [[(0, 0), (0, 1)], [(1, 0), (1, 1)]],
        [[(0, 2)], [(1, 2)]],
        [[(0, 3)], [(1, 3)]],
    ]
    for part in parts:
        for inputs, of in zip(part['inputs'], part['data_samples'], strict=True):
            assert [int(image.mean()) for image in inputs] == [i for _, i in of]
            assert len({image.shape for image in inputs}) == 1
