import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config, ConfigDict
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmseg.models.decode_heads import STDCHead
from mmseg.registry import MODELS
from networks import narrow
from tiny import build_plain, tiny_segmentor

from mmseg_semi.datasets import (
    LabeledUnlabeledDataset,
    LabeledUnlabeledSampler,
    SelfTrainingDataset,
    ShuffledSampler,
    fingerprints,
)
from mmseg_semi.datasets.fingerprints import describe
from mmseg_semi.engine import (
    AtomicCheckpointHook,
    MeanTeacherHook,
    PrototypeInitHook,
    ReliableSelectionHook,
    StartupCheckHook,
)
from mmseg_semi.engine.hooks import startup_check_hook
from mmseg_semi.models import ESL, IMAS, DeS4, SemiSegmentor


class Data:
    """A mmseg dataset as far as the hook reads it."""

    def __init__(self, paths, num_classes=4):
        self.metainfo = {'classes': tuple(str(index) for index in range(num_classes))}
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def get_data_info(self, index):
        return {'img_path': self.paths[index]}


class Loader(SimpleNamespace):
    """A loader as far as the hook reads it."""

    def __len__(self):
        return 4


def make_pair(labeled, unlabeled, num_classes=4):
    """A LabeledUnlabeledDataset of paths, without files."""
    pair = LabeledUnlabeledDataset.__new__(LabeledUnlabeledDataset)
    pair.labeled, pair.unlabeled = Data(labeled, num_classes), Data(unlabeled, num_classes)
    pair.num_labeled, pair.num_unlabeled = len(labeled), len(unlabeled)
    return pair


def make_runner(
    labeled=('l0.png', 'l1.png'),
    unlabeled=('u0.png', 'u1.png', 'u2.png'),
    val=('v0.png',),
    num_classes=4,
    batch_size=4,
    endless=True,
    loop=IterBasedTrainLoop,
    hooks=None,
    model='IMAS',
    settings=None,
    streams=1,
):
    if model == 'EncoderDecoder':
        network = build_plain()
    else:
        config = {'type': model, 'segmentor': tiny_segmentor(), 'semi_train_cfg': settings}
        network = MODELS.build(config)
    pair = make_pair(list(labeled), list(unlabeled), num_classes)
    sampler = LabeledUnlabeledSampler(
        pair, labeled=2, unlabeled=2, seed=0, endless=endless, unlabeled_streams=streams
    )
    train_loop = loop.__new__(loop)
    train_loop._max_iters = 10
    loader = SimpleNamespace(dataset=Data(list(val), num_classes))
    return SimpleNamespace(
        cfg={},
        model=network,
        train_dataloader=Loader(dataset=pair, sampler=sampler, batch_size=batch_size),
        val_dataloader=loader,
        val_loop=SimpleNamespace(dataloader=loader, evaluator=SimpleNamespace(metrics=[])),
        train_loop=train_loop,
        hooks=[MeanTeacherHook(), AtomicCheckpointHook()] if hooks is None else hooks,
        logger=logging.getLogger('test_startup_check'),
        optim_wrapper=SimpleNamespace(_accumulative_counts=2),
        iter=0,
        max_iters=10,
        param_schedulers=None,
        message_hub=SimpleNamespace(update_info=lambda *args: None),
        work_dir='nowhere',
        _resume=False,
        _load_from=None,
    )


