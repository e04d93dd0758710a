_base_ = './cps_deeplabv3plus_r50-d16_4xb6-137e_cityscapes-cps-372-800x800.py'

# 240 passes over 1487 unlabelled images, 8 learnt a step; evaluated and saved after every fourth.
iters_per_epoch = 1487 // 8
train_cfg = dict(max_iters=240 * iters_per_epoch, val_interval=4 * iters_per_epoch)
default_hooks = dict(checkpoint=dict(interval=4 * iters_per_epoch))
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file='splits/cps/1488/labeled.txt'),
        unlabeled=dict(ann_file='splits/cps/1488/unlabeled.txt'),
    )
)
