# ST++, Pascal VOC 2012 classic 1/1 (1464 labeled), ResNet-50.
_base_ = './stpp_deeplabv3plus_r101b-d8_2xb8-80e_voc12-321x321.py'
model = dict(pretrained='torchvision://resnet50', backbone=dict(depth=50))
