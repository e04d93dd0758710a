# GPS-dagger of the paper, Pascal VOC 2012 1/8 (blender lists of CPS), ResNet-101.
_base_ = './gps-dagger_deeplabv3plus_r50-d16_4xb6-34e_voc12-512x512.py'
model = dict(segmentor=dict(pretrained='open-mmlab://resnet101_v1c', backbone=dict(depth=101)))
