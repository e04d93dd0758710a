# A small DeepLabv3+ at output stride 8 for the synthetic shapes, from scratch, for a CPU.
_base_ = __import__('mmseg_semi').bases('mmseg::_base_/models/deeplabv3plus_r50-d8.py')
# Share of each class in the pixels of the synthetic images, in percent, without void; weights as for CamVid
# (deeplabv3plus_r18-tiny_camvid.py): share^-0.5, divided by its mean over all pixels.
class_percent = [74.2, 5.2, 5.1, 4.4, 5.7, 5.5]
mean_weight = sum(percent**0.5 for percent in class_percent) / sum(class_percent)
class_weight = [round(percent**-0.5 / mean_weight, 4) for percent in class_percent]
model = dict(
    pretrained=None,
    backbone=dict(
        depth=18,
        stem_channels=16,
        base_channels=16,
        num_stages=3,
        strides=(1, 2, 1),
        dilations=(1, 1, 2),
        out_indices=(0, 1, 2),
    ),
    decode_head=dict(
        in_channels=64,
        in_index=2,
        c1_in_channels=16,
        c1_channels=16,
        channels=32,
        dilations=(1, 2, 4, 6),
        dropout_ratio=0.1,
        num_classes=6,
        loss_decode=dict(
            _delete_=True, type='PixelCrossEntropyLoss', loss_weight=1.0, class_weight=class_weight
        ),
    ),
    auxiliary_head=None,
)
