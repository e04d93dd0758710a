# As deeplabv3plus_r101_unimatch.py at output stride 8: the network of CorrMatch's code for Pascal VOC.
_base_ = './deeplabv3plus_r101_unimatch.py'
model = dict(
    backbone=dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
    decode_head=dict(dilations=(1, 12, 24, 36)),
)