@pytest.mark.parametrize(
    ('resume', 'there', 'told'),
    [
        (False, False, None),
        (
            False,
            True,
            'has checkpoints of an earlier training, which this training replaces. Set resume',
        ),
        (True, True, None),
        (True, False, 'has no checkpoint to resume. The training starts from the beginning.'),
    ],
)
def test_folder_of_another_training_is_told(tmp_path, caplog, resume, there, told):
    runner = make_runner()
    runner.work_dir, runner._resume = str(tmp_path), resume
    if there:
        (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_5.pth'))
    StartupCheckHook().before_train(runner)
    said = [record.message for record in caplog.records if str(tmp_path) in record.message]
    assert len(said) == (told is not None)
    assert all(told in line for line in said)


def test_report_says_what_is_trained_on_what(caplog):
    with caplog.at_level(logging.INFO):
        StartupCheckHook().before_train(make_runner())
    text = caplog.text
    assert '2 labeled and 3 unlabeled images' in text
    assert 'an effective batch of 4+4' in text
    assert '1 iterations per pass over the unlabeled list (1 optimizer steps per epoch), ' in text
    assert 'predicts with the teacher' in text
    assert 'untriggered=official' in text


def test_a_head_of_boundaries_has_classes_of_its_own():
    runner = make_runner(model='EncoderDecoder')
    head = dict(in_channels=8, channels=8, num_classes=2, boundary_threshold=0.1, in_index=0)
    runner.model.auxiliary_head = STDCHead(**head)
    StartupCheckHook()._check_classes(runner, runner.model, runner.train_dataloader.dataset)


def test_pairs_have_two_streams_and_passes_of_what_is_learned(caplog):
    runner = make_runner(model='CPS', hooks=[], streams=2)
    with caplog.at_level(logging.INFO, runner.logger.name):
        StartupCheckHook().before_train(runner)
    assert (
        ', of which half are learned and half pasted; 3 iterations per pass over the unlabeled list '
        '(1 optimizer steps per epoch), 3.3 passes' in caplog.text
    )


@pytest.mark.parametrize(
    ('model', 'settings', 'streams', 'remedy'),
    [('CPS', None, 1, 2), ('CPS', {'cutmix': 'in_batch'}, 2, 1), ('IMAS', None, 2, 1)],
)
def test_streams_that_do_not_fit_the_method_are_refused(model, settings, streams, remedy):
    hooks = [MeanTeacherHook()]
    runner = make_runner(model=model, settings=settings, hooks=hooks, streams=streams)
    with pytest.raises(
        ValueError, match=f'Set train_dataloader.sampler.unlabeled_streams={remedy}'
    ):
        StartupCheckHook().before_train(runner)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'num_classes': 5}, r'num_classes=4 but the dataset of train_dataloader has 5 classes'),
        (
            {'batch_size': 8},
            r'batch_size=8 but the sampler makes batches of labeled=2 \+ unlabeled=2',
        ),
        ({'hooks': []}, r"IMAS needs MeanTeacherHook. Add dict\(type='MeanTeacherHook'\)"),
        ({'loop': EpochBasedTrainLoop}, 'Set endless=False'),
        ({'endless': False}, 'Set endless=True'),
        (
            {'val': ('v0.png', 'u1.png')},
            '1 unlabeled images are also validation images, e.g. u1.png',
        ),
        ({'val': ('l0.png',)}, '1 labeled images are also validation images'),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(settings, message):
    with pytest.raises(ValueError, match=message):
        StartupCheckHook().before_train(make_runner(**settings))


def test_average_of_all_networks_is_refused():
    runner = make_runner(hooks=[MeanTeacherHook(), AtomicCheckpointHook(), EMAHook()])
    with pytest.raises(ValueError, match='EMAHook would replace all networks of IMAS by averages'):
        StartupCheckHook().before_train(runner)
    # Without a teacher, an average of the networks is a choice.
    StartupCheckHook().before_train(make_runner(model='FixMatch', hooks=[EMAHook()]))


@pytest.mark.parametrize(
    ('top', 'inner', 'ignored'),
    [
        ({'tau': 0.7}, None, "{'tau': 0.7}"),
        ({'tau': 0.7, 'tau_end': 1}, {'tau': 0.7}, "{'tau_end': 1}"),
        ({'tau': 0.7}, {'tau': 0.7, 'cutmix': None}, None),
        ({'tau': 0.7}, {'tau': 0.6}, None),
    ],
)
def test_settings_beside_the_model_are_refused(top, inner, ignored, caplog):
    runner = make_runner()
    runner.cfg = Config({'semi_train_cfg': top, 'model': {'semi_train_cfg': inner}})
    if ignored is None:
        StartupCheckHook().before_train(runner)
        # A variable of the config, which the model has with another value.
        said = 'has tau=0.7 at the top level of the config, which has no effect, and tau=0.6 in the'
        assert (said in caplog.text) == (inner['tau'] == 0.6)
        return
    told = f'semi_train_cfg={ignored} at the top level of the config has no effect. Set model='
    with pytest.raises(ValueError, match=re.escape(told)):
        StartupCheckHook().before_train(runner)


