# Changes to dpt_dinov3-s16.py for DINOv3 ViT-B and -L: the encoder, and the layers and widths of the head, as
# in dinov2_sizes.py.
_base_ = './dinov2_sizes.py'
base = dict(checkpoint='data/pretrained/vit_base_patch16_dinov3.pth')
large = dict(checkpoint='data/pretrained/vit_large_patch16_dinov3.pth')
dinov3_b16 = dict(
    backbone=dict(model_name='vit_base_patch16_dinov3', init_cfg=base),
    neck=dict(channels=768, init_cfg=base),
    decode_head=_base_.dinov2_b14.decode_head,
)
dinov3_l16 = dict(
    backbone=dict(
        model_name='vit_large_patch16_dinov3', out_indices=(4, 11, 17, 23), init_cfg=large
    ),
    neck=dict(channels=1024, init_cfg=large),
    decode_head=_base_.dinov2_l14.decode_head,
)
