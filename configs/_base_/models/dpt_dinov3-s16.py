# DINOv3 ViT-S from timm with a DPT head, on layers 3, 6, 9 and 12. It needs `pip install mmseg_semi[timm]` and
# converted weights: docs/encoders.md says where they are and under which license.
#
# Patches have 16 x 16 pixels, beside which the encoder has a class token and four registers that no map holds.
# Rotary embeddings tell where a patch is, at any size of the image, and are not interpolated. Crops must be
# multiples of 16 (StartupCheckHook says so), and images that are tested are padded to multiples, which the
# prediction leaves out again. Images are normalized as for ImageNet, like those of DINOv2.
_base_ = './dpt_dinov2-s14.py'
checkpoint = 'data/pretrained/vit_small_patch16_dinov3.pth'
data_preprocessor = dict(size=(512, 512), test_cfg=dict(size_divisor=16))
model = dict(
    data_preprocessor=data_preprocessor,
    # timm leaves out the final LayerNorm, which is the neck's, as in dpt_dinov2-s14.py.
    backbone=dict(
        _delete_=True,
        type='TIMMBackbone',
        model_name='vit_small_patch16_dinov3',
        features_only=True,
        out_indices=(2, 5, 8, 11),
        # Tested images without the padding above are padded to whole patches.
        dynamic_img_pad=True,
        # The weights below, not timm's download.
        pretrained=False,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(
        eps=1e-5,
        init_cfg=dict(checkpoint=checkpoint, prefix='timm_model.model.norm.'),
    ),
    decode_head=dict(patch_size=16),
)