def test_plain_training_is_checked_too():
    runner = make_runner(model='EncoderDecoder')
    runner.train_dataloader.dataset = Data(['v0.png'])
    with pytest.raises(ValueError, match='1 training images are also validation images'):
        StartupCheckHook().before_train(runner)


def test_plain_dataset_under_a_method_is_refused():
    runner = make_runner()
    runner.train_dataloader.dataset = Data(['a.png'])
    with pytest.raises(ValueError, match=r'set .* to a LabeledUnlabeledDataset'):
        StartupCheckHook().before_train(runner)


@pytest.mark.parametrize(
    ('model', 'cutmix', 'unlabeled', 'warned'),
    [
        ('IMAS', {}, 1, True),
        ('CutMixSeg', {}, 1, True),
        ('CutMixSeg', {}, 2, False),
        ('FixMatch', None, 1, False),
        ('MeanTeacher', ..., 1, False),
    ],
)
def test_single_image_that_is_pasted_into_itself_is_warned_about(
    model, cutmix, unlabeled, warned, caplog
):
    runner = make_runner(batch_size=2 + unlabeled, hooks=[MeanTeacherHook()])
    settings = {} if cutmix is ... else {'cutmix': cutmix}
    runner.model = MODELS.build(
        {'type': model, 'segmentor': tiny_segmentor(), 'semi_train_cfg': settings}
    )
    runner.train_dataloader.sampler = LabeledUnlabeledSampler(
        runner.train_dataloader.dataset, labeled=2, unlabeled=unlabeled, seed=0
    )
    with caplog.at_level(logging.WARNING):
        StartupCheckHook().before_train(runner)
    said = [r.message for r in caplog.records if 'pasted into itself' in r.message]
    assert len(said) == warned


def test_stock_checkpoint_hook_is_warned_about(caplog):
    hooks = [MeanTeacherHook(), CheckpointHook()]
    with caplog.at_level(logging.WARNING):
        StartupCheckHook().before_train(make_runner(hooks=hooks))
    assert "Use type='AtomicCheckpointHook'" in caplog.text


def test_checkpoint_within_an_accumulated_step_is_put_off(caplog):
    for interval, told in ((3, True), (4, False)):
        caplog.clear()
        hooks = [MeanTeacherHook(), AtomicCheckpointHook(interval=interval, by_epoch=False)]
        with caplog.at_level(logging.INFO):
            StartupCheckHook().before_train(make_runner(hooks=hooks))
        assert ('each is saved at the end of its step' in caplog.text) == told


# ------------------------------------------------------------------------------------ patches


def patched_runner(**preprocessor):
    """A runner whose network cuts images into patches of 14 x 14 pixels."""
    network = narrow('linear_dinov2-s14')
    network['data_preprocessor'].update(preprocessor)
    runner = make_runner(num_classes=6)
    runner.model = MODELS.build({'type': 'IMAS', 'segmentor': network})
    return runner


@pytest.mark.parametrize(
    ('preprocessor', 'said', 'remedy'),
    [
        ({'size': (512, 512)}, r'size=\(512, 512\)', r'\(518, 518\)'),
        ({'size': (480, 360)}, r'size=\(480, 360\)', r'\(476, 364\)'),
        ({'size': None}, 'size=None', r'\(518, 518\)'),
        ({'size': None, 'size_divisor': 32}, 'size_divisor=32', r'\(28, 28\)'),
    ],
)
def test_crop_that_is_no_multiple_of_the_patches_is_refused(preprocessor, said, remedy):
    runner = patched_runner(**preprocessor)
    with pytest.raises(
        ValueError, match=f'data_preprocessor.{said} is not a multiple of 14,.* such as {remedy}'
    ):
        StartupCheckHook().before_train(runner)


