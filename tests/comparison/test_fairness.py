"""What configs have in common, read from them; tools/benchmark_methods.py's tests have the rest."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from tiny import tiny_segmentor
from tiny_run import METHODS, tiny_config, tiny_stages_config, write_images

from mmseg_semi.comparison import (
    DECISIVE,
    baselines,
    common_reference,
    data_root_keys,
    differences,
    facts,
)
from mmseg_semi.comparison.fairness import dropout_of, images_per_iteration

ROOT = Path(__file__).parents[2] / 'configs'


def test_methods_on_the_same_files_have_the_same_facts(tmp_path):
    images = write_images(tmp_path)
    plain, imas = (facts(tiny_config('work', method, images=images)) for method in (None, 'IMAS'))
    assert plain['unlabeled images'] is None
    assert len(imas['unlabeled images']) == 9
    assert len(plain['labeled images']) == 5
    # Image and mask.
    assert plain['labeled images'][0].count(str(tmp_path)) == 2
    reference = common_reference([plain, imas])
    assert reference['unlabeled images'] == imas['unlabeled images']
    assert differences(plain, reference) == differences(imas, reference) == {}


def test_other_lists_and_masks_are_found(tmp_path):
    images = write_images(tmp_path)
    reference = facts(tiny_config('work', images=images))
    (tmp_path / 'fewer.txt').write_text(
        '\n'.join((tmp_path / 'unlabeled.txt').read_text().split()[1:])
    )
    changed = facts(
        tiny_config(
            'work', images=images, train_dataloader__dataset__unlabeled__ann_file='fewer.txt'
        )
    )
    assert differences(changed, reference) == {'unlabeled images': '8, not 9, 8 of them the same'}
    prefix = {'img_path': 'img_dir', 'seg_map_path': 'elsewhere'}
    (tmp_path / 'elsewhere').mkdir()
    changed = facts(tiny_config('work', images=images, val_dataloader__dataset__data_prefix=prefix))
    assert differences(changed, reference) == {'validation images': '4, not 4, 0 of them the same'}


def test_optimizer_and_geometry_are_told():
    reference = facts(tiny_config('work'))
    flip = 'train_dataloader__dataset__unlabeled__pipeline'
    pipeline = tiny_config('work').train_dataloader.dataset.unlabeled.pipeline
    pipeline[4]['prob'] = 0.25
    changed = facts(tiny_config('work', optim_wrapper__optimizer__lr=0.5, **{flip: pipeline}))
    assert differences(changed, reference) == {
        'geometry of unlabeled images': '2.prob: 0.25, not 0.5',
        'optimizer': 'optimizer.lr: 0.5, not 0.005',
    }


def test_views_and_evaluation_are_told():
    reference = facts(tiny_config('work'))
    pipeline = tiny_config('work').train_dataloader.dataset.unlabeled.pipeline
    pipeline[-1]['strong'].insert(1, {'type': 'RandomGray'})
    changed = facts(
        tiny_config(
            'work',
            unlabeled=1,
            train_dataloader__dataset__unlabeled__pipeline=pipeline,
            val_dataloader__dataset__pipeline=[
                {'type': 'LoadShapes'},
                {'type': 'Resize', 'scale': (64, 64)},
                {'type': 'PackSegInputs'},
            ],
            model__segmentor__test_cfg={'mode': 'slide'},
        )
    )
    said = differences(changed, reference)
    assert said == {
        'validation pipeline': '1.type: Resize, not PackSegInputs',
        'test_cfg': 'mode: slide, not whole',
        'unlabeled images per step': '1.0, not 2.0',
        'photometry of unlabeled images': "strong.1: {'type': 'RandomGray'}, not nothing",
    }
    assert {'validation pipeline', 'test_cfg'} <= set(DECISIVE)


def test_trainings_beforehand_are_told():
    gps = tiny_config('work', 'GPS')
    gps.stages = {
        'teacher': {'type': 'SupervisedStage', 'cfg': {'train_cfg': {'max_iters': 6}}},
        'joint': {'type': 'TrainStage'},
    }
    ready = tiny_config('work', 'GPS', model__semi_train_cfg__teacher_checkpoint='made.pth')
    told = {
        'none': tiny_config('work', None),
        'teacher 6 steps of 2 images': gps,
        'teacher of made.pth': ready,
        'teacher 14 steps of 4 images': tiny_stages_config('work', 'st'),
        'teacher 14 steps of 4 images and student 14 steps of 4 images': tiny_stages_config(
            'work', 'stpp'
        ),
    }
    reference = facts(tiny_config('work'))
    for sentence, cfg in told.items():
        found = facts(cfg)
        assert found['trainings beforehand'] == sentence
        says = differences(found, reference).get('trainings beforehand')
        assert says == (None if sentence == 'none' else f'{sentence}, not none')
        # The length that all have in common is that of the training that makes the result.
        assert found['steps'] == 14


def test_accumulation_is_told():
    reference = facts(tiny_config('work'))
    changed = facts(tiny_config('work', optim_wrapper__accumulative_counts=4))
    assert differences(changed, reference) == {
        'steps': '4, not 14',
        'labeled images per step': '8.0, not 2.0',
        'unlabeled images per step': '8.0, not 2.0',
        'optimizer': 'accumulative_counts: 4, not nothing',
    }
    # The recipe of docs/configs.md: half the images in twice the iterations are the same steps.
    halves = tiny_config(
        'work',
        labeled=1,
        unlabeled=1,
        optim_wrapper__accumulative_counts=2,
        train_cfg__max_iters=28,
    )
    assert differences(facts(halves), reference) == {
        'optimizer': 'accumulative_counts: 2, not nothing'
    }
    stages = tiny_stages_config('work', 'st')
    stages.optim_wrapper.accumulative_counts = 4
    assert facts(stages)['trainings beforehand'] == 'teacher 4 steps of 16 images'


@pytest.mark.parametrize('method', [None, *METHODS])
def test_dropout_is_that_of_the_built_network(method):
    """Of the heads as the methods have rebuilt them, whatever their config says."""
    random = torch.get_rng_state()
    found = facts(tiny_config('work', method))['dropout']
    assert torch.equal(torch.get_rng_state(), random)
    own = {'decode_head.dropout': 0.2}
    if method == 'ESL':
        # Its own segmentation head's; those of U2PL's representation are for training alone.
        own = {'decode_head.dropout': 0.1}
    assert found == ({} if method == 'DeS4' else own)


def test_dropout_of_the_config_is_told_once():
    reference = facts(tiny_config('work', None))
    changed = facts(tiny_config('work', None, model__decode_head__dropout_ratio=0))
    assert differences(changed, reference) == {'dropout': 'decode_head.dropout: nothing, not 0.2'}
    assert differences(facts(tiny_config('work', 'DeS4')), changed) == {}


def test_dropout_of_transformers_and_auxiliary_heads_counts():
    cfg = Config.fromfile(ROOT / 'suponly/suponly_segformer_mit-b1_1xb4-20k_own-512x512.py')
    found = dropout_of(cfg.model)
    assert found.pop('decode_head.dropout') == 0.1
    # Stochastic depth rises from 0 over the 8 blocks.
    assert sorted({round(rate, 4) for rate in found.values()}) == pytest.approx(
        [0.1 * block / 7 for block in range(1, 8)], abs=1e-4
    )
    heads = dropout_of(tiny_segmentor(auxiliary=True, dropout_ratio=0.2))
    assert heads == {'decode_head.dropout': 0.2, 'auxiliary_head.dropout': 0.2}


def test_gain_is_over_the_baseline_of_the_same_network():
    plain = facts(tiny_config('work', None))
    other = facts(tiny_config('work', None, model__decode_head__dropout_ratio=0))
    found = {
        'suponly': plain,
        'imas': facts(tiny_config('work', 'IMAS')),
        'suponly-des4': other,
        'des4': facts(tiny_config('work', 'DeS4')),
        'esl': facts(tiny_config('work', 'ESL')),
    }
    assert baselines(found) == {
        'suponly': 'suponly',
        'imas': 'suponly',
        'suponly-des4': 'suponly-des4',
        'des4': 'suponly-des4',
        # None has its head: the first one.
        'esl': 'suponly',
    }
    assert baselines({'imas': found['imas']}) == {}


def test_views_of_self_training_have_one_name():
    found = facts(tiny_stages_config('work', 'st'))['photometry of unlabeled images']
    assert [step['type'] for step in found['all views']] == [
        'RandomColorJitter',
        'RandomGray',
        'RandomGaussianBlur',
        'RandomNoiseCutout',
    ]


@pytest.mark.parametrize('times', [1, 3])
def test_repeated_and_joined_datasets_are_what_is_in_them(times, tmp_path):
    images = write_images(tmp_path)
    plain = tiny_config('work', None, images=images)
    reference = facts(plain)
    dataset = plain.train_dataloader.dataset.to_dict()
    halves = []
    for name, ids in zip('ab', ((0, 2), (2, 5)), strict=True):
        lines = (tmp_path / 'labeled.txt').read_text().split()[slice(*ids)]
        (tmp_path / f'{name}.txt').write_text('\n'.join(lines) + '\n')
        halves.append({**dataset, 'ann_file': f'{name}.txt'})
    joined = {'type': 'ConcatDataset', 'datasets': halves}
    plain.train_dataloader.dataset = {'type': 'RepeatDataset', 'dataset': joined, 'times': times}
    assert differences(facts(plain), reference) == {}
    assert data_root_keys(plain)[:2] == [
        f'train_dataloader.dataset.dataset.datasets.{i}.data_root' for i in (0, 1)
    ]
    halves[1]['pipeline'] = halves[1]['pipeline'][:-2]
    plain.train_dataloader.dataset = {'type': 'ConcatDataset', 'datasets': halves}
    with pytest.raises(
        ValueError, match=r'dataset.datasets\[0\] and train_\S+ have different pipelines'
    ):
        facts(plain)


def test_crop_of_one_number_is_a_square():
    cfg = tiny_config('work', None)
    cfg.train_dataloader.dataset.pipeline[2].crop_size = 24
    assert facts(cfg)['crop'] == [[24, 24]]


def test_labeled_share_of_self_training_is_that_of_its_list():
    cfg = tiny_stages_config('work', 'st')
    # Without pseudo-labels all are labeled; with 9, 5 labeled images are in the list twice.
    assert images_per_iteration(cfg, 5, 9) == pytest.approx((4 * 10 / 19, 4 * 9 / 19))
    cfg.train_dataloader.dataset.pseudo_labeled = None
    assert images_per_iteration(cfg, 5, 0) == (4.0, 0.0)
    assert images_per_iteration(tiny_config('work', labeled=3, unlabeled=1), 5, 9) == (3.0, 1.0)
    assert images_per_iteration(tiny_config('work', None, labeled=3), 5, 0) == (3.0, 0.0)


def test_a_training_of_epochs_has_no_equal_length():
    with pytest.raises(
        ValueError, match=r'train_cfg.max_epochs=2, epochs of its own list.*train_cfg.max_iters'
    ):
        facts(tiny_config('work', epochs=2))
