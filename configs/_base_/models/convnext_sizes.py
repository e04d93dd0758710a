# Changes to upernet_convnext-t.py for ConvNeXt-T, -S, -B and -L of timm, for weights that mmpretrain does not
# have, such as DINOv3's. They need `pip install mmseg_semi[timm]` and converted weights. docs/encoders.md
# describes the weights, their licenses and an example config. The encoder of mmpretrain normalizes its four
# feature maps, and that of timm does not.
encoder = dict(
    _delete_=True,
    type='TIMMBackbone',
    features_only=True,
    # Strides 4, 8, 16 and 32.
    out_indices=(0, 1, 2, 3),
    drop_path_rate=0.4,
    # Use the weights of init_cfg instead of a download by timm.
    pretrained=False,
)
convnext_t = dict(
    backbone=dict(
        encoder,
        model_name='convnext_tiny',
        init_cfg=dict(type='Pretrained', checkpoint='data/pretrained/convnext_tiny.pth'),
    )
)
convnext_s = dict(
    backbone=dict(
        encoder,
        model_name='convnext_small',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint='data/pretrained/convnext_small.pth'),
    )
)
convnext_b = dict(
    backbone=dict(
        encoder,
        model_name='convnext_base',
        init_cfg=dict(type='Pretrained', checkpoint='data/pretrained/convnext_base.pth'),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
convnext_l = dict(
    backbone=dict(
        encoder,
        model_name='convnext_large',
        init_cfg=dict(type='Pretrained', checkpoint='data/pretrained/convnext_large.pth'),
    ),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768),
)
