"""Copies of a network from earlier in its training: what is kept, what is drawn, and with what weights."""

import pytest
import torch
from ddp_steps import train_method
from ranks import run_on_ranks
from tiny import build_plain

from mmseg_semi.models.earlier_models import EarlierModels

KEY = 'decode_head.conv_seg.bias'


def filled(capacity: int, number: int, place: str = 'host') -> EarlierModels:
    """Models that differ in their classifier's bias, which is their number."""
    network, models = build_plain(), EarlierModels(capacity, place)
    for value in range(number):
        torch.nn.init.constant_(network.decode_head.conv_seg.bias, float(value))
        models.keep(network)
    return models


def biases(models: EarlierModels) -> list[float]:
    return [float(weights[KEY][0]) for weights in models.models]


@pytest.mark.parametrize('place', ['host', 'device'])
def test_the_oldest_goes_first_and_copies_stay_as_they_were(place):
    assert biases(filled(3, 2, place)) == [0, 1]
    assert biases(filled(3, 5, place)) == [2, 3, 4]


@pytest.mark.parametrize('random_number', [True, False])
@pytest.mark.parametrize(('most', 'kept'), [(3, 8), (3, 2)])
def test_draws_are_as_often_as_the_page_says(random_number, most, kept):
    torch.manual_seed(0)
    models, times = EarlierModels(8), 3000
    models.models = [{}] * kept
    numbers, places, first = torch.zeros(most + 1), torch.zeros(kept), []
    for _ in range(times):
        drawn = models.draw(most, random_number)
        assert len({place for place, _ in drawn}) == len(drawn)
        assert sum(weight for _, weight in drawn) == pytest.approx(1)
        assert all(weight > 0 for _, weight in drawn)
        numbers[len(drawn)] += 1
        for place, _ in drawn:
            places[place] += 1 / len(drawn)
        if len(drawn) == 2:
            first.append(drawn[0][1])
    expected = torch.zeros(most + 1)
    for number in range(1, most + 1) if random_number else [most]:
        expected[min(number, kept)] += times / (most if random_number else 1)
    torch.testing.assert_close(numbers, expected, rtol=0, atol=90)
    torch.testing.assert_close(places, torch.full((kept,), times / kept), rtol=0, atol=110)
    if first:  # of Dirichlet(1, 1), each weight is uniform
        share, count = torch.tensor(first), len(first)
        assert share.mean() == pytest.approx(0.5, abs=2 / count**0.5)
        assert (share < 0.1).float().mean() == pytest.approx(0.1, abs=2 / count**0.5)


def test_three_weights_have_the_moments_of_a_flat_dirichlet():
    torch.manual_seed(0)
    models = EarlierModels(3)
    models.models = [{}] * 3
    weights = torch.tensor([[w for _, w in models.draw(3, False)] for _ in range(4000)])
    torch.testing.assert_close(weights.mean(0), torch.full((3,), 1 / 3), rtol=0, atol=0.02)
    # Variance 2 / (9 * 4) of each.
    torch.testing.assert_close(weights.var(0), torch.full((3,), 1 / 18), rtol=0.1, atol=0)


def test_the_draw_comes_from_the_state_that_checkpoints_save():
    models = EarlierModels(8)
    models.models = [{}] * 8
    state = torch.get_rng_state()
    first = [models.draw(3) for _ in range(5)]
    torch.set_rng_state(state)
    assert [models.draw(3) for _ in range(5)] == first


def test_logits_are_the_weighted_sum_in_single_precision():
    network = build_plain().eval()
    models, images = EarlierModels(2), torch.rand(2, 3, 32, 32)
    expected = 0
    for weight in (0.75, 0.25):
        torch.nn.init.normal_(network.decode_head.conv_seg.weight)
        models.keep(network)
        with torch.no_grad():
            expected = expected + weight * network._forward(images)
    found = models.logits(network, images, [(0, 0.75), (1, 0.25)])
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
    with torch.autocast('cpu', torch.bfloat16):
        assert models.logits(network, images, [(1, 1.0)]).dtype == torch.float32


def test_auxiliary_heads_are_not_kept():
    models = EarlierModels(1)
    models.keep(build_plain(auxiliary=True))
    assert not any('auxiliary' in key for key in models.models[0])


def test_only_checkpoints_see_them():
    models = filled(3, 2)
    assert list(models.parameters()) == list(models.buffers()) == []
    state = models.state_dict()
    assert float(state[f'1.{KEY}'][0]) == 1
    # In whatever order a checkpoint has them.
    other = EarlierModels(3)
    other.load_state_dict(dict(sorted(state.items(), reverse=True)))
    assert biases(other) == [0, 1]
    other.load_state_dict({})
    assert other.models == []


def test_the_device_keeps_what_a_checkpoint_brought_to_the_host(meta):
    models, network = filled(2, 1, 'device'), build_plain().to(meta).eval()
    models.logits(network, torch.rand(1, 3, 32, 32, device=meta), [(0, 1.0)])
    assert models.models[0][KEY].device == meta
    models = filled(2, 1)
    models.logits(network, torch.rand(1, 3, 32, 32, device=meta), [(0, 1.0)])
    assert models.models[0][KEY].device == torch.device('cpu')


def test_all_ranks_keep_the_same_models(tmp_path):
    settings = {'tau': 0.0, 'guidance_tau': 0.0}
    first, second = run_on_ranks(train_method, 2, tmp_path, 2, 3, 'PrevMatch', settings)
    kept = [key for key in first['state_dict'] if key.startswith('earlier.1.')]
    assert kept
    for key, value in first['state_dict'].items():
        assert torch.equal(second['state_dict'][key], value), key
    assert not torch.equal(
        first['state_dict'][f'earlier.0.{KEY}'], first['state_dict'][f'earlier.1.{KEY}']
    )
    assert all(log['loss_guided_strong'] > 0 for log in first['logs'][1:])
