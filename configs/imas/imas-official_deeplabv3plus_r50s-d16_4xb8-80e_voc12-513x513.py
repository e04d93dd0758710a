# iMAS, official reading, on the network of the published results: 74.8 mIoU, Pascal VOC 2012 blender 1/16.
# Convert its ImageNet weights first ("The papers' network" in docs/configs.md).
_base_ = [
    './imas-official_deeplabv3plus_r101-d16_4xb8-80e_voc12-513x513.py',
    '../_base_/models/deep_stem.py',
]
model = dict(segmentor=_base_.r50s)

train_dataloader = dict(dataset=dict(partition='blender-cps/662'))
