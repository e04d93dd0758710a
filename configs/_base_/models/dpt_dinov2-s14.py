# DINOv2-S from mmpretrain with a DPT head of the size, layers and upsampling that UniMatch V2 gives it
# (LiheYoung/UniMatch-V2: layers 3, 6, 9 and 12, 48 to 384 channels, 64 in the fusion, no batch normalization;
# its residual convolutions have biases, MMSegmentation's have none). linear_dinov2-s14.py says what the encoder
# asks of images and configs.
#
# Two parts are this package's, since MMSegmentation's DPTHead reads class tokens, which mmpretrain's encoder
# does not hand out, and nothing stock normalizes intermediate layers. An export imports the package.
_base_ = './linear_dinov2-s14.py'
model = dict(
    # The encoder would apply its final LayerNorm to the last layer alone. The neck is that LayerNorm, with the
    # weights of the checkpoint, for all four.
    backbone=dict(out_indices=[2, 5, 8, 11], final_norm=False),
    neck=dict(
        type='TokenNorm',
        channels=384,
        init_cfg=dict(type='Pretrained', checkpoint=_base_.checkpoint, prefix='backbone.ln1.'),
    ),
    decode_head=dict(
        _delete_=True,
        type='FeatureMapDPTHead',
        in_channels=(384, 384, 384, 384),
        in_index=(0, 1, 2, 3),
        input_transform='multiple_select',
        embed_dims=384,
        patch_size=14,
        post_process_channels=[48, 96, 192, 384],
        channels=64,
        norm_cfg=None,
        dropout_ratio=0,
        num_classes=19,
        align_corners=True,
        loss_decode=dict(type='PixelCrossEntropyLoss', loss_weight=1.0),
    ),
)
