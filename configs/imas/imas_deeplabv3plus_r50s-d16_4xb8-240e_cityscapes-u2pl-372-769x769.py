# The network of the published figures; convert its ImageNet weights first (docs/configs.md, "The
# papers' network").
_base_ = './imas_deeplabv3plus_r50-d16_4xb8-240e_cityscapes-u2pl-372-769x769.py'
model = dict(
    segmentor=dict(
        pretrained=None,
        backbone=dict(
            type='CeilPoolResNetV1c',
            stem_channels=128,
            init_cfg=dict(type='Pretrained', checkpoint='data/pretrained/resnet50_v1s.pth'),
        ),
        decode_head=dict(type='PlainDeepLabV3PlusHead'),
    )
)
