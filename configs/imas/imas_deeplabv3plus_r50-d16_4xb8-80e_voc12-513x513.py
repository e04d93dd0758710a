# iMAS, paper reading, Pascal VOC 2012 1/8 (1323 labeled, blender lists of CPS), ResNet-50.
_base_ = './imas_deeplabv3plus_r101-d16_4xb8-80e_voc12-513x513.py'
model = dict(segmentor=dict(pretrained='open-mmlab://resnet50_v1c', backbone=dict(depth=50)))
train_dataloader = dict(dataset=dict(partition='blender-cps/1323'))
