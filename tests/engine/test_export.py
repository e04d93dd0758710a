"""Configs and weights of the plain network inside a method."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import DATASETS, MODELS
from tiny_run import tiny_config

from mmseg_semi import bases
from mmseg_semi.datasets.shapes import CLASSES, PALETTE, write_shapes
from mmseg_semi.engine.export import own_modules, own_parts, plain_config, plain_state_dict

META = {'classes': CLASSES, 'palette': PALETTE}


def test_weights_of_one_network_have_its_own_keys():
    model = MODELS.build(tiny_config('unused').model)
    model.init_weights()
    with torch.no_grad():
        model.teacher.decode_head.conv_seg.bias.fill_(2)
    plain = MODELS.build(tiny_config('unused', method=None).model)
    for name in ('student', 'teacher'):
        weights = plain_state_dict(model.state_dict(), name)
        plain.load_state_dict(weights, strict=True)
        assert torch.equal(
            plain.decode_head.conv_seg.bias, getattr(model, name).decode_head.conv_seg.bias
        )


def test_weights_of_a_plain_network_stay():
    state_dict = {'backbone.x': torch.ones(1)}
    assert plain_state_dict(state_dict, None) == state_dict


def test_missing_network_is_said():
    with pytest.raises(
        ValueError, match=r"no network 'teacher', its weights belong to \['backbone'\]"
    ):
        plain_state_dict({'backbone.x': torch.ones(1)}, 'teacher')


@pytest.mark.parametrize('method', ['IMAS', None])
def test_nothing_of_the_package_is_left(method):
    config = tiny_config('work', method)
    before = copy.deepcopy(config._cfg_dict.to_dict())
    plain = plain_config(config, META)
    assert config._cfg_dict.to_dict() == before
    assert plain.model.type == 'EncoderDecoder'
    assert plain.model.data_preprocessor.type == 'SegDataPreProcessor'
    assert plain.model.decode_head.loss_decode == {'type': 'CrossEntropyLoss', 'loss_weight': 1.0}
    assert own_modules(plain.model) == []
    assert 'mmseg_semi' not in plain.text
    for name in ('Semi', 'Shapes', 'TeacherStudent', 'Atomic', 'custom_imports', 'train_'):
        assert name not in plain.pretty_text.replace('train_cfg', '')
    assert (plain.val_cfg.type, plain.test_cfg.type) == ('ValLoop', 'TestLoop')


def test_other_channels_than_1_or_3_need_the_package():
    config = tiny_config('work')
    config.model.segmentor.backbone.in_channels = 4
    config.model.segmentor.data_preprocessor.update(mean=[1.0, 2.0, 3.0, 4.0], std=[1.0] * 4)
    plain = plain_config(config, META)
    assert plain.custom_imports.imports == ['mmseg_semi']
    model = MODELS.build(plain.model).eval()
    batch = dict(inputs=[torch.full((4, 8, 8), 5, dtype=torch.uint8)])
    images = model.data_preprocessor(batch)['inputs']
    assert images[0, :, 0, 0].tolist() == [4.0, 3.0, 2.0, 1.0]
    assert model(images, mode='tensor').shape[:2] == (1, len(CLASSES))


@pytest.mark.parametrize('deep', [False, True])
def test_esl_needs_the_package_for_its_own_head_alone(deep):
    head = {'channels': 8} if deep else None
    config = tiny_config('work', 'ESL', model__semi_train_cfg__segmentation_head=head)
    before = copy.deepcopy(config._cfg_dict.to_dict())
    plain = plain_config(config, META)
    assert config._cfg_dict.to_dict() == before
    assert own_modules(plain.model) == (['DeepClassifierHead'] if deep else [])
    assert plain.get('custom_imports', {}).get('imports') == (['mmseg_semi'] if deep else None)
    assert 'PixelCrossEntropyLoss' not in plain.pretty_text
    model = MODELS.build(config.model).eval()
    model.init_weights()
    weights = plain_state_dict(model.state_dict(), 'student', model.training_only)
    assert not any('projector' in key for key in weights)
    network = MODELS.build(plain.model).eval()
    network.load_state_dict(weights, strict=True)
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(network._forward(image), model.student._forward(image))
    # And back: what was exported is where another training may start.
    again = MODELS.build(config.model)
    again.load_state_dict(weights, strict=False)
    for name in ('student', 'teacher'):
        assert torch.equal(getattr(again, name).eval()._forward(image), network._forward(image))


def test_u2pl_leaves_a_plain_network():
    config = tiny_config('work', 'U2PL')
    plain = plain_config(config, META)
    assert own_modules(plain.model) == []
    assert 'mmseg_semi' not in plain.text
    model = MODELS.build(config.model).eval()
    model.init_weights()
    weights = plain_state_dict(model.state_dict(), 'teacher', model.training_only)
    network = MODELS.build(plain.model).eval()
    network.load_state_dict(weights, strict=True)
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(network._forward(image), model.teacher._forward(image))
    # And back: what was exported is where another training may start.
    again = MODELS.build(config.model)
    again.load_state_dict(weights, strict=False)
    assert torch.equal(again.student.eval()._forward(image), network._forward(image))


@pytest.mark.parametrize('shared', [True, False])
def test_des4_takes_its_prototypes_along(shared):
    config = tiny_config('work', 'DeS4', model__semi_train_cfg__shared_head=shared)
    plain = plain_config(config, META)
    assert own_modules(plain.model) == ['PrototypeHead']
    assert plain.custom_imports.imports == ['mmseg_semi']
    assert plain.model.decode_head.temperature == 0.1
    model = MODELS.build(config.model).eval()
    model.init_weights()
    for name in ('student', 'teacher'):
        classifier = getattr(model, name).decode_head.conv_seg
        present = torch.arange(len(classifier.seen)) != 2
        classifier.start(torch.randn_like(classifier.vectors), present)
    image = torch.randn(1, 3, 32, 32)
    for name in ('student', 'teacher'):
        shared_modules = type(model).shared_modules
        weights = plain_state_dict(model.state_dict(), name, (), shared_modules)
        assert [key for key in weights if 'vectors' in key] == ['decode_head.conv_seg.vectors']
        network = MODELS.build(plain.model).eval()
        network.load_state_dict(weights, strict=True)
        expected = getattr(model, name)._forward(image)
        assert torch.equal(network._forward(image), expected)
        assert (expected.softmax(dim=1)[:, 2] == 0).all()


@pytest.mark.parametrize(
    ('name', 'imports'),
    [
        ('segformer_mit-b1_1xb8-20k_own-512x512', None),
        ('upernet_convnext-t_1xb8-20k_own-512x512', ['mmpretrain.models']),
        ('linear_dinov2-s14_1xb8-20k_own-518x518', ['mmpretrain.models']),
        ('dpt_dinov2-s14_1xb8-20k_own-518x518', ['mmseg_semi', 'mmpretrain.models']),
    ],
)
def test_other_networks_import_what_they_need(name, imports):
    config = Config.fromfile(*bases(f'mmseg_semi::imas/imas_{name}.py'))
    plain = plain_config(config, META)
    assert plain.get('custom_imports', {}).get('imports') == imports
    assert plain.model.backbone.get('init_cfg') is None
    assert (plain.model.get('neck') or {}).get('init_cfg') is None
    # The padding to whole patches is the preprocessor's, so it goes along.
    padding = {'size_divisor': 14} if 'dinov2' in name else None
    assert plain.model.data_preprocessor.get('test_cfg') == padding


def test_drawn_images_become_the_files_of_write_shapes(tmp_path):
    config = tiny_config('work')
    plain = plain_config(config, META)
    dataset = plain.test_dataloader.dataset
    start, number = config.test_dataloader.dataset.start, config.test_dataloader.dataset.num_images
    write_shapes(tmp_path, number, image_size=(32, 32), start=start)
    read = DATASETS.build({**dataset, 'data_root': str(tmp_path)})
    drawn = DATASETS.build(config.test_dataloader.dataset)
    assert read.metainfo['classes'] == drawn.metainfo['classes']
    for index in range(number):
        assert torch.equal(read[index]['inputs'], drawn[index]['inputs'])
        labels = [data[index]['data_samples'].gt_sem_seg.data for data in (read, drawn)]
        assert torch.equal(*labels)
    assert [t.type for t in plain.tta_pipeline] == [
        'LoadImageFromFile',
        'LoadAnnotations',
        'TestTimeAug',
    ]


def test_datasets_of_the_package_become_stock_ones_with_their_suffixes():
    config = tiny_config('work')
    pipeline = [{'type': 'LoadImageFromFile'}, {'type': 'PackSegInputs'}]
    paths = {'data_root': 'data/camvid', 'ann_file': 'test.txt', 'data_prefix': {'img_path': 'i'}}
    config.test_dataloader.dataset = {'type': 'CamVidDataset', 'pipeline': pipeline, **paths}
    config.val_dataloader.dataset = {
        'type': 'CheckedDataset',
        'of': 'CityscapesDataset',
        'data_root': 'data/cityscapes',
        'pipeline': pipeline,
    }
    plain = plain_config(config, META)
    dataset = plain.test_dataloader.dataset
    assert (dataset.type, dataset.img_suffix, dataset.seg_map_suffix) == (
        'BaseSegDataset',
        '.jpg',
        '.png',
    )
    assert {key: dataset[key] for key in paths} == paths
    assert dataset.metainfo == {'classes': CLASSES, 'palette': PALETTE}
    assert plain.val_dataloader.dataset == {
        'type': 'CityscapesDataset',
        'data_root': 'data/cityscapes',
        'pipeline': pipeline,
    }


def own_images(**changes):
    """A validation set of the configs for one's own images."""
    loaders = [
        {'type': 'LoadImageFromFile'},
        {'type': 'LoadAnnotations'},
        {'type': 'PackSegInputs'},
    ]
    paths = {'data_root': 'data/own', 'data_prefix': {'img_path': 'i', 'seg_map_path': 'a'}}
    return {
        'type': 'CheckedDataset',
        'of': 'BaseSegDataset',
        **paths,
        'pipeline': loaders,
        **changes,
    }


