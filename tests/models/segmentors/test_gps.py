"""GPS against an independent reading of the paper's equations: two updates, each of its own networks."""

import copy
import itertools

import ddp_steps  # noqa: F401  registers ScaledOptimWrapper
import pytest
import torch
import torch.nn.functional as F
from loss_scalers import cpu_grad_scaler
from mmengine.optim import build_optim_wrapper
from mmseg.registry import MODELS
from tiny import FixedCutMix, build_plain, collated_batch, tiny_segmentor

import mmseg_semi.engine
from mmseg_semi.models.cutmix import CutMixPlan

NETWORKS = ('student1', 'student2', 'teacher')
# Large weights in the classifier make the untrained networks sure, of several classes.
CLASSIFIER = {'type': 'Normal', 'std': 2.0, 'override': {'name': 'conv_seg'}}
BOXES = [
    [[2, 3, 20, 14], [10, 8, 30, 30], [0, 20, 12, 31]],
    [[5, 5, 25, 25], [0, 0, 9, 9], [8, 8, 9, 9]],
]
LR = 0.5


def build(norm='BN', auxiliary=False, align_corners=False, **settings):
    torch.manual_seed(0)
    model = MODELS.build(
        {
            'type': 'GPS',
            'segmentor': tiny_segmentor(
                norm, auxiliary=auxiliary, init_cfg=CLASSIFIER, align_corners=align_corners
            ),
            # The batches below have padding, each image elsewhere.
            'semi_train_cfg': {'ignore_padding': True, **settings},
        }
    )
    model.init_weights()
    if model.cfg.cutmix is not None:
        partner = torch.tensor([2, 3] if model.cfg.cutmix == 'pair' else [1, 0])
        model.cutmix = FixedCutMix()
        model.cutmix.fixed = CutMixPlan(partner, torch.tensor(BOXES), (32, 32))
    # In float64: in float32, rounding decides between two classes that are almost as probable.
    return model.double().train()


def build_wrapper(model, **settings):
    config = {
        'type': 'OptimWrapper',
        'constructor': 'NetworkOptimWrapperConstructor',
        'optimizer': {'type': 'SGD', 'lr': LR},
        **settings,
    }
    return build_optim_wrapper(model, config)


def padded_batch(num_unlabeled=2, seed=0):
    """A collated batch whose unlabeled images end in padding, each elsewhere."""
    batch = collated_batch(2, num_unlabeled, seed=seed)
    for i, sample in enumerate(batch['data_samples']['weak']):
        sample.valid_mask.data = sample.valid_mask.data.clone()
        sample.valid_mask.data[:, 25 + i :] = False
    return batch


def up(network, images):
    logits, align_corners = network._forward(images), network.align_corners
    return F.interpolate(logits, size=(32, 32), mode='bilinear', align_corners=align_corners)


