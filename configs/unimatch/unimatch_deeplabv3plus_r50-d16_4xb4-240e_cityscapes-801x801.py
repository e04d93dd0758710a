# UniMatch, Cityscapes 1/8, ResNet-50.
_base_ = './unimatch_deeplabv3plus_r101-d16_4xb4-240e_cityscapes-801x801.py'
model = dict(segmentor=dict(pretrained='open-mmlab://resnet50_v1c', backbone=dict(depth=50)))
