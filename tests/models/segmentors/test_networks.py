"""Every method on every network: it learns, predicts whole images and exports what it has learned."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.runner import load_checkpoint
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from networks import BASES, NETWORKS, NUM_CLASSES, SIZE, VIT, narrow
from tiny import collated_batch, tiny_segmentor
from tiny_run import METHODS, build_runner, tiny_config
from torch import nn

from mmseg_semi.engine.export import own_modules, plain_config, plain_state_dict
from mmseg_semi.engine.hooks._labeled_images import image_and_label
from mmseg_semi.models.patches import patch_size
from mmseg_semi.models.segmentors.base import SemiSegmentor
from mmseg_semi.models.segmentors.networks import check_network
from mmseg_semi.self_training.prediction import Predictor

META = {'classes': tuple(map(str, range(NUM_CLASSES))), 'palette': [[i, i, i] for i in range(6)]}
#: Modules of this package that an export of the network, or of a method's network, keeps.
OWN = {
    'dpt_dinov2-s14': ['FeatureMapDPTHead', 'TokenNorm'],
    'dpt_dinov3-s16': ['FeatureMapDPTHead', 'TokenNorm'],
    'ESL': ['DeepClassifierHead'],
    'DeS4': ['PrototypeHead'],
}
#: What a method needs on one network. A linear head consists of a classifier only, and DeS4 has its own.
SETTINGS = {
    ('DeS4', 'linear_dinov2-s14'): {'decoupled_training': False, 'pixel_reweighting': False}
}


def build(method: str, network: str, **changes):
    """A method, or with EncoderDecoder the stock network, in training."""
    torch.manual_seed(0)
    config = narrow(network, **changes)
    if method != 'EncoderDecoder':
        settings = {**copy.deepcopy(METHODS[method][0]), **SETTINGS.get((method, network), {})}
        defaults = MODELS.get(method).Settings._settings
        settings |= dict.fromkeys(defaults.keys() & {'tau', 'anchor_threshold'}, 0.0)
        config = {'type': method, 'segmentor': config, 'semi_train_cfg': settings}
    model = MODELS.build(ConfigDict(config))
    return model.train(), config


def make_confident(model) -> None:
    """Large weights in the classifiers, so that the networks are sure of several classes."""
    for name in model.networks:
        classifier = getattr(getattr(model, name).decode_head, 'conv_seg', None)
        if isinstance(classifier, nn.Conv2d):
            torch.manual_seed(1)  # an averaged teacher begins as its student
            nn.init.normal_(classifier.weight, std=2.0)


def batch_for(model) -> dict:
    batch = collated_batch(2, 2, size=SIZE[0])
    if not isinstance(model, SemiSegmentor):
        return {key: list(value['labeled']) for key, value in batch.items()}
    for branch in model.unlabeled_branches:
        for part in batch.values():
            part.setdefault(branch, part['strong'])
    return batch


def wrapper_for(model, **settings):
    """An optimizer that leaves the gradients for the test to see."""
    wrapper = build_optim_wrapper(
        model,
        {
            'type': 'OptimWrapper',
            'constructor': 'NetworkOptimWrapperConstructor',
            'optimizer': {'type': 'SGD', 'lr': 0.01},
            **settings,
        },
    )
    for one in getattr(wrapper, 'optim_wrappers', {'': wrapper}).values():
        one.zero_grad = lambda **kwargs: None
    return wrapper


def whole_image(height: int = 50, width: int = 61, original: tuple = (75, 90)) -> dict:
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
    sample = SegDataSample(
        metainfo={'img_shape': (height, width), 'ori_shape': original, 'img_path': 'a.png'}
    )
    sample.gt_sem_seg = PixelData(data=torch.zeros(1, *original, dtype=torch.long))
    return {'inputs': [image], 'data_samples': [sample]}


@pytest.mark.parametrize('network', NETWORKS)
@pytest.mark.parametrize('method', [*METHODS, 'EncoderDecoder'])
@pytest.mark.filterwarnings('ignore')
def test_method_trains_predicts_and_exports(method, network):
    model, config = build(method, network)
    semi = isinstance(model, SemiSegmentor)
    if semi:
        make_confident(model)
    wrapper = wrapper_for(model)
    # Behind the supervised start of any method.
    wrapper.initialize_count_status(model, 1000, -1)
    log = model.train_step(batch_for(model), wrapper)
    losses = {key: value for key, value in log.items() if 'loss' in key}
    assert len(losses) > 1
    assert {key: value for key, value in losses.items() if not value > 0} == {}
    assert all(torch.isfinite(torch.as_tensor(value)) for value in log.values())

    trained = dict(model.named_parameters())
    if semi:
        alike = {id(parameter) for parameter in model.optimized_alike().values()}
        optimized = {name for names in model.optimized.values() for name in names}
        frozen = [
            p
            for name in model.networks
            if name not in optimized
            for p in getattr(model, name).parameters()
            if id(p) not in alike
        ]
        assert not any(p.requires_grad or p.grad is not None for p in frozen)
        trained = {k: p for k, p in trained.items() if not any(p is other for other in frozen)}
    assert [key for key, p in trained.items() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in trained.values())
    part = getattr(model, model.networks[0]) if semi else model
    for name in ('backbone', 'decode_head', 'auxiliary_head'):
        gradients = [p.grad.abs().sum() for p in getattr(part, name, nn.Module()).parameters()]
        assert not gradients or sum(gradients) > 0, name

    model.eval()
    result = model.test_step(whole_image())[0]
    assert result.pred_sem_seg.data.shape == (1, 75, 90)
    assert torch.isfinite(result.seg_logits.data).all()

    cfg = Config({'model': config})
    plain = plain_config(cfg, META).model
    assert own_modules(plain) == sorted(OWN.get(network, []) + OWN.get(method, []))
    exported = MODELS.build(plain).eval()
    weights = plain_state_dict(
        model.state_dict(),
        model.semi_test_cfg['predict_on'] if semi else None,
        *([type(model).training_only, model.shared_modules] if semi else []),
    )
    exported.load_state_dict(weights, strict=True)
    again = exported.test_step(whole_image())[0]
    assert torch.equal(again.seg_logits.data, result.seg_logits.data)


@pytest.mark.parametrize('method', ['IMAS', 'UniMatchV2'])
@pytest.mark.parametrize('size', ['dinov2-b14', 'dinov2-l14', 'dinov3-b16', 'dinov3-l16'])
@pytest.mark.filterwarnings('ignore')
def test_base_and_large_train(method, size):
    """All blocks and the layers that the head reads, with widths in the same proportions."""
    real = Config.fromfile(BASES / f'dpt_{size}.py').model
    depth, factor = (24, 64) if real.neck.channels == 1024 else (12, 48)
    blocks = {'backbone__arch': {**VIT, 'num_layers': depth}}
    if size.startswith('dinov3'):
        blocks = {'backbone__depth': depth}
    changes = {
        **blocks,
        'backbone__out_indices': real.backbone.out_indices,
        'decode_head__post_process_channels': [
            channels // factor for channels in real.decode_head.post_process_channels
        ],
        'decode_head__channels': real.decode_head.channels // 16,
    }
    model, _ = build(method, f'dpt_{size[:6]}-s{size[-2:]}', **changes)
    make_confident(model)
    wrapper = wrapper_for(model)
    wrapper.initialize_count_status(model, 1000, -1)
    log = model.train_step(batch_for(model), wrapper)
    assert all(torch.isfinite(torch.as_tensor(value)) for value in log.values())
    assert all(p.grad.abs().sum() > 0 for p in model.student.backbone.parameters())
    assert all(p.grad.abs().sum() > 0 for p in model.student.neck.parameters())
    assert all(p.grad is not None for p in model.student.decode_head.parameters())


def test_des4_refuses_a_head_that_is_all_classifier():
    with pytest.raises(ValueError, match='FCNHead consists of a classifier only'):
        MODELS.build({'type': 'DeS4', 'segmentor': narrow('linear_dinov2-s14')})


@pytest.mark.parametrize('network', NETWORKS)
@pytest.mark.filterwarnings('ignore')
def test_bfloat16_step(network):
    model, _ = build('IMAS', network)
    seen = []
    model.student.decode_head.conv_seg.register_forward_hook(
        lambda *args: seen.append(args[-1].dtype)
    )
    log = model.train_step(batch_for(model), wrapper_for(model, type='AutocastOptimWrapper'))
    assert set(seen) == {torch.bfloat16}
    assert all(torch.isfinite(torch.as_tensor(value)) for value in log.values())
    assert all(torch.isfinite(p.grad).all() for p in model.student.parameters())


@pytest.mark.parametrize('network', ['segformer_mit-b1', 'upernet_convnext-t', 'dpt_vit'])
@pytest.mark.filterwarnings('ignore')
def test_processes_without_a_gpu_share_a_network_with_plain_normalization(network):
    """What SemiDistributedDataParallel makes of SyncBN there leaves training and teacher as they were."""
    model, _ = build('IMAS', network)
    assert any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    frozen = {key for key, p in model.named_parameters() if not p.requires_grad}
    reverted = revert_sync_batchnorm(model).train()
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in reverted.modules())
    assert {key for key, p in reverted.named_parameters() if not p.requires_grad} == frozen
    log = reverted.train_step(batch_for(reverted), wrapper_for(reverted))
    assert all(torch.isfinite(torch.as_tensor(value)) for value in log.values())
    # DistributedDataParallel waits for every one of them.
    assert [key for key, p in reverted.student.named_parameters() if p.grad is None] == []
    assert not any(module.training for module in reverted.teacher.modules())


# ------------------------------------------------------------------------------------ sizes


def by_hand(network: nn.Module, image: torch.Tensor, patch: int | None) -> torch.Tensor:
    """Logits at the original size 75 x 90 of one image, padded to whole patches for the network alone."""
    mean = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
    std = torch.tensor([58.395, 57.12, 57.375])[:, None, None]
    image = ((image.flip(0).float() - mean) / std)[None]
    height, width = image.shape[-2:]
    right, bottom = (-width % patch, -height % patch) if patch else (0, 0)
    padded = F.pad(image, (0, right, 0, bottom))
    corners = network.align_corners

    def resize(maps, size):
        return F.interpolate(maps, size, mode='bilinear', align_corners=corners)

    logits = resize(network.decode_head(network.extract_feat(padded)), padded.shape[-2:])
    return resize(logits[..., :height, :width], (75, 90))[0]


@pytest.mark.parametrize(
    'network', ['dpt_dinov2-s14', 'dpt_dinov3-s16', 'linear_dinov2-s14', 'segformer_mit-b1']
)
@torch.no_grad()
def test_images_are_padded_to_patches_and_predictions_cut_back(network):
    model, _ = build('IMAS', network)
    model.eval()
    patch = patch_size(model)
    assert patch == (None if network == 'segformer_mit-b1' else 14)
    data = whole_image()
    expected = by_hand(model.teacher, data['inputs'][0], patch)
    got = model.test_step(data)[0].seg_logits.data
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    if patch:
        # What the network does by itself is another thing: it pads, and the whole is squeezed to the image.
        model.data_preprocessor.test_cfg = None
        other = model.test_step(whole_image())[0].seg_logits.data
        assert (other - expected).abs().max() > 1e-2


@pytest.mark.parametrize('network', ['dpt_dinov2-s14', 'dpt_dinov3-s16', 'linear_dinov2-s14'])
@torch.no_grad()
def test_windows_and_mirror_images_have_whole_patches(network):
    """Sliding windows see multiples of 14 also at the border of an image that is none, and so do flips."""
    model, _ = build('IMAS', network)
    model.eval()
    seen = []
    model.teacher.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[2:]))
    mirrored = whole_image()
    mirrored['inputs'][0] = mirrored['inputs'][0].flip(2)
    mirrored['data_samples'][0].set_metainfo({'flip': True, 'flip_direction': 'horizontal'})
    got = model.test_step(mirrored)[0].seg_logits.data
    expected = by_hand(model.teacher, whole_image()['inputs'][0].flip(2), 14).flip(2)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    model.teacher.test_cfg.update(mode='slide', crop_size=(42, 42), stride=(28, 28))
    for height, width in ((50, 61), (30, 70), (20, 20)):
        result = model.test_step(whole_image(height, width))[0]
        assert result.pred_sem_seg.data.shape == (1, 75, 90)
    assert {side % 14 for size in seen for side in size} == {0}
    assert (42, 42) in seen


@pytest.mark.parametrize('network', ['dpt_dinov2-s14', 'segformer_mit-b1'])
def test_self_training_labels_images_of_any_size(network, tmp_path):
    """ST's labels from the network of ordinary predictions, and of views of all scales."""
    model, config = build('EncoderDecoder', network)
    path = tmp_path / 'network.pth'
    torch.save({'state_dict': model.state_dict()}, path)
    predictor = Predictor(Config({'model': config}), str(path), 'cpu')
    seen = []
    predictor._network.backbone.register_forward_pre_hook(
        lambda _, args: seen.append(args[0].shape[2:])
    )
    data = whole_image()
    images = predictor.prepare([{key: value[0] for key, value in data.items()}])
    assert images.shape == (1, 3, 50, 61)
    label = predictor.masks(images, (75, 90))
    expected = model.eval().test_step(whole_image())[0].pred_sem_seg.data
    assert (label == expected).float().mean() > 0.999
    label = predictor.masks(images, (75, 90), scales=(1.0, 1.5), flip=True)
    assert label.shape == (1, 75, 90)
    assert label.max() < NUM_CLASSES
    if network.endswith('s14'):
        assert {side % 14 for size in seen for side in size} == {0}


