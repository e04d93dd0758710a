# iMAS, paper reading.
_base_ = './imas_deeplabv3plus_r50-d16_4xb8-240e_cityscapes-u2pl-372-769x769.py'

# 240 passes over 2231 unlabelled images, 16 a step; evaluated and saved after every fourth.
iters_per_epoch = 2231 // 16
train_cfg = dict(max_iters=240 * iters_per_epoch, val_interval=4 * iters_per_epoch)
default_hooks = dict(checkpoint=dict(interval=4 * iters_per_epoch))
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file='splits/u2pl/744/labeled.txt'),
        unlabeled=dict(ann_file='splits/u2pl/744/unlabeled.txt'),
    )
)