@pytest.mark.parametrize('of', [{}, {'of': 'BaseSegDataset'}])
def test_values_of_masks_stay_mapped(of):
    """Without the map, stock MMSegmentation would take the object for void, and report an mIoU of 100."""
    config = tiny_config('work')
    dataset = {**own_images(type='MappedSegDataset', label_map={255: 1})}
    del dataset['of']
    config.test_dataloader.dataset = {**dataset, **of}
    plain = plain_config(config, META)
    assert plain.test_dataloader.dataset == {**dataset, **of}
    assert own_parts(plain) == ['MappedSegDataset']
    assert plain.custom_imports.imports == ['mmseg_semi']


@pytest.mark.parametrize(('view', 'parts'), [('displayed', []), ('stored', ['stored'])])
def test_view_of_masks_is_that_of_the_stock_loader_or_needs_the_package(view, parts):
    config = tiny_config('work')
    config.test_dataloader.dataset = own_images()
    config.test_dataloader.dataset.pipeline[1].drawn_on = view
    plain = plain_config(config, META)
    assert plain.test_dataloader.dataset.type == 'BaseSegDataset'
    expected = {'type': 'LoadAnnotations', **({'drawn_on': view} if parts else {})}
    assert plain.test_dataloader.dataset.pipeline[1] == expected
    assert own_parts(plain) == [f'LoadAnnotations(drawn_on={part!r})' for part in parts]
    assert ('custom_imports' in plain) == bool(parts)


