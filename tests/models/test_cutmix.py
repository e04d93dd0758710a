"""One CutMix for all methods: what is drawn, what is pasted, and on which grid."""

import pytest
import torch
from mmseg.registry import MODELS, TRANSFORMS
from tiny import tiny_segmentor

from mmseg_semi.functional.mixing import paste, sample_boxes
from mmseg_semi.functional.resizing import resize_nearest
from mmseg_semi.models.cutmix import AdaptiveCutMix, CutMix, CutMixPlan, NoCutMix, ThreeBoxCutMix

SIZE = (16, 12)
CPU = torch.device('cpu')
BOXES = torch.tensor([[2, 3, 10, 8], [0, 0, 12, 16], [5, 5, 5, 9]])
HARDNESS = torch.tensor([0.1, 0.9, 0.4])
PLAN = CutMixPlan(torch.tensor([1, 2, 0]), BOXES, SIZE, torch.tensor(True))


def maps(num=3, channels=None, seed=0):
    shape = (num, *SIZE) if channels is None else (num, channels, *SIZE)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_plan_pastes_the_partners_boxes_into_every_map_alike():
    images, label = maps(channels=3), maps(seed=1)
    before = images.clone()
    for mixed, plain in zip(PLAN(images, label), (images, label), strict=True):
        expected = plain.clone()
        expected[0, ..., 3:8, 2:10] = plain[1, ..., 3:8, 2:10]
        expected[1] = plain[2]
        assert torch.equal(mixed, expected)
    assert torch.equal(images, before)


def test_one_map_comes_back_without_a_tuple():
    label = maps()
    assert torch.equal(PLAN(label), PLAN(label, label)[1])


def test_without_a_partner_all_maps_come_back_themselves():
    before = torch.get_rng_state()
    mix = NoCutMix().plan(3, SIZE, CPU)
    images, label = maps(channels=3), maps()
    assert mix(label) is label
    assert all(a is b for a, b in zip(mix(images, label), (images, label), strict=True))
    assert mix.on((4, 3)) is mix
    assert mix.reverse() is mix
    assert (mix.partner, mix.boxes, mix.log) == (None, None, {})
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize('align_corners', [False, True])
def test_on_another_grid_the_nearest_pixel_decides(align_corners):
    mix = PLAN.on((4, 3), align_corners)
    inside = torch.zeros(3, *SIZE, dtype=torch.bool)
    inside = resize_nearest(paste(inside, ~inside, BOXES), (4, 3), align_corners)
    features, label = torch.randn(3, 2, 4, 3), torch.randint(0, 9, (3, 4, 3))
    partner = [1, 2, 0]
    assert torch.equal(mix(label), torch.where(inside, label[partner], label))
    assert torch.equal(mix(features), torch.where(inside[:, None], features[partner], features))
    assert inside[1].all()
    assert not inside[2].any()


def test_the_reverse_plan_pastes_the_image_before():
    mix = PLAN.reverse()
    assert mix.partner.tolist() == [2, 0, 1]
    assert mix.boxes is PLAN.boxes


def test_the_log_is_the_share_of_what_is_mixed():
    assert PLAN.log['cutmix_rate'].item() == 1
    each = CutMixPlan(PLAN.partner, BOXES, SIZE, torch.tensor([True, False, False]))
    assert each.log['cutmix_rate'].item() == pytest.approx(1 / 3)


@pytest.mark.parametrize('style', ['imas', 'unimatch', 'u2pl', 'cutmix_seg'])
@pytest.mark.parametrize('per_image', [False, True])
def test_boxes_are_drawn_before_the_trigger(style, per_image):
    options = {'prob': 0.5, 'style': style, 'per_image': per_image}
    rates = set()
    for seed in range(8):
        torch.manual_seed(seed)
        boxes = sample_boxes(3, SIZE, style=style)
        triggered = torch.rand((3,) if per_image else ()) < 0.5
        state = torch.get_rng_state()
        for mixer in (CutMix(**options), AdaptiveCutMix(adaptive=False, **options)):
            torch.manual_seed(seed)
            plan = mixer.plan(3, SIZE, CPU)
            assert torch.equal(plan.boxes, boxes * triggered.view(-1, 1))
            assert plan.partner.tolist() == [1, 2, 0]
            assert torch.equal(plan.triggered, triggered)
            assert torch.equal(torch.get_rng_state(), state)
        rates.add(triggered.float().mean().item())
    assert len(rates) > 1


@pytest.mark.parametrize('seed', range(4))
def test_the_transform_mixes_as_its_plan_says(seed):
    results = {
        'img': maps(channels=3),
        'label': maps(seed=1),
        'confidence': maps(seed=2),
        'hardness': HARDNESS,
    }
    torch.manual_seed(seed)
    mixed = TRANSFORMS.build({'type': 'AdaptiveCutMix'})(results)
    torch.manual_seed(seed)
    mix = AdaptiveCutMix().plan(3, SIZE, CPU, HARDNESS)
    assert mix.partner.tolist() == [1, 0, 2]  # the easiest with the hardest
    assert torch.equal(mixed['triggered'], mix.triggered)
    for key in ('img', 'label', 'confidence'):
        assert torch.equal(mixed[key], mix(results[key]))
    assert mixed['hardness'] is HARDNESS


