# DINOv2-S from mmpretrain with a linear head: one 1x1 convolution on the last feature map. Configs that use it
# must import mmpretrain: custom_imports = dict(imports=['mmseg_semi', 'mmpretrain.models']).
#
# Patches have 14 x 14 pixels and the weights are for images of 518 x 518 (37 x 37 patches); position embeddings
# are interpolated for any other size. Crop sizes must be multiples of 14 (StartupCheckHook checks this). Test
# images are padded to multiples of 14, and the padding is removed from the prediction.
#
# The weights are those of mmpretrain (configs/dinov2; the onedl distribution has the same file on
# mmassets.onedl.ai), converted from facebookresearch/dinov2.
checkpoint = 'https://download.openmmlab.com/mmpretrain/v1.0/dinov2/vit-small-p14_dinov2-pre_3rdparty_20230426-5641ca5a.pth'
data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
    size=(518, 518),
    test_cfg=dict(size_divisor=14),
)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    pretrained=None,
    backbone=dict(
        type='mmpretrain.VisionTransformer',
        arch='dinov2-small',
        img_size=518,
        patch_size=14,
        layer_scale_init_value=1e-5,
        out_indices=[11],
        out_type='featmap',
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.'),
    ),
    decode_head=dict(
        type='FCNHead',
        in_channels=384,
        in_index=0,
        channels=384,
        num_convs=0,
        concat_input=False,
        dropout_ratio=0,
        num_classes=19,
        align_corners=False,
        loss_decode=dict(type='PixelCrossEntropyLoss', loss_weight=1.0),
    ),
    test_cfg=dict(mode='whole'),
)