def test_imports_of_others_stay_and_those_of_the_package_where_it_is_needed():
    config = tiny_config('work')
    config.custom_imports.imports = ['mmpretrain.models', 'mmseg_semi', 'mmseg_semi.models']
    assert plain_config(config, META).custom_imports.imports == ['mmpretrain.models']
    config.model.segmentor.backbone.type = 'CeilPoolResNetV1c'
    plain = plain_config(config, META)
    assert own_modules(plain.model) == ['CeilPoolResNetV1c']
    assert 'mmseg_semi' in plain.custom_imports.imports
    config.pop('custom_imports')
    assert plain_config(config, META).custom_imports.imports == ['mmseg_semi']


def test_weights_are_not_downloaded_again_and_hooks_may_be_switched_off():
    config = tiny_config('work')
    config.model.segmentor.update(pretrained='open-mmlab://resnet18_v1c')
    config.model.data_preprocessor = dict(
        config.model.segmentor.pop('data_preprocessor'),
        type='MultiBranchDataPreprocessor',
        non_blocking=False,
    )
    config.default_hooks.logger = None
    plain = plain_config(config, META)
    assert plain.model.pretrained is None
    assert plain.model.backbone.get('init_cfg') is None
    assert 'non_blocking' not in plain.model.data_preprocessor
    assert plain.default_hooks.logger is None
    MODELS.build(plain.model)


