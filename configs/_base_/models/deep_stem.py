# The stem and decoder of the published networks, instead of MMSegmentation's ("The papers' network" in
# docs/configs.md), for any config with DeepLabv3+ on ResNet-50 (`r50s`) or ResNet-101 (`r101s`): a stem of 64,
# 64 and 128 channels, a max-pool that rounds up, and plain convolutions. Convert the ImageNet weights first.
r50s = dict(
    pretrained=None,
    backbone=dict(
        type='CeilPoolResNetV1c',
        depth=50,
        stem_channels=128,
        init_cfg=dict(type='Pretrained', checkpoint='data/pretrained/resnet50_v1s.pth'),
    ),
    decode_head=dict(type='PlainDeepLabV3PlusHead'),
)
r101s = dict(
    pretrained=None,
    backbone=dict(
        type='CeilPoolResNetV1c',
        depth=101,
        stem_channels=128,
        init_cfg=dict(type='Pretrained', checkpoint='data/pretrained/resnet101_v1s.pth'),
    ),
    decode_head=dict(type='PlainDeepLabV3PlusHead'),
)
