# As deeplabv3plus_r101_imas.py, at the output stride of U2PL. The ESL paper gives none and follows U2PL
# otherwise.
_base_ = './deeplabv3plus_r101_imas.py'
model = dict(
    backbone=dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), multi_grid=(4, 8, 16)),
    decode_head=dict(dilations=(1, 12, 24, 36)),
)
