# U2PL, Cityscapes 1/8, at output stride 16 for less memory.
_base_ = './u2pl_deeplabv3plus_r101-d8_8xb4-200e_cityscapes-769x769.py'
model = dict(
    segmentor=dict(
        backbone=dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), multi_grid=(2, 4, 8)),
        decode_head=dict(dilations=(1, 6, 12, 18)),
    )
)