@torch.no_grad()
def test_passes_over_whole_images_know_where_they_are_padded():
    """What ESL and DeS4 start their prototypes from: no pixel of the padding has a class."""
    model, _ = build('IMAS', 'linear_dinov2-s14')
    data = whole_image(50, 61, original=(50, 61))
    image, label = image_and_label(model, data)
    assert image.shape == (1, 3, 56, 70)
    assert label.shape == (1, 56, 70)
    assert (label[:, :50, :61] == 0).all()
    assert (label == 255).sum() == 56 * 70 - 50 * 61


# ------------------------------------------------------------------------------------ pre-trained weights


def dinov2_checkpoint(path: Path, grid: int = 5) -> dict:
    """A file with the keys of mmpretrain's DINOv2 checkpoints, its encoder as narrow as ours."""
    torch.manual_seed(7)
    config = narrow('linear_dinov2-s14')['backbone']
    config.update(img_size=14 * grid, out_type='cls_token')
    del config['init_cfg']
    weights = MODELS.build(config).state_dict()
    weights = {f'backbone.{key}': torch.randn_like(value) for key, value in weights.items()}
    # What DINOv2 was trained with and nobody reads.
    others = {'backbone.mask_token': torch.zeros(1, 16)}
    torch.save({'state_dict': {**weights, **others}, 'meta': {}}, path)
    return weights


