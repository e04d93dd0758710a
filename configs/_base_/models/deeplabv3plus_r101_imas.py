# As deeplabv3plus_r50_imas.py, with ResNet-101.
_base_ = './deeplabv3plus_r50_imas.py'
model = dict(pretrained='open-mmlab://resnet101_v1c', backbone=dict(depth=101))
