import pytest
import torch
from mmseg.registry import MODELS, TRANSFORMS
from tiny import tiny_segmentor

from mmseg_semi.models.mixers import AdaptiveCutMix, CutMixPlan, IntensityMix


def make(num=4, size=16):
    generator = torch.Generator().manual_seed(0)
    return {
        'img': torch.randn(num, 3, size, size, generator=generator),
        'label': torch.randint(0, 5, (num, size, size), generator=generator),
        'confidence': torch.rand(num, size, size, generator=generator),
        'hardness': torch.tensor([0.1, 0.9, 0.4, 0.6])[:num],
    }


def test_intensity_mix_keeps_hard_images_weak():
    strong, weak = torch.ones(3, 3, 2, 2), torch.zeros(3, 3, 2, 2)
    results = {'strong': strong, 'weak': weak, 'hardness': torch.tensor([0.0, 0.25, 1.0])}
    mixed = TRANSFORMS.build({'type': 'IntensityMix'})(results)
    assert mixed['strong'][:, 0, 0, 0].tolist() == [1.0, 0.75, 0.0]
    assert results['strong'] is strong
    assert (strong == 1).all()
    assert IntensityMix(adaptive=False)(results)['strong'] is strong


def test_cutmix_pastes_the_partners_box_into_image_label_and_confidence():
    results = make()
    boxes = torch.tensor([[2, 3, 10, 8], [0, 0, 16, 16], [5, 5, 5, 9], [1, 1, 2, 2]])
    partner = torch.tensor([1, 0, 3, 2])
    mixed = AdaptiveCutMix().apply(results, CutMixPlan(partner, boxes, torch.tensor(True)))
    for key in ('img', 'label', 'confidence'):
        expected = results[key].clone()
        expected[0, ..., 3:8, 2:10] = results[key][1, ..., 3:8, 2:10]
        expected[1] = results[key][0]
        expected[3, ..., 1:2, 1:2] = results[key][2, ..., 1:2, 1:2]
        assert torch.equal(mixed[key], expected)


def test_partners_are_hard_easy_pairs():
    plan = AdaptiveCutMix().sample(make()['hardness'], (16, 16))
    # Sorted by hardness: 0, 2, 3, 1; the easiest pairs with the hardest.
    assert plan.partner.tolist() == [1, 0, 3, 2]
    plan = AdaptiveCutMix(adaptive=False).sample(make()['hardness'], (16, 16))
    assert plan.partner.tolist() == [1, 2, 3, 0]


@pytest.mark.parametrize('level', [0.2, 0.7])
def test_trigger_frequency_is_one_minus_the_mean_hardness(level):
    generator = torch.Generator().manual_seed(1)
    mixer = AdaptiveCutMix()
    hardness = torch.full((2,), level)
    plans = [mixer.sample(hardness, (8, 8), generator) for _ in range(2000)]
    rate = sum(plan.triggered.item() for plan in plans) / len(plans)
    assert abs(rate - (1 - level)) < 0.04
    untriggered = next(plan for plan in plans if not plan.triggered)
    assert (untriggered.boxes == 0).all()


@pytest.mark.parametrize(('hardness', 'triggered'), [(1.0, False), (0.0, True)])
def test_extreme_hardness_decides_the_trigger(hardness, triggered):
    results = make(2)
    results['hardness'] = torch.full((2,), hardness)
    for seed in range(20):
        torch.manual_seed(seed)
        mixed = AdaptiveCutMix()(results)
        assert mixed['triggered'] == triggered
        if not triggered:
            assert torch.equal(mixed['img'], results['img'])


def test_each_image_is_drawn_for_itself():
    mixer = AdaptiveCutMix(adaptive=False, prob=0.3, style='unimatch', per_image=True)
    generator = torch.Generator().manual_seed(0)
    plans = [mixer.sample(torch.zeros(4), (16, 16), generator) for _ in range(1000)]
    triggered = torch.stack([plan.triggered for plan in plans])
    assert triggered.shape == (1000, 4)
    torch.testing.assert_close(triggered.float().mean(0), torch.full((4,), 0.3), rtol=0, atol=0.05)
    # Drawn apart: all four mixed in 0.3^4 of the batches.
    assert triggered.all(dim=1).float().mean() < 0.03
    for plan in plans:
        assert torch.equal((plan.boxes != 0).any(dim=1), plan.triggered)


def test_single_image_is_its_own_partner():
    results = make(1)
    results['hardness'] = torch.zeros(1)
    assert torch.equal(AdaptiveCutMix()(results)['img'], results['img'])


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r'prob=1\.5 is no probability'):
        AdaptiveCutMix(prob=1.5)
    with pytest.raises(ValueError, match="style='cps' draws no box per image"):
        AdaptiveCutMix(style='cps')
    with pytest.raises(ValueError, match='per_image=True and adaptive=True contradict each other'):
        AdaptiveCutMix(per_image=True)


def test_options_change_without_repeating_the_type():
    config = {'type': 'IMAS', 'segmentor': tiny_segmentor()}
    model = MODELS.build({**config, 'semi_train_cfg': {'cutmix': {'adaptive': False, 'prob': 0.5}}})
    assert (model.cutmix.adaptive, model.cutmix.prob) == (False, 0.5)
