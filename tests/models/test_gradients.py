"""No pass without gradients takes the gradients of a later one under autocast (torch up to 2.9)."""

import pytest
import torch
from mixed_precision import (
    CASES,
    ROUNDING_ALONE,
    SETTINGS,
    StaleCasts,
    backward,
    batch,
    build,
    name_of,
    step,
)
from mmseg.registry import MODELS
from networks import SIZE, narrow
from tiny import collated_batch

from mmseg_semi.engine.hooks.prototype_mean_hook import start_prototypes
from mmseg_semi.models.gradients import no_stale_casts, without_gradients
from mmseg_semi.models.segmentors.base import SemiSegmentor
from mmseg_semi.models.segmentors.networks import evaluating


def test_every_method_is_looked_at():
    own = {
        name
        for name, one in MODELS.module_dict.items()
        if isinstance(one, type) and issubclass(one, SemiSegmentor)
        if one.__module__.startswith('mmseg_semi.')
    }
    assert own == set(SETTINGS)


@pytest.mark.parametrize('run', [step, backward])
@pytest.mark.parametrize(('method', 'settings'), CASES, ids=name_of)
def test_no_weight_is_used_without_gradients_first(method, settings, run):
    model = build(method, settings)
    with StaleCasts() as watch:
        run(model)
    assert watch.reused == []


@pytest.mark.parametrize('run', [step, backward])
@pytest.mark.parametrize(('method', 'settings'), CASES, ids=name_of)
def test_gradients_are_close_to_those_without_autocast(method, settings, run):
    exact, rounded = build(method, settings), build(method, settings)
    run(exact, autocast=False)
    run(rounded)
    far = {}
    for (name, one), other in zip(exact.named_parameters(), rounded.parameters(), strict=True):
        if not one.requires_grad or name in ROUNDING_ALONE:
            continue
        assert one.grad is not None, f'{name} has no gradient to compare with'
        assert one.grad.any(), f'the gradient of {name} is 0'
        if other.grad is None:
            far[name] = 'no gradient'
            continue
        cosine = torch.cosine_similarity(one.grad.flatten(), other.grad.flatten(), dim=0)
        ratio = other.grad.norm() / one.grad.norm()
        # Scales and shifts are a few numbers each, of which a rounding error can turn one.
        least = 0.7 if one.dim() > 1 else 0.4
        if not (cosine > least and 0.5 < ratio < 2):
            far[name] = f'cosine {cosine:.2f}, ratio of norms {ratio:.2f}'
    assert far == {}


@pytest.mark.parametrize('network', ['segformer_mit-b1', 'linear_dinov2-s14'])
@pytest.mark.parametrize(
    ('method', 'settings'), [('IMAS', {}), ('FixMatch', {'label_mode': 'eval'})]
)
@pytest.mark.filterwarnings('ignore')
def test_no_weight_of_a_transformer_either(method, settings, network):
    config = {'type': method, 'segmentor': narrow(network), 'semi_train_cfg': settings}
    model = MODELS.build(config).train()
    data = model.data_preprocessor(collated_batch(2, 2, size=SIZE[0]), True)
    with StaleCasts() as watch, torch.autocast('cpu', torch.bfloat16):
        model.loss(data['inputs'], data['data_samples'])
    assert watch.reused == []


# ------------------------------------------------------------------------------------ other passes


def heads(model, images):
    with torch.no_grad():
        model.forward_heads(model.student, [images.new_zeros(2, c, 8, 8) for c in (8, 16)])


def network(model, images):
    with torch.no_grad(), evaluating(model.student):
        model.forward_network(model.student, images)


def views(model, images):
    with torch.no_grad():
        model.forward_views(model.student, images, images, joint=False)


def validation(model, images):
    data = collated_batch(2, 0)
    samples = data['data_samples']['labeled']
    with model.predicting_with('student'):
        model.eval()
        model.val_step({'inputs': list(data['inputs']['labeled']), 'data_samples': samples})
        model.train()


def tensors(model, images):
    with torch.no_grad(), model.predicting_with('student'):
        model(images, mode='tensor')
        model.encode_decode(images, [{'img_shape': (32, 32)}] * 2)
        model.extract_feat(images)


@pytest.mark.parametrize('forgetful', [heads, network, views, validation, tensors])
def test_a_method_or_a_hook_may_forget_it(forgetful):
    model = build('MeanTeacher', {})
    images = torch.rand(2, 3, 32, 32)
    with torch.autocast('cpu', torch.bfloat16), StaleCasts() as watch:
        if forgetful is validation:
            with torch.no_grad():
                forgetful(model, images)
        else:
            forgetful(model, images)
        output = model.forward_network(model.student, images, 2)
        (output.logits.sum() + output.auxiliary[0].sum()).backward()
    assert watch.reused == []
    assert [name for name, p in model.student.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize('method', ['ESL', 'DeS4'])
def test_passes_of_the_prototypes_hooks(method):
    model = build(method, {})
    data = model.data_preprocessor(batch(), True)
    images = data['inputs']['labeled']
    # Also where all networks are trained, as by a method derived from these.
    model.requires_grad_(True)
    with torch.autocast('cpu', torch.bfloat16), StaleCasts() as watch:
        if method == 'ESL':
            model.encode(images)
        else:
            labels = [sample.gt_sem_seg.data for sample in data['data_samples']['labeled']]
            start_prototypes(model, zip(images.split(1), labels, strict=True))
        model.forward_network(model.teacher, images)
    assert watch.reused == []


def test_watch_finds_a_reused_weight():
    layers = torch.nn.Conv2d(3, 4, 1), torch.nn.Linear(4, 2)
    images = torch.rand(1, 3, 5, 4)

    def forward():
        return layers[1](layers[0](images).mean(3).transpose(1, 2))

    with torch.autocast('cpu', torch.bfloat16), StaleCasts() as watch:
        with torch.no_grad():
            forward()
        forward()
    assert [id(weight) for weight in watch.reused] == [id(layer.weight) for layer in layers]


# ------------------------------------------------------------------------------------ the contexts


def state():
    return torch.is_grad_enabled(), torch.is_autocast_cache_enabled()


@pytest.mark.parametrize('kept', [True, False])
def test_gradients_and_cache_are_off_inside_and_as_before_behind(kept):
    with torch.autocast('cpu', torch.bfloat16, cache_enabled=kept):
        with without_gradients():
            assert state() == (False, False)
        assert without_gradients()(state)() == (False, False)
        assert state() == (True, kept)
        with pytest.raises(KeyError), without_gradients():
            raise KeyError
        assert state() == (True, kept)


def test_cache_stays_on_where_gradients_are():
    with no_stale_casts():
        assert state() == (True, True)
    with torch.no_grad():
        with no_stale_casts():
            assert state() == (False, False)
        assert state() == (False, True)
