import pytest
import torch
from ddp_steps import (
    GPS_RUNS,
    REDUCED,
    train_each,
    train_gps,
    train_imas,
    train_method,
    train_sync_bn,
)
from networks import narrow
from ranks import run_on_ranks


@pytest.mark.parametrize('accumulative_counts', [1, 2])
def test_two_ranks_with_half_the_batch_train_like_one(tmp_path, accumulative_counts):
    first, second = run_on_ranks(train_imas, 2, tmp_path, 2, 6, accumulative_counts)
    alone = train_imas(0, 1, 6, accumulative_counts)
    for key, value in alone['state_dict'].items():
        assert torch.equal(first['state_dict'][key], second['state_dict'][key]), key
        torch.testing.assert_close(first['state_dict'][key], value, rtol=1e-4, atol=1e-6)
    for log, log1, log2 in zip(alone['logs'], first['logs'], second['logs'], strict=True):
        for key in ('loss', 'decode.loss_ce', 'loss_unlabeled', 'hardness'):
            torch.testing.assert_close((log1[key] + log2[key]) / 2, log[key], rtol=1e-4, atol=1e-6)


def test_sync_bn_falls_back_to_bn_whose_statistics_agree(tmp_path):
    if torch.cuda.is_available():
        pytest.skip('SyncBN is real where there is a GPU')
    first, second = run_on_ranks(train_imas, 2, tmp_path, 2, 3, 1, 'SyncBN')
    assert any('running_var' in key for key in first['state_dict'])
    for key, value in first['state_dict'].items():
        assert torch.equal(second['state_dict'][key], value), key


def test_prototypes_of_two_ranks_are_those_of_one(tmp_path):
    settings = {'cutmix': None}
    first, second = run_on_ranks(train_method, 2, tmp_path, 2, 3, 'DeS4', settings)
    alone = train_method(0, 1, 3, 'DeS4', settings)
    for key, value in alone['state_dict'].items():
        assert torch.equal(first['state_dict'][key], second['state_dict'][key]), key
        torch.testing.assert_close(first['state_dict'][key], value, rtol=1e-4, atol=1e-5)
    for log, log1, log2 in zip(alone['logs'], first['logs'], second['logs'], strict=True):
        for key in ('loss', 'decode.loss_ce', 'loss_unlabeled', 'loss_teacher'):
            torch.testing.assert_close((log1[key] + log2[key]) / 2, log[key], rtol=1e-4, atol=1e-6)
        assert log['sampled_ratio'] == 1


def test_two_strong_views_on_two_ranks_train_like_on_one(tmp_path):
    # No boxes and no dropout, which each rank draws, and no threshold that rounding can cross.
    same = {'cutmix': None, 'tau': 0.0}
    settings = {
        'UniMatch': {**same, 'dropout_ratio': 0.0},
        'UniMatchV2': {**same, 'dropout_prob': 0.0},
    }
    first, second = run_on_ranks(train_each, 2, tmp_path, 2, 3, *settings.items())
    whole = train_each(0, 1, 3, *settings.items())
    for alone, one, two in zip(whole, first, second, strict=True):
        for key, value in alone['state_dict'].items():
            assert torch.equal(one['state_dict'][key], two['state_dict'][key]), key
            torch.testing.assert_close(one['state_dict'][key], value, rtol=1e-4, atol=1e-5)
        for log, log1, log2 in zip(alone['logs'], one['logs'], two['logs'], strict=True):
            for key in ('loss', 'decode.loss_ce', 'loss_strong'):
                mean = (log1[key] + log2[key]) / 2
                torch.testing.assert_close(mean, log[key], rtol=1e-4, atol=1e-6)


def test_vision_transformer_on_two_ranks_trains_like_on_one(tmp_path):
    """Position embeddings, class tokens and layer scales reach all ranks; nothing is dropped at random."""
    network = narrow('linear_dinov2-s14', backbone__drop_path_rate=0.0)
    run = ('IMAS', {'tau': 0.0, 'cutmix': None}, 1, 'GN', 'OptimWrapper', 0.05, network)
    first, second = run_on_ranks(train_method, 2, tmp_path, 2, 3, *run)
    alone = train_method(0, 1, 3, *run)
    for key, value in alone['state_dict'].items():
        assert torch.equal(first['state_dict'][key], second['state_dict'][key]), key
        torch.testing.assert_close(first['state_dict'][key], value, rtol=1e-4, atol=1e-5)
    for key in ('backbone.pos_embed', 'backbone.cls_token', 'decode_head.conv_seg.weight'):
        key = f'student.{key}'
        assert not torch.equal(alone['state_dict'][key], alone['start'][key]), key
    assert all(log['loss_unlabeled'] > 0 for log in alone['logs'])