@pytest.mark.parametrize('network', ['dpt_dinov2-s14', 'linear_dinov2-s14'])
def test_public_weights_reach_both_networks_with_positions_resized(network, tmp_path):
    weights = dinov2_checkpoint(tmp_path / 'vit.pth')
    init_cfg = {
        'type': 'Pretrained',
        'checkpoint': str(tmp_path / 'vit.pth'),
        'prefix': 'backbone.',
    }
    segmentor = narrow(network)
    segmentor['backbone']['init_cfg'] = init_cfg
    if 'neck' in segmentor:
        segmentor['neck']['init_cfg'] = {**init_cfg, 'prefix': 'backbone.ln1.'}
    model = MODELS.build({'type': 'IMAS', 'segmentor': segmentor})
    model.init_weights()
    position = weights.pop('backbone.pos_embed')
    squares = position[:, 1:].reshape(1, 5, 5, 16).permute(0, 3, 1, 2)
    squares = F.interpolate(squares, (4, 4), mode='bicubic', align_corners=False)
    expected = torch.cat([position[:, :1], squares.flatten(2).transpose(1, 2)], dim=1)
    for name in model.networks:
        own = getattr(model, name).state_dict()
        torch.testing.assert_close(own['backbone.pos_embed'], expected)
        for key, value in weights.items():
            # With a DPT head the encoder's final normalization is the neck's.
            key = key if key in own else key.replace('backbone.ln1', 'neck')
            assert torch.equal(own[key], value)


