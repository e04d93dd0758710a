_base_ = './unimatch-v2_dpt_dinov2-s14_4xb8-60e_voc12-classic-1464-518x518.py'

# 60 passes over 9850 unlabelled images, 16 a step; evaluated and saved after each pass.
iters_per_epoch = 9850 // 16
train_cfg = dict(max_iters=60 * iters_per_epoch, val_interval=iters_per_epoch)
default_hooks = dict(checkpoint=dict(interval=iters_per_epoch))
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file='splits/classic/732/labeled.txt'),
        unlabeled=dict(ann_file='splits/classic/732/unlabeled.txt'),
    )
)