def reference_step(
    model, networks, batch, cutmix, merged, weight=1.0, on=('gps', 'cps', 'fps'), guidance=1.0
):
    """One iteration in the paper's words: images are labeled apart, then cut and pasted by a mask."""
    cfg = model.cfg
    data = model.data_preprocessor(batch, True)
    x, u = data['inputs']['labeled'], data['inputs']['weak']
    # What shares the forward pass of the unlabeled images.
    shared = x if cfg.joint_forward else x[:0]
    y = torch.cat([sample.gt_sem_seg.data for sample in data['data_samples']['labeled']])
    valid = torch.cat([sample.valid_mask.data for sample in data['data_samples']['weak']])
    sources = {None: [u], 'in_batch': [u], 'pair': [u[:2], u[2:]]}[cutmix]
    masks = {None: [valid], 'in_batch': [valid], 'pair': [valid[:2], valid[2:]]}[cutmix]

    def mixed(maps):
        first = maps[0]
        if cutmix is None:
            return first
        second = maps[1] if cutmix == 'pair' else maps[0][[1, 0]]
        result = first.clone()
        for i, boxes in enumerate(BOXES):
            inside = torch.zeros(32, 32, dtype=torch.bool)
            for x1, y1, x2, y2 in boxes:
                inside[y1:y2, x1:x2] ^= True
            result[i] = torch.where(inside, second[i], first[i])
        return result

    def unlabeled(network, source):
        return up(network, torch.cat([shared, source]))[len(shared) :]

    def learned(network, label):
        return F.cross_entropy(unlabeled(network, images), label, ignore_index=255)

    def supervised(network):
        apart = torch.cat([x, images]) if len(shared) else x
        return F.cross_entropy(up(network, apart)[: len(x)], y, ignore_index=255)

    def labels(*names):
        """The label of the mean probability, unmixed images, void where padded."""
        found = []
        for source, mask in zip(sources, masks, strict=True):
            with torch.no_grad():
                probs = sum(unlabeled(networks[n], source).softmax(1) for n in names)
            found.append(probs.argmax(1).masked_fill(~mask, 255))
        return mixed(found)

    images = mixed(sources)
    s1, s2, teacher = (networks[name] for name in NETWORKS)
    guide = supervised(s1) + supervised(s2)
    if 'gps' in on:
        target = labels('teacher')
        taught = learned(s1, target) + learned(s2, target)
        guide = guide + guidance * cfg.alpha * taught
    if 'cps' in on:
        first, second = labels('student1'), labels('student2')
        guide = guide + cfg.beta * (learned(s1, second) + learned(s2, first))
    early = labels('student1', 'student2')
    update(guide, s1, s2)
    target = early if merged else labels('student1', 'student2')
    feedback = supervised(teacher)
    if 'fps' in on:
        feedback = feedback + weight * cfg.gamma * learned(teacher, target)
    update(feedback, teacher)
    return guide + feedback


def agreements(model, batch, cutmix):
    """Shares of equal labels of each pair of networks, of the pixels that are learned."""
    data = copy.deepcopy(model).data_preprocessor(batch, True)
    weak = data['inputs']['weak']
    valid = torch.cat([sample.valid_mask.data for sample in data['data_samples']['weak']])
    labels = {}
    for name in NETWORKS:
        with torch.no_grad():
            label = up(copy.deepcopy(getattr(model, name)), weak).argmax(1)
        label = label.masked_fill(~valid, 255)
        if cutmix:
            own = label.clone()
            for i, boxes in enumerate(BOXES):
                inside = torch.zeros(32, 32, dtype=torch.bool)
                for x1, y1, x2, y2 in boxes:
                    inside[y1:y2, x1:x2] ^= True
                own[i][inside] = label[1 - i][inside]
            label = own
        labels[name] = label
    known = labels['teacher'] != 255
    pairs = {
        'students': ('student1', 'student2'),
        'teacher_student1': ('teacher', 'student1'),
        'teacher_student2': ('teacher', 'student2'),
    }
    return {
        f'agreement_{key}': (labels[a] == labels[b])[known].float().mean()
        for key, (a, b) in pairs.items()
    }


def update(loss, *networks):
    parameters = [p for network in networks for p in network.parameters()]
    gradients = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= LR * gradient


def trained(cutmix, merged=False, weight=1.0, on=('gps', 'cps', 'fps'), steps=2, **settings):
    """The model after some steps, and the reference's networks."""
    settings = {name: name in on for name in ('gps', 'cps', 'fps')} | settings
    model = build(cutmix=cutmix, update='merged' if merged else 'alternating', **settings)
    networks = {name: copy.deepcopy(getattr(model, name)) for name in NETWORKS}
    wrapper = build_wrapper(model)
    model.ramp_up.weight = weight
    for i in range(steps):
        batch = padded_batch(4 if cutmix == 'pair' else 2, seed=i)
        expected = reference_step(model, networks, batch, cutmix, merged, weight, on)
        log_vars = model.train_step(batch, wrapper)
        torch.testing.assert_close(log_vars['loss'], expected.detach(), rtol=1e-9, atol=1e-12)
    return model, networks, log_vars


