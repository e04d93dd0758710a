# DINOv3 ViT-S from timm with a DPT head, on layers 3, 6, 9 and 12. It needs `pip install mmseg_semi[timm]` and
# converted weights. docs/encoders.md describes the weights and their license.
#
# Patches have 16 x 16 pixels. The encoder also has a class token and four registers, which are not in the
# feature maps. Rotary position embeddings work for any image size without interpolation. Crop sizes must be
# multiples of 16 (StartupCheckHook checks this). Test images are padded to multiples of 16, and the padding is
# removed from the prediction. Images are normalized as for ImageNet and DINOv2.
_base_ = './dpt_dinov2-s14.py'
checkpoint = 'data/pretrained/vit_small_patch16_dinov3.pth'
data_preprocessor = dict(size=(512, 512), test_cfg=dict(size_divisor=16))
model = dict(
    data_preprocessor=data_preprocessor,
    # timm leaves out the final LayerNorm. The neck applies it, as in dpt_dinov2-s14.py.
    backbone=dict(
        _delete_=True,
        type='TIMMBackbone',
        model_name='vit_small_patch16_dinov3',
        features_only=True,
        out_indices=(2, 5, 8, 11),
        # Pads test images to whole patches if the padding above is removed.
        dynamic_img_pad=True,
        # Use the weights below instead of a download by timm.
        pretrained=False,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(
        eps=1e-5,
        init_cfg=dict(checkpoint=checkpoint, prefix='timm_model.model.norm.'),
    ),
    decode_head=dict(patch_size=16),
)
