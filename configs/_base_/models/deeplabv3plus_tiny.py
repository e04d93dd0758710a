# A small DeepLabv3+ at output stride 8 for the drawn shapes, from scratch, for a CPU.
_base_ = __import__('mmseg_semi').bases('mmseg::_base_/models/deeplabv3plus_r50-d8.py')
model = dict(
    pretrained=None,
    backbone=dict(
        depth=18,
        stem_channels=16,
        base_channels=16,
        strides=(1, 1, 2, 1),
        dilations=(1, 1, 1, 2),
    ),
    decode_head=dict(
        in_channels=128,
        c1_in_channels=16,
        c1_channels=16,
        channels=32,
        dilations=(1, 2, 4, 6),
        dropout_ratio=0,
        num_classes=6,
        loss_decode=dict(_delete_=True, type='PixelCrossEntropyLoss', loss_weight=1.0),
    ),
    auxiliary_head=None,
)
