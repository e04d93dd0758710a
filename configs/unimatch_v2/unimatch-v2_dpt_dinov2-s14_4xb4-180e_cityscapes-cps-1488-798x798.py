_base_ = './unimatch-v2_dpt_dinov2-s14_4xb4-180e_cityscapes-cps-372-798x798.py'

# 180 passes over 1487 unlabelled images, 8 a step; evaluated and saved after every fourth.
iters_per_epoch = 1487 // 8
train_cfg = dict(max_iters=180 * iters_per_epoch, val_interval=4 * iters_per_epoch)
default_hooks = dict(checkpoint=dict(interval=4 * iters_per_epoch))
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file='splits/cps/1488/labeled.txt'),
        unlabeled=dict(ann_file='splits/cps/1488/unlabeled.txt'),
    )
)
