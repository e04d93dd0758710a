_base_ = './cps_deeplabv3plus_r50-d16_4xb6-34e_voc12-blender-cps-1323-512x512.py'

# 32 passes over 9920 unlabelled images, 8 learnt a step; evaluated and saved after each.
iters_per_epoch = 9920 // 8
train_cfg = dict(max_iters=32 * iters_per_epoch, val_interval=iters_per_epoch)
default_hooks = dict(checkpoint=dict(interval=iters_per_epoch))
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file='splits/blender-cps/662/labeled.txt'),
        unlabeled=dict(ann_file='splits/blender-cps/662/unlabeled.txt'),
    )
)
