# iMAS, official reading, on the network of the published results: 74.4 mIoU, Pascal VOC 2012 classic 1/8.
# Convert its ImageNet weights first ("The papers' network" in docs/configs.md).
_base_ = [
    './imas-official_deeplabv3plus_r101-d16_4xb8-80e_voc12-513x513.py',
    '../_base_/models/deep_stem.py',
]
model = dict(segmentor=_base_.r101s)

train_dataloader = dict(dataset=dict(partition='classic/183'))
