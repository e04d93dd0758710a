# DINOv2-S from mmpretrain with a DPT head that has the size, layers and upsampling of UniMatch V2
# (LiheYoung/UniMatch-V2: layers 3, 6, 9 and 12, 48 to 384 channels, 64 in the fusion, no batch normalization;
# its residual convolutions have biases, and those of MMSegmentation have none). linear_dinov2-s14.py lists the
# requirements of the encoder for images and configs.
#
# The head and the neck are modules of this package: the DPTHead of MMSegmentation needs class tokens, which the
# encoder of mmpretrain does not return, and MMSegmentation has no neck that normalizes intermediate layers.
# Therefore an exported config imports this package.
_base_ = './linear_dinov2-s14.py'
model = dict(
    # The encoder applies its final LayerNorm to the last layer only. The neck applies this LayerNorm, with the
    # weights of the checkpoint, to all four layers.
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