@pytest.mark.parametrize('joint', [False, True])
@pytest.mark.parametrize('merged', [False, True])
@pytest.mark.parametrize('cutmix', [None, 'in_batch', 'pair'])
def test_two_iterations_equal_the_papers_equations(cutmix, merged, joint):
    model, networks, log_vars = trained(cutmix, merged, weight=0.6, joint_forward=joint)
    for name, network in networks.items():
        expected = dict(network.named_parameters())
        for key, value in getattr(model, name).named_parameters():
            torch.testing.assert_close(value, expected[key], rtol=1e-9, atol=1e-12)
    # With a joint pass, the students of pairs agree on 1 % of the pixels.
    assert (0 if joint else 0.05) < log_vars['agreement_students'] < 0.95
    assert log_vars['pseudo_label_entropy'] > 0.1


@pytest.mark.parametrize(('setting', 'factor'), [('constant', 1.0), ('ramp_down', 0.25)])
def test_ramp_down_weighs_the_guidance_alone(setting, factor):
    model = build(cutmix='in_batch', guidance=setting)
    networks = {name: copy.deepcopy(getattr(model, name)) for name in NETWORKS}
    model.ramp_up.weight, model.ramp_up.guidance = 0.6, 0.25
    batch = padded_batch()
    expected = reference_step(model, networks, batch, 'in_batch', False, 0.6, guidance=factor)
    log_vars = model.train_step(batch, build_wrapper(model))
    torch.testing.assert_close(log_vars['loss'], expected.detach(), rtol=1e-9, atol=1e-12)
    for name, network in networks.items():
        torch.testing.assert_close(
            getattr(model, name).decode_head.conv_seg.weight,
            network.decode_head.conv_seg.weight,
            rtol=1e-9,
            atol=1e-12,
        )


@pytest.mark.parametrize('cutmix', [None, 'in_batch'])
def test_equations_hold_with_aligned_corners(cutmix):
    model, networks, _ = trained(cutmix, steps=1, align_corners=True)
    assert model.align_corners
    for name, network in networks.items():
        torch.testing.assert_close(
            getattr(model, name).decode_head.conv_seg.weight,
            network.decode_head.conv_seg.weight,
            rtol=1e-9,
            atol=1e-12,
        )


@pytest.mark.parametrize('cutmix', [None, 'in_batch'])
def test_agreements_are_shares_of_the_pixels_learned(cutmix):
    model, batch = build(cutmix=cutmix), padded_batch()
    expected = agreements(model, batch, cutmix)
    assert len({round(float(value), 4) for value in expected.values()}) == 3
    log_vars = model.train_step(batch, build_wrapper(model))
    for key, value in expected.items():
        torch.testing.assert_close(log_vars[key], value)


@pytest.mark.parametrize(('weight', 'again'), [(1.0, 0), (0.5, 3)])
def test_plain_cross_entropy_is_not_computed_twice(weight, again, monkeypatch):
    module = mmseg_semi.models.segmentors.gps
    calls, function = [], module.cross_entropy
    monkeypatch.setattr(
        module, 'cross_entropy', lambda *a, **k: calls.append(1) or function(*a, **k)
    )
    model = build()
    for name in NETWORKS:
        getattr(model, name).decode_head.loss_decode.loss_weight = weight
    log_vars = model.loss(**model.data_preprocessor(padded_batch(4), True))
    assert len(calls) == again
    assert not log_vars['labeled_ce_teacher'].requires_grad
    torch.testing.assert_close(
        log_vars['labeled_ce_teacher'] * weight, log_vars['teacher.decode.loss_ce'].detach()
    )


@pytest.mark.parametrize('overflowing', ['students', 'teacher'])
def test_overflow_of_one_scaler_leaves_the_other_update(overflowing):
    # In float32, in which the scaled loss overflows.
    model = build(norm='GN', cutmix='in_batch').float()
    wrapper = build_wrapper(model, type='ScaledOptimWrapper')
    for name, one in wrapper.items():
        scale = 3e38 if name == overflowing else 8.0
        one.loss_scaler = cpu_grad_scaler(init_scale=scale, growth_interval=4)
    before = copy.deepcopy(model.state_dict())
    model.train_step(padded_batch(), wrapper)
    for update, names in model.optimized.items():
        for name in names:
            weight = getattr(model, name).decode_head.conv_seg.weight
            kept = torch.equal(weight, before[f'{name}.decode_head.conv_seg.weight'])
            assert kept == (update == overflowing), name
    scales = {name: one.loss_scaler.get_scale() for name, one in wrapper.items()}
    assert {name for name, scale in scales.items() if scale == 8} == {*scales} - {overflowing}
    assert scales[overflowing] == pytest.approx(1.5e38)