@pytest.fixture(scope='module')
def gps_on_two_ranks(tmp_path_factory):
    """All trainings of GPS in one start of the two processes."""
    return run_on_ranks(train_gps, 2, tmp_path_factory.mktemp('ranks'), 2, *GPS_RUNS)


def check_that_all_networks_moved(result):
    for name in ('student1', 'student2', 'teacher'):
        key = f'{name}.backbone.stem.0.weight'
        assert not torch.equal(result['state_dict'][key], result['start'][key]), name


@pytest.mark.parametrize('name', ['plain', 'accumulated', 'frozen', 'merged'])
def test_three_networks_of_gps_on_two_ranks_are_those_of_one(name, gps_on_two_ranks):
    first, second = (results[name] for results in gps_on_two_ranks)
    alone = train_gps(0, 1, name)[name]
    check_that_all_networks_moved(alone)
    sums = [result['state_dict'].pop('ramp_up.labeled_sums') for result in (alone, first, second)]
    for key, value in alone['state_dict'].items():
        assert torch.equal(first['state_dict'][key], second['state_dict'][key]), key
        torch.testing.assert_close(first['state_dict'][key], value, rtol=1e-3, atol=1e-5)
    logs = zip(alone['logs'], first['logs'], second['logs'], strict=True)
    for iteration, (log, log1, log2) in enumerate(logs):
        keys = ['loss', 'loss_gps', 'loss_cps']
        # In an accumulation of two the teacher learns behind the students' step.
        if name != 'accumulated' or iteration % 2:
            keys += ['loss_fps', 'labeled_ce_teacher']
        for key in keys:
            torch.testing.assert_close((log1[key] + log2[key]) / 2, log[key], rtol=1e-3, atol=1e-5)
        assert log.keys() == log1.keys() == log2.keys()
        assert ('loss_fps' in log) == ('loss_fps' in keys)
    # What the ramp-up compares is of all ranks, and counts the batches of each.
    assert torch.equal(sums[1], sums[2])
    torch.testing.assert_close(sums[1], 2 * sums[0], rtol=1e-4, atol=0)


def test_each_update_averages_the_gradients_of_its_own_networks_alone(gps_on_two_ranks):
    for results in gps_on_two_ranks:
        for (method, settings), reduced in zip(REDUCED, results['reduced'], strict=True):
            size = reduced['network']
            expected = {'students': 2 * size, 'teacher': size}
            if method == 'CPS':
                del expected['teacher']
            assert reduced['counts'] == expected, settings
            assert reduced['same_keys']


@pytest.mark.parametrize('name', ['scaled', 'scaled_and_accumulated'])
def test_ranks_agree_with_scaled_losses_and_cut_images(name, gps_on_two_ranks):
    first, second = (results[name] for results in gps_on_two_ranks)
    check_that_all_networks_moved(first)
    for key, value in first['state_dict'].items():
        assert torch.equal(second['state_dict'][key], value), key
        assert torch.isfinite(value).all()
    # Both scalers have seen an overflow, and agree on it.
    assert first['scales'] == second['scales']
    assert len(first['scales']) == 2
    assert all(0 < scale < 2.0**127 for scale in first['scales'])


@pytest.mark.skipif(not torch.cuda.is_available(), reason='SyncBN trains on a GPU alone')
def test_sync_bn_of_gps_stays_on_a_gpu(tmp_path):
    settings = {'cutmix': None}
    (through_wrapper,) = run_on_ranks(train_sync_bn, 1, tmp_path, 3, 'GPS', settings)
    alone = train_method(0, 1, 3, 'GPS', settings, norm='SyncBN', device='cuda')
    assert through_wrapper['sync_layers'] > 0
    for key, value in alone['state_dict'].items():
        found = through_wrapper['state_dict'][key]
        torch.testing.assert_close(found.cpu(), value.cpu(), rtol=1e-3, atol=1e-4)
