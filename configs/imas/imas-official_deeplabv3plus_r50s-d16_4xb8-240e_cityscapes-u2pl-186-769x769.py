# iMAS, official reading, on the network of the published figures: 74.3 mIoU, Cityscapes 1/16.
# Convert its ImageNet weights first (docs/configs.md, "The papers' network").
_base_ = [
    './imas-official_deeplabv3plus_r50-d16_4xb8-240e_cityscapes-u2pl-372-769x769.py',
    '../_base_/models/deep_stem.py',
]
model = dict(segmentor=_base_.r50s)

# 240 passes over 2789 unlabelled images, 16 a step; evaluated and saved after each pass.
iters_per_epoch = 2789 // 16
train_cfg = dict(max_iters=240 * iters_per_epoch, val_interval=iters_per_epoch)
default_hooks = dict(checkpoint=dict(interval=iters_per_epoch))
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file='splits/u2pl/186/labeled.txt'),
        unlabeled=dict(ann_file='splits/u2pl/186/unlabeled.txt'),
    )
)
