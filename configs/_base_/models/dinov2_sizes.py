# Changes to dpt_dinov2-s14.py for DINOv2-B and -L: the encoder, and the layers and widths of the head, as in
# the code of UniMatch V2. The weights are those of mmpretrain (configs/dinov2/metafile.yml), converted from
# facebookresearch/dinov2 (Apache-2.0).
base = dict(
    checkpoint='https://download.openmmlab.com/mmpretrain/v1.0/dinov2/vit-base-p14_dinov2-pre_3rdparty_20230426-ba246503.pth'
)
large = dict(
    checkpoint='https://download.openmmlab.com/mmpretrain/v1.0/dinov2/vit-large-p14_dinov2-pre_3rdparty_20230426-f3302d9e.pth'
)
dinov2_b14 = dict(
    backbone=dict(arch='base', init_cfg=base),
    neck=dict(channels=768, init_cfg=base),
    decode_head=dict(
        in_channels=(768, 768, 768, 768),
        embed_dims=768,
        post_process_channels=[96, 192, 384, 768],
        channels=128,
    ),
)
dinov2_l14 = dict(
    backbone=dict(arch='large', out_indices=[4, 11, 17, 23], init_cfg=large),
    neck=dict(channels=1024, init_cfg=large),
    decode_head=dict(
        in_channels=(1024, 1024, 1024, 1024),
        embed_dims=1024,
        post_process_channels=[256, 512, 1024, 1024],
        channels=256,
    ),
)
