# iMAS, paper reading.
_base_ = './imas_deeplabv3plus_r101-d8_8xb4-80e_voc12-classic-1464-513x513.py'

# 80 passes over 10216 unlabelled images, 16 a step; evaluated and saved after each pass.
iters_per_epoch = 10216 // 16
train_cfg = dict(max_iters=80 * iters_per_epoch, val_interval=iters_per_epoch)
default_hooks = dict(checkpoint=dict(interval=iters_per_epoch))
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file='splits/classic/366/labeled.txt'),
        unlabeled=dict(ann_file='splits/classic/366/unlabeled.txt'),
    )
)
