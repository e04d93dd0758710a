# Supervised only, Cityscapes 1/8, ResNet-101, output stride 8: the baseline in the tables of U2PL, ESL and
# DeS4.
_base_ = './suponly_deeplabv3plus_r50-d8_8xb2-240e_cityscapes-769x769.py'
model = dict(pretrained='open-mmlab://resnet101_v1c', backbone=dict(depth=101))