def test_checkpoint_of_another_crop_starts_a_training(tmp_path):
    torch.manual_seed(3)
    first = MODELS.build(narrow('linear_dinov2-s14', backbone__img_size=70))
    model, _ = build('IMAS', 'linear_dinov2-s14')
    path = tmp_path / 'first.pth'
    torch.save({'state_dict': first.state_dict()}, path)
    load_checkpoint(model, str(path))
    for name in model.networks:
        assert torch.equal(getattr(model, name).backbone.ln1.weight, first.backbone.ln1.weight)
        ours = getattr(model, name).backbone.pos_embed
        assert ours.shape == (1, 17, 16)
        assert torch.equal(ours[:, 0], first.backbone.pos_embed[:, 0])


# ------------------------------------------------------------------------------------ learning rates


@pytest.mark.filterwarnings('ignore')
def test_layer_decay_of_convnext():
    schedule = Config.fromfile(BASES.parent / 'schedules' / 'adamw_poly_convnext.py')
    model, _ = build('IMAS', 'upernet_convnext-t')
    wrapper = build_optim_wrapper(model, schedule.optim_wrapper)
    rates, decays = rates_of(model.student, wrapper)
    base = 1e-4
    for key, rate in rates.items():
        stage = re.match(r'backbone\.(downsample_layers|stages)\.(\d)', key)
        step = 7 if stage is None else 0 if stage[1] == 'downsample_layers' else int(stage[2]) + 1
        assert rate == pytest.approx(base * 0.9 ** (7 - step)), key
        plain = model.student.get_parameter(key).ndim > 1 and not key.endswith('.bias')
        assert decays[key] == (0.05 if plain else 0), key
    assert len(set(rates.values())) == 6


