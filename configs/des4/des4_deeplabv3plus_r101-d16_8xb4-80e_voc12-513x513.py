# DeS4, Pascal VOC 2012 classic 1/1, at output stride 16 for less memory. The paper does not give the output
# stride.
_base_ = './des4_deeplabv3plus_r101-d8_8xb4-80e_voc12-513x513.py'
model = dict(
    segmentor=dict(
        backbone=dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), multi_grid=(2, 4, 8)),
        decode_head=dict(dilations=(1, 6, 12, 18)),
    )
)
