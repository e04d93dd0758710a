# As deeplabv3plus_r18_camvid.py, narrow enough to train on one core in a minute.
_base_ = './deeplabv3plus_r18_camvid.py'
model = dict(
    backbone=dict(stem_channels=24, base_channels=24),
    decode_head=dict(in_channels=192, c1_in_channels=24, c1_channels=12, channels=64),
)
