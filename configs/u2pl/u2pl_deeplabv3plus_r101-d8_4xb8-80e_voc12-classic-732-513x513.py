_base_ = './u2pl_deeplabv3plus_r101-d8_4xb8-80e_voc12-classic-1464-513x513.py'

# 80 passes over 9850 unlabelled images, 16 a step, the first without them; evaluated and saved after each.
iters_per_epoch = 9850 // 16
train_cfg = dict(max_iters=80 * iters_per_epoch, val_interval=iters_per_epoch)
default_hooks = dict(checkpoint=dict(interval=iters_per_epoch))
model = dict(semi_train_cfg=dict(unlabeled_start=iters_per_epoch))
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file='splits/classic/732/labeled.txt'),
        unlabeled=dict(ann_file='splits/classic/732/unlabeled.txt'),
    )
)
