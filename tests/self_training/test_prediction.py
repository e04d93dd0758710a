"""What a network says of images: mmseg's own prediction, and ST++'s sum over scales and flips."""

import copy

import pytest
import torch
import torch.nn.functional as F
import trained

from mmseg_semi.self_training import prediction
from mmseg_semi.self_training.images import ImagePool
from mmseg_semi.self_training.prediction import VOID, Predictor, checkpoint_digest

RESIZE = dict(type='Resize', scale=(40, 40), keep_ratio=True)
SLIDE = dict(mode='slide', crop_size=(16, 16), stride=(12, 12))


def samples_of(cfg, pool, num=3):
    """The first images of one size, loaded."""
    images = ImagePool(cfg, pool)
    ((_, samples),) = images.load([images.plan(num)[0]], num_workers=0)
    return samples


def stock_masks(cfg, path, samples):
    """mmseg's own prediction, one image at a time."""
    model = trained.build(cfg, seed=0)
    model.load_state_dict(torch.load(path, weights_only=False)['state_dict'])
    masks = []
    for sample in copy.deepcopy(samples):
        with torch.no_grad():
            (result,) = model.test_step({k: [v] for k, v in sample.items()})
        masks.append(result.pred_sem_seg.data[0])
    return torch.stack(masks)


@pytest.mark.parametrize(
    'change',
    [
        {},
        dict(pipeline=[trained.LOAD, RESIZE, dict(type='LoadAnnotations'), trained.PACK]),
        dict(align_corners=True, pipeline=[trained.LOAD, RESIZE, trained.PACK]),
        dict(test_cfg=SLIDE),
        dict(padding=dict(size_divisor=64)),
        dict(padding=dict(size=(48, 56))),
        dict(method=True),
    ],
    ids=['whole', 'resized', 'aligned', 'slide', 'divisor', 'padded', 'method'],
)
def test_a_plain_prediction_is_mmsegs(tmp_path, pool, change):
    test_cfg, padding = change.pop('test_cfg', None), change.pop('padding', None)
    cfg = trained.config(**change)
    if test_cfg:
        cfg.model.test_cfg = test_cfg
    if padding:
        cfg.model.data_preprocessor.test_cfg = padding
    path = trained.checkpoint(cfg, tmp_path / 'x.pth')
    samples = samples_of(cfg, pool)
    assert len(samples) == 3
    predictor = Predictor(cfg, path, 'cpu')
    masks = predictor.masks(predictor.prepare(samples), (24, 32))
    expected = stock_masks(cfg, path, samples)
    assert masks.dtype == torch.uint8
    assert masks.shape == (3, 24, 32)
    assert len(expected.unique()) >= 3
    assert torch.equal(masks.long(), expected)


def slow_scores(model, image, size, scales):
    """ST++'s loop over views of one normalized image (1, 3, h, w): one pass each."""
    total = torch.zeros(1, model.num_classes, *size)
    height, width = image.shape[-2:]
    for scale in scales:
        view = (int(height * scale), int(width * scale))
        resized = F.interpolate(image, view, mode='bilinear', align_corners=model.align_corners)
        for mirrored in (False, True):
            inputs = resized.flip(3) if mirrored else resized
            logits = model.decode_head.forward(model.extract_feat(inputs))
            logits = F.interpolate(logits, view, mode='bilinear', align_corners=model.align_corners)
            probs = logits.softmax(1)
            probs = probs.flip(3) if mirrored else probs
            total += F.interpolate(probs, size, mode='bilinear', align_corners=model.align_corners)
    return total


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('resized', [False, True])
def test_scales_and_flips_against_a_loop(tmp_path, pool, align_corners, resized):
    pipeline = [trained.LOAD, *([RESIZE] if resized else []), trained.PACK]
    cfg = trained.config(pipeline, align_corners=align_corners)
    path = trained.checkpoint(cfg, tmp_path / 'x.pth')
    predictor = Predictor(cfg, path, 'cpu')
    images = predictor.prepare(samples_of(cfg, pool))
    assert tuple(images.shape[-2:]) == ((30, 40) if resized else (24, 32))
    size, scales = (24, 32), (0.5, 0.75, 1.0, 1.5, 2.0)
    model = trained.build(cfg, seed=0)
    with torch.no_grad():
        expected = torch.cat([slow_scores(model, image[None], size, scales) for image in images])
        scores = predictor._scores(images, size, scales, flip=True)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    first, second = expected.topk(2, dim=1).values.unbind(1)
    clear = first - second > 1e-3
    masks = predictor.masks(images, size, scales, flip=True)
    assert clear.float().mean() > 0.98
    assert torch.equal(masks[clear].long(), expected.argmax(1)[clear])
    # Neither scales nor flips are without effect.
    for fewer in (dict(scales=scales), dict(scales=(1.0,), flip=True), dict(scales=(1.0,))):
        assert not torch.equal(predictor.masks(images, size, **fewer), masks)