@pytest.mark.parametrize('level', [0.2, 0.7])
def test_trigger_frequency_is_one_minus_the_mean_hardness(level):
    torch.manual_seed(1)
    hardness = torch.full((2,), level)
    plans = [AdaptiveCutMix().plan(2, (8, 8), CPU, hardness) for _ in range(2000)]
    rate = sum(plan.triggered.item() for plan in plans) / len(plans)
    assert abs(rate - (1 - level)) < 0.04
    untriggered = next(plan for plan in plans if not plan.triggered)
    assert (untriggered.boxes == 0).all()


@pytest.mark.parametrize(('hardness', 'triggered'), [(1.0, False), (0.0, True)])
def test_extreme_hardness_decides_the_trigger(hardness, triggered):
    images = maps(channels=3)
    for seed in range(20):
        torch.manual_seed(seed)
        mix = AdaptiveCutMix().plan(3, SIZE, CPU, torch.full((3,), hardness))
        assert mix.triggered == triggered
        if not triggered:
            assert torch.equal(mix(images), images)


def test_each_image_is_drawn_for_itself():
    torch.manual_seed(0)
    mixer = CutMix(prob=0.3, style='unimatch', per_image=True)
    plans = [mixer.plan(4, (16, 16), CPU) for _ in range(1000)]
    triggered = torch.stack([plan.triggered for plan in plans])
    assert triggered.shape == (1000, 4)
    torch.testing.assert_close(triggered.float().mean(0), torch.full((4,), 0.3), rtol=0, atol=0.05)
    # Drawn apart: all four mixed in 0.3^4 of the batches.
    assert triggered.all(dim=1).float().mean() < 0.03
    for plan in plans:
        assert torch.equal((plan.boxes != 0).any(dim=1), plan.triggered)


def test_single_image_is_its_own_partner():
    image = maps(channels=3)[:1]
    mix = AdaptiveCutMix().plan(1, SIZE, CPU, torch.zeros(1))
    assert torch.equal(mix(image), image)


def test_options_change_without_repeating_the_type():
    config = {'type': 'IMAS', 'segmentor': tiny_segmentor()}
    model = MODELS.build({**config, 'semi_train_cfg': {'cutmix': {'adaptive': False, 'prob': 0.5}}})
    assert (model.cutmix.adaptive, model.cutmix.prob) == (False, 0.5)


def test_hardness_is_ignored_where_nothing_adapts():
    torch.manual_seed(0)
    first = AdaptiveCutMix(adaptive=False).plan(3, SIZE, CPU, HARDNESS)
    torch.manual_seed(0)
    second = CutMix().plan(3, SIZE, CPU)
    assert first.partner.tolist() == second.partner.tolist() == [1, 2, 0]
    assert torch.equal(first.boxes, second.boxes)


def test_an_adaptive_plan_needs_hardness():
    with pytest.raises(
        ValueError, match=r'cutmix.adaptive=True needs the hardness .* Set adaptive'
    ):
        AdaptiveCutMix().plan(3, SIZE, CPU)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'prob': 1.5}, r'cutmix.prob must be in \[0, 1\], got 1.5'),
        ({'prob': 'often'}, r"cutmix.prob must be in \[0, 1\], got 'often'"),
        ({'prob': True}, r'cutmix.prob must be in \[0, 1\], got True'),
        ({'adaptive': 'no'}, "cutmix.adaptive must be True or False, got 'no'"),
        ({'per_image': 1}, 'cutmix.per_image must be True or False, got 1'),
        ({'style': 'cps'}, "cutmix.style must be one of imas, .*, got 'cps'"),
        ({'per_image': True}, 'per_image=True contradicts adaptive=True'),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AdaptiveCutMix(**options)


def test_pairs_take_two_batches_and_return_the_first():
    torch.manual_seed(0)
    mix = ThreeBoxCutMix(pairs=True).plan(6, SIZE, CPU)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    boxes = sample_boxes(3, SIZE, style='cps')
    assert torch.equal(torch.get_rng_state(), state)
    images = maps(6, channels=3)
    assert torch.equal(mix(images), paste(images[:3], images[3:], boxes))
    assert mix.on((4, 3))(torch.zeros(6, 4, 3)).shape == (3, 4, 3)
    assert mix.log == {}


def test_in_a_batch_the_next_image_is_pasted():
    torch.manual_seed(0)
    mix = ThreeBoxCutMix(pairs=False).plan(3, SIZE, CPU)
    images = maps(channels=3)
    assert torch.equal(mix(images), paste(images, images.roll(-1, dims=0), mix.boxes))


def test_a_batch_without_images_to_paste_is_refused():
    with pytest.raises(ValueError, match=r"cutmix='pair' needs an even number .*, got 3"):
        ThreeBoxCutMix(pairs=True).plan(3, SIZE, CPU)
    with pytest.raises(ValueError, match=r"cutmix='in_batch' needs at least 2 .*, got 1"):
        ThreeBoxCutMix(pairs=False).plan(1, SIZE, CPU)