def test_the_two_orders_of_updates_differ_in_the_teacher_alone():
    first, *_ = trained('in_batch', merged=False, steps=1)
    second, *_ = trained('in_batch', merged=True, steps=1)
    for name, same in {'student1': True, 'student2': True, 'teacher': False}.items():
        weights = [getattr(model, name).decode_head.conv_seg.weight for model in (first, second)]
        assert torch.equal(*weights) == same, name


SUBSETS = [subset for n in range(3) for subset in itertools.combinations(('gps', 'cps', 'fps'), n)]


@pytest.mark.parametrize('cutmix', [None, 'in_batch'])
@pytest.mark.parametrize('on', SUBSETS, ids='+'.join)
def test_ablations_of_table_4(on, cutmix):
    model, networks, log_vars = trained(cutmix, on=on, merged=len(on) == 1, steps=1)
    for name, network in networks.items():
        expected = network.decode_head.conv_seg.weight
        torch.testing.assert_close(
            getattr(model, name).decode_head.conv_seg.weight, expected, rtol=1e-9, atol=1e-12
        )
    assert {key for key in log_vars if key in ('loss_gps', 'loss_cps', 'loss_fps')} == {
        f'loss_{name}' for name in on
    }
    assert ('agreement_students' in log_vars) == ('cps' in on)
    assert ('agreement_teacher_student2' in log_vars) == ({'gps', 'cps'} <= set(on))


@pytest.mark.parametrize('cutmix', [None, 'in_batch'])
def test_each_loss_reaches_its_own_networks(cutmix):
    model = build(cutmix=cutmix)
    batch = model.batch_of(**model.data_preprocessor(padded_batch(), True))

    def reached():
        return {
            name: any(
                p.grad is not None and p.grad.any() for p in getattr(model, name).parameters()
            )
            for name in NETWORKS
        }

    loss, _ = model.parse_losses(model(batch, mode='students'))
    loss.backward()
    assert reached() == {'student1': True, 'student2': True, 'teacher': False}
    model.zero_grad()
    losses = model(batch, mode='teacher')
    losses['loss_fps'].backward()
    assert reached() == {'student1': False, 'student2': False, 'teacher': True}


@pytest.mark.parametrize(
    ('settings', 'passes'),
    [
        ({'cutmix': None}, 20),
        ({'cutmix': 'in_batch'}, 23),
        ({'cutmix': 'pair'}, 28),
        ({'cutmix': None, 'update': 'merged'}, 18),
        ({'cutmix': 'in_batch', 'update': 'merged'}, 21),
        ({'cutmix': None, 'fps': False}, 16),
        ({'cutmix': None, 'gps': False, 'cps': False}, 14),
        ({'cutmix': 'in_batch', 'gps': False, 'fps': False}, 17),
        ({'cutmix': None, 'unlabeled_start': 9}, 9),
        ({'cutmix': None, 'joint_forward': True}, 24),
        ({'cutmix': 'in_batch', 'joint_forward': True}, 28),
        ({'cutmix': 'pair', 'joint_forward': True}, 38),
        ({'cutmix': None, 'joint_forward': True, 'gps': False, 'cps': False}, 16),
    ],
)
def test_passes_of_a_step(settings, passes):
    """In forwards of one pair of images, a backward counted as two: nothing is computed twice."""
    model = build(**settings)
    seen = []
    for name in NETWORKS:
        getattr(model, name).backbone.register_forward_hook(
            lambda _, inputs, output: seen.append(
                len(inputs[0]) * (3 if output[0].requires_grad else 1)
            )
        )
    model.train_step(padded_batch(4 if model.unlabeled_batches == 2 else 2), build_wrapper(model))
    assert sum(seen) / 2 == passes


