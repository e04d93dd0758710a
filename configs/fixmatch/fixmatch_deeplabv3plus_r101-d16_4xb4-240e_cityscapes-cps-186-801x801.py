_base_ = './fixmatch_deeplabv3plus_r101-d16_4xb4-240e_cityscapes-cps-372-801x801.py'

# 240 passes over 2789 unlabelled images, 8 a step; evaluated and saved after every fourth.
iters_per_epoch = 2789 // 8
train_cfg = dict(max_iters=240 * iters_per_epoch, val_interval=4 * iters_per_epoch)
default_hooks = dict(checkpoint=dict(interval=4 * iters_per_epoch))
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file='splits/cps/186/labeled.txt'),
        unlabeled=dict(ann_file='splits/cps/186/unlabeled.txt'),
    )
)
