"""Several validation sets in one run: each under its own name, and all of them together."""

import copy
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.fileio import load
from mmseg.registry import MODELS
from tiny_run import NUM_VAL, build_runner, tiny_config, write_images

from mmseg_semi.cli import check_loaders

TOOL = Path(__file__).parents[3] / 'tools' / 'test.py'


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


def night_of(day, number=3):
    """Other images of the same stream as a set of its own."""
    return {**copy.deepcopy(day), 'start': 100, 'num_images': number}


def several(config, form, names=('day', 'night')):
    """Two sets in the place of the one of val and test, as a list of loaders or joined in one loader."""
    loader = config.test_dataloader.to_dict()
    day = loader['dataset']
    datasets = [day, night_of(day)]
    for stage in ('val', 'test'):
        config[f'{stage}_cfg'].names = names and list(names)
    if form == 'list':
        config.test_dataloader = [{**loader, 'dataset': dataset} for dataset in datasets]
    else:
        config.test_dataloader = {
            **loader,
            'dataset': {
                'type': 'ConcatDataset',
                'datasets': datasets,
            },
        }
    config.val_dataloader = config.test_dataloader
    return config


def evaluate(config):
    for part in ('dataloader', 'cfg', 'evaluator'):
        for stage in ('train', 'val'):
            config.pop(f'{stage}_{part}', None)
    config.optim_wrapper = config.param_scheduler = None
    runner = build_runner(config)
    return runner.test(), runner


def joined(config):
    loader = config.test_dataloader.to_dict()
    day = loader['dataset']
    loader['dataset'] = {'type': 'ConcatDataset', 'datasets': [day, night_of(day)]}
    config.test_dataloader = loader
    return config


@pytest.mark.parametrize('form', ['list', 'concat'])
def test_each_set_and_all_are_evaluated(form, checkpoint, tmp_path):
    config = tiny_config(tmp_path, load_from=str(checkpoint))
    metrics, runner = evaluate(several(config, form))
    assert runner.test_loop.prefixes == [
        f'{name}{network}/' for name in ('', 'day/', 'night/') for network in ('student', 'teacher')
    ]
    assert len(runner.test_dataloader) == NUM_VAL // 2 + 2  # batches of two, of 4 and of 3 images
    assert len(runner.test_dataloader.dataset) == NUM_VAL + 3
    day, _ = evaluate(tiny_config(tmp_path, load_from=str(checkpoint)))
    night = tiny_config(tmp_path, load_from=str(checkpoint))
    night.test_dataloader.dataset = night_of(night.test_dataloader.dataset)
    night, _ = evaluate(night)
    # MMEngine's loop evaluates joined datasets as one.
    for network in ('student', 'teacher'):
        plain = joined(tiny_config(tmp_path, None))
        weights = torch.load(checkpoint)['state_dict']
        start = f'{network}.'
        plain.load_from = str(tmp_path / f'{network}.pth')
        state = {k[len(start) :]: v for k, v in weights.items() if k.startswith(start)}
        torch.save({'state_dict': state, 'meta': {}}, plain.load_from)
        both, _ = evaluate(plain)
        assert {key: metrics[f'{network}/{key}'] for key in both} == both
        for key in both:
            name = f'{network}/{key}'
            assert metrics[f'day/{name}'] == day[name]
            assert metrics[f'night/{name}'] == night[name]
    assert metrics['day/teacher/mIoU'] != metrics['night/teacher/mIoU']
    assert len(metrics) == 3 * 2 * len(both)


@pytest.mark.parametrize('form', ['list', 'concat'])
def test_a_plain_model_has_no_names_of_networks(form, tmp_path):
    config = tiny_config(tmp_path, None, test_cfg__type='TeacherStudentTestLoop')
    metrics, runner = evaluate(several(config, form))
    assert {'mIoU', 'day/mIoU', 'night/mIoU'} <= metrics.keys()
    assert runner.test_loop.prefixes == ['', 'day/', 'night/']


@pytest.mark.parametrize('method', ['IMAS', None])
def test_the_best_checkpoint_by_one_of_several_sets(method, tmp_path):
    key = 'night/teacher/mIoU' if method else 'night/mIoU'
    config = tiny_config(
        tmp_path,
        method,
        train_cfg__max_iters=4,
        train_cfg__val_interval=2,
        val_cfg__type='TeacherStudentValLoop',
        default_hooks__checkpoint__save_best=key,
    )
    runner = build_runner(several(config, 'list'))
    runner.train()
    (best,) = tmp_path.glob(f'best_{key.replace("/", "_")}_iter_*.pth')
    assert best.is_file()
    assert np.isfinite(runner.message_hub.get_info('best_score'))
    assert runner.message_hub.get_scalar(f'val/{key}').current() > 0


