# As deeplabv3plus_r50_imas_cityscapes.py, with ResNet-101 and the output stride and sliding windows of U2PL:
# the last windows are shifted back to full size, and logits are averaged.
_base_ = './deeplabv3plus_r50_imas_cityscapes.py'
model = dict(
    type='EncoderDecoder',
    pretrained='open-mmlab://resnet101_v1c',
    backbone=dict(depth=101, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), multi_grid=(4, 8, 16)),
    decode_head=dict(dilations=(1, 12, 24, 36)),
    test_cfg=dict(mode='slide', crop_size=(769, 769), stride=(513, 513)),
)
