"""``init_cfg=dict(type='Pretrained')`` with checkpoints of methods, and with files that match nothing."""

import pytest
import torch
from mmengine.registry import WEIGHT_INITIALIZERS
from mmseg.registry import MODELS
from tiny import build_plain, tiny_segmentor

KEY = 'layer1.0.conv1.weight'


def method_checkpoint(folder, kind='IMAS', cfg=''):
    torch.manual_seed(3)
    model = MODELS.build({'type': kind, 'segmentor': tiny_segmentor()})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    torch.save({'state_dict': model.state_dict(), 'meta': {'cfg': cfg}}, folder / 'semi.pth')
    return str(folder / 'semi.pth'), model.state_dict()


def built(path, part='backbone', prefix='backbone.'):
    segmentor = {**tiny_segmentor(), 'data_preprocessor': None}
    init_cfg = {'type': 'Pretrained', 'checkpoint': path, 'prefix': prefix}
    (segmentor[part] if part else segmentor)['init_cfg'] = init_cfg
    model = MODELS.build(segmentor)
    model.init_weights()
    return model.state_dict()


@pytest.mark.parametrize(
    ('kind', 'cfg', 'taken'),
    [
        ('IMAS', '', 'teacher'),
        ('IMAS', "model = dict(type='IMAS', semi_test_cfg=dict(predict_on='student'))", 'student'),
        ('CPS', '', 'student1'),
        ('FixMatch', '', 'student'),
    ],
)
def test_encoder_of_the_network_that_predicts(kind, cfg, taken, tmp_path):
    path, state = method_checkpoint(tmp_path, kind, cfg)
    assert torch.equal(built(path)[f'backbone.{KEY}'], state[f'{taken}.backbone.{KEY}'])
    whole = built(path, None, None)
    for key in (f'backbone.{KEY}', 'decode_head.conv_seg.weight'):
        assert torch.equal(whole[key], state[f'{taken}.{key}'])


def test_prefix_may_name_a_network(tmp_path):
    path, state = method_checkpoint(tmp_path)
    found = built(path, prefix='student.backbone')
    assert torch.equal(found[f'backbone.{KEY}'], state[f'student.backbone.{KEY}'])


def test_config_in_a_checkpoint_is_not_run(tmp_path):
    marker = tmp_path / 'marker'
    run = f"model = dict(type='IMAS', x=open({str(marker)!r}, 'w'))"
    path, state = method_checkpoint(tmp_path, 'IMAS', run)
    assert torch.equal(built(path)[f'backbone.{KEY}'], state[f'teacher.backbone.{KEY}'])
    assert not marker.exists()


@pytest.mark.parametrize('prefix', ['backbone.', None])
def test_plain_checkpoints_as_ever(prefix, tmp_path):
    torch.manual_seed(4)
    plain = build_plain()
    weights = plain.state_dict() if prefix else plain.backbone.state_dict()
    torch.save({'state_dict': weights}, tmp_path / 'x.pth')
    found = built(str(tmp_path / 'x.pth'), prefix=prefix)
    assert torch.equal(found[f'backbone.{KEY}'], plain.backbone.state_dict()[KEY])


@pytest.mark.parametrize(('prefix', 'semi'), [(None, True), (None, False), ('encoder.', False)])
def test_file_that_matches_nothing(prefix, semi, tmp_path):
    path, _ = method_checkpoint(tmp_path)
    if not semi:
        path = str(tmp_path / 'plain.pth')
        torch.save({'state_dict': build_plain().state_dict()}, path)
    message = (
        rf"No weight of {path} matches ResNetV1c with prefix={prefix!r} .*such as 'backbone\.'"
    )
    with pytest.raises(ValueError, match=message):
        built(path, prefix=prefix)


def test_layers_that_rename_their_weights(tmp_path):
    """Only the loader knows in the end what is missing."""

    class Renamed(torch.nn.Linear):
        def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
            for name in ('weight', 'bias'):
                state_dict[prefix + name] = state_dict.pop(f'{prefix}original.{name}')
            super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    linear, layer = torch.nn.Linear(2, 2), Renamed(2, 2)
    torch.save({f'original.{k}': v for k, v in linear.state_dict().items()}, tmp_path / 'x.pth')
    config = {'type': 'Pretrained', 'checkpoint': str(tmp_path / 'x.pth')}
    WEIGHT_INITIALIZERS.build(config)(layer)
    assert torch.equal(layer.weight, linear.weight)