def test_drawn_sets_without_names_are_numbered(tmp_path):
    _, runner = evaluate(several(tiny_config(tmp_path), 'list', None))
    assert [part.name for part in runner.test_loop.sets] == ['set1', 'set2']


def test_lists_name_sets_of_files(tmp_path):
    images = write_images(tmp_path / 'images')
    (images / 'other.txt').write_text((images / 'val.txt').read_text())
    config = tiny_config(tmp_path, images=images)
    loader = config.test_dataloader.to_dict()
    other = {**loader, 'dataset': {**loader['dataset'], 'ann_file': 'other.txt'}}
    config.test_dataloader = [loader, other]
    config.test_evaluator.output_dir = str(tmp_path / 'maps')
    config.test_evaluator = [
        config.test_evaluator,
        {'type': 'DumpResults', 'out_file_path': str(tmp_path / 'results.pkl')},
    ]
    metrics, runner = evaluate(config)
    assert [part.name for part in runner.test_loop.sets] == ['val', 'other']
    assert metrics['val/teacher/mIoU'] == metrics['other/teacher/mIoU']
    # Both sets have the same names of files.
    for name in ('val', 'other'):
        assert len(list((tmp_path / 'maps' / name).glob('*.png'))) == NUM_VAL
    assert len(load(tmp_path / 'results.pkl')) == 2 * NUM_VAL


def test_test_time_augmentation_of_several_sets(checkpoint, tmp_path):
    images = write_images(tmp_path / 'images')
    config = tiny_config(tmp_path, images=images, test_cfg__names=['day', 'night'])
    day = config.test_dataloader.to_dict()
    night = {'type': 'RepeatDataset', 'times': 2, 'dataset': copy.deepcopy(day['dataset'])}
    config.test_dataloader = [day, {**day, 'dataset': night}]
    path = tmp_path / 'config.py'
    config.dump(str(path))
    spec = importlib.util.spec_from_file_location('test_tool', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    arguments = tool.parse_args([str(path), str(checkpoint), '--tta'])
    augmented = tool.testing_config(arguments)
    augmented.work_dir = str(tmp_path)
    metrics, runner = evaluate(augmented)
    assert {'day/teacher/mIoU', 'night/student/mIoU'} <= metrics.keys()
    transforms = runner.test_loop.sets[1].loader.dataset.dataset.pipeline.transforms
    assert type(transforms[1]).__name__ == 'TestTimeAug'
    assert len(runner.test_loop.sets[1].loader.dataset) == 2 * NUM_VAL


def test_sets_of_one_name_or_of_other_classes_are_refused(tmp_path):
    for names in (['day', 'day'], ['day']):
        with pytest.raises(ValueError, match=r'test_cfg.names=.* must have 2 different'):
            evaluate(several(tiny_config(tmp_path), 'list', names))
    config = several(tiny_config(tmp_path), 'list')
    config.test_dataloader[1]['dataset']['metainfo'] = {'classes': ['disk', 'square']}
    with pytest.raises(ValueError, match=r'test_dataloader\[1\].dataset has the classes'):
        evaluate(config)


def test_a_training_image_in_the_second_set_is_refused(tmp_path):
    images = write_images(tmp_path / 'images')
    config = tiny_config(tmp_path, images=images)
    loader = config.val_dataloader.to_dict()
    leak = {**loader, 'dataset': {**loader['dataset'], 'ann_file': 'labeled.txt'}}
    config.val_dataloader = [loader, leak]
    with pytest.raises(ValueError, match='5 labeled images are also validation images'):
        build_runner(config).train()
    (images / 'ann_dir' / f'{(images / "val.txt").read_text().split()[0]}.png').unlink()
    with pytest.raises(FileNotFoundError, match=re.escape('val_dataloader[0].dataset')):
        build_runner(config).train()


def test_a_list_for_a_loop_of_mmengine_is_refused(tmp_path):
    config = several(tiny_config(tmp_path, None), 'list')
    with pytest.raises(ValueError, match=r"val_cfg=dict\(type='TeacherStudentValLoop'\)"):
        check_loaders(config)
    check_loaders(several(tiny_config(tmp_path), 'list'))