@pytest.mark.parametrize(
    ('kind', 'crop', 'stride', 'said'),
    [
        ('EncoderDecoder', (513, 518), (340, 340), r'test_cfg.crop_size=\(513, 518\)'),
        ('EncoderDecoder', (518, 518), (340, 340), None),
        ('SlideScoreEncoderDecoder', (518, 518), (340, 336), r'test_cfg.stride=\(340, 336\)'),
        ('SlideScoreEncoderDecoder', (518, 518), (336, 336), None),
    ],
)
def test_windows_that_cut_patches_are_refused(kind, crop, stride, said):
    test_cfg = {'mode': 'slide', 'crop_size': crop, 'stride': stride}
    network = narrow('linear_dinov2-s14', type=kind, test_cfg=ConfigDict(test_cfg))
    runner = make_runner(num_classes=6)
    runner.model = MODELS.build({'type': 'IMAS', 'segmentor': network})
    if said is None:
        return StartupCheckHook().before_train(runner)
    with pytest.raises(ValueError, match=f'{said} is not a multiple of 14,'):
        StartupCheckHook().before_train(runner)


@pytest.mark.parametrize(
    ('crop', 'stride', 'said'), [(16, (8, 8), 'crop_size=16'), ((16, 16), 8, 'stride=8')]
)
@pytest.mark.parametrize('method', ['IMAS', None])
def test_windows_are_given_by_height_and_width(crop, stride, said, method):
    segmentor = tiny_segmentor()
    segmentor['test_cfg'] = {'mode': 'slide', 'crop_size': crop, 'stride': stride}
    runner = make_runner()
    model = {'type': method, 'segmentor': segmentor} if method else segmentor
    runner.model = MODELS.build(model)
    with pytest.raises(
        ValueError, match=rf"test_cfg\.{said} must be \(height, width\) with mode='slide'"
    ):
        StartupCheckHook().before_train(runner)


@pytest.mark.parametrize(
    ('test_cfg', 'warned'),
    [
        (None, True),
        ({'size_divisor': 32}, True),
        ({'size_divisor': 28}, False),
        ({'size': (56, 70)}, False),
    ],
)
def test_validation_without_padding_to_patches_is_warned_about(test_cfg, warned, caplog):
    runner = patched_runner(test_cfg=test_cfg)
    with caplog.at_level(logging.WARNING):
        StartupCheckHook().before_train(runner)
    assert ('test_cfg=dict(size_divisor=14)' in caplog.text) == warned


# ------------------------------------------------------------------------------------ what is trained on


def log_of(runner, caplog):
    with caplog.at_level(logging.INFO):
        StartupCheckHook().before_train(runner)
    return [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]


@pytest.fixture
def registry(monkeypatch):
    """Published lists of 20 images: 'one', and 'two', which has 4 of them."""
    one = describe('voc12', 'labeled', [('one', 'Author 1_16')], map(str, range(20)))
    two = describe('voc12', 'labeled', [('two', 'Author 1_8')], map(str, range(16, 36)))
    lists = (one._replace(common={two.sha256: 4}), two._replace(common={one.sha256: 4}))
    monkeypatch.setattr(fingerprints, 'published', lambda path=None: lists)


def test_a_repeated_labeled_image_counts_once_in_the_partition():
    runner = make_runner()
    pair = runner.train_dataloader.dataset
    repeated = Data(pair.labeled.paths * 3)
    repeated.dataset, pair.labeled, pair.num_labeled = pair.labeled, repeated, 6
    pair.partition = 'p/2'
    StartupCheckHook().before_train(runner)
    pair.partition = 'p/6'
    with pytest.raises(ValueError, match='partition=p/6 says 6 labeled images, and its list has 2'):
        StartupCheckHook().before_train(runner)


