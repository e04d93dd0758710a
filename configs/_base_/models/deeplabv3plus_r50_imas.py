# DeepLabv3+ with ResNet-50 at output stride 16, for Pascal VOC: the network of iMAS, as close as
# MMSegmentation's modules and public ImageNet weights allow.
#
# It has the paper's output stride, ASPP rates, multi-grid, channels (256, low-level 48), align_corners, no
# dropout and no auxiliary head. It differs from the network of the published results in four places:
#   stem          3x3 convolutions of 32, 32, 64 channels (ResNetV1c) instead of 64, 64, 128;
#   max-pool      rounds down instead of up (equal at crops of 513 and 769);
#   ASPP          depthwise separable convolutions and a 3x3 instead of a 1x1 convolution after it;
#   decoder       two depthwise separable 3x3 convolutions instead of two plain ones.
# The configs with `r50s` or `r101s` in their names have the published version of all four. Convert their
# ImageNet weights first ("The papers' network" in docs/configs.md).
_base_ = __import__('mmseg_semi').bases('mmseg::_base_/models/deeplabv3plus_r50-d8.py')
model = dict(
    pretrained='open-mmlab://resnet50_v1c',
    backbone=dict(
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        # The papers' "multi-grid (2, 2, 4)" multiplies the dilation of each block, (1, 2, 2) at stride 16. In
        # MMSegmentation, multi_grid gives the dilations themselves. At stride 8: (4, 8, 16).
        multi_grid=(2, 4, 8),
        # Without pre-trained weights, residual blocks start as identities.
        zero_init_residual=True,
    ),
    decode_head=dict(
        channels=256,
        dilations=(1, 6, 12, 18),
        dropout_ratio=0,
        num_classes=21,
        align_corners=True,
        loss_decode=dict(_delete_=True, type='PixelCrossEntropyLoss', loss_weight=1.0),
    ),
    auxiliary_head=None,
)
