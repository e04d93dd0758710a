# iMAS, paper reading, on the network of the published figures: convert its ImageNet weights first
# (docs/configs.md, "The papers' network").
_base_ = [
    './imas_deeplabv3plus_r50-d16_4xb8-80e_voc12-513x513.py',
    '../_base_/models/deep_stem.py',
]
model = dict(segmentor=_base_.r50s)
