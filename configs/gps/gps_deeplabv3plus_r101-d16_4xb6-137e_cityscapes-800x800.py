# GPS, Cityscapes 1/8, ResNet-101.
_base_ = './gps_deeplabv3plus_r50-d16_4xb6-137e_cityscapes-800x800.py'
model = dict(segmentor=dict(pretrained='open-mmlab://resnet101_v1c', backbone=dict(depth=101)))
