# SegFormer-B0 with ImageNet weights, as MMSegmentation's segformer_mit-b0 configs define it.
_base_ = __import__('mmseg_semi').bases('mmseg::_base_/models/segformer_mit-b0.py')
checkpoint = 'https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/segformer/mit_b0_20220624-7e0fe6dd.pth'
model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    decode_head=dict(
        loss_decode=dict(_delete_=True, type='PixelCrossEntropyLoss', loss_weight=1.0)
    ),
)