@pytest.mark.parametrize('cutmix', [None, 'in_batch'])
def test_recomputed_activations_change_nothing(cutmix):
    batch = padded_batch()
    weights = []
    for recompute in (False, True):
        model = build(auxiliary=True, cutmix=cutmix, recompute=recompute)
        calls = []
        model.teacher.backbone.register_forward_pre_hook(lambda *args, calls=calls: calls.append(1))
        wrapper = build_wrapper(model)
        for _ in range(2):
            model.train_step(batch, wrapper)
        weights.append((model.state_dict(), len(calls)))
    (first, few), (second, many) = weights
    assert many == few + 4
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=1e-9, atol=1e-12)


def test_padding_is_learned_on_demand():
    batch, terms = padded_batch(), []
    for ignore in (True, False):
        model = build(cutmix=None, ignore_padding=ignore)
        terms.append(model.loss(**model.data_preprocessor(batch, True)))
    for key in ('loss_gps', 'loss_cps', 'loss_fps'):
        assert terms[0][key] != terms[1][key]


def test_labeled_images_alone_before_the_start():
    model = build(cutmix=None, unlabeled_start=3)
    wrapper = build_wrapper(model)
    for step, learned in ((2, False), (3, True)):
        wrapper.initialize_count_status(model, step, 9)
        log_vars = model.train_step(padded_batch(), wrapper)
        for key in ('loss_gps', 'loss_cps', 'loss_fps'):
            assert (key in log_vars) == learned
        # What the ramp-up compares, as well.
        assert model.ramp_up.labeled_sums[2] == learned


def test_log_has_both_losses_and_no_diagnostic_is_optimized():
    model = build(cutmix=None)
    log_vars = model.train_step(padded_batch(), build_wrapper(model))
    terms = [key for key in log_vars if 'loss' in key and key != 'loss']
    assert set(terms) == {
        *(f'{name}.decode.loss_ce' for name in NETWORKS),
        *('loss_gps', 'loss_cps', 'loss_fps'),
    }
    torch.testing.assert_close(log_vars['loss'], sum(log_vars[key] for key in terms))
    mean = (log_vars['student1.decode.loss_ce'] + log_vars['student2.decode.loss_ce']) / 2
    torch.testing.assert_close(log_vars['labeled_ce_students'], mean)
    torch.testing.assert_close(log_vars['labeled_ce_teacher'], log_vars['teacher.decode.loss_ce'])


def test_comparison_is_of_plain_cross_entropy_whatever_the_loss():
    batch = padded_batch(4)
    logs = []
    for loss in ({}, {'ohem': {'threshold': 0.5, 'min_kept': 10}}, {'class_weight': [1, 2, 3, 4]}):
        model = build()
        for name in NETWORKS:
            head = getattr(model, name).decode_head
            head.loss_decode = MODELS.build({'type': 'PixelCrossEntropyLoss', **loss})
        logs.append(model.loss(**model.data_preprocessor(batch, True)))
    for log in logs[1:]:
        assert log['teacher.decode.loss_ce'] != logs[0]['teacher.decode.loss_ce']
        for name in ('students', 'teacher'):
            torch.testing.assert_close(log[f'labeled_ce_{name}'], logs[0][f'labeled_ce_{name}'])


def test_void_batch_trains_and_is_left_out():
    model = build(cutmix=None)
    batch = padded_batch()
    for sample in batch['data_samples']['labeled']:
        sample.gt_sem_seg.data = torch.full_like(sample.gt_sem_seg.data, 255)
    log_vars = model.train_step(batch, build_wrapper(model))
    assert log_vars['teacher.decode.loss_ce'] == 0
    assert torch.isfinite(log_vars['loss'])
    assert not model.ramp_up.labeled_sums.any()


# ------------------------------------------------------------------------------------ start and checkpoints


def test_teacher_starts_from_its_own_checkpoint(tmp_path):
    torch.manual_seed(7)
    plain, path = build_plain(), tmp_path / 'phase_a.pth'
    torch.save({'state_dict': plain.state_dict(), 'meta': {}}, path)
    model = build(teacher_checkpoint=str(path))
    before = copy.deepcopy(model.student1.state_dict())
    model.start_teacher()
    for key, value in plain.state_dict().items():
        assert torch.equal(model.teacher.state_dict()[key], value)
        assert torch.equal(model.student1.state_dict()[key], before[key])
    model.check_start()