def test_a_large_batch_goes_through_the_network_in_parts(cfg, checkpoints, pool, monkeypatch):
    predictor = Predictor(cfg, checkpoints[0], 'cpu')
    images = predictor.prepare(samples_of(cfg, pool))
    whole = predictor.masks(images, (24, 32), (1.0, 2.0), flip=True)
    seen = []
    forward = predictor._forward
    monkeypatch.setattr(predictor, '_forward', lambda x: seen.append(tuple(x.shape)) or forward(x))
    # Two pairs at scale 1, less than one pair at scale 2.
    monkeypatch.setattr(prediction, 'CPU_PIXELS', 4 * 24 * 32)
    parts = predictor.masks(images, (24, 32), (1.0, 2.0), flip=True)
    # At scale 2 straight and mirrored views go one after the other.
    assert seen == [(4, 3, 24, 32), (2, 3, 24, 32)] + [(1, 3, 48, 64)] * 6
    assert (parts == whole).float().mean() > 0.99
    seen.clear()
    predictor.masks(torch.cat([images, images]), (24, 32))
    assert seen == [(4, 3, 24, 32), (2, 3, 24, 32)]


def test_the_network_that_the_method_predicts_with(tmp_path, pool):
    cfg = trained.config(method=True)
    model = trained.build(cfg, seed=0)
    other = trained.build(trained.config(), seed=7)
    model.student.load_state_dict(other.state_dict())
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'x.pth')
    samples = samples_of(cfg, pool)
    masks = {}
    for name in ('teacher', 'student'):
        cfg.model.semi_test_cfg = dict(predict_on=name)
        predictor = Predictor(cfg, str(tmp_path / 'x.pth'), 'cpu')
        masks[name] = predictor.masks(predictor.prepare(samples), (24, 32))
        with torch.no_grad(), model.predicting_with(name):
            data = model.data_preprocessor(
                {key: [sample[key] for sample in samples] for key in samples[0]}
            )
            expected = [x.pred_sem_seg.data[0] for x in model(**data, mode='predict')]
        assert torch.equal(masks[name].long(), torch.stack(expected))
        # The other network is not kept.
        parameters = sum(p.numel() for p in predictor._network.parameters())
        assert parameters == sum(p.numel() for p in model.student.parameters())
    assert not torch.equal(masks['teacher'], masks['student'])


def test_a_plain_checkpoint_serves_a_method(tmp_path, cfg, checkpoints, pool):
    samples = samples_of(cfg, pool)
    plain = Predictor(cfg, checkpoints[0], 'cpu')
    method = Predictor(trained.config(method=True), checkpoints[0], 'cpu')
    assert torch.equal(
        plain.masks(plain.prepare(samples), (24, 32)),
        method.masks(method.prepare(samples), (24, 32)),
    )