@pytest.mark.parametrize(
    ('network', 'schedule', 'factor'),
    [
        ('segformer_mit-b1', 'segformer', 10),
        ('dpt_dinov2-s14', 'dinov2', 40),
        ('dpt_dinov3-s16', 'dinov2', 40),
    ],
)
def test_heads_learn_faster(network, schedule, factor):
    schedule = Config.fromfile(BASES.parent / 'schedules' / f'adamw_poly_{schedule}.py')
    model, _ = build('IMAS', network)
    wrapper = build_optim_wrapper(model, copy.deepcopy(schedule.optim_wrapper))
    rates, decays = rates_of(model.student, wrapper)
    base = schedule.optim_wrapper.optimizer.lr
    for key, rate in rates.items():
        assert rate == pytest.approx(base * (factor if key.startswith('decode_head') else 1)), key
        kept = factor == 40 or 'norm' not in key
        assert decays[key] == (0.01 if kept else 0), key


def rates_of(network: nn.Module, wrapper) -> tuple[dict, dict]:
    """Learning rate and weight decay of each parameter of a network, which are all that is optimized."""
    groups = {id(p): group for group in wrapper.optimizer.param_groups for p in group['params']}
    assert groups.keys() == {id(p) for p in network.parameters()}
    found = {key: groups[id(p)] for key, p in network.named_parameters()}
    return tuple(
        {key: group[what] for key, group in found.items()} for what in ('lr', 'weight_decay')
    )


