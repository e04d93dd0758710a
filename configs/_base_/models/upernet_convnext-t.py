# UPerNet on mmpretrain's ConvNeXt-T with ImageNet weights, as MMSegmentation's convnext-tiny_upernet configs
# define it. Configs that use it must import mmpretrain: custom_imports = dict(imports=['mmseg_semi',
# 'mmpretrain.models']). (The upernet_convnext.py of MMSegmentation sets custom_imports itself, so that no other
# base could set it.)
_base_ = __import__('mmseg_semi').bases('mmseg::_base_/models/upernet_r50.py')
checkpoint = 'https://download.openmmlab.com/mmclassification/v0/convnext/downstream/convnext-tiny_3rdparty_32xb128-noema_in1k_20220301-795e9634.pth'
model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ConvNeXt',
        arch='tiny',
        out_indices=[0, 1, 2, 3],
        drop_path_rate=0.4,
        layer_scale_init_value=1.0,
        gap_before_final_norm=False,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.'),
    ),
    decode_head=dict(
        in_channels=[96, 192, 384, 768],
        loss_decode=dict(_delete_=True, type='PixelCrossEntropyLoss', loss_weight=1.0),
    ),
    auxiliary_head=dict(
        in_channels=384,
        loss_decode=dict(_delete_=True, type='PixelCrossEntropyLoss', loss_weight=0.4),
    ),
)
