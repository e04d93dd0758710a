# iMAS, paper reading, Cityscapes 1/8, on the network of the published results: convert its ImageNet weights
# first ("The papers' network" in docs/configs.md).
_base_ = [
    './imas_deeplabv3plus_r50-d16_4xb8-240e_cityscapes-769x769.py',
    '../_base_/models/deep_stem.py',
]
model = dict(segmentor=_base_.r50s)
