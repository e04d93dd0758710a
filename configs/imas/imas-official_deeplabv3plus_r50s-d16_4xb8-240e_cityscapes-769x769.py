# iMAS, official reading, on the network of the published results: 74.3 mIoU, Cityscapes 1/16. Convert its
# ImageNet weights first ("The papers' network" in docs/configs.md).
_base_ = [
    './imas-official_deeplabv3plus_r50-d16_4xb8-240e_cityscapes-769x769.py',
    '../_base_/models/deep_stem.py',
]
model = dict(segmentor=_base_.r50s)

train_dataloader = dict(dataset=dict(partition='u2pl/186'))