def test_loaded_teacher_stays(tmp_path):
    first = build()
    second = build(teacher_checkpoint=str(tmp_path / 'removed.pth'))
    with torch.no_grad():
        first.teacher.decode_head.conv_seg.weight.fill_(3.0)
    second.load_state_dict(first.state_dict())
    second.start_teacher()
    assert (second.teacher.decode_head.conv_seg.weight == 3.0).all()


def test_plain_checkpoint_is_not_the_teacher(tmp_path):
    """It starts all three networks. The trained teacher is that of teacher_checkpoint."""
    torch.manual_seed(7)
    trained, start = build_plain(), build_plain(num_classes=7)
    torch.save({'state_dict': trained.state_dict(), 'meta': {}}, tmp_path / 'teacher.pth')
    model = build(teacher_checkpoint=str(tmp_path / 'teacher.pth'))
    model.loads_partly, model.misfits = True, {}
    model.load_state_dict(start.state_dict(), strict=False)
    weight = 'backbone.layer1.0.conv1.weight'
    assert torch.equal(model.teacher.state_dict()[weight], start.state_dict()[weight])
    model.start_teacher()
    for key, value in trained.state_dict().items():
        assert torch.equal(model.teacher.state_dict()[key], value), key
    assert torch.equal(model.student1.state_dict()[weight], start.state_dict()[weight])


def test_missing_or_foreign_teacher_is_refused(tmp_path):
    missing = build(teacher_checkpoint=str(tmp_path / 'none.pth'))
    with pytest.raises(FileNotFoundError, match=r'teacher_checkpoint=.*none.pth'):
        missing.start_teacher()
    deeper = tiny_segmentor()
    deeper['backbone']['depth'] = 34
    path = tmp_path / 'deeper.pth'
    torch.save(
        {'state_dict': MODELS.build({**deeper, 'data_preprocessor': None}).state_dict()}, path
    )
    with pytest.raises(ValueError, match='the teacher differ in'):
        build(teacher_checkpoint=str(path)).start_teacher()


def test_old_checkpoint_brings_its_ramp_up():
    first, second = build(), build()
    first.ramp_up.labeled_sums += torch.tensor([1.0, 2.0, 3.0])
    first.ramp_up.latch_epoch.fill_(4)
    saved = {key.removeprefix('ramp_up.'): value for key, value in first.state_dict().items()}
    assert {'labeled_sums', 'latch_epoch'} <= saved.keys()
    second.load_state_dict(saved)
    for key, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[key], value), key


def test_comparison_is_not_weighted():
    logs = []
    for weight in (1.0, 0.5):
        model = build(labeled_weight=weight)
        logs.append(model.loss(**model.data_preprocessor(padded_batch(4), True)))
    for name in ('students', 'teacher'):
        torch.testing.assert_close(*(log[f'labeled_ce_{name}'] for log in logs))
    for name in NETWORKS:
        whole, half = (log[f'{name}.decode.loss_ce'] for log in logs)
        torch.testing.assert_close(half, 0.5 * whole)


def test_one_optimizer_is_refused():
    model = build()
    wrapper = build_wrapper(model)['students']
    with pytest.raises(
        ValueError, match=r'needs 2 optimizer wrapper.* Set optim_wrapper.constructor'
    ):
        model.train_step(padded_batch(), wrapper)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'alpha': -1.0}, 'alpha must be at least 0, got -1.0'),
        ({'teacher_lr_scale': -0.1}, 'teacher_lr_scale must be at least 0, got -0.1'),
        ({'gamma': float('nan')}, 'gamma must be finite, got nan'),
        ({'update': 'both'}, "update must be 'alternating' or 'merged', got 'both'"),
        ({'cutmix': 'cps'}, "cutmix must be 'pair', 'in_batch' or None, got 'cps'"),
        ({'gps': 1}, 'gps must be True or False, got 1'),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)