@pytest.mark.parametrize('of', ['ShapesDataset', 'BaseSegDataset'])
def test_transform_of_the_package_in_the_test_pipeline_is_refused(of):
    config = tiny_config('work')
    if of == 'BaseSegDataset':
        config.test_dataloader.dataset = own_images()
    config.test_dataloader.dataset.pipeline.insert(1, {'type': 'CheckLabels'})
    with pytest.raises(ValueError, match='the test pipeline has CheckLabels'):
        plain_config(config, META)


def test_a_center_crop_of_the_evaluation_needs_the_package():
    config = tiny_config('work')
    config.test_dataloader.dataset = own_images()
    crop = {'type': 'EvaluationCenterCrop', 'crop_size': (8, 8)}
    config.test_dataloader.dataset.pipeline.insert(1, crop)
    plain = plain_config(config, META)
    assert plain.test_dataloader.dataset.pipeline[1] == crop
    assert plain.test_dataloader.batch_size == 1
    assert own_parts(plain) == ['EvaluationCenterCrop']
    assert plain.custom_imports.imports == ['mmseg_semi']


def test_parts_without_a_setting_for_weights_do_not_get_one():
    """MMSegmentation's MultiLevelNeck has no init_cfg, and a user's encoder may have none."""
    config = tiny_config('work')
    network = config.model.segmentor
    network.neck = dict(type='MultiLevelNeck', in_channels=[4, 8], out_channels=8)
    network.backbone.pop('init_cfg', None)
    network.pop('pretrained', None)
    plain = plain_config(config, META).model
    assert not {'init_cfg', 'pretrained'} & {*plain.neck, *plain.backbone, *plain}
    network.backbone.init_cfg = dict(type='Pretrained', checkpoint='x.pth')
    network.pretrained = 'y.pth'
    plain = plain_config(config, META).model
    assert plain.backbone.init_cfg is None
    assert plain.pretrained is None


def test_config_survives_its_file(tmp_path):
    plain = plain_config(tiny_config('work'), META)
    plain.dump(str(tmp_path / 'config.py'))
    assert Config.fromfile(tmp_path / 'config.py')._cfg_dict == plain._cfg_dict


@pytest.mark.parametrize(
    ('meta', 'says'),
    [
        ({'classes': {'a': 1}}, r"dataset_meta\.classes={'a': 1} are not a list of names"),
        ({'classes': ('a', 1)}, 'are not a list of names'),
        ({'palette': {'x': 'y'}}, r"dataset_meta\.palette={'x': 'y'} is not a list of colors"),
        ({'palette': [[0, 0]]}, 'is not a list of colors'),
        ({'palette': 3}, 'is not a list of colors'),
    ],
)
def test_a_checkpoint_writes_no_program_into_a_config(meta, says):
    """MMEngine writes keys of a dict into a config as they are, and reading a config runs it."""
    with pytest.raises(ValueError, match=says):
        plain_config(tiny_config('work'), {**META, **meta})
    code = {"x': __import__('os').system('false'), 'y": 1}
    with pytest.raises(ValueError, match='is not a list of colors'):
        plain_config(tiny_config('work'), {**META, 'palette': code})
