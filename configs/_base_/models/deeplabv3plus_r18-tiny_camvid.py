# DeepLabv3+ with ResNet-18 at output stride 8 for CamVid, from scratch, narrow enough for quick trainings on
# one CPU core. No weights are downloaded.
_base_ = __import__('mmseg_semi').bases('mmseg::_base_/models/deeplabv3plus_r50-d8.py')
# Share of each class in the pixels of the training set, in percent, without void (datasets/camvid.py names the
# classes in this order). The weight of a class is share^-0.5, divided by the mean of this value over all
# pixels: rare classes have larger weights, and the mean weight of all pixels is 1.
class_percent = [16.845, 23.259, 0.983, 31.658, 4.486, 9.724, 1.173, 1.127, 5.866, 0.639, 0.292]
mean_weight = sum(percent**0.5 for percent in class_percent) / sum(class_percent)
class_weight = [round(percent**-0.5 / mean_weight, 4) for percent in class_percent]
model = dict(
    pretrained=None,
    backbone=dict(depth=18, stem_channels=24, base_channels=24),
    decode_head=dict(
        in_channels=192,
        c1_in_channels=24,
        c1_channels=12,
        channels=64,
        num_classes=11,
        loss_decode=dict(
            _delete_=True, type='PixelCrossEntropyLoss', loss_weight=1.0, class_weight=class_weight
        ),
    ),
    auxiliary_head=None,
)