@pytest.mark.parametrize(
    ('ids', 'said'),
    [
        (
            range(20),
            'Labeled list: Pascal VOC 2012, one, 20 images (Author 1_16); not to be taken for Pascal VOC '
            '2012, two, 20 images (Author 1_8), 4 of them in common.',
        ),
        (
            range(1, 20),
            'Labeled list: unknown, no published partition; nearest: Pascal VOC 2012, one, 20 images (Author '
            '1_16), 19 of them in common.',
        ),
        # One image of twelve is chance.
        ([0, *range(100, 111)], 'Labeled list: unknown, no published partition.'),
        ([*range(100, 103)], 'Labeled list: unknown, no published partition.'),
    ],
)
@pytest.mark.parametrize('kind', ['method', 'self-training', 'supervised'])
def test_the_partition_is_named(registry, caplog, ids, said, kind):
    paths = [f'/data/JPEGImages/{i}.jpg' for i in reversed(ids)]
    if kind == 'method':
        runner = make_runner(labeled=paths)
    elif kind == 'self-training':
        runner = self_training_runner()
        runner.train_dataloader.dataset.labeled = Data(paths)
    else:
        runner = make_runner(model='EncoderDecoder')
        runner.train_dataloader.dataset = Data(paths)
    assert said in log_of(runner, caplog)


def test_city_folders_and_endings_do_not_hide_a_partition(monkeypatch, caplog):
    ids = [f'ulm/ulm_{i:06d}_000019' for i in range(4)]
    entry = describe('cityscapes', 'labeled', [('u2pl', 'U2PL 4')], ids)
    monkeypatch.setattr(fingerprints, 'published', lambda path=None: (entry,))
    paths = [f'data/leftImg8bit/train/{i}_leftImg8bit.png' for i in ids]
    lines = log_of(make_runner(labeled=paths), caplog)
    assert 'Labeled list: Cityscapes, u2pl, 4 images (U2PL 4).' in lines


def test_supervised_training_is_reported(caplog):
    runner = make_runner(model='EncoderDecoder')
    runner.train_dataloader.dataset = Data([f'{i}.png' for i in range(9)])
    lines = log_of(runner, caplog)
    assert (
        'Supervised training: 9 labeled images; 4 per process, 1 processes, accumulation 2: an effective '
        'batch of 8; 2 iterations per pass over the list (1 optimizer steps per epoch).'
    ) in lines


def test_every_reading_is_named_and_marked_where_it_is_not_the_default(caplog):
    runner = make_runner(hooks=[MeanTeacherHook(decay=0.99, copy_epochs=1), AtomicCheckpointHook()])
    runner.model.cfg = IMAS.Settings({'untriggered': 'literal'})
    (line,) = [
        line for line in log_of(runner, caplog) if line.startswith('Choices for details that')
    ]
    assert line.startswith('Choices for details that the paper of IMAS leaves open: ')
    assert '; adaptive_loss=True: weights of Eq. 10' in line
    assert '; untriggered=literal (not the default): Eq. 10 where CutMix is not triggered; ' in line
    assert line.count('(not the default)') == 1
    assert line.endswith(
        "the teacher's decay at step i: min(1 - 1 / (i + 1), 0.99), 0 during the first 1 passes."
    )


def test_readings_are_settings():
    methods = {cls for cls in MODELS.module_dict.values() if is_method(cls)}
    assert {'IMAS', 'ESL', 'DeS4', 'U2PL', 'UniMatch'} <= {cls.__name__ for cls in methods}
    for cls in methods:
        assert cls.Settings().readings(), cls.__name__


def is_method(cls):
    ours = isinstance(cls, type) and cls.__module__.startswith('mmseg_semi.')
    return ours and issubclass(cls, SemiSegmentor)


