_base_ = './gps_deeplabv3plus_r50-d16_4xb6-40e_voc12-blender-cps-2646-512x512.py'

# 40 passes over 10582 images, 8 learnt a step; evaluated and saved after each.
iters_per_epoch = 10582 // 8
train_cfg = dict(max_iters=40 * iters_per_epoch, val_interval=iters_per_epoch)
default_hooks = dict(checkpoint=dict(interval=iters_per_epoch))
train_dataloader = dict(
    dataset=dict(unlabeled=dict(ann_file='ImageSets/Segmentation/trainaug.txt'))
)
