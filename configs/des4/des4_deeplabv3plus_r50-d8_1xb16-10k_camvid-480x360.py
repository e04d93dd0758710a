_base_ = './des4_deeplabv3plus_r18-d8_1xb16-10k_camvid-480x360.py'
model = dict(
    segmentor=dict(
        backbone=dict(depth=50),
        decode_head=dict(in_channels=2048, c1_in_channels=256, c1_channels=48, channels=256),
    )
)