def test_the_network_neither_trains_nor_keeps_gradients(cfg, checkpoints, pool):
    predictor = Predictor(cfg, checkpoints[0], 'cpu')
    assert not predictor._network.training
    assert not any(p.requires_grad for p in predictor._network.parameters())
    before = copy.deepcopy(predictor._network.state_dict())
    images = predictor.prepare(samples_of(cfg, pool))
    kept = images.clone()
    predictor.masks(images, (24, 32), (1.0, 1.5), flip=True)
    assert torch.equal(images, kept)
    assert all(torch.equal(x, before[k]) for k, x in predictor._network.state_dict().items())
    assert predictor.in_network.seconds() > 0


def test_what_is_not_finite_is_void(cfg, checkpoints, pool):
    predictor = Predictor(cfg, checkpoints[0], 'cpu')
    images = predictor.prepare(samples_of(cfg, pool))
    images[1] = float('nan')
    for views in ({}, dict(scales=(0.5, 1.0), flip=True)):
        masks = predictor.masks(images, (24, 32), **views)
        assert (masks[1] == VOID).all()
        assert (masks[[0, 2]] < 4).all()


def test_one_channel_for_two_classes_is_refused(tmp_path):
    cfg = trained.config(
        num_classes=2,
        out_channels=1,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True),
    )
    path = trained.checkpoint(cfg, tmp_path / 'x.pth')
    with pytest.raises(
        ValueError, match=r'^decode_head has out_channels=1, .*out_channels=num_classes'
    ):
        Predictor(cfg, path, 'cpu')


def test_a_checkpoint_that_does_not_fit(tmp_path, cfg, checkpoints):
    with pytest.raises(
        ValueError, match=r'iter_1.pth does not fit .*size mismatch for decode_head.conv_seg'
    ):
        Predictor(trained.config(num_classes=5), checkpoints[0], 'cpu')
    state_dict = torch.load(checkpoints[0], weights_only=False)['state_dict']
    del state_dict['decode_head.conv_seg.bias']
    torch.save(dict(state_dict=state_dict), tmp_path / 'x.pth')
    with pytest.raises(
        ValueError, match=r'\(1 weights are missing, e.g. decode_head.conv_seg.bias\)'
    ):
        Predictor(cfg, str(tmp_path / 'x.pth'), 'cpu')
    # A deeper network has all the weights of this one, and more.
    deeper = torch.load(checkpoints[0], weights_only=False)['state_dict']
    deeper['backbone.layer1.9.conv1.weight'] = torch.zeros(1)
    torch.save(dict(state_dict=deeper), tmp_path / 'deeper.pth')
    with pytest.raises(
        ValueError, match=r'\(1 weights are not in it, e\.g\. backbone\.layer1\.9\.conv1'
    ):
        Predictor(cfg, str(tmp_path / 'deeper.pth'), 'cpu')
    (tmp_path / 'torn.pth').write_bytes(b'PK')
    with pytest.raises(ValueError, match=r'torn\.pth is not a checkpoint or only a part of one'):
        Predictor(cfg, str(tmp_path / 'torn.pth'), 'cpu')


def test_an_auxiliary_head_may_be_missing(tmp_path, cfg, checkpoints):
    predictor = Predictor(trained.config(auxiliary=True), checkpoints[0], 'cpu')
    assert predictor.num_classes == 4
    assert predictor.dataset_meta['classes'] == trained.CLASSES


def test_a_checkpoint_is_known_by_its_content(tmp_path, checkpoints):
    (tmp_path / 'a').write_bytes(b'abc')
    known = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
    assert checkpoint_digest(str(tmp_path / 'a')) == known
    assert checkpoint_digest('https://x/y.pth') == 'https://x/y.pth'
    with pytest.raises(FileNotFoundError, match=r'^The checkpoint nowhere.pth does not exist'):
        checkpoint_digest('nowhere.pth')


def test_cudnn_is_put_back():
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = True, False
    try:
        with prediction.repeatable():
            assert (cudnn.benchmark, cudnn.deterministic) == (False, True)
        assert (cudnn.benchmark, cudnn.deterministic) == (True, False)
    finally:
        cudnn.benchmark, cudnn.deterministic = before
