_base_ = './suponly-st_deeplabv3plus_r18-d8_1xb8-10k_camvid-480x360.py'
model = dict(
    backbone=dict(depth=50),
    decode_head=dict(in_channels=2048, c1_in_channels=256, c1_channels=48, channels=256),
)
