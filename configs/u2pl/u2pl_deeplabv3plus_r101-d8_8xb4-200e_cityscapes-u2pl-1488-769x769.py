_base_ = './u2pl_deeplabv3plus_r101-d8_8xb4-200e_cityscapes-u2pl-372-769x769.py'

# 200 passes over 1487 unlabelled images, 16 a step; evaluated and saved after every fourth.
iters_per_epoch = 1487 // 16
train_cfg = dict(max_iters=200 * iters_per_epoch, val_interval=4 * iters_per_epoch)
default_hooks = dict(checkpoint=dict(interval=4 * iters_per_epoch))
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file='splits/u2pl/1488/labeled.txt'),
        unlabeled=dict(ann_file='splits/u2pl/1488/unlabeled.txt'),
    )
)
