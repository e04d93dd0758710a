# DeepLabv3+ with ResNet-50 at output stride 8, for Pascal VOC: the network of ST++, as close as
# MMSegmentation's modules allow.
#
# It has the paper's encoder (torchvision's ResNet with its 7x7 stem, which MMSegmentation calls r50b, and its
# ImageNet weights), output stride, ASPP rates, channels (256, low-level 48), align_corners, batch
# normalization per GPU, plain cross-entropy over the pixels that are not void, and no auxiliary head. It
# differs in three places:
#   dropout       0.1 before the classifier, of whole channels instead of single values; none of 0.5 after ASPP;
#   ASPP          depthwise separable convolutions and a 3x3 instead of a 1x1 convolution after it;
#   decoder       two depthwise separable 3x3 convolutions instead of two plain ones.
# `decode_head=dict(type='PlainDeepLabV3PlusHead')` has the plain convolutions of the paper and the same
# arguments. For the paper's results with a deep stem, set pretrained='open-mmlab://resnet50_v1c' and
# backbone=dict(type='ResNetV1c'). The paper also has results of DeepLabv2, which MMSegmentation does not have.
_base_ = __import__('mmseg_semi').bases('mmseg::_base_/models/deeplabv3plus_r50-d8.py')
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    pretrained='torchvision://resnet50',
    backbone=dict(type='ResNet', norm_cfg=norm_cfg),
    decode_head=dict(
        channels=256,
        norm_cfg=norm_cfg,
        num_classes=21,
        align_corners=True,
        loss_decode=dict(_delete_=True, type='PixelCrossEntropyLoss', loss_weight=1.0),
    ),
    auxiliary_head=None,
)