# ------------------------------------------------------------------------------------ resuming


@pytest.mark.parametrize('network', ['segformer_mit-b1', 'dpt_dinov2-s14', 'dpt_dinov3-s16'])
@pytest.mark.filterwarnings('ignore')
def test_training_with_stochastic_depth_is_resumed_to_the_same_weights(network, tmp_path):
    settings = {
        'train_cfg__max_iters': 4,
        'default_hooks__checkpoint__interval': 2,
        'train_cfg__val_interval': 4,
    }

    def train(name, **changes):
        config = tiny_config(tmp_path / name, 'IMAS', **settings)
        config.model.segmentor = narrow(network, backbone__drop_path_rate=0.5)
        config.merge_from_dict(changes)
        build_runner(config).train()
        return torch.load(tmp_path / name / 'iter_4.pth', weights_only=False)['state_dict']

    whole = train('whole')
    again = train('again', load_from=str(tmp_path / 'whole' / 'iter_2.pth'), resume=True)
    assert whole.keys() == again.keys()
    assert [key for key, value in whole.items() if not torch.equal(value, again[key])] == []


# ------------------------------------------------------------------------------------ refusals


def test_dpt_without_class_tokens_refuses_to_read_them():
    with pytest.raises(ValueError, match="readout_type='project', which reads class tokens"):
        MODELS.build(narrow('dpt_dinov2-s14', decode_head__readout_type='project'))


def test_heads_that_are_no_decode_heads_are_refused():
    class QueryHead(nn.Module):
        """As Mask2FormerHead, which needs mmdet: no BaseDecodeHead."""

    model, _ = build('IMAS', 'linear_dinov2-s14')
    model.student.decode_head = QueryHead()
    with pytest.raises(ValueError, match='EncoderDecoder with QueryHead cannot be wrapped'):
        check_network(model.student)


def test_heads_with_several_outputs_are_refused():
    segmentor = tiny_segmentor(type='DAHead', pam_channels=4)
    for key in ('num_convs', 'concat_input'):
        del segmentor['decode_head'][key]
    model = MODELS.build({'type': 'IMAS', 'segmentor': segmentor}).train()
    with pytest.raises(ValueError, match='DAHead returns tuple in training instead of one'):
        model.train_step(batch_for(model), wrapper_for(model))


def test_mask_transformer_trains_where_nothing_is_tapped():
    segmentor = narrow('linear_dinov2-s14')
    segmentor['decode_head'] = {
        'type': 'SegmenterMaskTransformerHead',
        'in_channels': 16,
        'channels': 16,
        'embed_dims': 16,
        'num_layers': 1,
        'num_heads': 2,
        'num_classes': NUM_CLASSES,
        'in_index': 0,
    }
    model = MODELS.build({'type': 'IMAS', 'segmentor': segmentor}).train()
    log = model.train_step(batch_for(model), wrapper_for(model))
    assert all(torch.isfinite(torch.as_tensor(value)) for value in log.values())
    assert [key for key, p in model.student.named_parameters() if p.grad is None] == []
    for method in ('ESL', 'DeS4', 'U2PL'):
        with pytest.raises(ValueError, match='of SegmenterMaskTransformerHead is not'):
            MODELS.build({'type': method, 'segmentor': segmentor})
    plain = {'type': 'U2PL', 'segmentor': segmentor, 'semi_train_cfg': {'contrast_weight': 0.0}}
    model = MODELS.build(plain).train()
    assert model.train_step(batch_for(model), wrapper_for(model))['loss_unlabeled'] > 0
