# iMAS, official reading, on the network of the published figures: 74.8 mIoU, Pascal VOC 2012 blender 1/16.
# Convert its ImageNet weights first (docs/configs.md, "The papers' network").
_base_ = [
    './imas-official_deeplabv3plus_r101-d16_4xb8-80e_voc12-classic-1464-513x513.py',
    '../_base_/models/deep_stem.py',
]
model = dict(segmentor=_base_.r50s)

# 80 passes over 9920 unlabelled images, 16 a step; evaluated and saved after each pass.
iters_per_epoch = 9920 // 16
train_cfg = dict(max_iters=80 * iters_per_epoch, val_interval=iters_per_epoch)
default_hooks = dict(checkpoint=dict(interval=iters_per_epoch))
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file='splits/blender-cps/662/labeled.txt'),
        unlabeled=dict(ann_file='splits/blender-cps/662/unlabeled.txt'),
    )
)
