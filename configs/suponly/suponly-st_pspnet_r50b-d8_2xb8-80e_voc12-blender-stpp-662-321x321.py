_base_ = './suponly-st_pspnet_r50b-d8_2xb8-80e_voc12-blender-stpp-1323-321x321.py'
train_dataloader = dict(dataset=dict(labeled=dict(ann_file='splits/blender-stpp/662/labeled.txt')))