@pytest.mark.parametrize('method', ['docs/des4.md', 'docs/esl.md', 'docs/imas.md'])
def test_what_the_docs_call_readings_is_in_the_log(method):
    """Keys of semi_train_cfg in the third column of the page's table of choices."""
    cls = {'des4': DeS4, 'esl': ESL, 'imas': IMAS}[Path(method).stem]
    text = (Path(__file__).parents[3] / method).read_text()
    table = re.search(r'\n\| what \| choice here \|.*?\n\n', text, re.DOTALL)[0]
    rows = [row.split('|') for row in table.splitlines() if row.startswith('| ')]
    keys = [key for row in rows[1:] for key in re.findall(r'`(\w+)', row[3])]
    declared = cls.Settings._settings
    keys = set(keys) & set(declared)
    # What is printed in the paper is a setting; a network's parts are in its config.
    keys -= {'soft_weight', 'contrast_weight', 'prototype_decay', 'max_anchors'}
    keys -= {'segmentation_head', 'projector', 'encoder_channels'}
    assert len(keys) >= 4
    assert [key for key in keys if not declared[key].reading] == []


def test_hooks_tell_their_readings(caplog):
    hooks = [ReliableSelectionHook(num_checkpoints=4, ratio=0.25), AtomicCheckpointHook()]
    runner = make_runner(model='EncoderDecoder', hooks=hooks)
    runner.train_dataloader.dataset = Data(['a.png'])
    assert (
        'Choices for details that its papers leave open: stability of pseudo-masks: the sum of Eq. 4 over the '
        'checkpoints after k·E // 4 of E epochs or iterations; reliable: 0.25 of the images.'
    ) in log_of(runner, caplog)
    caplog.clear()
    runner.hooks = []
    assert not [line for line in log_of(runner, caplog) if line.startswith('Readings')]
    assert PrototypeInitHook(max_pixels=7, seed=3).reading == (
        'k-means of at most 7 pixels per class, seed 3'
    )


@pytest.mark.parametrize('kind', ['method', 'self-training', 'supervised'])
def test_every_process_counts(monkeypatch, caplog, kind):
    """2 processes and 2 accumulated iterations of 2+2, 2 and 4 images."""
    monkeypatch.setattr(startup_check_hook, 'get_world_size', lambda: 2)
    if kind == 'self-training':
        runner = self_training_runner()
    else:
        runner = make_runner(model='IMAS' if kind == 'method' else 'EncoderDecoder')
    if kind == 'supervised':
        runner.train_dataloader.dataset = Data([f'{i}.png' for i in range(17)])
    said = {
        'method': '2+2 per process, 2 processes, accumulation 2: an effective batch of 8+8; ',
        'self-training': '2 per process, 2 processes, accumulation 2: an effective batch of 8; 1 iterations '
        'per pass over the list (1 optimizer steps per epoch), 10 in all.',
        'supervised': '4 per process, 2 processes, accumulation 2: an effective batch of 16; 2 iterations per '
        'pass over the list (1 optimizer steps per epoch).',
    }[kind]
    assert said in log_of(runner, caplog)[0]


def test_accumulation_of_several_optimizers_counts(caplog):
    runner = make_runner()
    wrappers = {
        'students': SimpleNamespace(_accumulative_counts=3),
        'teacher': SimpleNamespace(_accumulative_counts=1),
    }
    runner.optim_wrapper = SimpleNamespace(optim_wrappers=wrappers)
    assert 'accumulation 3: an effective batch of 6+6; ' in log_of(runner, caplog)[0]


def test_rules_of_the_decay():
    assert MeanTeacherHook(decay=0.9, warmup='none').reading == "the teacher's decay at step i: 0.9"
    assert MeanTeacherHook(decay=0.9, copy_steps=7).reading == (
        "the teacher's decay at step i: min(1 - 1 / (i + 1), 0.9), 0 during the first 7 steps"
    )
    hook = MeanTeacherHook(decay=0.99, warmup='none', copy_epochs=2)
    assert hook.reading == "the teacher's decay at step i: 0.99, 0 during the first 2 passes"


