"""Single images under a batch normalization of single pixels are refused before the training."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmseg.registry import MODELS
from tiny import build_plain, collated_batch, tiny_segmentor

from mmseg_semi.datasets import LabeledUnlabeledDataset, LabeledUnlabeledSampler
from mmseg_semi.engine.startup.forwards import check_single_images
from mmseg_semi.models.segmentors.networks import dropout_rates

EVAL = {'label_mode': 'eval'}
#: Method, settings, labeled and unlabeled images of a process, and whether a network sees one alone.
RUNS = [
    ('IMAS', {}, 1, 1, False),
    ('IMAS', {'joint_forward': False}, 1, 2, True),
    ('IMAS', {'joint_forward': False}, 2, 1, True),
    ('IMAS', {'joint_forward': False}, 2, 2, False),
    ('IMAS', {'unlabeled_start': 3}, 1, 2, True),
    ('MeanTeacher', {}, 1, 1, False),
    ('MeanTeacher', {'joint_forward': False}, 1, 2, True),
    ('CutMixSeg', {}, 1, 1, False),
    ('FixMatch', {}, 1, 1, True),
    ('FixMatch', {}, 1, 2, False),
    ('FixMatch', EVAL, 1, 2, True),
    ('FixMatch', {'joint_forward': True}, 1, 1, False),
    ('UniMatch', {}, 1, 1, False),
    ('UniMatch', EVAL, 1, 1, False),
    ('PrevMatch', {}, 1, 1, False),
    ('CorrMatch', {}, 2, 1, True),
    ('CorrMatch', {}, 1, 2, False),
    ('UniMatchV2', {}, 1, 1, True),
    ('UniMatchV2', {}, 2, 1, False),
    ('UniMatchV2', {'joint_forward': True}, 1, 1, False),
    ('CPS', {}, 2, 2, True),
    ('CPS', {}, 2, 4, False),
    ('CPS', {'cutmix': None}, 1, 2, True),
    ('CPS', {'cutmix': None}, 2, 2, False),
    ('CPS', {'joint_forward': True}, 1, 2, False),
    ('GPS', {'cutmix': None}, 2, 1, True),
    ('GPS', {'cutmix': None, 'joint_forward': True}, 1, 1, False),
    ('GPS', {'cutmix': None, 'joint_forward': True, 'fps': False}, 1, 1, True),
    ('GPS', {'cutmix': None}, 2, 2, False),
    ('ESL', {}, 1, 1, False),
    ('U2PL', {}, 1, 1, False),
    ('DeS4', {}, 1, 1, True),
    ('DeS4', {'decoupled_training': False, 'pixel_reweighting': False}, 1, 1, False),
]


def pooling(norm='BN'):
    """A network whose head pools to single pixels."""
    segmentor = tiny_segmentor(norm)
    segmentor['data_preprocessor']['size'] = (32, 32)
    head = segmentor['decode_head']
    del head['num_convs'], head['concat_input']
    head.update(type='ASPPHead', dilations=(1,))
    return segmentor


def runner_of(model, labeled, unlabeled):
    pair = LabeledUnlabeledDataset.__new__(LabeledUnlabeledDataset)
    pair.num_labeled, pair.num_unlabeled = 9, 9
    sampler = LabeledUnlabeledSampler(pair, labeled=labeled, unlabeled=unlabeled, seed=0)
    loader = SimpleNamespace(sampler=sampler, batch_size=labeled + unlabeled)
    return SimpleNamespace(model=model, train_dataloader=loader)


def build(method, settings, segmentor):
    from tiny_run import METHODS

    own = METHODS[method][0] if method in ('ESL', 'U2PL') else {}
    own = {key: value for key, value in own.items() if key != 'unlabeled_start'}
    config = {'type': method, 'segmentor': segmentor, 'semi_train_cfg': {**own, **settings}}
    return MODELS.build(config)


@pytest.mark.parametrize(('method', 'settings', 'labeled', 'unlabeled', 'alone'), RUNS)
def test_single_images_are_refused_where_the_step_would_fail(
    method, settings, labeled, unlabeled, alone
):
    model = build(method, settings, pooling())
    model.init_weights()
    model.train()
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    runner = runner_of(model, labeled, unlabeled)
    if alone:
        with pytest.raises(
            ValueError, match=r'decode_head\.image_pool\.1\.bn, a batch norm'
        ) as error:
            check_single_images(runner)
        assert f'labeled={labeled} and unlabeled={unlabeled} images' in str(error.value)
        assert 'sampler.labeled and unlabeled to at least 2' in str(error.value)
    else:
        check_single_images(runner)
    assert modes == [module.training for module in model.modules()]
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    # What the check foretells happens, and nothing else.
    if 'class_counts' in ' '.join(before):
        model.equalizer.class_counts.fill_(1)
    data = model.data_preprocessor(collated_batch(labeled, unlabeled), True)
    if alone:
        with pytest.raises(
            ValueError, match='1 image on a process gives batch normalization only one'
        ):
            model.loss(**data)
    else:
        assert 'loss' in ' '.join(model.loss(**data))


@pytest.mark.parametrize('method', ['IMAS', 'CPS'])
def test_single_images_are_fine_without_pooling_or_batch_normalization(method):
    for segmentor in (tiny_segmentor('BN'), pooling('GN')):
        settings = {'joint_forward': False} if method == 'IMAS' else {'cutmix': None}
        check_single_images(runner_of(build(method, settings, segmentor), 1, 1))


@pytest.mark.parametrize('batch_size', [1, 2])
def test_plain_networks_are_checked_too(batch_size):
    segmentor = pooling()
    segmentor['data_preprocessor']['type'] = 'SegDataPreProcessor'
    model = MODELS.build(segmentor)
    loader = SimpleNamespace(batch_size=batch_size)
    runner = SimpleNamespace(model=model, train_dataloader=loader)
    if batch_size == 2:
        check_single_images(runner)
        return
    with pytest.raises(ValueError, match=r'Set train_dataloader\.batch_size to at least 2'):
        check_single_images(runner)


# ------------------------------------------------------------------ dropout of networks that label


@pytest.mark.parametrize(
    ('method', 'settings', 'names'),
    [
        ('CPS', {}, 'student1, student2'),
        ('GPS', {}, 'student1, student2, teacher'),
        ('FixMatch', {}, 'student'),
        ('FixMatch', EVAL, None),
        ('UniMatch', {}, 'student'),
        ('UniMatch', EVAL, None),
        ('PrevMatch', {}, 'student'),
        ('CorrMatch', {}, 'student'),
        ('UniMatchV2', {}, None),
        ('IMAS', {}, None),
        ('DeS4', {}, None),
    ],
)
def test_dropout_of_networks_that_label_in_train_mode_is_named(method, settings, names, capsys):
    model = build(method, settings, tiny_segmentor(dropout_ratio=0.25))
    model.check_start()
    said = capsys.readouterr().out
    if names is None:
        assert 'label in train mode' not in said
        return
    assert f'label in train mode ({names}), in which decode_head.dropout drops 0.25' in said
    assert ("semi_train_cfg.label_mode='eval'" in said) == (
        method in ('FixMatch', 'PrevMatch', 'UniMatch')
    )


def test_dropout_of_what_a_method_adds_is_not_named(capsys):
    model = build('CorrMatch', {'projector_dropout': 0.1}, tiny_segmentor())
    assert model.student.decode_head.correlator.dropout.p == 0.1
    model.check_start()
    assert 'label in train mode' not in capsys.readouterr().out


def test_dropped_paths_of_encoders_count_as_dropout():
    network = build_plain()
    network.backbone.add_module('path', MODELS.build({'type': 'DropPath', 'drop_prob': 0.1}))
    assert dropout_rates(network)['backbone.path'] == 0.1
