# The network of the published figures; convert its ImageNet weights first (docs/configs.md, "The
# papers' network").
_base_ = './imas_deeplabv3plus_r101-d16_4xb8-80e_voc12-blender-cps-1323-513x513.py'
model = dict(
    segmentor=dict(
        pretrained=None,
        backbone=dict(
            type='CeilPoolResNetV1c',
            stem_channels=128,
            init_cfg=dict(type='Pretrained', checkpoint='data/pretrained/resnet101_v1s.pth'),
        ),
        decode_head=dict(type='PlainDeepLabV3PlusHead'),
    )
)