# ------------------------------------------------------------------------------------ self-training


def self_training_runner(sampler=ShuffledSampler, loop=IterBasedTrainLoop, **settings):
    """A runner with 2 labeled and 3 pseudo-labeled images."""
    dataset = SelfTrainingDataset.__new__(SelfTrainingDataset)
    dataset.labeled, dataset.pseudo_labeled = Data(['l0.png', 'l1.png']), Data(['u0', 'u1', 'u2'])
    dataset.num_labeled, dataset.num_pseudo_labeled, dataset.copies = 2, 3, 2
    runner = make_runner(model='EncoderDecoder', loop=loop)
    if sampler is ShuffledSampler:
        settings = {'endless': loop is IterBasedTrainLoop, 'seed': 0, **settings}
    sampler = sampler(dataset, **settings)
    runner.train_dataloader = Loader(dataset=dataset, sampler=sampler, batch_size=2)
    return runner


def test_self_training_is_reported(caplog):
    runner = self_training_runner()
    with caplog.at_level(logging.INFO):
        StartupCheckHook().before_train(runner)
    assert (
        '2 labeled images × 2 and 3 pseudo-labeled ones; 2 per process, 1 processes, accumulation 2: an '
        'effective batch of 4; 3 iterations per pass over the list (1 optimizer steps per epoch), 10 in all.'
    ) in caplog.text


def test_self_training_tells_its_readings(caplog):
    runner = self_training_runner()
    hooks = [*runner.hooks, ReliableSelectionHook()]
    runner.hooks = [hook for hook in hooks if not isinstance(hook, MeanTeacherHook)]
    (line,) = [
        line for line in log_of(runner, caplog) if line.startswith('Choices for details that')
    ]
    assert line == (
        'Choices for details that the papers of ST and ST++ leave open: labeled images × 2: Algorithm 2 shows '
        'no oversampling, its text and the code do; cross-entropy with hard labels: Eq. 2 and 3 and their '
        '"entropy minimization"; align_corners=False: of the logits; stability of pseudo-masks: the sum of Eq. '
        '4 over the checkpoints after k·E // 3 of E epochs or iterations; reliable: 0.5 of the images.'
    )


def test_self_training_needs_a_sampler_that_resumes():
    runner = self_training_runner(lambda dataset: object())
    with pytest.raises(
        ValueError, match=r'SelfTrainingDataset with a object, which cannot be resumed'
    ):
        StartupCheckHook().before_train(runner)


def test_self_training_sampler_fits_the_loop():
    runner = self_training_runner(endless=False)
    with pytest.raises(
        ValueError, match=r'endless=False under IterBasedTrainLoop\. Set endless=True'
    ):
        StartupCheckHook().before_train(runner)


def test_an_epoch_without_a_batch_is_refused(monkeypatch):
    runner = self_training_runner(loop=EpochBasedTrainLoop)
    monkeypatch.setattr(Loader, '__len__', lambda self: 0)
    with pytest.raises(
        ValueError, match=r'an epoch of 7 images on 1 process\(es\) has no whole batch of 2'
    ):
        StartupCheckHook().before_train(runner)


def test_pseudo_labeled_validation_image_is_refused():
    runner = self_training_runner()
    runner.val_dataloader.dataset = Data(['u1'])
    with pytest.raises(ValueError, match='1 pseudo-labeled images are also validation images'):
        StartupCheckHook().before_train(runner)


def test_pseudo_labels_tell_how_they_were_made(tmp_path, caplog):
    runner = self_training_runner()
    summary = {'checkpoint': 'teacher.pth', 'settings': {'scales': [0.5, 1.0], 'flip': True}}
    (tmp_path / 'pseudo_labels.json').write_text(json.dumps(summary))
    runner.train_dataloader.dataset.pseudo_labeled.labels = [str(tmp_path)]
    assert (
        f'Pseudo-labels of {tmp_path}: by teacher.pth, scales [0.5, 1.0], flipped: True.'
    ) in log_of(runner, caplog)
